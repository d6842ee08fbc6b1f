//! What a shared frame is: its size, its format, and where its planes lie.
//!
//! A [`Frame`] is plain data. It says nothing about who holds the memory: it is
//! asked of a way to allocate, travels beside the handles, and is handed to the
//! importers together with them.
//!
//! Of the usual linear formats it knows where each plane lies ([`Fourcc::planes`]);
//! what it does not know is described plane by plane.
//!
//! ```
//! use dmashare::frame::{Fourcc, Frame, FrameError};
//!
//! let frame = Frame::packed(640, 480, Fourcc::new(*b"NV12"))?;
//! assert_eq!(frame.planes.len(), 2);
//! assert_eq!(frame.size_of_buffer(0)?, 640 * 480 * 3 / 2);
//!
//! // Whether it fits into what came from a peer.
//! assert!(frame.check(&[640 * 480 * 3 / 2]).is_ok());
//! assert!(matches!(frame.check(&[4096]), Err(FrameError::Size { plane: 0, .. })));
//! # Ok::<(), FrameError>(())
//! ```

mod format;

use std::fmt;

use crate::buffer::Rows;
use format::Layout;

/// The most planes a frame can have, as in `drm_mode_fb_cmd2` (`drm_mode.h`).
pub const MAX_PLANES: usize = 4;

/// The modifier of a frame whose rows lie one after the other
/// (`DRM_FORMAT_MOD_LINEAR` in `drm_fourcc.h`).
pub const LINEAR: u64 = 0;

/// The modifier of a frame whose layout only the driver that made it knows
/// (`DRM_FORMAT_MOD_INVALID` in `drm_fourcc.h`). An importer is then told no
/// modifier at all, and finds out by itself or refuses.
pub const INVALID: u64 = 0x00ff_ffff_ffff_ffff;

/// A pixel format: the four-character code of `drm_fourcc.h`.
///
/// A code that this crate does not know is carried unchanged: the importer
/// decides what it can take.
///
/// ```
/// use dmashare::frame::Fourcc;
/// assert_eq!(Fourcc::XRGB8888.to_string(), "XR24");
/// assert_eq!(Fourcc::XRGB8888.bytes_per_pixel(), Some(4));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fourcc(pub u32);

impl Fourcc {
    /// 32 bits a pixel, little endian `B G R x` in memory.
    pub const XRGB8888: Fourcc = Fourcc::new(*b"XR24");
    /// 32 bits a pixel, little endian `B G R A` in memory.
    pub const ARGB8888: Fourcc = Fourcc::new(*b"AR24");
    /// 32 bits a pixel, little endian `R G B x` in memory.
    pub const XBGR8888: Fourcc = Fourcc::new(*b"XB24");
    /// 32 bits a pixel, little endian `R G B A` in memory.
    pub const ABGR8888: Fourcc = Fourcc::new(*b"AB24");

    /// The code made of these four characters.
    ///
    /// ```
    /// # use dmashare::frame::Fourcc;
    /// assert_eq!(Fourcc::new(*b"NV12").0, 0x3231_564e);
    /// ```
    pub const fn new(code: [u8; 4]) -> Fourcc {
        Fourcc(u32::from_le_bytes(code))
    }

    /// Bytes a pixel takes in the first plane, where this crate knows the
    /// format and a pixel there is whole bytes; `None` otherwise.
    ///
    /// ```
    /// # use dmashare::frame::Fourcc;
    /// assert_eq!(Fourcc::new(*b"RG24").bytes_per_pixel(), Some(3));
    /// assert_eq!(Fourcc::new(*b"NV12").bytes_per_pixel(), Some(1)); // of luma
    /// assert_eq!(Fourcc::new(*b"YUYV").bytes_per_pixel(), None); // 2 share 4
    /// assert_eq!(Fourcc::new(*b"????").bytes_per_pixel(), None);
    /// ```
    pub const fn bytes_per_pixel(self) -> Option<u32> {
        match format::layouts(self) {
            Some([first, ..]) if first.pixels == 1 => Some(first.bytes),
            _ => None,
        }
    }

    /// How many planes this format has where it is linear, where this crate
    /// knows it; `None` otherwise.
    ///
    /// ```
    /// # use dmashare::frame::Fourcc;
    /// assert_eq!(Fourcc::XRGB8888.planes(), Some(1));
    /// assert_eq!(Fourcc::new(*b"YU12").planes(), Some(3));
    /// ```
    pub const fn planes(self) -> Option<usize> {
        match format::layouts(self) {
            Some(layouts) => Some(layouts.len()),
            None => None,
        }
    }
}

impl fmt::Display for Fourcc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.0.to_le_bytes();
        if code.iter().all(|b| b.is_ascii_graphic() || *b == b' ') {
            code.iter().try_for_each(|&b| write!(f, "{}", b as char))
        } else {
            write!(f, "{:#010x}", self.0)
        }
    }
}

impl fmt::Debug for Fourcc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fourcc({self})")
    }
}

/// Where one plane of a frame lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plane {
    /// Which of the handles that travel with the frame holds it, from 0.
    pub buffer: u8,
    /// Where it starts in that buffer, in bytes.
    pub offset: u32,
    /// From the start of one row to the start of the next, in bytes.
    pub stride: u32,
}

/// The description of a frame in shared memory.
///
/// ```
/// use dmashare::frame::{Fourcc, Frame};
/// let frame = Frame::packed(640, 480, Fourcc::XRGB8888)?;
/// assert_eq!(frame.planes[0].stride, 2560);
/// assert_eq!(frame.size_of_buffer(0)?, 2560 * 480);
/// # Ok::<(), dmashare::frame::FrameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Width in pixels.
    pub width: u32,
    /// Height in rows.
    pub height: u32,
    /// The pixel format.
    pub fourcc: Fourcc,
    /// How pixels are laid out in memory: [`LINEAR`], [`INVALID`], or another
    /// modifier of `drm_fourcc.h`.
    pub modifier: u64,
    /// One to [`MAX_PLANES`] planes.
    pub planes: Vec<Plane>,
}

/// Why a [`Frame`] cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Width or height is 0.
    #[error("a frame of {0}x{1} pixels has no content; give both a value above 0")]
    Empty(u32, u32),
    /// No plane, or more than [`MAX_PLANES`].
    #[error("{0} planes; a frame has 1 to {MAX_PLANES}")]
    Planes(usize),
    /// Fewer planes than the format has.
    #[error("{found} planes, but format {fourcc} has {expected}; describe them all")]
    Missing {
        /// The format.
        fourcc: Fourcc,
        /// How many planes the frame has.
        found: usize,
        /// How many the format has.
        expected: usize,
    },
    /// Strides cannot be multiples of nothing.
    #[error("strides cannot be aligned to 0 bytes; use 1 for rows that touch each other")]
    Align,
    /// The layout of this format is not known here.
    #[error("the layout of format {0} is not known; describe its planes yourself")]
    Format(Fourcc),
    /// A frame with this modifier has no rows that lie one after the other.
    #[error("modifier {0:#x} is not linear, so there are no rows to copy; share it linear")]
    Modifier(u64),
    /// A row does not fit its stride.
    #[error("plane {plane}: a row of {row} bytes does not fit a stride of {stride} bytes")]
    Stride {
        /// Which plane, from 0.
        plane: usize,
        /// Bytes a row needs.
        row: u64,
        /// Bytes that it has.
        stride: u32,
    },
    /// A plane ends beyond its buffer.
    #[error("plane {plane} ends at byte {end}, but its buffer has {size} bytes")]
    Size {
        /// Which plane, from 0.
        plane: usize,
        /// The byte after its last.
        end: u64,
        /// The size of the buffer in bytes.
        size: u64,
    },
    /// A plane names a handle that did not come with the frame.
    #[error("plane {plane} lies in buffer {buffer}, but {count} came with the frame")]
    Buffer {
        /// Which plane, from 0.
        plane: usize,
        /// The buffer it names.
        buffer: u8,
        /// How many there are.
        count: usize,
    },
    /// The frame is too large for its description (strides are 32 bits wide).
    #[error("a row of {0} pixels of format {1} is longer than 4 GiB")]
    TooWide(u32, Fourcc),
    /// The frame is too large for its description (offsets are 32 bits wide).
    #[error("of {0}x{1} pixels of format {2} a plane would start beyond 4 GiB")]
    TooLarge(u32, u32, Fourcc),
}

impl Frame {
    /// A linear frame with rows that touch each other, its planes one after the
    /// other in one buffer.
    ///
    /// # Errors
    /// [`FrameError::Empty`], [`FrameError::TooWide`], [`FrameError::TooLarge`],
    /// and [`FrameError::Format`] where [`Fourcc::planes`] is `None`.
    ///
    /// ```
    /// # use dmashare::frame::{Fourcc, Frame, FrameError};
    /// let frame = Frame::packed(640, 480, Fourcc::new(*b"NV12"))?;
    /// assert_eq!(frame.planes[1].offset, 640 * 480);
    /// assert_eq!(frame.size_of_buffer(0)?, 640 * 480 * 3 / 2);
    /// assert_eq!(Frame::packed(0, 4, Fourcc::XRGB8888), Err(FrameError::Empty(0, 4)));
    /// # Ok::<(), FrameError>(())
    /// ```
    pub fn packed(width: u32, height: u32, fourcc: Fourcc) -> Result<Frame, FrameError> {
        Frame::aligned(width, height, fourcc, 1)
    }

    /// A linear frame whose planes lie one after the other in one buffer, where
    /// every row and plane starts at a multiple of `align` bytes.
    ///
    /// Devices ask for that; 256 suits all that are known here.
    ///
    /// # Errors
    /// [`FrameError::Align`] for 0, and those of [`packed`](Self::packed).
    ///
    /// ```
    /// # use dmashare::frame::{Fourcc, Frame};
    /// let frame = Frame::aligned(100, 3, Fourcc::new(*b"NV12"), 256)?;
    /// assert_eq!((frame.planes[0].stride, frame.planes[0].offset), (256, 0));
    /// assert_eq!((frame.planes[1].stride, frame.planes[1].offset), (256, 768));
    /// assert_eq!(frame.size_of_buffer(0)?, 768 + 2 * 256);
    /// # Ok::<(), dmashare::frame::FrameError>(())
    /// ```
    pub fn aligned(
        width: u32,
        height: u32,
        fourcc: Fourcc,
        align: u32,
    ) -> Result<Frame, FrameError> {
        if width == 0 || height == 0 {
            return Err(FrameError::Empty(width, height));
        }
        if align == 0 {
            return Err(FrameError::Align);
        }
        let layouts = format::layouts(fourcc).ok_or(FrameError::Format(fourcc))?;
        let align = u64::from(align);
        let mut planes = Vec::with_capacity(layouts.len());
        let mut end = 0u64;
        for layout in layouts {
            // At most 4 GiB each, and no more than four: no product or sum of
            // them overflows a u64.
            let stride = layout.row(width).next_multiple_of(align);
            let stride = u32::try_from(stride).map_err(|_| FrameError::TooWide(width, fourcc))?;
            let offset = end.next_multiple_of(align);
            planes.push(Plane {
                buffer: 0,
                offset: u32::try_from(offset)
                    .map_err(|_| FrameError::TooLarge(width, height, fourcc))?,
                stride,
            });
            end = offset + u64::from(stride) * u64::from(layout.rows(height));
        }
        Ok(Frame {
            width,
            height,
            fourcc,
            modifier: LINEAR,
            planes,
        })
    }

    /// The bytes that buffer number `buffer` needs to hold its planes, if they
    /// are linear.
    ///
    /// Of a format that is not known here ([`Fourcc::planes`]) each plane is
    /// counted at full height, which is too large for a subsampled one. Where a
    /// tiled layout pads its rows to whole tiles the figure is too small: ask
    /// the driver that chose the modifier.
    ///
    /// # Errors
    /// Those of a frame that cannot be: see [`FrameError`].
    ///
    /// ```
    /// # use dmashare::frame::{Fourcc, Frame};
    /// let frame = Frame::packed(8, 2, Fourcc::ARGB8888)?;
    /// assert_eq!(frame.size_of_buffer(0)?, 64);
    /// # Ok::<(), dmashare::frame::FrameError>(())
    /// ```
    pub fn size_of_buffer(&self, buffer: u8) -> Result<u64, FrameError> {
        self.check_shape()?;
        let planes = self.planes.iter().enumerate();
        let ends = planes
            .filter(|(_, p)| p.buffer == buffer)
            .map(|(plane, p)| self.end_of(plane, p.stride.into()));
        Ok(ends.max().unwrap_or(0))
    }

    /// Whether this frame fits into buffers of these sizes, in bytes.
    ///
    /// Everything is computed in `u64`, where no product of the 32-bit fields
    /// can overflow; nothing of a frame that came from a peer should be used
    /// before this. As for the kernel (`drm_gem_fb_init`), the last row needs
    /// its pixels, not its whole stride.
    ///
    /// Of a format that is not known here ([`Fourcc::planes`]) each plane is
    /// taken to have `height` rows of `stride` bytes, so a subsampled one is
    /// refused in a buffer of just its size.
    ///
    /// Exact this is for [`LINEAR`] frames. A tiled layout is bounded roughly,
    /// as if it were linear, and a plane that a modifier adds by one of its rows:
    /// tiles can reach beyond that, and the driver that imports it has to check
    /// them.
    ///
    /// # Errors
    /// What does not fit: see [`FrameError`].
    ///
    /// ```
    /// # use dmashare::frame::{Fourcc, Frame, FrameError};
    /// let frame = Frame::packed(8, 2, Fourcc::ARGB8888)?;
    /// assert!(frame.check(&[64]).is_ok());
    /// assert_eq!(frame.check(&[63]), Err(FrameError::Size { plane: 0, end: 64, size: 63 }));
    /// # Ok::<(), FrameError>(())
    /// ```
    pub fn check(&self, sizes: &[u64]) -> Result<(), FrameError> {
        self.check_shape()?;
        for (plane, p) in self.planes.iter().enumerate() {
            let size = *sizes.get(usize::from(p.buffer)).ok_or(FrameError::Buffer {
                plane,
                buffer: p.buffer,
                count: sizes.len(),
            })?;
            let end = match self.is_added(plane) {
                true => u64::from(p.offset) + u64::from(p.stride),
                false => self.end_of(plane, self.row(plane).unwrap_or(p.stride.into())),
            };
            if end > size {
                return Err(FrameError::Size { plane, end, size });
            }
        }
        Ok(())
    }

    /// Where the rows of a plane lie in its buffer, to copy them.
    ///
    /// # Errors
    /// [`FrameError::Format`] where this crate does not know how long a row of
    /// that plane is, [`FrameError::Modifier`] for every frame that is not
    /// [`LINEAR`], and those of a frame that cannot be.
    ///
    /// ```
    /// # use dmashare::frame::{Fourcc, Frame};
    /// # use dmashare::buffer::Rows;
    /// let mut frame = Frame::packed(8, 2, Fourcc::XRGB8888)?;
    /// frame.planes[0].stride = 64;
    /// assert_eq!(frame.rows(0)?, Rows { offset: 0, stride: 64, row: 32, count: 2 });
    /// # Ok::<(), dmashare::frame::FrameError>(())
    /// ```
    pub fn rows(&self, plane: usize) -> Result<Rows, FrameError> {
        self.check_shape()?;
        if self.modifier != LINEAR {
            return Err(FrameError::Modifier(self.modifier));
        }
        let row = self.row(plane).ok_or(FrameError::Format(self.fourcc))?;
        let row = u32::try_from(row).map_err(|_| FrameError::TooWide(self.width, self.fourcc))?;
        let count = self.rows_of(plane);
        // `check_shape` found every plane that the format has.
        let plane = &self.planes[plane];
        Ok(Rows {
            offset: plane.offset.into(),
            stride: plane.stride,
            row,
            count,
        })
    }

    fn check_shape(&self) -> Result<(), FrameError> {
        if self.width == 0 || self.height == 0 {
            return Err(FrameError::Empty(self.width, self.height));
        }
        if self.planes.is_empty() || self.planes.len() > MAX_PLANES {
            return Err(FrameError::Planes(self.planes.len()));
        }
        let expected = self.fourcc.planes().unwrap_or(1);
        if self.planes.len() < expected {
            return Err(FrameError::Missing {
                fourcc: self.fourcc,
                found: self.planes.len(),
                expected,
            });
        }
        for (plane, &Plane { stride, .. }) in self.planes.iter().enumerate() {
            // Where this crate does not know it, a row has at least a byte.
            let row = self.row(plane).unwrap_or(1);
            if row > u64::from(stride) {
                return Err(FrameError::Stride { plane, row, stride });
            }
        }
        Ok(())
    }

    /// Whether a modifier has added this plane: compression data, say, of which
    /// there are fewer rows than of pixels.
    fn is_added(&self, plane: usize) -> bool {
        let known = self.fourcc.planes();
        self.modifier != LINEAR && known.is_some_and(|planes| plane >= planes)
    }

    /// How a plane is laid out, where this crate knows the format: one that a
    /// modifier adds to it (compression data, say) is not known.
    fn layout(&self, plane: usize) -> Option<&'static Layout> {
        format::layouts(self.fourcc)?.get(plane)
    }

    /// The bytes of a plane's row.
    fn row(&self, plane: usize) -> Option<u64> {
        Some(self.layout(plane)?.row(self.width))
    }

    /// The rows of a plane: where it is not known, as many as the frame has.
    fn rows_of(&self, plane: usize) -> u32 {
        let layout = self.layout(plane);
        layout.map_or(self.height, |layout| layout.rows(self.height))
    }

    /// The byte after a plane whose last row has `last` bytes.
    fn end_of(&self, plane: usize, last: u64) -> u64 {
        let rows_before = u64::from(self.rows_of(plane).saturating_sub(1));
        let plane = &self.planes[plane];
        u64::from(plane.offset) + u64::from(plane.stride) * rows_before + last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its bytes are in other places than rows say, whatever its format.
    #[test]
    fn what_is_not_linear_has_no_rows() {
        let mut frame = Frame::packed(64, 32, Fourcc::XRGB8888).unwrap();
        assert!(frame.rows(0).is_ok());
        // I915_FORMAT_MOD_X_TILED
        for modifier in [INVALID, 0x0100_0000_0000_0001] {
            frame.modifier = modifier;
            assert_eq!(frame.rows(0), Err(FrameError::Modifier(modifier)));
        }
    }

    /// 1920x1080 with a plane of compression data (I915_FORMAT_MOD_Y_TILED_GEN12_RC_CCS).
    #[test]
    fn a_plane_that_a_modifier_adds_is_smaller() {
        let mut frame = Frame::packed(1920, 1080, Fourcc::XRGB8888).unwrap();
        frame.modifier = 0x0100_0000_0000_0006;
        let (offset, stride) = (8_355_840, 960);
        frame.planes.push(Plane {
            buffer: 0,
            offset,
            stride,
        });
        assert_eq!(frame.check(&[8_388_480]), Ok(()));
        let end = u64::from(offset + stride);
        let short = FrameError::Size {
            plane: 1,
            end,
            size: end - 1,
        };
        assert_eq!(frame.check(&[end - 1]), Err(short));
    }

    #[test]
    fn every_plane_has_a_stride() {
        let plane = |stride| Plane {
            buffer: 0,
            offset: 0,
            stride,
        };
        for without in 0..MAX_PLANES {
            let mut frame = Frame {
                width: 8,
                height: 2,
                fourcc: Fourcc::new(*b"NV12"),
                modifier: LINEAR,
                planes: vec![plane(8); MAX_PLANES],
            };
            assert!(frame.check(&[16]).is_ok());
            frame.planes[without].stride = 0;
            let expected = FrameError::Stride {
                plane: without,
                row: if without < 2 { 8 } else { 1 },
                stride: 0,
            };
            assert_eq!(frame.check(&[16]), Err(expected));
        }
    }
}
