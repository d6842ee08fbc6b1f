//! The formats whose planes can be measured: how they lie in memory where they
//! are linear.

use super::Fourcc;

/// One plane: how many bytes how many pixels of a row take, and of how many
/// rows of the picture it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Pixels beside each other that share a block of bytes.
    pub(super) pixels: u32,
    /// The bytes of such a block.
    pub(super) bytes: u32,
    /// Rows of the picture that share a row of this plane.
    pub(super) lines: u32,
}

impl Layout {
    /// The bytes of a row, of a picture so wide; a block that is not full
    /// counts whole.
    pub(super) fn row(&self, width: u32) -> u64 {
        u64::from(width.div_ceil(self.pixels)) * u64::from(self.bytes)
    }

    /// How many rows there are, of a picture so high.
    pub(super) fn rows(&self, height: u32) -> u32 {
        height.div_ceil(self.lines)
    }
}

const fn plane(pixels: u32, bytes: u32, lines: u32) -> Layout {
    Layout {
        pixels,
        bytes,
        lines,
    }
}

/// The planes of a format, where it is known here (`drm_fourcc.h`, and
/// `__drm_format_info` of the kernel's drm_fourcc.c).
pub(super) const fn layouts(fourcc: Fourcc) -> Option<&'static [Layout]> {
    Some(match &fourcc.0.to_le_bytes() {
        b"R8  " => const { &[plane(1, 1, 1)] },
        b"GR88" | b"R16 " | b"RG16" | b"BG16" | b"AR15" | b"XR15" => const { &[plane(1, 2, 1)] },
        b"RG24" | b"BG24" => const { &[plane(1, 3, 1)] },
        b"XR24" | b"AR24" | b"XB24" | b"AB24" | b"RX24" | b"RA24" | b"BX24" | b"BA24" | b"XR30"
        | b"AR30" | b"XB30" | b"AB30" | b"GR32" => const { &[plane(1, 4, 1)] },
        // Half floats.
        b"XR4H" | b"AR4H" | b"XB4H" | b"AB4H" => const { &[plane(1, 8, 1)] },
        b"YUYV" | b"YVYU" | b"UYVY" | b"VYUY" => const { &[plane(2, 4, 1)] },
        b"NV12" | b"NV21" => const { &[plane(1, 1, 1), plane(2, 2, 2)] },
        b"NV16" | b"NV61" => const { &[plane(1, 1, 1), plane(2, 2, 1)] },
        b"NV24" | b"NV42" => const { &[plane(1, 1, 1), plane(1, 2, 1)] },
        // 10 of 16 bits.
        b"P010" => const { &[plane(1, 2, 1), plane(2, 4, 2)] },
        b"YU12" | b"YV12" => const { &[plane(1, 1, 1), plane(2, 1, 2), plane(2, 1, 2)] },
        b"YU16" | b"YV16" => const { &[plane(1, 1, 1), plane(2, 1, 1), plane(2, 1, 1)] },
        b"YU24" | b"YV24" => const { &[plane(1, 1, 1), plane(1, 1, 1), plane(1, 1, 1)] },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use crate::frame::{Fourcc, Frame, FrameError};

    /// Width, height, format; and of each plane the offset, the bytes of a row
    /// and how many there are.
    #[test]
    fn planes_are_those_of_the_format() {
        type Plane = (u64, u32, u32);
        let cases: &[(u32, u32, &[u8; 4], &[Plane])] = &[
            (5, 3, b"XR24", &[(0, 20, 3)]),
            (5, 3, b"RG24", &[(0, 15, 3)]),
            (5, 3, b"RG16", &[(0, 10, 3)]),
            (5, 3, b"R8  ", &[(0, 5, 3)]),
            (5, 3, b"AB4H", &[(0, 40, 3)]),
            (5, 3, b"YUYV", &[(0, 12, 3)]),
            (6, 4, b"NV12", &[(0, 6, 4), (24, 6, 2)]),
            (5, 3, b"NV12", &[(0, 5, 3), (15, 6, 2)]),
            (1, 1, b"NV12", &[(0, 1, 1), (1, 2, 1)]),
            (5, 3, b"NV16", &[(0, 5, 3), (15, 6, 3)]),
            (5, 3, b"NV24", &[(0, 5, 3), (15, 10, 3)]),
            (5, 3, b"P010", &[(0, 10, 3), (30, 12, 2)]),
            (5, 3, b"YU12", &[(0, 5, 3), (15, 3, 2), (21, 3, 2)]),
            (5, 3, b"YU16", &[(0, 5, 3), (15, 3, 3), (24, 3, 3)]),
            (5, 3, b"YU24", &[(0, 5, 3), (15, 5, 3), (30, 5, 3)]),
        ];
        for (width, height, code, planes) in cases {
            let frame = Frame::packed(*width, *height, Fourcc::new(**code)).unwrap();
            assert_eq!(frame.planes.len(), planes.len(), "{frame:?}");
            let mut end = 0;
            for (plane, expected) in planes.iter().enumerate() {
                let rows = frame.rows(plane).unwrap();
                assert_eq!((rows.offset, rows.row, rows.count), *expected, "{frame:?}");
                end = rows.end().unwrap();
            }
            assert_eq!(frame.size_of_buffer(0), Ok(end), "{frame:?}");
            assert_eq!(frame.check(&[end]), Ok(()));
            assert!(matches!(
                frame.check(&[end - 1]),
                Err(FrameError::Size { .. })
            ));
            assert!(frame.rows(planes.len()).is_err());
        }
    }

    #[test]
    fn what_32_bits_cannot_say_is_refused() {
        let packed = |width, height, code| Frame::packed(width, height, Fourcc::new(code));
        let wide = packed(u32::MAX / 2, 1, *b"XR24");
        assert!(matches!(wide, Err(FrameError::TooWide(..))), "{wide:?}");
        // A sum that needs 33 bits: the last block is not full.
        let odd = packed(u32::MAX, 1, *b"NV12");
        assert!(matches!(odd, Err(FrameError::TooWide(..))), "{odd:?}");
        let large = packed(1 << 16, 1 << 16, *b"NV12");
        assert!(matches!(large, Err(FrameError::TooLarge(..))), "{large:?}");
        assert!(packed(1 << 16, 1 << 16, *b"R8  ").is_ok());
        let aligned = Frame::aligned(u32::MAX / 4, 1, Fourcc::XRGB8888, 256);
        assert!(matches!(aligned, Err(FrameError::TooWide(..))));
        let nothing = Frame::aligned(1, 1, Fourcc::XRGB8888, 0);
        assert_eq!(nothing, Err(FrameError::Align));
    }

    /// A peer may leave planes out, and no one is to look for them.
    #[test]
    fn a_missing_plane_is_found() {
        let mut frame = Frame::packed(8, 2, Fourcc::new(*b"YU12")).unwrap();
        frame.planes.pop();
        let missing = FrameError::Missing {
            fourcc: frame.fourcc,
            found: 2,
            expected: 3,
        };
        assert_eq!(frame.check(&[1 << 20]), Err(missing.clone()));
        assert_eq!(frame.rows(2), Err(missing));
    }
}
