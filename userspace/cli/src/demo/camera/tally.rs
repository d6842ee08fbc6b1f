//! Frames counted at a hop, and how long it took each.

use std::time::Duration;

use super::super::report::{Actor, Hop};

/// A hop of the frames' way, as the process that is at its end sees it.
#[derive(Debug)]
pub(super) struct Tally {
    process: Actor,
    hop: &'static str,
    frames: u32,
    dropped: u32,
    /// `None` where nothing is late.
    late: Option<u32>,
    total: Duration,
    longest: Duration,
}

impl Tally {
    pub(super) fn new(process: Actor, hop: &'static str) -> Tally {
        Tally {
            process,
            hop,
            frames: 0,
            dropped: 0,
            late: None,
            total: Duration::ZERO,
            longest: Duration::ZERO,
        }
    }

    /// One more frame, which took so long.
    pub(super) fn count(&mut self, took: Duration) {
        self.frames += 1;
        self.total += took;
        self.longest = self.longest.max(took);
    }

    /// So many frames that went no further.
    pub(super) fn drop(&mut self, frames: u32) {
        self.dropped += frames;
    }

    /// One that was counted, and came late or not.
    pub(super) fn lateness(&mut self, is_late: bool) {
        *self.late.get_or_insert(0) += u32::from(is_late);
    }

    pub(super) fn frames(&self) -> u32 {
        self.frames
    }

    /// What there is to tell.
    pub(super) fn hop(&self, copies: bool) -> Hop {
        let milliseconds = |time: Duration| time.as_micros() as f64 / 1e3;
        Hop {
            process: self.process,
            hop: self.hop.to_owned(),
            copies,
            frames: self.frames,
            dropped: self.dropped,
            late: self.late,
            mean_ms: milliseconds(self.total) / f64::from(self.frames.max(1)),
            longest_ms: milliseconds(self.longest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_of_the_frames_that_came() {
        let mut tally = Tally::new(Actor::B, "draw");
        assert_eq!(tally.hop(false).mean_ms, 0.0);
        for took in [10, 30, 20] {
            tally.count(Duration::from_millis(took));
        }
        tally.drop(2);
        tally.lateness(false);
        let hop = tally.hop(true);
        assert_eq!((hop.frames, hop.dropped, hop.late), (3, 2, Some(0)));
        assert_eq!((hop.mean_ms, hop.longest_ms), (20.0, 30.0));
    }
}
