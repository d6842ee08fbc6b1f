//! Whether one layout in memory of one source suits all.

use std::collections::BTreeSet;

use super::{Layout, Memory, Over, Picture, Reach, Source, Taker, prefer};
use crate::frame::{Frame, INVALID, LINEAR, Plane};

/// A layout that suits all, from one source.
#[derive(Clone, Debug)]
pub(super) struct Fit {
    /// Where its rows lie, and the bytes they take with their room; none where
    /// the driver says that.
    pub(super) room: Option<(Frame, u64)>,
    /// Whether someone needs it in one piece.
    pub(super) contiguous: bool,
    /// How far the shortest arm reaches.
    pub(super) reach: Reach,
}

/// What several need together of strides, offsets and rows: the least common
/// multiple of each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Align {
    pub(super) stride: u64,
    pub(super) offset: u64,
    pub(super) rows: u64,
}

impl Align {
    pub(super) fn of(takers: &[&Taker]) -> Align {
        let of = |field: fn(&Taker) -> u32| {
            let fields = takers.iter().map(|taker| field(taker));
            fields.fold(1, |all, one| lcm(all, one.max(1)))
        };
        Align {
            stride: of(|taker| taker.stride_align),
            offset: of(|taker| taker.offset_align),
            rows: of(|taker| taker.rows_align),
        }
    }
}

/// The least common multiple. One beyond 64 bits counts as the largest number
/// there is: no stride, offset or number of rows but 0 is a multiple of either.
fn lcm(one: u64, other: u32) -> u64 {
    let other = u64::from(other);
    let (mut a, mut b) = (one, other);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    (one / a).saturating_mul(other)
}

/// All that the sources could give, each layout once.
pub(super) fn layouts(sources: &[Source]) -> BTreeSet<Layout> {
    let mut all = BTreeSet::new();
    for source in sources {
        match &source.layouts {
            Some(layouts) => all.extend(layouts),
            None => all.extend(prefer::known()),
        }
    }
    all
}

/// Whether the taker takes this layout, from whoever could make it.
pub(super) fn takes(taker: &Taker, layout: Layout) -> bool {
    match &taker.layouts {
        Some(layouts) => layouts.contains(&layout),
        None => layout.modifier != INVALID,
    }
}

/// Whether it takes only what the device of this source allocated.
fn is_own(taker: &Taker, source: &Source) -> bool {
    match &taker.memory {
        Memory::Own { node, .. } => source.origin.node() == Some(node),
        _ => false,
    }
}

/// This layout from this source, if it suits all.
///
/// # Errors
/// The first that is in the way, in the order of [`Over`].
pub(super) fn fit(
    picture: &Picture,
    takers: &[&Taker],
    layout: Layout,
    source: &Source,
) -> Result<Fit, Over> {
    let size = |taker: &&Taker| {
        taker.width.contains(&picture.width) && taker.height.contains(&picture.height)
    };
    let all = |holds: &dyn Fn(&Taker) -> bool, over: Over| match takers.iter().all(|t| holds(t)) {
        true => Ok(()),
        false => Err(over),
    };
    if picture.width == 0 || picture.height == 0 || !takers.iter().all(size) {
        return Err(Over::Size);
    }
    all(&|taker| takes(taker, layout), Over::Layout)?;
    let made = match &source.layouts {
        Some(layouts) => layouts.contains(&layout),
        None => layout.modifier == LINEAR && layout.fourcc.planes().is_some(),
    };
    if !made {
        return Err(Over::Unmade);
    }
    let memory = |taker: &Taker| match &taker.memory {
        Memory::Any => source.mappable && layout.modifier != INVALID,
        Memory::AnyDmaBuf => source.dma_buf && layout.modifier != INVALID,
        Memory::Own { .. } => is_own(taker, source),
    };
    all(&memory, Over::Memory)?;
    // A device takes what it made itself, however that lies.
    let mut others = takers.iter().filter(|taker| !is_own(taker, source));
    let contiguous = others.clone().any(|taker| taker.contiguous);
    if contiguous && !source.contiguous {
        return Err(Over::Contiguous);
    }
    let low = others.any(|taker| taker.reach == Reach::Below4G);
    if low && source.reach != Reach::Below4G {
        return Err(Over::Reach);
    }
    let room = match &source.layouts {
        Some(_) => None,
        None => {
            let mut align = Align::of(takers);
            align.stride = lcm(align.stride, source.stride_align.max(1));
            let (frame, bytes) = lay_out(picture, layout, align)?;
            if bytes > source.largest {
                return Err(Over::Bytes);
            }
            Some((frame, bytes))
        }
    };
    Ok(Fit {
        room,
        contiguous,
        reach: if low { Reach::Below4G } else { Reach::All },
    })
}

/// What every picture may be aligned to, however small it is: rows to pages,
/// planes to the 64 KiB pages of some GPUs, and rows in the tallest groups that
/// drivers are known to draw.
const ORDINARY: Align = Align {
    stride: 4096,
    offset: 65536,
    rows: 64,
};

/// How often the bytes of the packed picture may be taken for its alignments.
const TIMES: u64 = 4;

/// The most bytes that a picture may take, whatever is wanted of it: a taker can
/// be a peer's, and its numbers anything that fits 32 bits.
fn most(picture: &Picture, layout: Layout) -> u64 {
    const PACKED: Align = Align {
        stride: 1,
        offset: 1,
        rows: 1,
    };
    let bytes = |align| place(picture, layout, align).map_or(0, |(_, bytes)| bytes);
    let times = bytes(PACKED).saturating_mul(TIMES);
    times.max(bytes(ORDINARY))
}

/// A linear frame in one buffer, and its bytes, where these are not more than
/// [`most`].
fn lay_out(picture: &Picture, layout: Layout, align: Align) -> Result<(Frame, u64), Over> {
    let (frame, bytes) = place(picture, layout, align)?;
    match bytes <= most(picture, layout) {
        true => Ok((frame, bytes)),
        false => Err(Over::Alignment),
    }
}

/// A linear frame in one buffer, and its bytes, each plane with room for whole
/// groups of rows.
fn place(picture: &Picture, layout: Layout, align: Align) -> Result<(Frame, u64), Over> {
    let packed = Frame::packed(picture.width, picture.height, layout.fourcc);
    let mut frame = packed.map_err(|_| Over::Bytes)?;
    let mut end = 0u64;
    for plane in 0..frame.planes.len() {
        let rows = frame.rows(plane).map_err(|_| Over::Bytes)?;
        let stride = u64::from(rows.row).checked_next_multiple_of(align.stride);
        let stride = stride.and_then(|stride| u32::try_from(stride).ok());
        let stride = stride.ok_or(Over::Alignment)?;
        let offset = end.checked_next_multiple_of(align.offset);
        let offset = offset.and_then(|offset| u32::try_from(offset).ok());
        let offset = offset.ok_or(Over::Alignment)?;
        let room = u64::from(rows.count).checked_next_multiple_of(align.rows);
        end = room
            .and_then(|rows| rows.checked_mul(stride.into()))
            .and_then(|bytes| bytes.checked_add(offset.into()))
            .ok_or(Over::Alignment)?;
        frame.planes[plane] = Plane {
            buffer: 0,
            offset,
            stride,
        };
    }
    Ok((frame, end))
}

#[cfg(test)]
mod tests {
    use super::lcm;

    #[test]
    fn multiples_of_both() {
        assert_eq!(lcm(1, 1), 1);
        assert_eq!(lcm(64, 48), 192);
        assert_eq!(lcm(7, 3), 21);
        let large = lcm(lcm(u32::MAX.into(), u32::MAX - 1), u32::MAX - 2);
        assert!(large > u64::from(u32::MAX) << 31);
        assert_eq!(lcm(large, u32::MAX - 4), u64::MAX);
        assert!(lcm(u64::MAX, 2) > u64::MAX / 2);
    }
}
