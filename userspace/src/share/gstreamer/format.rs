//! GStreamer's names and numbers of pixel formats.

use crate::frame::Fourcc;

/// A format of `video/x-raw`.
pub(super) struct Format {
    /// As caps have it.
    pub(super) name: &'static str,
    /// As `GstVideoMeta` has it: its place in the enumeration `GstVideoFormat`.
    pub(super) number: u32,
    pub(super) fourcc: Fourcc,
    /// Whether each row of chroma belongs to two rows of the picture: GStreamer
    /// has room for an even number of rows then.
    pub(super) halved: bool,
}

/// `GST_VIDEO_FORMAT_DMA_DRM`: the format is in the caps' `drm-format`.
pub(super) const DMA_DRM: u32 = 114;

const fn format(name: &'static str, number: u32, code: &[u8; 4]) -> Format {
    Format {
        name,
        number,
        fourcc: Fourcc::new(*code),
        halved: false,
    }
}

const fn halved(name: &'static str, number: u32, code: &[u8; 4]) -> Format {
    Format {
        halved: true,
        ..format(name, number, code)
    }
}

/// Those that both sides know. GStreamer names the bytes as they lie in memory,
/// the kernel from the highest bits of a little-endian word.
const FORMATS: [Format; 31] = [
    halved("I420", 2, b"YU12"),
    halved("YV12", 3, b"YV12"),
    format("YUY2", 4, b"YUYV"),
    format("UYVY", 5, b"UYVY"),
    format("RGBx", 7, b"XB24"),
    format("BGRx", 8, b"XR24"),
    format("xRGB", 9, b"BX24"),
    format("xBGR", 10, b"RX24"),
    format("RGBA", 11, b"AB24"),
    format("BGRA", 12, b"AR24"),
    format("ARGB", 13, b"BA24"),
    format("ABGR", 14, b"RA24"),
    format("RGB", 15, b"BG24"),
    format("BGR", 16, b"RG24"),
    format("Y42B", 18, b"YU16"),
    format("YVYU", 19, b"YVYU"),
    format("Y444", 20, b"YU24"),
    halved("NV12", 23, b"NV12"),
    halved("NV21", 24, b"NV21"),
    format("GRAY8", 25, b"R8  "),
    format("GRAY16_LE", 27, b"R16 "),
    format("RGB16", 29, b"RG16"),
    format("BGR16", 30, b"BG16"),
    format("RGB15", 31, b"XR15"),
    format("NV16", 51, b"NV16"),
    format("NV24", 52, b"NV24"),
    format("NV61", 60, b"NV61"),
    halved("P010_10LE", 62, b"P010"),
    format("VYUY", 64, b"VYUY"),
    format("BGR10A2_LE", 85, b"AR30"),
    format("RGB10A2_LE", 86, b"AB30"),
];

pub(super) fn by_name(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.name == name)
}

pub(super) fn by_fourcc(fourcc: Fourcc) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.fourcc == fourcc)
}

#[cfg(test)]
pub(super) fn all() -> &'static [Format] {
    &FORMATS
}
