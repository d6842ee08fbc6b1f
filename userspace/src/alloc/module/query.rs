//! Description of a dma-buf of the module.

use super::memory::ModuleMemory;
use crate::sys::module::uapi::{self, Query};

bitflags::bitflags! {
    /// Flags that memory of the module is allocated with.
    ///
    /// ```
    /// use dmashare::alloc::AllocFlags;
    /// let flags = AllocFlags::BELOW_4G;
    /// assert!(!flags.contains(AllocFlags::WRITE_COMBINED));
    /// ```
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct AllocFlags: u32 {
        /// Below 4 GiB of physical memory.
        #[doc(alias = "DMASHARE_ALLOC_BELOW_4G")]
        const BELOW_4G = uapi::ALLOC_BELOW_4G;
        /// Write-combined CPU mappings.
        #[doc(alias = "DMASHARE_ALLOC_WRITE_COMBINED")]
        const WRITE_COMBINED = uapi::ALLOC_WRITE_COMBINED;
        // Those of a newer module.
        const _ = !0;
    }
}

/// Description of a dma-buf that the module made.
///
/// Made by [`Module::query`](super::Module::query).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModuleBuffer {
    /// Size in bytes.
    pub size: u64,
    /// Kind of memory; `None` for one that only a newer crate knows.
    pub memory: Option<ModuleMemory>,
    /// Flags that it was allocated with.
    pub flags: AllocFlags,
    /// Entries of the scatter list: pieces of memory that a device has to gather.
    pub chunks: u32,
}

impl From<Query> for ModuleBuffer {
    fn from(query: Query) -> ModuleBuffer {
        ModuleBuffer {
            size: query.length,
            memory: ModuleMemory::from_uapi(query.memory),
            flags: AllocFlags::from_bits_retain(query.flags),
            chunks: query.chunks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_kinds_and_flags_are_kept() {
        let query = Query {
            memory: 77,
            flags: 1 << 20 | uapi::ALLOC_BELOW_4G,
            ..Query::default()
        };
        let buffer = ModuleBuffer::from(query);
        assert_eq!(buffer.memory, None);
        assert!(buffer.flags.contains(AllocFlags::BELOW_4G));
        assert_eq!(buffer.flags.bits(), 1 << 20 | 1);
        let memfd = Query {
            memory: uapi::MEMORY_MEMFD,
            ..query
        };
        assert_eq!(ModuleBuffer::from(memfd).memory, Some(ModuleMemory::Memfd));
    }
}
