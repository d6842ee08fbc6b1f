//! The sizes that a queue has frames in.

use std::ops::RangeInclusive;

/// The sizes that a format comes in, in pixels and rows.
///
/// ```
/// use dmashare::import::v4l2::Sizes;
/// let camera = Sizes::Discrete(vec![(320, 180), (640, 360)]);
/// assert!(camera.has(640, 360));
/// assert!(!camera.has(640, 180));
///
/// let scaler = Sizes::Stepwise { width: 2..=4096, height: 1..=2160, step: (2, 1) };
/// assert!(scaler.has(640, 361));
/// assert!(!scaler.has(641, 360));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sizes {
    /// These, each a width and a height.
    Discrete(Vec<(u32, u32)>),
    /// All in these ranges that are so many steps from their start.
    Stepwise {
        /// The widths.
        width: RangeInclusive<u32>,
        /// The heights.
        height: RangeInclusive<u32>,
        /// The steps of width and height.
        step: (u32, u32),
    },
    /// The driver does not list them: ask by
    /// [`Queue::try_format`](super::Queue::try_format).
    Unknown,
}

impl Sizes {
    /// Whether this size is one of them; [`Unknown`](Self::Unknown) has all.
    ///
    /// ```
    /// # use dmashare::import::v4l2::Sizes;
    /// assert!(Sizes::Unknown.has(7, 7));
    /// ```
    pub fn has(&self, width: u32, height: u32) -> bool {
        match self {
            Sizes::Discrete(sizes) => sizes.contains(&(width, height)),
            Sizes::Stepwise {
                width: widths,
                height: heights,
                step,
            } => is_step(widths, step.0, width) && is_step(heights, step.1, height),
            Sizes::Unknown => true,
        }
    }

    /// The widths and heights between the least and the largest.
    ///
    /// ```
    /// # use dmashare::import::v4l2::Sizes;
    /// let sizes = Sizes::Discrete(vec![(640, 360), (320, 180)]);
    /// assert_eq!(sizes.bounds(), (320..=640, 180..=360));
    /// ```
    pub fn bounds(&self) -> (RangeInclusive<u32>, RangeInclusive<u32>) {
        let all = || 1..=u32::MAX;
        match self {
            Sizes::Discrete(sizes) => {
                let range = |of: fn(&(u32, u32)) -> u32| {
                    let least = sizes.iter().map(of).min();
                    let largest = sizes.iter().map(of).max();
                    least
                        .zip(largest)
                        .map_or(all(), |(least, largest)| least..=largest)
                };
                (range(|size| size.0), range(|size| size.1))
            }
            Sizes::Stepwise { width, height, .. } => (width.clone(), height.clone()),
            Sizes::Unknown => (all(), all()),
        }
    }
}

fn is_step(range: &RangeInclusive<u32>, step: u32, value: u32) -> bool {
    range.contains(&value) && (value - range.start()).is_multiple_of(step.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Continuous sizes come with steps of 1, and a driver may leave them 0.
    #[test]
    fn a_step_of_nothing_is_one() {
        let sizes = Sizes::Stepwise {
            width: 16..=64,
            height: 16..=64,
            step: (0, 16),
        };
        assert!(sizes.has(17, 32));
        assert!(!sizes.has(17, 33));
        assert!(!sizes.has(15, 32));
        assert!(!sizes.has(65, 32));
    }
}
