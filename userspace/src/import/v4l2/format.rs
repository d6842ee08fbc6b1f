//! A queue's format: what is asked for, and what the driver makes of it.

use bytemuck::Zeroable;

use super::{Field, PixelFormat};
use crate::frame::{Fourcc, Frame, FrameError, LINEAR, Plane};
use crate::sys::v4l2::{
    self, PixFormat, PixFormatMultiplanar, VIDEO_CAPTURE_MPLANE, VIDEO_OUTPUT_MPLANE,
};

/// What frames are asked for.
///
/// ```
/// use dmashare::frame::Fourcc;
/// use dmashare::import::v4l2::Wanted;
/// let wanted = Wanted::new(640, 480, Fourcc::new(*b"NV12")).stride(1024).buffers(2);
/// assert_eq!(wanted.stride, Some(1024));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wanted {
    /// Width in pixels.
    pub width: u32,
    /// Height in rows.
    pub height: u32,
    /// The pixel format, as DRM calls it.
    pub fourcc: Fourcc,
    /// The stride of the first plane, in bytes; the driver's choice where
    /// `None`.
    pub stride: Option<u32>,
    /// In how many buffers a frame is to lie: one, or one for each plane; the
    /// fewest that the driver offers where `None`.
    pub buffers: Option<usize>,
}

impl Wanted {
    /// Frames of this size and format.
    pub fn new(width: u32, height: u32, fourcc: Fourcc) -> Wanted {
        Wanted {
            width,
            height,
            fourcc,
            stride: None,
            buffers: None,
        }
    }

    /// The same with this stride, in bytes. A driver can give another.
    pub fn stride(mut self, bytes: u32) -> Wanted {
        self.stride = Some(bytes);
        self
    }

    /// The same in so many buffers.
    pub fn buffers(mut self, count: usize) -> Wanted {
        self.buffers = Some(count);
        self
    }

    /// As the kernel is asked.
    pub(super) fn raw(&self, kind: u32, format: PixelFormat) -> v4l2::Format {
        let mut raw = v4l2::Format::new(kind);
        let stride = self.stride.unwrap_or(0);
        if is_multiplanar(kind) {
            let mut pixels = PixFormatMultiplanar::zeroed();
            (pixels.width, pixels.height) = (self.width, self.height);
            (pixels.pixelformat, pixels.field) = (format.0, v4l2::FIELD_NONE);
            let buffers = format.buffers().unwrap_or(1);
            pixels.num_planes = u8::try_from(buffers).unwrap_or(u8::MAX);
            let strides = strides(self.fourcc, stride, buffers);
            for (plane, stride) in pixels.planes.iter_mut().zip(strides) {
                plane.bytesperline = stride;
            }
            raw.set(&pixels);
        } else {
            let mut pixels = PixFormat::zeroed();
            (pixels.width, pixels.height) = (self.width, self.height);
            (pixels.pixelformat, pixels.field) = (format.0, v4l2::FIELD_NONE);
            pixels.bytesperline = stride;
            raw.set(&pixels);
        }
        raw
    }
}

/// The YUV encoding of a picture, for who makes RGB of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum YuvEncoding {
    /// ITU-R BT.601.
    Bt601,
    /// ITU-R BT.709.
    Bt709,
    /// ITU-R BT.2020.
    Bt2020,
    /// Another one.
    Other,
}

/// The range of a picture's samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Range {
    /// All values.
    Full,
    /// Black is 16 and white 235, of 8 bits.
    Limited,
}

/// What frames a queue has: what the driver made of what was asked.
///
/// ```no_run
/// // Not run: needs a camera.
/// use dmashare::frame::Fourcc;
/// use dmashare::import::v4l2::{Device, Wanted};
/// let camera = Device::open("/dev/video0")?.capture()?;
/// let format = camera.set_format(&Wanted::new(640, 480, Fourcc::new(*b"NV12")))?;
/// let luma = format.frame.planes[0];
/// println!("{} rows of {} bytes", format.frame.height, luma.stride);
/// assert!(format.sizes[0] >= u64::from(luma.stride) * u64::from(format.frame.height));
/// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Format {
    /// The frames, and where their planes lie, [`LINEAR`].
    pub frame: Frame,
    /// The bytes that each of a frame's buffers must have at least: more than
    /// its rows where the driver needs them.
    pub sizes: Vec<u64>,
    /// V4L2's code.
    pub pixel_format: PixelFormat,
    /// Whole pictures, or halves of them.
    pub field: Field,
    /// How YUV is to be read. RGB has it, too, and no use for it.
    pub encoding: YuvEncoding,
    /// The range of the samples.
    pub range: Range,
}

/// What the kernel says of a format, of one API or the other.
struct Raw {
    width: u32,
    height: u32,
    code: PixelFormat,
    field: u32,
    /// Stride and size of each buffer.
    buffers: Vec<(u32, u32)>,
    colour: (u32, u32, u32),
}

impl Format {
    /// What the kernel says, if it is a frame.
    pub(super) fn read(kind: u32, raw: &v4l2::Format) -> Result<Format, (PixelFormat, String)> {
        let raw = Raw::new(kind, raw);
        let code = raw.code;
        raw.format().map_err(|why| (code, why))
    }
}

impl Raw {
    fn new(kind: u32, raw: &v4l2::Format) -> Raw {
        if is_multiplanar(kind) {
            let pixels: PixFormatMultiplanar = raw.get();
            let planes = pixels.planes.iter().take(pixels.num_planes.into());
            Raw {
                width: pixels.width,
                height: pixels.height,
                code: PixelFormat(pixels.pixelformat),
                field: pixels.field,
                buffers: planes
                    .map(|plane| (plane.bytesperline, plane.sizeimage))
                    .collect(),
                colour: (
                    pixels.colorspace,
                    pixels.ycbcr_enc.into(),
                    pixels.quantization.into(),
                ),
            }
        } else {
            let pixels: PixFormat = raw.get();
            Raw {
                width: pixels.width,
                height: pixels.height,
                code: PixelFormat(pixels.pixelformat),
                field: pixels.field,
                buffers: vec![(pixels.bytesperline, pixels.sizeimage)],
                colour: (pixels.colorspace, pixels.ycbcr_enc, pixels.quantization),
            }
        }
    }

    fn format(self) -> Result<Format, String> {
        let fourcc = self.code.fourcc().ok_or("DRM has no name for it")?;
        let expected = self.code.buffers().unwrap_or(1);
        if self.buffers.len() != expected {
            let found = self.buffers.len();
            return Err(format!("it lies in {found} buffers, not in {expected}"));
        }
        let mut frame = Frame {
            width: self.width,
            height: self.height,
            fourcc,
            modifier: LINEAR,
            planes: Vec::new(),
        };
        frame.planes = match expected {
            1 => in_one_buffer(&frame, self.buffers[0].0).map_err(|error| error.to_string())?,
            _ => self
                .buffers
                .iter()
                .zip(0..)
                .map(|(&(stride, _), buffer)| Plane {
                    buffer,
                    offset: 0,
                    stride,
                })
                .collect(),
        };
        let sizes: Vec<u64> = self.buffers.iter().map(|&(_, size)| size.into()).collect();
        frame.check(&sizes).map_err(|error| error.to_string())?;
        let (space, encoding, range) = self.colour;
        Ok(Format {
            frame,
            sizes,
            pixel_format: self.code,
            field: Field::new(self.field),
            encoding: encoding_of(space, encoding),
            range: range_of(is_yuv(fourcc), space, range),
        })
    }
}

pub(super) fn is_multiplanar(kind: u32) -> bool {
    matches!(kind, VIDEO_CAPTURE_MPLANE | VIDEO_OUTPUT_MPLANE)
}

/// The strides of each buffer, where the first plane's is this: planes of fewer
/// or smaller samples have shorter rows.
fn strides(fourcc: Fourcc, first: u32, buffers: usize) -> impl Iterator<Item = u32> {
    let ratios = ratios(fourcc);
    (0..buffers).map(move |plane| match ratios.get(plane) {
        Some((bytes, of)) => scale(first, *bytes, *of).unwrap_or(u32::MAX),
        None => first,
    })
}

/// How many bytes of a row each plane has, for how many of the first.
fn ratios(fourcc: Fourcc) -> Vec<(u32, u32)> {
    // A width that every block of pixels divides.
    let Ok(frame) = Frame::packed(8, 8, fourcc) else {
        return vec![(1, 1)];
    };
    let first = frame.planes[0].stride;
    let planes = frame.planes.iter();
    planes.map(|plane| (plane.stride, first)).collect()
}

fn scale(stride: u32, bytes: u32, of: u32) -> Option<u32> {
    u32::try_from(u64::from(stride) * u64::from(bytes) / u64::from(of)).ok()
}

/// The planes of a frame that lies in one buffer, one after the other without a
/// gap, where the first has this stride. That is V4L2's rule for all formats
/// that are not multi-planar to it.
fn in_one_buffer(frame: &Frame, stride: u32) -> Result<Vec<Plane>, FrameError> {
    let Frame {
        width,
        height,
        fourcc,
        ..
    } = *frame;
    let ratios = ratios(fourcc);
    let mut planes = Vec::with_capacity(ratios.len());
    let mut end = 0_u64;
    for (plane, &(bytes, of)) in ratios.iter().enumerate() {
        let stride = scale(stride, bytes, of).ok_or(FrameError::TooWide(width, fourcc))?;
        planes.push(Plane {
            buffer: 0,
            offset: u32::try_from(end).map_err(|_| FrameError::TooLarge(width, height, fourcc))?,
            stride,
        });
        // A format that cannot be measured has one plane, and nothing after it.
        if let Ok(packed) = Frame::packed(width, height, fourcc) {
            end += u64::from(stride) * u64::from(packed.rows(plane)?.count);
        }
    }
    Ok(planes)
}

fn is_yuv(fourcc: Fourcc) -> bool {
    let code = fourcc.0.to_le_bytes();
    // YUYV and its like, AYUV and its like, NV12, P010, YU12, VU24.
    code.contains(&b'Y')
        || matches!(
            &code,
            [b'N', b'V', ..] | [b'P', b'0', ..] | [b'V', b'U', ..]
        )
}

/// `V4L2_MAP_YCBCR_ENC_DEFAULT`, and what the encodings are.
fn encoding_of(space: u32, encoding: u32) -> YuvEncoding {
    match (encoding, space) {
        // Rec. 709 and DCI-P3, BT.2020, SMPTE 240M; all others are as BT.601.
        (0, 3 | 12) | (2 | 4, _) => YuvEncoding::Bt709,
        (0, 10) | (6, _) => YuvEncoding::Bt2020,
        (0, 2) => YuvEncoding::Other,
        (0 | 1 | 3 | 5, _) => YuvEncoding::Bt601,
        _ => YuvEncoding::Other,
    }
}

/// `V4L2_MAP_QUANTIZATION_DEFAULT`, and what the ranges are.
fn range_of(is_yuv: bool, space: u32, range: u32) -> Range {
    const JPEG: u32 = 7;
    match range {
        1 => Range::Full,
        2 => Range::Limited,
        _ if is_yuv && space != JPEG => Range::Limited,
        _ => Range::Full,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: &[u8; 4], buffers: &[(u32, u32)]) -> Result<Format, String> {
        let raw = Raw {
            width: 6,
            height: 4,
            code: PixelFormat::new(*code),
            field: 1,
            buffers: buffers.to_vec(),
            colour: (3, 0, 0),
        };
        raw.format()
    }

    /// Of each plane the buffer, the offset and the stride.
    #[test]
    fn planes_lie_where_v4l2_has_them() {
        type Case = (
            &'static [u8; 4],
            &'static [(u32, u32)],
            &'static [(u8, u32, u32)],
        );
        let cases: &[Case] = &[
            (b"XR24", &[(24, 96)], &[(0, 0, 24)]),
            (b"XR24", &[(64, 256)], &[(0, 0, 64)]),
            (b"YUYV", &[(16, 64)], &[(0, 0, 16)]),
            (b"NV12", &[(8, 48)], &[(0, 0, 8), (0, 32, 8)]),
            (b"NV16", &[(8, 64)], &[(0, 0, 8), (0, 32, 8)]),
            (b"NV24", &[(8, 96)], &[(0, 0, 8), (0, 32, 16)]),
            (b"P010", &[(16, 96)], &[(0, 0, 16), (0, 64, 16)]),
            (b"YU12", &[(8, 48)], &[(0, 0, 8), (0, 32, 4), (0, 40, 4)]),
            (b"422P", &[(8, 64)], &[(0, 0, 8), (0, 32, 4), (0, 48, 4)]),
            (b"NM12", &[(8, 32), (16, 32)], &[(0, 0, 8), (1, 0, 16)]),
            (
                b"YM12",
                &[(8, 32), (4, 8), (4, 8)],
                &[(0, 0, 8), (1, 0, 4), (2, 0, 4)],
            ),
            // Not known to `Frame`, and one plane all the same.
            (b"XB15", &[(16, 64)], &[(0, 0, 16)]),
        ];
        for (code, buffers, planes) in cases {
            let format = of(code, buffers).unwrap();
            let found = format.frame.planes.iter();
            let found: Vec<_> = found.map(|p| (p.buffer, p.offset, p.stride)).collect();
            assert_eq!(found, *planes, "{format:?}");
            assert_eq!(format.sizes.len(), buffers.len());
        }
    }

    #[test]
    fn what_is_no_frame_is_told() {
        assert!(of(b"MJPG", &[(0, 4096)]).unwrap_err().contains("no name"));
        // A stride of nothing, too little room, a buffer too many.
        assert!(of(b"XR24", &[(0, 96)]).unwrap_err().contains("stride"));
        assert!(of(b"NV12", &[(8, 40)]).unwrap_err().contains("40 bytes"));
        assert!(
            of(b"NV12", &[(8, 32), (8, 16)])
                .unwrap_err()
                .contains("2 buffers")
        );
        assert!(of(b"NM12", &[(8, 48)]).unwrap_err().contains("not in 2"));
    }

    /// What is asked for by one API is read back as it was.
    #[test]
    fn a_question_reads_as_its_answer() {
        let wanted = Wanted::new(6, 4, Fourcc::new(*b"YU12")).stride(32);
        for (kind, code, strides) in [
            (v4l2::VIDEO_CAPTURE, b"YU12", &[32][..]),
            (v4l2::VIDEO_OUTPUT_MPLANE, b"YU12", &[32]),
            (v4l2::VIDEO_CAPTURE_MPLANE, b"YM12", &[32, 16, 16]),
        ] {
            let raw = Raw::new(kind, &wanted.raw(kind, PixelFormat::new(*code)));
            assert_eq!((raw.width, raw.height, raw.field), (6, 4, 1));
            assert_eq!(raw.code, PixelFormat::new(*code));
            let asked: Vec<u32> = raw.buffers.iter().map(|buffer| buffer.0).collect();
            assert_eq!(asked, strides);
        }
    }

    #[test]
    fn colours_are_those_of_the_space_unless_said() {
        assert_eq!(encoding_of(8, 0), YuvEncoding::Bt601); // sRGB
        assert_eq!(encoding_of(3, 0), YuvEncoding::Bt709);
        assert_eq!(encoding_of(10, 0), YuvEncoding::Bt2020);
        assert_eq!(encoding_of(3, 1), YuvEncoding::Bt601);
        assert_eq!(range_of(true, 8, 0), Range::Limited);
        assert_eq!(range_of(true, 7, 0), Range::Full); // JPEG
        assert_eq!(range_of(false, 8, 0), Range::Full);
        assert_eq!(range_of(true, 8, 1), Range::Full);
        for (code, yuv) in [
            (b"NV12", true),
            (b"P010", true),
            (b"YUYV", true),
            (b"VU24", true),
            (b"XR24", false),
            (b"R8  ", false),
        ] {
            assert_eq!(is_yuv(Fourcc::new(*code)), yuv);
        }
    }
}
