//! What a way to allocate can give.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use super::{Layout, Reach};
use crate::alloc::{Offer, Probe, Way};

/// What rows of a dumb buffer start at a multiple of: its driver picks the
/// stride, and none that is known here changes one that is a multiple of this.
const DUMB_STRIDE: u32 = 256;

/// Where memory comes from.
///
/// ```
/// use dmashare::alloc::Way;
/// use dmashare::negotiate::Origin;
/// assert_eq!(Origin::Way(Way::Udmabuf).to_string(), "udmabuf");
/// assert_eq!(Origin::Dumb("/dev/dri/card0".into()).to_string(), "dumb of /dev/dri/card0");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// A way of [`alloc`](crate::alloc) that is no device's own.
    Way(Way),
    /// Dumb buffers of this card.
    Dumb(PathBuf),
    /// What GBM allocates on this node, with a layout of its driver's choice.
    Gbm(PathBuf),
}

impl Origin {
    /// The device whose own memory it is.
    ///
    /// ```
    /// # use dmashare::alloc::Way;
    /// # use dmashare::negotiate::Origin;
    /// assert_eq!(Origin::Way(Way::Udmabuf).node(), None);
    /// ```
    pub fn node(&self) -> Option<&Path> {
        match self {
            Origin::Way(_) => None,
            Origin::Dumb(node) | Origin::Gbm(node) => Some(node),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Way(way) => write!(f, "{way}"),
            Origin::Dumb(node) => write!(f, "dumb of {}", node.display()),
            Origin::Gbm(node) => write!(f, "GBM of {}", node.display()),
        }
    }
}

/// What a way to allocate can give.
///
/// ```
/// use dmashare::alloc::Way;
/// use dmashare::negotiate::{Origin, Source};
/// let mut heap = Source::new(Origin::Way(Way::DmaHeap));
/// heap.contiguous = true; // it has one over CMA
/// assert!(heap.dma_buf && heap.layouts.is_none());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Source {
    /// Where it comes from.
    pub origin: Origin,
    /// The layouts that its driver makes, in its own strides; `None` for plain
    /// memory, which takes every linear layout that this crate knows
    /// ([`Fourcc::planes`](crate::frame::Fourcc::planes)).
    pub layouts: Option<BTreeSet<Layout>>,
    /// Whether it gives dma-bufs.
    pub dma_buf: bool,
    /// Whether the CPU can map what it gives.
    pub mappable: bool,
    /// Whether it can give one piece of the machine's memory.
    pub contiguous: bool,
    /// The narrowest that it can keep to.
    pub reach: Reach,
    /// What it wants every stride to be a multiple of, in bytes; 1 for any.
    pub stride_align: u32,
    /// The most that a buffer can have, in bytes.
    pub largest: u64,
}

impl Source {
    /// One without any limit but those of its kind: a dma-buf but for memory of
    /// CPUs, scattered, at any address, to be mapped. GBM makes no layout yet.
    ///
    /// ```
    /// # use dmashare::alloc::Way;
    /// # use dmashare::negotiate::{Origin, Source};
    /// assert!(!Source::new(Origin::Way(Way::Memfd)).dma_buf);
    /// let dumb = Source::new(Origin::Dumb("/dev/dri/card0".into()));
    /// assert_eq!(dumb.stride_align, 256);
    /// ```
    pub fn new(origin: Origin) -> Source {
        let is_gbm = matches!(origin, Origin::Gbm(_));
        Source {
            layouts: is_gbm.then(BTreeSet::new),
            dma_buf: match &origin {
                Origin::Way(way) => way.for_devices(),
                _ => true,
            },
            mappable: true,
            contiguous: false,
            reach: Reach::All,
            stride_align: match origin {
                Origin::Dumb(_) => DUMB_STRIDE,
                _ => 1,
            },
            largest: u64::MAX,
            origin,
        }
    }

    fn offered(origin: Origin, offer: &Offer) -> Source {
        Source {
            contiguous: offer.contiguous,
            reach: match offer.below_4g {
                true => Reach::Below4G,
                false => Reach::All,
            },
            largest: offer.largest.bytes,
            ..Source::new(origin)
        }
    }
}

/// What the ways that work here can give, in the order in which
/// [`alloc::allocate`](crate::alloc::allocate) asks them, and the dumb buffers of
/// each card.
///
/// As there, [`Posix`](crate::alloc::Posix) and [`SysV`](crate::alloc::SysV) are
/// left out. What GBM makes is not in a probe: add it.
///
/// ```
/// use dmashare::alloc::{Way, probe};
/// use dmashare::negotiate::{Origin, sources};
/// let sources = sources(&probe());
/// assert_eq!(sources[0].origin, Origin::Way(Way::Memfd));
/// ```
pub fn sources(probe: &Probe) -> Vec<Source> {
    let mut sources = Vec::new();
    for row in probe.rows() {
        let Ok(offer) = &row.verdict else { continue };
        match row.way {
            Way::Posix | Way::SysV => {}
            Way::Dumb => {
                let cards = offer.cards.iter().cloned().map(Origin::Dumb);
                sources.extend(cards.map(|card| Source::offered(card, offer)));
            }
            way => sources.push(Source::offered(Origin::Way(way), offer)),
        }
    }
    sources
}
