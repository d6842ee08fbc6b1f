//! What is to be shared.

use super::{Converter, Taker};
use crate::frame::Fourcc;

/// The picture that a buffer is wanted for.
///
/// ```
/// use dmashare::frame::Fourcc;
/// use dmashare::negotiate::Picture;
/// let picture = Picture::new(640, 480).prefer(Fourcc::new(*b"NV12"));
/// assert_eq!((picture.width, picture.height), (640, 480));
/// assert_eq!(picture.converters.len(), 1); // the CPU
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Picture {
    /// Its width, in pixels.
    pub width: u32,
    /// Its height, in rows.
    pub height: u32,
    /// The formats to prefer, best first. To have no other, let a taker take no
    /// other.
    pub preferred: Vec<Fourcc>,
    /// Who could convert it where no layout suits every taker, best first.
    pub converters: Vec<Converter>,
}

impl Picture {
    /// A picture of any format, which the CPU could convert.
    ///
    /// ```
    /// # use dmashare::negotiate::Picture;
    /// assert!(Picture::new(640, 480).preferred.is_empty());
    /// ```
    pub fn new(width: u32, height: u32) -> Picture {
        Picture {
            width,
            height,
            preferred: Vec::new(),
            converters: vec![Converter {
                name: "the CPU".to_owned(),
                reads: Taker::cpu(),
                writes: Taker::cpu(),
            }],
        }
    }

    /// Prefers this format, after those that were preferred before.
    ///
    /// ```
    /// # use dmashare::frame::Fourcc;
    /// # use dmashare::negotiate::Picture;
    /// let picture = Picture::new(8, 8).prefer(Fourcc::ARGB8888).prefer(Fourcc::XRGB8888);
    /// assert_eq!(picture.preferred, [Fourcc::ARGB8888, Fourcc::XRGB8888]);
    /// ```
    #[must_use]
    pub fn prefer(mut self, fourcc: Fourcc) -> Picture {
        self.preferred.push(fourcc);
        self
    }

    /// Lets this one convert, before those who could so far.
    ///
    /// ```
    /// # use dmashare::negotiate::{Converter, Picture, Taker};
    /// let picture = Picture::new(8, 8).converted_by(Converter {
    ///     name: "the GPU".into(),
    ///     reads: Taker::new("its textures"),
    ///     writes: Taker::new("its targets"),
    /// });
    /// assert_eq!(picture.converters[0].name, "the GPU");
    /// ```
    #[must_use]
    pub fn converted_by(mut self, converter: Converter) -> Picture {
        self.converters.insert(0, converter);
        self
    }
}
