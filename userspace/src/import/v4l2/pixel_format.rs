//! V4L2's pixel formats, and what DRM calls them.
//!
//! The two have four-character codes of their own. Where a code is in both,
//! it mostly is the same format, but V4L2 names the bytes in the order of
//! memory, and DRM the bits of a little-endian word.

use std::fmt;

use crate::frame::Fourcc;

/// A pixel format, as V4L2 has it: its four-character code.
///
/// It says in how many buffers a frame lies, which DRM leaves to the frame.
///
/// ```
/// use dmashare::frame::Fourcc;
/// use dmashare::import::v4l2::PixelFormat;
///
/// let one = PixelFormat::new(*b"NV12");
/// let two = PixelFormat::new(*b"NM12"); // NV12M
/// assert_eq!((one.buffers(), two.buffers()), (Some(1), Some(2)));
/// assert_eq!(one.fourcc(), Some(Fourcc::new(*b"NV12")));
/// assert_eq!(one.fourcc(), two.fourcc());
///
/// assert_eq!(PixelFormat::new(*b"RGB3").fourcc(), Some(Fourcc::new(*b"BG24")));
/// assert_eq!(PixelFormat::new(*b"MJPG").fourcc(), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PixelFormat(pub u32);

/// V4L2's code, DRM's, and in how many buffers a frame lies. Of several that
/// are the same to DRM, the first is preferred.
///
/// What DRM has no code for is left out (Bayer, big-endian, tiled without a
/// modifier, compressed), and so are planar formats whose planes this crate
/// cannot measure.
const TABLE: &[(&[u8; 4], &[u8; 4], usize)] = &[
    // V4L2_PIX_FMT_XBGR32, ABGR32: B G R x in memory.
    (b"XR24", b"XR24", 1),
    (b"AR24", b"AR24", 1),
    // RGBX32, RGBA32: R G B x.
    (b"XB24", b"XB24", 1),
    (b"AB24", b"AB24", 1),
    // BGRX32, BGRA32: x B G R.
    (b"RX24", b"RX24", 1),
    (b"RA24", b"RA24", 1),
    // XRGB32, ARGB32: x R G B.
    (b"BX24", b"BX24", 1),
    (b"BA24", b"BA24", 1),
    // BGR32, RGB32: older, and with an alpha that means nothing.
    (b"BGR4", b"XR24", 1),
    (b"RGB4", b"BX24", 1),
    // RGB24: R G B, and BGR24.
    (b"RGB3", b"BG24", 1),
    (b"BGR3", b"RG24", 1),
    // 16 bits a pixel, little endian.
    (b"RGBP", b"RG16", 1),
    (b"XR15", b"XR15", 1),
    (b"AR15", b"AR15", 1),
    (b"RGBO", b"XR15", 1),
    (b"XB15", b"XB15", 1),
    (b"AB15", b"AB15", 1),
    (b"RX15", b"RX15", 1),
    (b"RA15", b"RA15", 1),
    (b"BX15", b"BX15", 1),
    (b"BA15", b"BA15", 1),
    (b"XR12", b"XR12", 1),
    (b"AR12", b"AR12", 1),
    (b"R444", b"XR12", 1),
    (b"XB12", b"XB12", 1),
    (b"AB12", b"AB12", 1),
    (b"RX12", b"RX12", 1),
    (b"RA12", b"RA12", 1),
    (b"BX12", b"BX12", 1),
    // BGRA444: its code was taken by a Bayer format.
    (b"GA12", b"BA12", 1),
    // 10 bits a colour, little endian.
    (b"RX30", b"RX30", 1),
    (b"RA30", b"RA30", 1),
    (b"AR30", b"AR30", 1),
    // GREY, Y10, Y12, Y16.
    (b"GREY", b"R8  ", 1),
    (b"Y10 ", b"R10 ", 1),
    (b"Y12 ", b"R12 ", 1),
    (b"Y16 ", b"R16 ", 1),
    (b"YUYV", b"YUYV", 1),
    (b"YVYU", b"YVYU", 1),
    (b"UYVY", b"UYVY", 1),
    (b"VYUY", b"VYUY", 1),
    // YUV24, VUYA32, VUYX32, YUVA32, YUVX32: as the bytes lie.
    (b"YUV3", b"VU24", 1),
    (b"VUYA", b"AYUV", 1),
    (b"VUYX", b"XYUV", 1),
    (b"YUVA", b"AVUY", 1),
    (b"YUVX", b"XVUY", 1),
    // Two planes, in one buffer, and in two.
    (b"NV12", b"NV12", 1),
    (b"NM12", b"NV12", 2),
    (b"NV21", b"NV21", 1),
    (b"NM21", b"NV21", 2),
    (b"NV16", b"NV16", 1),
    (b"NM16", b"NV16", 2),
    (b"NV61", b"NV61", 1),
    (b"NM61", b"NV61", 2),
    (b"NV24", b"NV24", 1),
    (b"NV42", b"NV42", 1),
    (b"P010", b"P010", 1),
    // Three planes, in one buffer, and in three.
    (b"YU12", b"YU12", 1),
    (b"YM12", b"YU12", 3),
    (b"YV12", b"YV12", 1),
    (b"YM21", b"YV12", 3),
    (b"422P", b"YU16", 1),
    (b"YM16", b"YU16", 3),
    (b"YM61", b"YV16", 3),
    (b"YM24", b"YU24", 3),
    (b"YM42", b"YV24", 3),
];

impl PixelFormat {
    /// The code made of these four characters.
    ///
    /// ```
    /// # use dmashare::import::v4l2::PixelFormat;
    /// assert_eq!(PixelFormat::new(*b"YUYV").to_string(), "YUYV");
    /// ```
    pub const fn new(code: [u8; 4]) -> PixelFormat {
        PixelFormat(u32::from_le_bytes(code))
    }

    /// What DRM calls this format; `None` where it has no code for it, or this
    /// crate does not know where its planes lie.
    ///
    /// ```
    /// # use dmashare::frame::Fourcc;
    /// # use dmashare::import::v4l2::PixelFormat;
    /// // V4L2_PIX_FMT_XBGR32
    /// assert_eq!(PixelFormat::new(*b"XR24").fourcc(), Some(Fourcc::XRGB8888));
    /// ```
    pub fn fourcc(self) -> Option<Fourcc> {
        let (_, fourcc, _) = self.row()?;
        Some(Fourcc::new(**fourcc))
    }

    /// In how many buffers a frame of it lies; `None` where
    /// [`fourcc`](Self::fourcc) is.
    ///
    /// ```
    /// # use dmashare::import::v4l2::PixelFormat;
    /// assert_eq!(PixelFormat::new(*b"YM12").buffers(), Some(3)); // YUV420M
    /// ```
    pub fn buffers(self) -> Option<usize> {
        self.row().map(|(.., buffers)| *buffers)
    }

    /// What V4L2 calls this format of DRM, the preferred first.
    ///
    /// ```
    /// # use dmashare::frame::Fourcc;
    /// # use dmashare::import::v4l2::PixelFormat;
    /// let mut names = PixelFormat::of(Fourcc::new(*b"NV12")).map(|format| format.to_string());
    /// assert_eq!(names.next().as_deref(), Some("NV12"));
    /// assert_eq!(names.next().as_deref(), Some("NM12"));
    /// assert_eq!(names.next(), None);
    /// ```
    pub fn of(fourcc: Fourcc) -> impl Iterator<Item = PixelFormat> {
        let rows = TABLE.iter();
        let same = rows.filter(move |(_, drm, _)| Fourcc::new(**drm) == fourcc);
        same.map(|(v4l2, ..)| PixelFormat::new(**v4l2))
    }

    fn row(self) -> Option<&'static (&'static [u8; 4], &'static [u8; 4], usize)> {
        TABLE
            .iter()
            .find(|(v4l2, ..)| PixelFormat::new(**v4l2) == self)
    }
}

/// `v4l2_fourcc_be`: a format whose words are big-endian.
const BIG_ENDIAN: u32 = 1 << 31;

impl fmt::Display for PixelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Fourcc(self.0 & !BIG_ENDIAN).fmt(f)?;
        match self.0 & BIG_ENDIAN {
            0 => Ok(()),
            _ => f.write_str("-BE"),
        }
    }
}

impl fmt::Debug for PixelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PixelFormat({self})")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_code_of_v4l2_is_there_once() {
        let mut seen = HashSet::new();
        for (v4l2, ..) in TABLE {
            assert!(seen.insert(v4l2), "{}", PixelFormat::new(**v4l2));
        }
    }

    /// And the other way: who asks for a format gets one that is it.
    #[test]
    fn both_ways_agree() {
        for (v4l2, drm, buffers) in TABLE {
            let (format, fourcc) = (PixelFormat::new(**v4l2), Fourcc::new(**drm));
            assert_eq!(format.fourcc(), Some(fourcc));
            assert_eq!(format.buffers(), Some(*buffers));
            assert!(PixelFormat::of(fourcc).any(|of| of == format));
        }
    }

    /// Planes share one buffer, or have one each; and one that has no buffer of
    /// its own can be found.
    #[test]
    fn planes_are_measurable() {
        for (v4l2, drm, buffers) in TABLE {
            let planes = Fourcc::new(**drm).planes();
            match planes {
                Some(planes) => assert!([1, planes].contains(buffers), "{v4l2:?}"),
                None => assert_eq!(*buffers, 1, "{v4l2:?}"),
            }
        }
    }

    /// The order of V4L2's bytes, by its names in videodev2.h, against the order
    /// of DRM's bits, by its names in drm_fourcc.h: a little-endian word has its
    /// lowest byte first.
    #[test]
    fn bytes_lie_as_both_headers_name_them() {
        let cases: &[(&[u8; 4], &str, &[u8; 4], &str)] = &[
            (b"XR24", "BGRX", b"XR24", "XRGB"),
            (b"AR24", "BGRA", b"AR24", "ARGB"),
            (b"XB24", "RGBX", b"XB24", "XBGR"),
            (b"AB24", "RGBA", b"AB24", "ABGR"),
            (b"RX24", "XBGR", b"RX24", "RGBX"),
            (b"RA24", "ABGR", b"RA24", "RGBA"),
            (b"BX24", "XRGB", b"BX24", "BGRX"),
            (b"BA24", "ARGB", b"BA24", "BGRA"),
            (b"RGB3", "RGB", b"BG24", "BGR"),
            (b"BGR3", "BGR", b"RG24", "RGB"),
            (b"YUV3", "YUV", b"VU24", "VUY"),
            (b"VUYA", "VUYA", b"AYUV", "AYUV"),
            (b"VUYX", "VUYX", b"XYUV", "XYUV"),
            (b"YUVA", "YUVA", b"AVUY", "AVUY"),
            (b"YUVX", "YUVX", b"XVUY", "XVUY"),
        ];
        for (v4l2, bytes, drm, bits) in cases {
            assert_eq!(bytes.chars().rev().collect::<String>(), **bits);
            let format = PixelFormat::new(**v4l2);
            assert_eq!(format.fourcc(), Some(Fourcc::new(**drm)), "{format}");
        }
    }

    #[test]
    fn what_drm_has_no_name_for_has_none() {
        for code in [b"MJPG", b"BA81", b"RGBR", b"H264", b"NV13"] {
            assert_eq!(PixelFormat::new(*code).fourcc(), None);
        }
        // ARGB555X is not ARGB555.
        let big = PixelFormat(PixelFormat::new(*b"AR15").0 | BIG_ENDIAN);
        assert_eq!((big.fourcc(), big.to_string()), (None, "AR15-BE".into()));
    }
}
