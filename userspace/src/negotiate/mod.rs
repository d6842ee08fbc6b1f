//! What every taker of a buffer can take, and one way to allocate that suits all
//! of them.
//!
//! A taker is whoever gets a buffer in the end: a plane of a display, a GPU, a
//! camera, the CPU, a process at the other end of a socket. Each says what it
//! can take as a [`Taker`], plain data that a driver, a file or a peer can be
//! the source of. What can be allocated here is a list of [`Source`]s, plain
//! data too, which [`sources`] makes of a probe. [`negotiate()`] asks no device
//! and no kernel: it compares them, and gives a [`Plan`] that suits every taker,
//! or the [`Conflict`] of as few of them as cannot agree.
//!
//! ```
//! use std::collections::BTreeSet;
//! use dmashare::alloc::probe;
//! use dmashare::frame::Fourcc;
//! use dmashare::negotiate::{Layout, Picture, Taker, negotiate, sources};
//!
//! let mut plane = Taker::new("plane 31 of /dev/dri/card0 (bochs-drm)");
//! plane.layouts = Some(BTreeSet::from([Layout::linear(Fourcc::XRGB8888)]));
//! plane.stride_align = 64;
//!
//! let takers = [Taker::cpu(), plane];
//! let plan = negotiate(&Picture::new(1000, 480), &takers, &sources(&probe()))?;
//! assert_eq!(plan.layout, Layout::linear(Fourcc::XRGB8888));
//! println!("{plan}"); // with the reasons
//! let buffer = plan.allocate()?;
//! assert!(buffer.size() >= 4032 * 480);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Which of those that suit all
//!
//! The first by these, each of which decides where those before it do not:
//! 1. the formats that the [`Picture`] prefers, in its order;
//! 2. the formats by what they keep of 8 bits of red, green and blue, then by
//!    their bytes: RGB of 32 bits, of 24, deeper RGB, YUV from 4:4:4 to 4:2:0,
//!    RGB of fewer bits, one channel, and what this crate does not know;
//! 3. the modifiers: where only devices take it a tiled layout, which they are
//!    quicker with, then linear, then implicit; linear first where memory is
//!    mapped;
//! 4. the sources, in their order: [`sources`] has that of
//!    [`alloc::allocate`](crate::alloc::allocate).
//!
//! An implicit layout ([`INVALID`](crate::frame::INVALID)) means something to
//! one driver only: it is taken where every taker names it and takes only what
//! that driver's device allocated.
//!
//! # Bounds on alignments
//!
//! A taker can come from a peer, with any alignments that fit 32 bits. A plan in
//! plain memory therefore takes at most the larger of
//! - 4 times the bytes of the packed picture, and
//! - the bytes that the picture takes with strides of multiples of 4096 bytes,
//!   planes at multiples of 65536 bytes, and room for groups of 64 rows.
//!
//! Alignments that need more are a conflict ([`Over::Alignment`]). Where a driver
//! decides on strides, no taker's alignment reaches it.
//!
//! The order of the takers changes nothing of that. It is the way that the
//! picture goes, and says who hands over to whom.
//!
//! # Sources
//! - The kernel's documentation, "Exchanging pixel buffers"
//!   (userspace-api/dma-buf-alloc-exchange): formats, modifiers, strides, and
//!   what an implicit modifier is.
//! - drm_fourcc.h: the formats and their order of bytes.
//! - dma-buf.rst, "Implicit Fence Poll Support" and "DMA Fence uABI/Sync File".

mod accept;
mod conflict;
mod fit;
mod nearest;
mod picture;
mod plan;
mod prefer;
mod source;
mod taker;
mod wire;

pub use accept::{Backing, Refusal};
pub use conflict::{Conflict, Over};
pub use nearest::{Converter, Nearest};
pub use picture::Picture;
pub use plan::{HandOver, Plan, PlanError};
pub use source::{Origin, Source, sources};
pub use taker::{Layout, Memory, Reach, Sync, Taker};
pub use wire::{MAX_LAYOUTS, MAX_TEXT, TakerError};

/// A layout and a way to allocate it that suit every taker.
///
/// # Errors
/// A [`Conflict`], with the fewest takers that cannot agree, and over what.
///
/// ```
/// use std::collections::BTreeSet;
/// use dmashare::alloc::probe;
/// use dmashare::frame::Fourcc;
/// use dmashare::negotiate::{Layout, Over, Picture, Taker, negotiate, sources};
///
/// let only = |name: &str, fourcc| {
///     let mut taker = Taker::new(name);
///     taker.layouts = Some(BTreeSet::from([Layout::linear(fourcc)]));
///     taker
/// };
/// let camera = only("the camera", Fourcc::new(*b"YUYV"));
/// let plane = only("the plane", Fourcc::XRGB8888);
/// let takers = [camera, Taker::peer(), plane];
/// let conflict = negotiate(&Picture::new(640, 480), &takers, &sources(&probe())).unwrap_err();
/// assert_eq!(conflict.over, Over::Layout);
/// assert_eq!(conflict.takers.len(), 2); // the peer is not to blame
/// assert_eq!(
///     conflict.to_string(),
///     "the camera takes YUYV linear only; the plane takes XR24 linear only: they have no \
///      format in common; nearest: the camera -> YUYV linear -> the CPU converts -> XR24 \
///      linear -> a peer process, the plane"
/// );
/// ```
pub fn negotiate(
    picture: &Picture,
    takers: &[Taker],
    sources: &[Source],
) -> Result<Plan, Conflict> {
    let all: Vec<&Taker> = takers.iter().collect();
    plan::make(picture, &all, sources).ok_or_else(|| conflict::find(picture, &all, sources))
}
