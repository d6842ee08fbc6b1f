//! What a way that works has to offer.

use std::fmt;
use std::path::PathBuf;

use super::request::{LARGEST, memory_at_hand};
use super::{AllocError, DmaHeap, Dumb, HugePages, HugePool, Limit, Way};
use super::{Module, ModuleFeatures, ModuleInfo, ModuleMemory, Nodes};
use super::{dumb, posix, sysv, udmabuf};
use crate::buffer::Kind;

/// What a way that works here has to offer, as the probe found it.
///
/// It prints as a line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Offer {
    /// What kind of buffer it gave.
    pub kind: Kind,
    /// Whether devices can import its buffers.
    pub devices: bool,
    /// Whether it has contiguous memory.
    pub contiguous: bool,
    /// Whether it can keep to memory below 4 GiB.
    pub below_4g: bool,
    /// The most that a buffer can have now, and whose limit that is.
    pub largest: Limit,
    /// Whether others can find its buffers by a name or a key.
    pub named: bool,
    /// Whether its buffers take seals.
    pub sealable: bool,
    /// The heaps of a dma_heap.
    pub heaps: Vec<String>,
    /// The DRM cards that announce dumb buffers.
    pub cards: Vec<PathBuf>,
    /// The huge pages that its buffers can lie in.
    pub huge_pages: Vec<HugePool>,
}

impl Offer {
    /// What this way offers; one of its buffers was of this kind.
    pub(super) fn new(way: Way, kind: Kind) -> Result<Offer, AllocError> {
        // The heap may be the module's, too.
        let info = |memory| Module::open()?.info(memory);
        let module = match way {
            Way::Module => Some(info(ModuleMemory::System)?),
            Way::DmaHeap => info(ModuleMemory::System).ok(),
            _ => None,
        };
        let has = |info: ModuleInfo, feature| info.features.contains(feature);
        let largest = match way {
            Way::Memfd => LARGEST,
            Way::Posix => posix::room()?.or(Some(memory_at_hand()?)),
            Way::SysV => sysv::largest(),
            Way::DmaHeap => {
                let ours = module.filter(|module| module.nodes.contains(Nodes::DMA_HEAP));
                memory_at_hand()?.or(ours.map(|module| module.largest()))
            }
            Way::Udmabuf => memory_at_hand()?.or(udmabuf::largest()),
            Way::Module => memory_at_hand()?.or(module.map(|module| module.largest())),
            Way::Dumb => memory_at_hand()?.or(Some(dumb::largest())),
        };
        let huge_pages = match way {
            Way::Memfd | Way::SysV | Way::Udmabuf => HugePages::ALL
                .iter()
                .filter_map(|size| size.pool())
                .collect(),
            _ => Vec::new(),
        };
        Ok(Offer {
            kind,
            devices: way.for_devices(),
            contiguous: match way {
                Way::DmaHeap => DmaHeap::open_contiguous().is_ok(),
                // Of a node of its own, which can be closed to this user.
                Way::Module => info(ModuleMemory::Contiguous)
                    .is_ok_and(|info| has(info, ModuleFeatures::ALLOC)),
                _ => false,
            },
            below_4g: way == Way::Module
                && module.is_some_and(|info| has(info, ModuleFeatures::BELOW_4G)),
            largest,
            named: matches!(way, Way::Posix | Way::SysV),
            sealable: way == Way::Memfd,
            heaps: match way {
                Way::DmaHeap => DmaHeap::list()?,
                _ => Vec::new(),
            },
            cards: match way {
                Way::Dumb => Dumb::usable_cards(),
                _ => Vec::new(),
            },
            huge_pages,
        })
    }
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.devices {
            true => "for CPUs and devices",
            false => "for CPUs",
        })?;
        let words = [
            (self.contiguous, "contiguous"),
            (self.named, "by name or key"),
            (self.sealable, "sealable"),
        ];
        for (_, word) in words.iter().filter(|(is_so, _)| *is_so) {
            write!(f, ", {word}")?;
        }
        write!(
            f,
            "; up to {}: {}",
            Bytes(self.largest.bytes),
            self.largest.of
        )?;
        if !self.heaps.is_empty() {
            write!(f, "; heaps {}", self.heaps.join(" and "))?;
        }
        for card in &self.cards {
            write!(f, "; {}", card.display())?;
        }
        for pool in &self.huge_pages {
            write!(
                f,
                "; {} of {} huge pages of {} free",
                pool.free, pool.total, pool.size
            )?;
        }
        Ok(())
    }
}

/// A number of bytes in the largest unit that it is one of, rounded down.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut unit = "bytes";
        for larger in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
            // Up to four digits, which say more than one.
            if rest < 10 * 1024 {
                break;
            }
            (rest, unit) = (rest / 1024, larger);
        }
        write!(f, "{rest} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_readable() {
        for (bytes, words) in [
            (1, "1 bytes"),
            (64 << 20, "64 MiB"),
            (u64::MAX, "15 EiB"),
            (9000 << 20, "9000 MiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), words);
        }
    }
}
