//! What would come nearest: two buffers, and a conversion between them.

use std::fmt;

use super::{Picture, Plan, Source, Taker, plan, prefer};

/// Up to so many takers, every split of them in two is tried: no more than 2048.
const ALL_SPLITS: usize = 12;

/// Who can read a picture in one layout and write it in another.
///
/// ```
/// use dmashare::negotiate::{Converter, Taker};
/// let cpu = Converter {
///     name: "the CPU".into(),
///     reads: Taker::cpu(),
///     writes: Taker::cpu(),
/// };
/// assert_eq!(cpu.reads, cpu.writes);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converter {
    /// Who it is, in words.
    pub name: String,
    /// What it can read: as a texture, say.
    pub reads: Taker,
    /// What it can write: as a render target, say.
    pub writes: Taker,
}

/// The way over two buffers, with a conversion between them.
///
/// It prints as such: `the camera -> YUYV linear -> the GPU converts -> XR24
/// linear -> the plane`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Nearest {
    /// Who converts.
    pub converter: String,
    /// Those that share the first buffer with its reading side.
    pub before: Vec<String>,
    /// The first buffer.
    pub first: Plan,
    /// The second buffer.
    pub second: Plan,
    /// Those that share the second buffer with its writing side.
    pub after: Vec<String>,
}

impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Who converts is named once, though it may be one of the takers.
        let names = |takers: &[String]| {
            let others = takers.iter().filter(|name| **name != self.converter);
            let others: Vec<&str> = others.map(String::as_str).collect();
            match others.is_empty() {
                true => takers.join(", "),
                false => others.join(", "),
            }
        };
        write!(
            f,
            "{} -> {} -> {} converts -> {} -> {}",
            names(&self.before),
            self.first.layout,
            self.converter,
            self.second.layout,
            names(&self.after)
        )
    }
}

/// The first converter that helps, and the split that keeps the best formats with
/// it, then the fewest bytes.
///
/// The first taker is always before the conversion: the order in which they
/// were given is the way that the picture goes.
pub(super) fn find(picture: &Picture, takers: &[&Taker], sources: &[Source]) -> Option<Nearest> {
    let splits = splits(takers);
    picture.converters.iter().find_map(|converter| {
        let ways = splits.iter().filter_map(|(before, after)| {
            let first = [&before[..], &[&converter.reads]].concat();
            let second = [&[&converter.writes], &after[..]].concat();
            let first = plan::make(picture, &first, sources)?;
            let second = plan::make(picture, &second, sources)?;
            let place = |plan: &Plan| prefer::of_format(picture, plan.layout.fourcc);
            let kept = place(&first).max(place(&second));
            let bytes = first
                .bytes
                .unwrap_or(0)
                .saturating_add(second.bytes.unwrap_or(0));
            Some(((kept, bytes), before, after, first, second))
        });
        let (_, before, after, first, second) = ways.min_by_key(|(key, ..)| *key)?;
        let names = |takers: &[&Taker]| takers.iter().map(|taker| taker.name.clone()).collect();
        Some(Nearest {
            converter: converter.name.clone(),
            before: names(before),
            first,
            second,
            after: names(after),
        })
    })
}

type Split<'t> = (Vec<&'t Taker>, Vec<&'t Taker>);

/// The ways to part them in two, those first that keep their order.
fn splits<'t>(takers: &[&'t Taker]) -> Vec<Split<'t>> {
    let in_order = (1..takers.len()).map(|at| (takers[..at].to_vec(), takers[at..].to_vec()));
    let mut splits: Vec<Split<'t>> = in_order.collect();
    if takers.len() > ALL_SPLITS {
        return splits;
    }
    // A bit for each after the first: whether it comes after the conversion.
    for bits in 1..1u32 << takers.len().saturating_sub(1) {
        let is_after = |index: usize| index > 0 && bits >> (index - 1) & 1 == 1;
        let of = |after: bool| {
            let indexed = takers.iter().enumerate();
            let chosen = indexed.filter(|(index, _)| is_after(*index) == after);
            chosen.map(|(_, taker)| *taker).collect()
        };
        splits.push((of(false), of(true)));
    }
    splits
}
