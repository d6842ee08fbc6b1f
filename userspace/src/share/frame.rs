//! What a shared frame is: its size, its format, and where its planes lie.
//!
//! A [`Frame`] is plain data. It says nothing about who holds the memory; it
//! travels beside the handles (see [`Socket`](super::Socket)) and is handed to
//! the importers together with them.

use std::fmt;

use crate::buffer::Rows;

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
/// use dmashare::share::Fourcc;
/// assert_eq!(Fourcc::XRGB8888.to_string(), "XR24");
/// assert_eq!(Fourcc::XRGB8888.bytes_per_pixel(), Some(4));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
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
    /// # use dmashare::share::Fourcc;
    /// assert_eq!(Fourcc::new(*b"NV12").0, 0x3231_564e);
    /// ```
    pub const fn new(code: [u8; 4]) -> Fourcc {
        Fourcc(u32::from_le_bytes(code))
    }

    /// Bytes a pixel takes in the first plane, where this crate knows the
    /// format; `None` otherwise.
    ///
    /// ```
    /// # use dmashare::share::Fourcc;
    /// assert_eq!(Fourcc::new(*b"????").bytes_per_pixel(), None);
    /// ```
    pub const fn bytes_per_pixel(self) -> Option<u32> {
        match self {
            Fourcc::XRGB8888 | Fourcc::ARGB8888 | Fourcc::XBGR8888 | Fourcc::ABGR8888 => Some(4),
            _ => None,
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
/// use dmashare::share::{Fourcc, Frame};
/// let frame = Frame::packed(640, 480, Fourcc::XRGB8888)?;
/// assert_eq!(frame.planes[0].stride, 2560);
/// assert_eq!(frame.size_of_buffer(0)?, 2560 * 480);
/// # Ok::<(), dmashare::share::FrameError>(())
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
}

impl Frame {
    /// A linear frame of one plane with rows that touch each other.
    ///
    /// # Errors
    /// [`FrameError::Empty`], [`FrameError::TooWide`], and
    /// [`FrameError::Format`] where [`Fourcc::bytes_per_pixel`] is `None`.
    ///
    /// ```
    /// # use dmashare::share::{Fourcc, Frame, FrameError};
    /// assert_eq!(Frame::packed(0, 4, Fourcc::XRGB8888), Err(FrameError::Empty(0, 4)));
    /// ```
    pub fn packed(width: u32, height: u32, fourcc: Fourcc) -> Result<Frame, FrameError> {
        let pixel = fourcc.bytes_per_pixel().ok_or(FrameError::Format(fourcc))?;
        let stride = width
            .checked_mul(pixel)
            .ok_or(FrameError::TooWide(width, fourcc))?;
        let frame = Frame {
            width,
            height,
            fourcc,
            modifier: LINEAR,
            planes: vec![Plane {
                buffer: 0,
                offset: 0,
                stride,
            }],
        };
        frame.check_shape()?;
        Ok(frame)
    }

    /// The bytes that buffer number `buffer` needs to hold its planes, if they
    /// are linear.
    ///
    /// Subsampled planes are counted at full height, so the figure is too large
    /// for them, and where a tiled layout pads its rows to whole tiles it is
    /// too small: ask the driver that chose the modifier.
    ///
    /// # Errors
    /// Those of a frame that cannot be: see [`FrameError`].
    ///
    /// ```
    /// # use dmashare::share::{Fourcc, Frame};
    /// let frame = Frame::packed(8, 2, Fourcc::ARGB8888)?;
    /// assert_eq!(frame.size_of_buffer(0)?, 64);
    /// # Ok::<(), dmashare::share::FrameError>(())
    /// ```
    pub fn size_of_buffer(&self, buffer: u8) -> Result<u64, FrameError> {
        self.check_shape()?;
        let planes = self.planes.iter().filter(|p| p.buffer == buffer);
        let ends = planes.map(|p| self.end_of(p, p.stride.into()));
        Ok(ends.max().unwrap_or(0))
    }

    /// Whether this frame fits into buffers of these sizes, in bytes.
    ///
    /// Everything is computed in `u64`, where no product of the 32-bit fields
    /// can overflow; nothing of a frame that came from a peer should be used
    /// before this. As for the kernel (`drm_gem_fb_init`), the last row needs
    /// its pixels, not its whole stride.
    ///
    /// Only the 32-bit RGB formats with a [`bytes_per_pixel`] are known here.
    /// Of every other each plane is taken to have `height` rows of `stride`
    /// bytes, so a subsampled one, such as NV12, is refused in a buffer of just
    /// its size.
    ///
    /// Exact this is for [`LINEAR`] frames. A tiled layout is bounded roughly,
    /// as if it were linear: its tiles can reach beyond that, and the driver
    /// that imports it has to check them.
    ///
    /// [`bytes_per_pixel`]: Fourcc::bytes_per_pixel
    ///
    /// # Errors
    /// What does not fit: see [`FrameError`].
    ///
    /// ```
    /// # use dmashare::share::{Fourcc, Frame, FrameError};
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
            let end = self.end_of(p, self.row(plane).unwrap_or(p.stride.into()));
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
    /// # use dmashare::share::{Fourcc, Frame};
    /// # use dmashare::buffer::Rows;
    /// let mut frame = Frame::packed(8, 2, Fourcc::XRGB8888)?;
    /// frame.planes[0].stride = 64;
    /// assert_eq!(frame.rows(0)?, Rows { offset: 0, stride: 64, row: 32, count: 2 });
    /// # Ok::<(), dmashare::share::FrameError>(())
    /// ```
    pub fn rows(&self, plane: usize) -> Result<Rows, FrameError> {
        self.check_shape()?;
        if self.modifier != LINEAR {
            return Err(FrameError::Modifier(self.modifier));
        }
        let row = self.row(plane).ok_or(FrameError::Format(self.fourcc))?;
        let row = u32::try_from(row).map_err(|_| FrameError::TooWide(self.width, self.fourcc))?;
        let plane = &self.planes[plane];
        Ok(Rows {
            offset: plane.offset.into(),
            stride: plane.stride,
            row,
            count: self.height,
        })
    }

    fn check_shape(&self) -> Result<(), FrameError> {
        if self.width == 0 || self.height == 0 {
            return Err(FrameError::Empty(self.width, self.height));
        }
        if self.planes.is_empty() || self.planes.len() > MAX_PLANES {
            return Err(FrameError::Planes(self.planes.len()));
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

    /// The bytes of a plane's row, where this crate knows the format: those
    /// that it knows have their pixels in the first plane, and what a modifier
    /// adds to it (compression data, say) in others.
    fn row(&self, plane: usize) -> Option<u64> {
        let pixel = self.fourcc.bytes_per_pixel().filter(|_| plane == 0)?;
        Some(u64::from(self.width) * u64::from(pixel))
    }

    /// The byte after a plane whose last row has `last` bytes.
    fn end_of(&self, plane: &Plane, last: u64) -> u64 {
        let rows_before = u64::from(self.height.saturating_sub(1));
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
                row: 1,
                stride: 0,
            };
            assert_eq!(frame.check(&[16]), Err(expected));
        }
    }
}
