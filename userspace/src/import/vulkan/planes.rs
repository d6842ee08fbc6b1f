//! The planes of a YUV frame, each as an image of its own.
//!
//! Vulkan can convert YUV while it reads (VkSamplerYcbcrConversion), where a
//! driver has it for the format, and few have it for imports. Every driver
//! reads a plane as an image of one, two or four channels, and the conversion
//! is three lines of a shader, which then says itself which matrix it takes.

use ash::vk;

use super::format::{Channel, Pixel};
use crate::frame::{Fourcc, Frame, Plane};

use Channel::{A, B, G, One, R};

/// How a plane is read: of which pixels of the frame a texel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlaneImage {
    /// Which plane of the frame.
    pub(super) plane: usize,
    /// As what its texels are read.
    pub(super) pixel: Pixel,
    /// The single-plane format with texels of that size.
    pub(super) fourcc: Fourcc,
    /// Pixels of a row that share a texel.
    pub(super) columns: u32,
    /// Rows that share a texel.
    pub(super) lines: u32,
}

const fn image(
    plane: usize,
    code: &[u8; 4],
    format: vk::Format,
    swizzle: [Channel; 4],
    (columns, lines): (u32, u32),
) -> PlaneImage {
    PlaneImage {
        plane,
        pixel: Pixel { format, swizzle },
        fourcc: Fourcc::new(*code),
        columns,
        lines,
    }
}

/// A plane of one channel.
const fn one(plane: usize, share: (u32, u32)) -> PlaneImage {
    image(plane, b"R8  ", vk::Format::R8_UNORM, [R, G, B, One], share)
}

/// A plane of two channels, U before V or after.
const fn two(swizzle: [Channel; 4], share: (u32, u32)) -> PlaneImage {
    image(1, b"GR88", vk::Format::R8G8_UNORM, swizzle, share)
}

/// Two pixels in a texel; the swizzle makes it Y0, U, Y1, V.
const fn pair(swizzle: [Channel; 4]) -> PlaneImage {
    image(0, b"AB24", vk::Format::R8G8B8A8_UNORM, swizzle, (2, 1))
}

const UV: [Channel; 4] = [R, G, B, One];
const VU: [Channel; 4] = [G, R, B, One];
const WHOLE: (u32, u32) = (1, 1);

/// How to read the planes of this format, Y first, then U and V; `None` for
/// one that is no YUV format, or not known here.
pub(super) const fn planes(fourcc: Fourcc) -> Option<&'static [PlaneImage]> {
    Some(match &fourcc.0.to_le_bytes() {
        b"NV12" => const { &[one(0, WHOLE), two(UV, (2, 2))] },
        b"NV21" => const { &[one(0, WHOLE), two(VU, (2, 2))] },
        b"NV16" => const { &[one(0, WHOLE), two(UV, (2, 1))] },
        b"NV61" => const { &[one(0, WHOLE), two(VU, (2, 1))] },
        b"NV24" => const { &[one(0, WHOLE), two(UV, WHOLE)] },
        b"NV42" => const { &[one(0, WHOLE), two(VU, WHOLE)] },
        b"YU12" => const { &[one(0, WHOLE), one(1, (2, 2)), one(2, (2, 2))] },
        b"YV12" => const { &[one(0, WHOLE), one(2, (2, 2)), one(1, (2, 2))] },
        b"YU16" => const { &[one(0, WHOLE), one(1, (2, 1)), one(2, (2, 1))] },
        b"YV16" => const { &[one(0, WHOLE), one(2, (2, 1)), one(1, (2, 1))] },
        b"YU24" => const { &[one(0, WHOLE), one(1, WHOLE), one(2, WHOLE)] },
        b"YV24" => const { &[one(0, WHOLE), one(2, WHOLE), one(1, WHOLE)] },
        b"YUYV" => const { &[pair([R, G, B, A])] },
        b"YVYU" => const { &[pair([R, A, B, G])] },
        b"UYVY" => const { &[pair([G, R, A, B])] },
        b"VYUY" => const { &[pair([G, B, A, R])] },
        _ => return None,
    })
}

/// The formats of [`planes`].
pub(super) const FORMATS: [&[u8; 4]; 16] = [
    b"NV12", b"NV21", b"NV16", b"NV61", b"NV24", b"NV42", b"YU12", b"YV12", b"YU16", b"YV16",
    b"YU24", b"YV24", b"YUYV", b"YVYU", b"UYVY", b"VYUY",
];

impl PlaneImage {
    /// The plane as a frame of its own, in the same buffers; the frame was
    /// checked, and has this plane.
    pub(super) fn frame(&self, of: &Frame) -> Frame {
        let plane: Plane = of.planes[self.plane];
        Frame {
            width: of.width.div_ceil(self.columns),
            height: of.height.div_ceil(self.lines),
            fourcc: self.fourcc,
            modifier: of.modifier,
            planes: vec![plane],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plane as a frame needs just the bytes that it needs as a plane, for
    /// odd sizes, too.
    #[test]
    fn planes_are_read_within_their_bytes() {
        for code in FORMATS {
            for (width, height) in [(64, 48), (5, 3), (1, 1)] {
                let frame = Frame::packed(width, height, Fourcc::new(*code)).unwrap();
                let images = planes(frame.fourcc).unwrap();
                assert_eq!(images.len(), frame.planes.len(), "{frame:?}");
                for image in images {
                    let rows = image.frame(&frame).rows(0).unwrap();
                    assert_eq!(rows, frame.rows(image.plane).unwrap(), "{frame:?}");
                }
            }
        }
    }

    /// The bytes of each pixel pair, in the order in which they are read.
    #[test]
    fn pairs_are_read_as_y_u_y_v() {
        for (code, bytes) in [
            (b"YUYV", *b"yuYv"),
            (b"YVYU", *b"yvYu"),
            (b"UYVY", *b"uyvY"),
            (b"VYUY", *b"vyuY"),
        ] {
            let image = planes(Fourcc::new(*code)).unwrap()[0];
            let read = image.pixel.swizzle.map(|channel| match channel {
                R => bytes[0],
                G => bytes[1],
                B => bytes[2],
                A => bytes[3],
                One => b'1',
            });
            assert_eq!(&read, b"yuYv", "{}", String::from_utf8_lossy(code));
        }
    }
}
