//! What is told to the person who waits: one line before a long step, then a
//! bar on a terminal or a plain line every few seconds in a log.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::plain;

/// In a log, a line this often: enough to see that it moves, too few to bury
/// what else is there.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// One step that takes long. Dropped, its bar goes away.
pub(crate) struct Progress {
    label: String,
    unit: Unit,
    bar: Option<ProgressBar>,
    said: Instant,
}

/// What a step is counted in.
enum Unit {
    Bytes(Option<u64>),
    Percent,
    Nothing,
}

impl Progress {
    /// A step that moves `total` bytes, or a number not known beforehand.
    pub(crate) fn bytes(label: &str, total: Option<u64>) -> Self {
        Self::new(label, Unit::Bytes(total))
    }

    /// A step counted in hundredths.
    pub(crate) fn percent(label: &str) -> Self {
        Self::new(label, Unit::Percent)
    }

    /// A step of which only the end is known.
    pub(crate) fn spinner(label: &str) -> Self {
        Self::new(label, Unit::Nothing)
    }

    fn new(label: &str, unit: Unit) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let (bar, template) = match unit {
                Unit::Bytes(Some(total)) => (
                    ProgressBar::new(total),
                    "  {bar:30} {bytes} of {total_bytes}, {eta} left  {msg}",
                ),
                Unit::Bytes(None) => (ProgressBar::new_spinner(), "  {spinner} {msg} {bytes}"),
                Unit::Percent => (ProgressBar::new(100), "  {bar:30} {percent} %  {msg}"),
                Unit::Nothing => (ProgressBar::new_spinner(), "  {spinner} {msg} {elapsed}"),
            };
            bar.enable_steady_tick(Duration::from_millis(200));
            // The templates are the fixed texts above; were one wrong, the
            // crate's own style would still do.
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.with_message(label.to_owned())
        });
        Self {
            label: label.to_owned(),
            unit,
            bar,
            said: Instant::now(),
        }
    }

    /// `done` of the total is done; of no meaning to a spinner.
    pub(crate) fn set(&mut self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        } else if self.said.elapsed() >= PLAIN_EVERY {
            self.said = Instant::now();
            let label = &self.label;
            match self.unit {
                Unit::Bytes(Some(total)) => {
                    eprintln!("  {label}: {} of {}", size(done), size(total));
                }
                Unit::Bytes(None) => eprintln!("  {label}: {}", size(done)),
                Unit::Percent => eprintln!("  {label}: {done} %"),
                Unit::Nothing => eprintln!("  {label} ..."),
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// One line to the person.
pub(crate) fn note(line: &str) {
    eprintln!("{}", plain::text(line));
}

/// A number of bytes as people read it, in decimal units: `118.3 MB`.
pub(crate) fn size(bytes: u64) -> String {
    // Tenths of the unit, in whole numbers: no rounding to argue about.
    let tenths = |unit: u64| {
        let tenths = (u128::from(bytes) * 10 + u128::from(unit) / 2) / u128::from(unit);
        format!("{}.{}", tenths / 10, tenths % 10)
    };
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{} kB", tenths(1_000)),
        1_000_000..1_000_000_000 => format!("{} MB", tenths(1_000_000)),
        _ => format!("{} GB", tenths(1_000_000_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_read_like_apt_s() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1_500), "1.5 kB");
        assert_eq!(size(118_349_000), "118.3 MB");
        assert_eq!(size(2_000_000_000), "2.0 GB");
        assert_eq!(size(u64::MAX), "18446744073.7 GB");
    }
}
