//! What can be asked for beyond memory, and which way has it.

use std::fmt;

use super::{AllocError, HugePages, Request, Usage, Way};
use crate::buffer::Seals;

/// The seals that every memfd gets.
pub(super) const ALWAYS: Seals = Seals::SHRINK.union(Seals::GROW);

/// Something that was asked for and cannot be had.
///
/// ```
/// use dmashare::alloc::{AllocError, Allocate, Feature, Memfd, Request};
/// let refused = Memfd::new().allocate(&Request::new(4096).contiguous());
/// let Err(AllocError::Cannot { what, .. }) = refused else { unreachable!() };
/// assert_eq!(what, Feature::Contiguous);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Feature {
    /// Memory in one piece of the machine's addresses.
    Contiguous,
    /// Memory for these uses.
    Usage(Usage),
    /// These seals.
    Seals(Seals),
    /// Memory that can be executed.
    Executable,
    /// Memory in huge pages.
    HugePages(HugePages),
    /// Memory in chunks of at most so many bytes.
    MaxChunk(u64),
    /// Write-combined CPU mappings.
    WriteCombined,
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Feature::Contiguous => f.write_str("contiguous memory"),
            Feature::Usage(usage) => {
                write!(f, "memory for ")?;
                bitflags::parser::to_writer(usage, f)
            }
            Feature::Seals(seals) => {
                write!(f, "the seals ")?;
                bitflags::parser::to_writer(seals, f)
            }
            Feature::Executable => f.write_str("memory to execute"),
            Feature::HugePages(size) => write!(f, "huge pages of {size}"),
            Feature::MaxChunk(bytes) => write!(f, "chunks of at most {bytes} bytes"),
            Feature::WriteCombined => f.write_str("write-combined mappings"),
        }
    }
}

impl Request {
    /// Refuses what this way never has, before the kernel is asked: never is
    /// less given than was asked for.
    pub(super) fn fits(&self, way: Way) -> Result<(), AllocError> {
        self.whole_pages()?;
        self.c_name()?;
        if self.usage.needs_dma_buf() && !way.for_devices() {
            return Err(AllocError::NotForDevices(way));
        }
        let cannot = |what, why: &str| {
            Err(AllocError::Cannot {
                way,
                what,
                why: why.to_owned(),
            })
        };
        if self.contiguous && !matches!(way, Way::DmaHeap | Way::Module) {
            let why = match way {
                Way::Dumb => "only its driver knows; ask a dma_heap over CMA, or our module",
                _ => "its pages lie where there is room; ask a dma_heap over CMA, or our module",
            };
            return cannot(Feature::Contiguous, why);
        }
        let more = self.seals.difference(ALWAYS);
        if !more.is_empty() && way != Way::Memfd {
            return cannot(Feature::Seals(more), "only a memfd takes seals");
        }
        let writing = more.intersection(Seals::WRITE | Seals::FUTURE_WRITE);
        if !writing.is_empty() {
            let why = "nobody could ever write to it; map it, then add these by Buffer::seal";
            return cannot(Feature::Seals(writing), why);
        }
        if self.executable && more.contains(Seals::EXEC) {
            let why = "sealed so and executable, nobody could ever write to it";
            return cannot(Feature::Executable, why);
        }
        if self.executable && way != Way::Memfd {
            return cannot(Feature::Executable, "ask a memfd");
        }
        if let Some(size) = self.huge_pages
            && !matches!(way, Way::Memfd | Way::SysV | Way::Udmabuf)
        {
            return cannot(
                Feature::HugePages(size),
                "ask a memfd, a System V segment or a udmabuf",
            );
        }
        let hardware = self.usage.intersection(Usage::GPU | Usage::CAMERA);
        if way == Way::Dumb && !hardware.is_empty() {
            let why = "a dumb buffer is to be drawn by the CPU and shown by its card; \
                       ask dma_heap, udmabuf or module";
            return cannot(Feature::Usage(hardware), why);
        }
        Ok(())
    }
}
