//! The camera's test pattern, as it is to be seen.
//!
//! vivid, the kernel's virtual camera, paints eight bars from left to right
//! (v4l2-tpg-colors.c in the kernel). These are its colours in RGB; on the way
//! they were YUV, which rounds them, so that a few values are lost.

use std::fmt;

use image::{Rgb, RgbImage};

/// How far a channel may be from what it should: YUV of 8 bits does not have
/// every colour.
pub const TOLERANCE: u8 = 5;

/// A picture of eight bars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pattern {
    /// In colours of three quarters.
    ThreeQuarters,
    /// In full colours.
    Full,
}

impl Pattern {
    /// All that the demo has the camera show, in this order.
    pub const ALL: [Pattern; 2] = [Pattern::ThreeQuarters, Pattern::Full];

    /// The number of a pattern, as vivid's control "Test Pattern" counts them.
    ///
    /// ```
    /// use dmashare_cli::demo::camera::bars::Pattern;
    /// assert_eq!(Pattern::from_number(1), Some(Pattern::Full));
    /// assert_eq!(Pattern::from_number(7), None);
    /// ```
    pub fn from_number(number: u32) -> Option<Pattern> {
        let mut all = Pattern::ALL.into_iter();
        all.find(|pattern| pattern.number() == number)
    }

    /// Its number.
    pub fn number(self) -> u32 {
        match self {
            Pattern::ThreeQuarters => 0,
            Pattern::Full => 1,
        }
    }

    /// The picture in this size, whose width is a multiple of 8.
    ///
    /// ```
    /// use dmashare_cli::demo::camera::bars::Pattern;
    /// use image::Rgb;
    /// let bars = Pattern::Full.picture(640, 360);
    /// assert_eq!(bars[(0, 0)], Rgb([255, 255, 255]));
    /// assert_eq!(bars[(80, 359)], Rgb([255, 255, 0]));
    /// ```
    pub fn picture(self, width: u32, height: u32) -> RgbImage {
        let high = match self {
            Pattern::ThreeQuarters => 191,
            Pattern::Full => 255,
        };
        RgbImage::from_fn(width, height, |x, _| {
            // White, yellow, cyan, green, magenta, red, blue, black.
            let bar = (u64::from(x) * 8 / u64::from(width)).min(7);
            let has = |bit: u64| if bar & bit == 0 { high } else { 0 };
            Rgb([has(2), has(4), has(1)])
        })
    }
}

/// How a picture differs from what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Off {
    /// How many pixels.
    count: usize,
    /// Of how many.
    of: usize,
    /// The first of them.
    first: (u32, u32),
    got: [u8; 3],
    expected: [u8; 3],
}

impl fmt::Display for Off {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Off {
            count,
            first: (x, y),
            got,
            expected,
            ..
        } = self;
        write!(
            f,
            "{count} of {} pixels are off by more than {TOLERANCE}, the first at ({x}, {y}): it \
             is {got:?} and should be {expected:?}",
            self.of
        )
    }
}

impl std::error::Error for Off {}

/// Whether no channel of any pixel is further off than [`TOLERANCE`].
///
/// # Errors
/// How many pixels are, and where the first of them is.
///
/// ```
/// use dmashare_cli::demo::camera::bars::{Pattern, compare};
/// let bars = Pattern::Full.picture(16, 2);
/// assert!(compare(&bars, &bars).is_ok());
/// let off = compare(&Pattern::ThreeQuarters.picture(16, 2), &bars).unwrap_err();
/// assert!(off.to_string().starts_with("28 of 32 pixels are off")); // black is black
/// ```
pub fn compare(got: &RgbImage, expected: &RgbImage) -> Result<(), Off> {
    let is_off = |got: &Rgb<u8>, expected: &Rgb<u8>| {
        let mut channels = got.0.iter().zip(&expected.0);
        channels.any(|(got, expected)| got.abs_diff(*expected) > TOLERANCE)
    };
    if got.dimensions() != expected.dimensions() {
        return Err(Off {
            count: expected.pixels().len(),
            of: expected.pixels().len(),
            first: (0, 0),
            got: [0; 3],
            expected: [0; 3],
        });
    }
    let of = expected.pixels().len();
    let pairs = got.enumerate_pixels().zip(expected.pixels());
    let mut off = pairs.filter(|((_, _, got), expected)| is_off(got, expected));
    match off.next() {
        None => Ok(()),
        Some(((x, y, got), expected)) => Err(Off {
            first: (x, y),
            got: got.0,
            expected: expected.0,
            count: 1 + off.count(),
            of,
        }),
    }
}
