//! Who cannot agree, and over what.

use std::collections::BTreeSet;
use std::fmt;

use super::fit::{self, fit};
use super::prefer::few;
use super::{Layout, Memory, Nearest, Picture, Reach, Source, Taker, nearest};

/// Up to so many takers, every set of them is tried. There are no more than 4096
/// sets then, whoever sent the takers.
const ALL_SETS: usize = 12;

/// What is in the way, in the order in which it is looked at. A conflict is over
/// the last of these that was come to.
///
/// ```
/// use dmashare::negotiate::Over;
/// assert!(Over::Layout < Over::Contiguous);
/// assert_eq!(Over::Reach.to_string(), "memory below 4 GiB");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Over {
    /// The picture is empty, or one of them takes no picture of this size.
    Size,
    /// No format and modifier is one that all take.
    Layout,
    /// There is one, but no source makes it.
    Unmade,
    /// No source has the memory that they take.
    Memory,
    /// None of these gives memory in one piece.
    Contiguous,
    /// None of these keeps to memory below 4 GiB.
    Reach,
    /// A stride, an offset or a number of rows that is a multiple of what each
    /// wants does not fit 32 bits, or takes more memory than
    /// [`negotiate`](super::negotiate()) plans for such a picture.
    Alignment,
    /// The picture is larger than a buffer can be.
    Bytes,
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Over::Size => "the size of the picture",
            Over::Layout => "format and modifier",
            Over::Unmade => "a layout that nothing here makes",
            Over::Memory => "whose memory it is",
            Over::Contiguous => "memory in one piece",
            Over::Reach => "memory below 4 GiB",
            Over::Alignment => "the alignment of strides and planes",
            Over::Bytes => "the size of the buffer",
        })
    }
}

impl Over {
    /// Why a source is passed over for takers that another one suits.
    pub(super) fn of_source(self, takers: &[&Taker]) -> &'static str {
        let own = |taker: &&Taker| matches!(taker.memory, Memory::Own { .. });
        match self {
            Over::Memory if takers.iter().any(own) => "a taker takes its own memory only",
            Over::Memory => "it gives no dma-buf, or none to map",
            Over::Contiguous => "it does not give memory in one piece",
            Over::Reach => "it does not keep to memory below 4 GiB",
            Over::Alignment => "its strides cannot be made to suit all",
            Over::Bytes => "it gives no buffer so large",
            Over::Size | Over::Layout | Over::Unmade => "it does not make this layout",
        }
    }
}

/// The fewest takers that cannot agree, and what would come nearest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct Conflict {
    /// Over what.
    pub over: Over,
    /// The takers that cannot agree: without any one of them, the others can.
    /// Of more than 12 takers there may be a smaller such set. It is empty where
    /// nothing at all can be allocated.
    pub takers: Vec<Taker>,
    /// What each of them takes, and what is in the way, in words.
    pub why: String,
    /// How it could be done with one conversion.
    pub nearest: Option<Box<Nearest>>,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        match &self.nearest {
            Some(nearest) => write!(f, "; nearest: {nearest}"),
            None => Ok(()),
        }
    }
}

/// The conflict of these takers, which have one.
pub(super) fn find(picture: &Picture, takers: &[&Taker], sources: &[Source]) -> Conflict {
    let layouts = fit::layouts(sources);
    let agree = |some: &[&Taker]| {
        layouts.iter().any(|layout| {
            let mut sources = sources.iter();
            sources.any(|source| fit(picture, some, *layout, source).is_ok())
        })
    };
    // In an order that is theirs, not that in which they came.
    let mut sorted = takers.to_vec();
    sorted.sort_by_cached_key(|taker| (taker.name.clone(), format!("{taker:?}")));
    let few = smallest(&sorted, &agree);
    let over = over(picture, &few, sources);
    Conflict {
        over,
        why: why(picture, &few, sources, over),
        nearest: match few.len() {
            // No conversion gives one taker what nothing here gives it.
            0 | 1 => None,
            _ => nearest::find(picture, takers, sources).map(Box::new),
        },
        takers: few.into_iter().cloned().collect(),
    }
}

/// As few as possible that do not agree.
fn smallest<'t>(takers: &[&'t Taker], agree: &dyn Fn(&[&Taker]) -> bool) -> Vec<&'t Taker> {
    let exact = match takers.len() {
        ..=ALL_SETS => takers.len(),
        _ => 2,
    };
    let found = (0..=exact).find_map(|size| disagreeing(takers, size, &mut Vec::new(), agree));
    found.unwrap_or_else(|| {
        // Whoever is not needed for it goes: who disagrees without one taker
        // disagrees with it as well.
        let mut left = takers.to_vec();
        let mut at = 0;
        while at < left.len() {
            let taker = left.remove(at);
            if agree(&left) {
                left.insert(at, taker);
                at += 1;
            }
        }
        left
    })
}

/// The first set of `size` takers, with those in `chosen`, that does not agree.
fn disagreeing<'t>(
    takers: &[&'t Taker],
    size: usize,
    chosen: &mut Vec<&'t Taker>,
    agree: &dyn Fn(&[&Taker]) -> bool,
) -> Option<Vec<&'t Taker>> {
    if size == 0 {
        return (!agree(chosen)).then(|| chosen.clone());
    }
    for (at, taker) in takers.iter().enumerate() {
        chosen.push(taker);
        let found = disagreeing(&takers[at + 1..], size - 1, chosen, agree);
        chosen.pop();
        if found.is_some() {
            return found;
        }
    }
    None
}

/// What these takers all take; `None` where all is the same to each.
fn common(takers: &[&Taker]) -> Option<BTreeSet<Layout>> {
    let mut named = takers.iter().filter_map(|taker| taker.layouts.as_ref());
    let first = named.next()?.clone();
    Some(named.fold(first, |all, one| &all & one))
}

/// The furthest that any layout from any source came.
fn over(picture: &Picture, takers: &[&Taker], sources: &[Source]) -> Over {
    let mut layouts = fit::layouts(sources);
    // What nothing makes can still be what all take.
    layouts.extend(common(takers).unwrap_or_default());
    let pairs = layouts
        .iter()
        .flat_map(|layout| sources.iter().map(move |source| (*layout, source)));
    let tried = pairs.filter_map(|(layout, source)| fit(picture, takers, layout, source).err());
    tried.max().unwrap_or(Over::Unmade)
}

fn why(picture: &Picture, takers: &[&Taker], sources: &[Source], over: Over) -> String {
    let (width, height) = (picture.width, picture.height);
    let each = |words: &dyn Fn(&Taker) -> Option<String>| {
        let said = takers
            .iter()
            .filter_map(|taker| Some(format!("{} takes {}", taker.name, words(taker)?)));
        said.collect::<Vec<_>>().join("; ")
    };
    let said = |lead: String, rest: &str| match lead.is_empty() {
        true => rest.to_owned(),
        false => format!("{lead}: {rest}"),
    };
    match over {
        Over::Size => {
            let ranges = each(&|taker| {
                Some(format!(
                    "widths from {} to {} and heights from {} to {}",
                    taker.width.start(),
                    taker.width.end(),
                    taker.height.start(),
                    taker.height.end()
                ))
            });
            said(ranges, &format!("a picture of {width}x{height} cannot be"))
        }
        Over::Layout => {
            let named = each(&|taker| {
                let layouts = taker.best_first()?;
                Some(match layouts.is_empty() {
                    true => "nothing".to_owned(),
                    false => format!("{} only", few(&layouts)),
                })
            });
            said(named, differ(takers))
        }
        Over::Unmade => {
            let common: Vec<Layout> = common(takers).into_iter().flatten().collect();
            let origins = sources.iter().map(|source| source.origin.to_string());
            match sources.is_empty() {
                true => "there is no way to allocate here; `dmashare probe` tells why".to_owned(),
                false => format!(
                    "{} is all that is left, and none of {} makes that",
                    few(&common),
                    origins.collect::<Vec<_>>().join(", ")
                ),
            }
        }
        Over::Memory => said(
            each(&|taker| Some(format!("{} only", taker.memory))),
            match sources.iter().any(|source| source.dma_buf) {
                true => "nothing here gives that",
                false => "nothing here does; `dmashare probe` tells what would help",
            },
        ),
        Over::Contiguous => said(
            each(&|taker| memory(taker, taker.contiguous, "in one piece")),
            "nothing here gives that; a dma_heap over CMA would, or our module",
        ),
        Over::Reach => said(
            each(&|taker| memory(taker, taker.reach == Reach::Below4G, "below 4 GiB")),
            "nothing here gives that; our module would",
        ),
        Over::Alignment => said(
            each(&|taker| {
                Some(format!(
                    "strides at multiples of {}, planes at multiples of {}, rows in groups of {}",
                    taker.stride_align, taker.offset_align, taker.rows_align
                ))
            }),
            &format!(
                "a picture of {width}x{height} so aligned does not fit 32 bits, or takes more \
                 than 4 times the bytes of its pixels; ask for smaller alignments"
            ),
        ),
        Over::Bytes => {
            let largest = sources.iter().map(|source| source.largest).max();
            let limits = format!(
                "a picture of {width}x{height} is too large: rows have at most 4 GiB, and a \
                 buffer at most {} bytes here",
                largest.unwrap_or(0)
            );
            said(each(&|taker| memory(taker, false, "")), &limits)
        }
    }
}

/// The memory that a taker wants, where it matters.
fn memory(taker: &Taker, wants: bool, how: &str) -> Option<String> {
    match (&taker.memory, wants) {
        (Memory::Any, false) => None,
        (Memory::Any, true) => Some(format!("memory {how} only")),
        (memory, false) => Some(format!("{memory} only")),
        (memory, true) => Some(format!("{memory} {how} only")),
    }
}

/// In which way the layouts of these differ.
fn differ(takers: &[&Taker]) -> &'static str {
    let formats = takers.iter().filter_map(|taker| {
        let layouts = taker.layouts.as_ref()?.iter();
        Some(layouts.map(|layout| layout.fourcc).collect::<BTreeSet<_>>())
    });
    let common = formats.reduce(|all, one| &all & &one);
    match (takers.len(), common.is_some_and(|common| common.is_empty())) {
        (..=1, _) => "that is nothing that could be shared",
        (_, true) => "they have no format in common",
        (_, false) => "they have formats in common, but no modifier of one",
    }
}
