//! Which layout is better, where several suit all.

use super::{Layout, Memory, Picture, Taker};
use crate::frame::{Fourcc, INVALID, LINEAR};

/// The formats that this crate knows, best first: by what they keep of 8 bits of
/// red, green and blue, then by their bytes, then without alpha before with it.
const BEST_FIRST: &[&[u8; 4]] = &[
    // All of it.
    b"XR24", b"AR24", b"XB24", b"AB24", b"RX24", b"RA24", b"BX24", b"BA24", //
    b"RG24", b"BG24", //
    b"XR30", b"AR30", b"XB30", b"AB30", b"XR4H", b"AR4H", b"XB4H", b"AB4H", //
    // Colours of every pixel, of every second, of every fourth.
    b"YU24", b"YV24", b"NV24", b"NV42", //
    b"YUYV", b"YVYU", b"UYVY", b"VYUY", b"NV16", b"NV61", b"YU16", b"YV16", //
    b"NV12", b"NV21", b"YU12", b"YV12", b"P010", //
    // Fewer colours.
    b"RG16", b"BG16", b"XR15", b"AR15", //
    // One channel or two.
    b"R8  ", b"GR88", b"R16 ",
];

/// The most layouts that a line names.
const NAMED: usize = 4;

/// These formats, linear.
pub(super) fn known() -> impl Iterator<Item = Layout> {
    BEST_FIRST
        .iter()
        .map(|code| Layout::linear(Fourcc::new(**code)))
}

/// What orders layouts, the best first.
pub(super) type Rank = (usize, usize, Fourcc, u8, u64);

/// The place of `layout` in the order of preference that the module's
/// documentation has.
pub(super) fn rank(picture: &Picture, takers: &[&Taker], layout: Layout) -> Rank {
    let Layout { fourcc, modifier } = layout;
    let (wished, known) = of_format(picture, fourcc);
    let mapped = takers.iter().any(|taker| taker.memory == Memory::Any);
    (
        wished,
        known,
        fourcc,
        match modifier {
            INVALID => 2,
            LINEAR => u8::from(!mapped),
            _ => u8::from(mapped),
        },
        modifier,
    )
}

/// The place of a format alone, in the wishes and in [`BEST_FIRST`].
pub(super) fn of_format(picture: &Picture, fourcc: Fourcc) -> (usize, usize) {
    let wished = picture.preferred.iter();
    (
        place(wished, |wished| **wished == fourcc),
        place(BEST_FIRST.iter(), |code| Fourcc::new(***code) == fourcc),
    )
}

/// In words, why a layout is where it is.
pub(super) fn why(picture: &Picture, takers: &[&Taker], layout: Layout) -> &'static str {
    let (wished, known, ..) = rank(picture, takers, layout);
    match () {
        () if wished < picture.preferred.len() => "its format was asked for",
        () if known < place_of(b"XR30") => "it keeps 8 bits of each colour in the fewest bytes",
        () if known < place_of(b"YU24") => "it keeps more than 8 bits of each colour",
        () if known < place_of(b"RG16") => "it keeps the most colour of them",
        () if known < BEST_FIRST.len() => "it is the best of what is left",
        () => "its format is not known here, and no other is left",
    }
}

/// Some of these layouts, and how many there are beyond them.
pub(super) fn few(layouts: &[Layout]) -> String {
    let named = &layouts[..layouts.len().min(NAMED)];
    let words = match named {
        // Once is enough where all lie in the same way.
        [.., last] if named.iter().all(|one| one.modifier == last.modifier) => {
            let others = named[..named.len() - 1].iter();
            let others: String = others.map(|one| format!("{}, ", one.fourcc)).collect();
            format!("{others}{last}")
        }
        _ => {
            let named = named.iter().map(Layout::to_string);
            named.collect::<Vec<_>>().join(", ")
        }
    };
    match layouts.len() - named.len() {
        0 => words,
        more => format!("{words} and {more} more"),
    }
}

fn place_of(code: &[u8; 4]) -> usize {
    place(BEST_FIRST.iter(), |other| *other == &code)
}

/// The first for which it holds; beyond all of them where it holds for none.
fn place<I: ExactSizeIterator>(mut items: I, is_it: impl FnMut(&I::Item) -> bool) -> usize {
    let count = items.len();
    let mut is_it = is_it;
    items.position(|item| is_it(&item)).unwrap_or(count)
}

impl Taker {
    /// The CPU: it reads and writes every linear format that this crate knows
    /// ([`Fourcc::planes`]), in memory that can be mapped.
    ///
    /// ```
    /// use dmashare::frame::Fourcc;
    /// use dmashare::negotiate::{Layout, Taker};
    /// let layouts = Taker::cpu().layouts.unwrap();
    /// assert!(layouts.contains(&Layout::linear(Fourcc::new(*b"NV12"))));
    /// ```
    pub fn cpu() -> Taker {
        Taker {
            layouts: Some(known().collect()),
            ..Taker::new("the CPU")
        }
    }

    /// Its layouts in the order of preference that the
    /// [module](crate::negotiate#which-of-those-that-suit-all) has; `None` where
    /// all are the same to it.
    ///
    /// ```
    /// use dmashare::frame::Fourcc;
    /// use dmashare::negotiate::{Layout, Taker};
    /// let layouts = Taker::cpu().best_first().unwrap();
    /// assert_eq!(layouts[0], Layout::linear(Fourcc::XRGB8888));
    /// ```
    pub fn best_first(&self) -> Option<Vec<Layout>> {
        let mut layouts: Vec<Layout> = self.layouts.as_ref()?.iter().copied().collect();
        let any = Picture::new(1, 1);
        layouts.sort_by_cached_key(|layout| rank(&any, &[self], *layout));
        Some(layouts)
    }

    /// A process at the other end of a socket that hands the buffer on: all is
    /// the same to it. One that looks into it says what it takes
    /// ([`to_bytes`](Taker::to_bytes)).
    ///
    /// ```
    /// # use dmashare::negotiate::Taker;
    /// assert_eq!(Taker::peer().layouts, None);
    /// ```
    pub fn peer() -> Taker {
        Taker::new("a peer process")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ranked_is_known_and_comes_once() {
        let known: Vec<Layout> = known().collect();
        for (index, layout) in known.iter().enumerate() {
            assert!(layout.fourcc.planes().is_some(), "{layout}");
            assert!(!known[..index].contains(layout), "{layout}");
        }
    }

    #[test]
    fn the_order_is_that_of_the_documentation() {
        let tiled = |fourcc| Layout {
            fourcc,
            modifier: 0x0100_0000_0000_0001,
        };
        let implicit = |fourcc| Layout {
            fourcc,
            modifier: INVALID,
        };
        let device = Taker {
            memory: Memory::AnyDmaBuf,
            ..Taker::new("a device")
        };
        let (xr24, nv12) = (Fourcc::XRGB8888, Fourcc::new(*b"NV12"));
        let better = |takers: &[&Taker], picture: &Picture, one, other| {
            assert!(rank(picture, takers, one) < rank(picture, takers, other));
        };
        let any = Picture::new(8, 8);
        better(&[&device], &any, tiled(xr24), Layout::linear(xr24));
        better(&[&device], &any, Layout::linear(xr24), implicit(xr24));
        better(&[&device], &any, implicit(xr24), tiled(nv12));
        let cpu = Taker::cpu();
        better(&[&device, &cpu], &any, Layout::linear(xr24), tiled(xr24));
        let camera = any.prefer(nv12);
        better(&[&device], &camera, implicit(nv12), tiled(xr24));
    }
}
