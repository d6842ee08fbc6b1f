//! Whether two pictures are the same, and where they are not.

use std::fmt;

use image::RgbImage;

/// How a picture differs from what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// It has another size.
    Size {
        /// Its width and height in pixels.
        got: (u32, u32),
        /// What they should be.
        expected: (u32, u32),
    },
    /// Pixels of it have other colours.
    Pixels {
        /// How many.
        count: u64,
        /// Of how many.
        of: u64,
        /// The first of them, row by row from the top.
        first: (u32, u32),
        /// The colour it has: red, green, blue.
        got: [u8; 3],
        /// The colour it should have.
        expected: [u8; 3],
    },
}

/// Compares two pictures, pixel by pixel and to the bit.
///
/// # Errors
/// The [`Difference`], where there is one.
///
/// ```
/// use dmashare_cli::demo::compare::{Difference, compare};
/// use image::{Rgb, RgbImage};
/// let black = RgbImage::new(2, 2);
/// assert_eq!(compare(&black, &black), Ok(()));
/// let mut spoilt = black.clone();
/// spoilt[(1, 0)] = Rgb([1, 2, 3]);
/// let difference = compare(&spoilt, &black).unwrap_err();
/// assert!(difference.to_string().contains("1 of 4 pixels differ, the first at (1, 0)"));
/// ```
pub fn compare(got: &RgbImage, expected: &RgbImage) -> Result<(), Difference> {
    if got.dimensions() != expected.dimensions() {
        return Err(Difference::Size {
            got: got.dimensions(),
            expected: expected.dimensions(),
        });
    }
    let (width, height) = got.dimensions();
    let pairs = got.enumerate_pixels().zip(expected.pixels());
    let mut differing = pairs.filter(|((_, _, got), expected)| got != expected);
    let Some(((x, y, got), expected)) = differing.next() else {
        return Ok(());
    };
    Err(Difference::Pixels {
        first: (x, y),
        got: got.0,
        expected: expected.0,
        count: 1 + differing.count() as u64,
        of: u64::from(width) * u64::from(height),
    })
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Size { got, expected } => write!(
                f,
                "it has {}x{} pixels, and should have {}x{}",
                got.0, got.1, expected.0, expected.1
            ),
            Difference::Pixels {
                count,
                of,
                first: (x, y),
                got,
                expected,
            } => write!(
                f,
                "{count} of {of} pixels differ, the first at ({x}, {y}): \
                 it is {} and should be {}",
                Hex(*got),
                Hex(*expected)
            ),
        }
    }
}

impl std::error::Error for Difference {}

/// A colour as it is written on the web.
struct Hex([u8; 3]);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [r, g, b] = self.0;
        write!(f, "#{r:02x}{g:02x}{b:02x}")
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn another_size_is_told_as_such() {
        let difference = compare(&RgbImage::new(2, 3), &RgbImage::new(3, 2)).unwrap_err();
        assert_eq!(
            difference.to_string(),
            "it has 2x3 pixels, and should have 3x2"
        );
    }

    #[test]
    fn every_wrong_pixel_counts() {
        let right = RgbImage::from_pixel(16, 16, Rgb([1, 2, 3]));
        let wrong = RgbImage::from_pixel(16, 16, Rgb([1, 2, 4]));
        assert_eq!(
            compare(&wrong, &right).unwrap_err().to_string(),
            "256 of 256 pixels differ, the first at (0, 0): it is #010204 and should be #010203"
        );
    }
}
