//! What it likely was that ADDFB2 refused: it says EINVAL to all.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::ops::RangeInclusive;

use rustix::io::Errno;

use super::Card;
use crate::frame::{Frame, INVALID};
use crate::negotiate::Layout;

impl Card {
    /// What of a frame the driver refused, as far as the card tells.
    pub(super) fn suspect(&self, frame: &Frame, error: &io::Error) -> String {
        match Errno::from_io_error(error) {
            Some(Errno::NOTSUP | Errno::NOSYS) => return "this card has no screens".to_owned(),
            Some(Errno::INVAL | Errno::RANGE | Errno::NOENT) => {}
            _ => return "its layout need not be the reason".to_owned(),
        }
        let (Ok(planes), Ok(sizes)) = (self.planes(), self.sizes()) else {
            return UNKNOWN.to_owned();
        };
        let layouts = planes.iter().flat_map(|plane| &plane.layouts).copied();
        suspect(frame, &layouts.collect(), &sizes)
    }
}

const UNKNOWN: &str = "it is likely a stride or an offset: multiples of 64 suit most drivers";

/// What of a frame is not among the layouts that some plane takes, or the
/// widths and heights that the card does.
fn suspect(
    frame: &Frame,
    layouts: &BTreeSet<Layout>,
    [width, height]: &[RangeInclusive<u32>; 2],
) -> String {
    let fourccs: BTreeSet<_> = layouts.iter().map(|layout| layout.fourcc).collect();
    if !fourccs.contains(&frame.fourcc) {
        return format!("no plane takes {}, only {}", frame.fourcc, list(&fourccs));
    }
    let of_format = layouts
        .iter()
        .filter(|layout| layout.fourcc == frame.fourcc);
    let modifiers: Vec<u64> = of_format.map(|layout| layout.modifier).collect();
    if frame.modifier != INVALID && !modifiers.contains(&frame.modifier) {
        let codes = modifiers.iter().map(|code| format!("{code:#x}"));
        let codes = list(&codes.collect::<Vec<_>>());
        return format!("it takes {} with modifier {codes} only", frame.fourcc);
    }
    if !width.contains(&frame.width) || !height.contains(&frame.height) {
        return format!(
            "it takes widths of {} to {} pixels, and {} to {} rows",
            width.start(),
            width.end(),
            height.start(),
            height.end()
        );
    }
    UNKNOWN.to_owned()
}

fn list<'a>(items: impl IntoIterator<Item = &'a (impl fmt::Display + 'a)>) -> String {
    let items = items.into_iter().map(ToString::to_string);
    items.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Fourcc;

    #[test]
    fn the_suspect_is_what_the_card_does_not_list() {
        let layouts = BTreeSet::from([Layout::linear(Fourcc::XRGB8888)]);
        let sizes = [1..=4096, 1..=2048];
        let mut frame = Frame::packed(64, 32, Fourcc::XRGB8888).unwrap();
        assert_eq!(suspect(&frame, &layouts, &sizes), UNKNOWN);
        frame.height = 2049;
        assert!(suspect(&frame, &layouts, &sizes).contains("1 to 2048 rows"));
        frame.modifier = 7;
        assert!(suspect(&frame, &layouts, &sizes).contains("modifier 0x0 only"));
        frame.fourcc = Fourcc::new(*b"NV12");
        assert!(suspect(&frame, &layouts, &sizes).contains("takes NV12, only XR24"));
    }
}
