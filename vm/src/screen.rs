//! What a guest's screen shows, against what it should show.
//!
//! ```
//! use dmashare_vm::screen::{Tolerance, compare};
//! use image::{Rgb, RgbImage};
//!
//! // `vm.screenshot()?` and a picture from a file, in a test.
//! let expected = RgbImage::from_pixel(640, 480, Rgb([200, 100, 50]));
//! let mut seen = expected.clone();
//! seen[(3, 4)] = Rgb([202, 100, 50]);
//!
//! let two_steps = Tolerance { channel: 2, ..Tolerance::EXACT };
//! assert!(compare(&seen, &expected, two_steps).is_ok());
//! let difference = compare(&seen, &expected, Tolerance::EXACT).unwrap_err();
//! assert!(difference.to_string().contains("the first at (3, 4)"));
//! ```

use std::convert::identity;
use std::io::{self, Write};
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};

use crate::Error;
use crate::cache::write_with;

/// How far a picture may be from what it should be.
///
/// A GPU's rounding is one step of a channel or two; a cursor that blinks is
/// some hundred pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tolerance {
    /// How far each channel of a pixel may be off, of 255.
    pub channel: u8,
    /// How many pixels may be further off than that.
    pub pixels: u64,
}

impl Tolerance {
    /// To the bit.
    pub const EXACT: Tolerance = Tolerance {
        channel: 0,
        pixels: 0,
    };
}

/// How a picture differs from what it should be.
///
/// See [`compare`], which finds it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    /// It has another size.
    #[error("it has {}x{} pixels, and should have {}x{}", .seen.0, .seen.1, .expected.0, .expected.1)]
    Size {
        /// Its width and height in pixels.
        seen: (u32, u32),
        /// What they should be.
        expected: (u32, u32),
    },
    /// More pixels of it have other colours than may have.
    #[error(
        "{count} of {of} pixels differ, by {worst} at most, the first at ({}, {}): it is {} and should be {}",
        .first.0, .first.1, hex(*.seen), hex(*.expected)
    )]
    Pixels {
        /// How many.
        count: u64,
        /// Of how many.
        of: u64,
        /// How far the furthest channel is off.
        worst: u8,
        /// The first of them, row by row from the top.
        first: (u32, u32),
        /// The colour it has: red, green, blue.
        seen: [u8; 3],
        /// The colour it should have.
        expected: [u8; 3],
    },
}

/// Compares two pictures, pixel by pixel.
///
/// # Errors
/// The [`Difference`], where there is more than `tolerance` allows. See the
/// [module](self) for an example.
pub fn compare(
    seen: &RgbImage,
    expected: &RgbImage,
    tolerance: Tolerance,
) -> Result<(), Difference> {
    if seen.dimensions() != expected.dimensions() {
        return Err(Difference::Size {
            seen: seen.dimensions(),
            expected: expected.dimensions(),
        });
    }
    let (mut count, mut worst, mut first) = (0, 0, None);
    for ((x, y, seen), expected) in seen.enumerate_pixels().zip(expected.pixels()) {
        let off = distance(seen, expected);
        if off > tolerance.channel {
            count += 1;
            worst = worst.max(off);
            first.get_or_insert(((x, y), seen.0, expected.0));
        }
    }
    match first {
        Some((first, seen_there, expected_there)) if count > tolerance.pixels => {
            Err(Difference::Pixels {
                count,
                of: u64::from(seen.width()) * u64::from(seen.height()),
                worst,
                first,
                seen: seen_there,
                expected: expected_there,
            })
        }
        _ => Ok(()),
    }
}

/// The picture as it should be, dark, with each pixel red that is further off
/// than `channel`: to look at.
///
/// ```
/// use dmashare_vm::screen::difference_picture;
/// use image::{Rgb, RgbImage};
/// let (grey, mut spoilt) = (RgbImage::from_pixel(2, 1, Rgb([80; 3])), RgbImage::new(2, 1));
/// spoilt[(0, 0)] = Rgb([81; 3]);
/// let shown = difference_picture(&spoilt, &grey, 1);
/// assert_eq!(shown[(0, 0)], Rgb([20; 3]));
/// assert_eq!(shown[(1, 0)], Rgb([255, 0, 0]));
/// ```
pub fn difference_picture(seen: &RgbImage, expected: &RgbImage, channel: u8) -> RgbImage {
    let (width, height) = expected.dimensions();
    RgbImage::from_fn(width, height, |x, y| {
        let right = &expected[(x, y)];
        match seen.get_pixel_checked(x, y) {
            Some(pixel) if distance(pixel, right) <= channel => {
                Rgb(right.0.map(|channel| channel / 4))
            }
            _ => Rgb([255, 0, 0]),
        }
    })
}

/// A picture from a PNG file.
///
/// # Errors
/// [`Error::Io`] with the file's name.
///
/// ```no_run
/// // Not run with the crate's tests: it takes a picture that they do not have.
/// let expected = dmashare_vm::screen::load("tests/login.png")?;
/// # Ok::<(), dmashare_vm::Error>(())
/// ```
pub fn load(path: impl AsRef<Path>) -> Result<RgbImage, Error> {
    let path = path.as_ref();
    let read = || {
        let bytes = std::fs::read(path)?;
        image::load_from_memory_with_format(&bytes, ImageFormat::Png).map_err(io::Error::other)
    };
    read()
        .map(image::DynamicImage::into_rgb8)
        .map_err(|source| Error::Io {
            what: format!("read the picture {}", path.display()),
            source,
        })
}

/// Writes a picture as a PNG file, whole or not at all; what is there and no
/// regular file is written into.
///
/// # Errors
/// [`Error::Io`] with the file's name.
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// # let file = folder.path().join("screen.png");
/// use image::{Rgb, RgbImage};
/// let red = RgbImage::from_pixel(2, 1, Rgb([255, 0, 0]));
/// dmashare_vm::screen::save(&red, &file)?;
/// assert_eq!(dmashare_vm::screen::load(&file)?, red);
/// # Ok::<(), dmashare_vm::Error>(())
/// ```
pub fn save(picture: &RgbImage, path: impl AsRef<Path>) -> Result<(), Error> {
    let path = path.as_ref();
    let write = || {
        let mut png = io::Cursor::new(Vec::new());
        picture
            .write_to(&mut png, ImageFormat::Png)
            .map_err(io::Error::other)?;
        write_with(path, identity, |file| file.write_all(png.get_ref()))
    };
    write().map_err(|source| Error::Io {
        what: format!("write the picture {}", path.display()),
        source,
    })
}

/// How far the furthest channel is off.
fn distance(one: &Rgb<u8>, other: &Rgb<u8>) -> u8 {
    let channels = one.0.iter().zip(other.0);
    channels
        .map(|(&one, other)| one.abs_diff(other))
        .max()
        .unwrap_or(0)
}

/// A colour as it is written on the web.
fn hex([r, g, b]: [u8; 3]) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_size_is_told_as_such() {
        let difference = compare(
            &RgbImage::new(2, 3),
            &RgbImage::new(3, 2),
            Tolerance::default(),
        );
        assert_eq!(
            difference.unwrap_err().to_string(),
            "it has 2x3 pixels, and should have 3x2"
        );
    }

    #[test]
    fn what_is_tolerated_ends_where_it_is_said_to() {
        let right = RgbImage::from_pixel(16, 16, Rgb([1, 2, 3]));
        let mut wrong = right.clone();
        wrong[(5, 1)] = Rgb([1, 2, 6]);
        wrong[(0, 2)] = Rgb([1, 4, 3]);
        let with = |channel, pixels| compare(&wrong, &right, Tolerance { channel, pixels });
        assert_eq!(
            with(0, 1).unwrap_err().to_string(),
            "2 of 256 pixels differ, by 3 at most, the first at (5, 1): it is #010206 and should be #010203"
        );
        assert!(with(2, 0).is_err());
        assert_eq!(with(2, 1), Ok(()));
        assert_eq!(with(3, 0), Ok(()));
        assert_eq!(with(0, 2), Ok(()));
    }
}
