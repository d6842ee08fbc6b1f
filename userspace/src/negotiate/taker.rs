//! What one taker can take.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;

use crate::frame::{Fourcc, INVALID, LINEAR};

/// A format, and how its pixels lie in memory.
///
/// ```
/// use dmashare::frame::Fourcc;
/// use dmashare::negotiate::Layout;
/// assert_eq!(Layout::linear(Fourcc::XRGB8888).to_string(), "XR24 linear");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Layout {
    /// The pixel format.
    pub fourcc: Fourcc,
    /// The modifier of `drm_fourcc.h`. [`INVALID`](crate::frame::INVALID) stands
    /// for a layout that only the driver that made the buffer knows.
    pub modifier: u64,
}

impl Layout {
    /// This format with its rows one after the other.
    ///
    /// ```
    /// # use dmashare::frame::{Fourcc, LINEAR};
    /// # use dmashare::negotiate::Layout;
    /// assert_eq!(Layout::linear(Fourcc::ARGB8888).modifier, LINEAR);
    /// ```
    pub const fn linear(fourcc: Fourcc) -> Layout {
        Layout {
            fourcc,
            modifier: LINEAR,
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.modifier {
            LINEAR => write!(f, "{} linear", self.fourcc),
            INVALID => write!(f, "{} implicit", self.fourcc),
            other => write!(f, "{} modifier {other:#x}", self.fourcc),
        }
    }
}

/// Where a taker can reach memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Reach {
    /// All of it, or an IOMMU brings it there.
    #[default]
    All,
    /// Physical addresses below 4 GiB.
    Below4G,
}

/// Whose memory a taker takes.
///
/// ```
/// use dmashare::negotiate::Memory;
/// let own = Memory::Own {
///     node: "/dev/dri/card2".into(),
///     why: "PRIME_FD_TO_HANDLE: ENODEV".into(),
/// };
/// assert_ne!(own, Memory::AnyDmaBuf);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Memory {
    /// Whatever can be mapped, a memfd included: a CPU, or a process.
    #[default]
    Any,
    /// A dma-buf of any exporter.
    AnyDmaBuf,
    /// What this device itself allocated, and nothing else.
    Own {
        /// The device.
        node: std::path::PathBuf,
        /// How that was found out, in words.
        why: String,
    },
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Memory::Any => f.write_str("memory that can be mapped"),
            Memory::AnyDmaBuf => f.write_str("dma-bufs"),
            Memory::Own { node, why } => {
                write!(f, "what {} itself allocated ({why})", node.display())
            }
        }
    }
}

bitflags::bitflags! {
    /// How a taker and who comes before or after it can wait for each other.
    ///
    /// ```
    /// use dmashare::negotiate::Sync;
    /// assert!(Sync::all().contains(Sync::CPU));
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Sync: u32 {
        /// The process waits until the device is done, and then passes the
        /// buffer on.
        const CPU = 1 << 0;
        /// The driver waits for the fences of the dma-buf, and adds its own
        /// (dma_resv).
        const IMPLICIT = 1 << 1;
        /// It takes a sync_file to wait for, and gives one that tells when it
        /// is done.
        const SYNC_FILE = 1 << 2;
    }
}

/// What a taker of buffers can take.
///
/// A new one takes everything; each field narrows that.
///
/// ```
/// use std::collections::BTreeSet;
/// use dmashare::frame::Fourcc;
/// use dmashare::negotiate::{Layout, Memory, Sync, Taker};
///
/// let mut plane = Taker::new("plane 31 of /dev/dri/card0 (bochs-drm)");
/// plane.layouts = Some(BTreeSet::from([Layout::linear(Fourcc::XRGB8888)]));
/// plane.memory = Memory::AnyDmaBuf;
/// plane.stride_align = 64;
/// assert_eq!(plane.sync, Sync::CPU);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Taker {
    /// Who it is, in words, with the name of the driver.
    pub name: String,
    /// The layouts it takes; `None` where all are the same to it.
    pub layouts: Option<BTreeSet<Layout>>,
    /// The widths it takes, in pixels.
    pub width: RangeInclusive<u32>,
    /// The heights it takes, in rows.
    pub height: RangeInclusive<u32>,
    /// What every stride must be a multiple of, in bytes; 1 for any.
    pub stride_align: u32,
    /// What the offset of every plane must be a multiple of, in bytes; 1 for
    /// any.
    pub offset_align: u32,
    /// What the number of rows that the memory has room for must be a multiple
    /// of: some drivers draw whole tiles of rows.
    pub rows_align: u32,
    /// Whether the memory must be one piece, as for a device that cannot gather
    /// pages.
    pub contiguous: bool,
    /// Where the memory must lie.
    pub reach: Reach,
    /// Whose memory it takes.
    pub memory: Memory,
    /// How others can wait for it, and it for them.
    pub sync: Sync,
}

impl Taker {
    /// One that takes everything, and is waited for by the CPU.
    ///
    /// ```
    /// # use dmashare::negotiate::Taker;
    /// assert_eq!(Taker::new("the CPU").layouts, None);
    /// ```
    pub fn new(name: impl Into<String>) -> Taker {
        Taker {
            name: name.into(),
            layouts: None,
            width: 1..=u32::MAX,
            height: 1..=u32::MAX,
            stride_align: 1,
            offset_align: 1,
            rows_align: 1,
            contiguous: false,
            reach: Reach::All,
            memory: Memory::Any,
            sync: Sync::CPU,
        }
    }
}
