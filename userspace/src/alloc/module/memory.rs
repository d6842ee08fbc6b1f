//! Kinds of memory that the module exports, one device node each.

use crate::sys::module::uapi;

/// A kind of memory that the module exports, with a device node of its own: one may
/// be open to you and another not.
///
/// ```
/// use dmashare::alloc::ModuleMemory;
/// assert_eq!(ModuleMemory::Contiguous.node(), "/dev/dmashare/contiguous");
/// ```
#[doc(alias = "DMASHARE_MEMORY_SYSTEM")]
#[doc(alias = "DMASHARE_MEMORY_CONTIGUOUS")]
#[doc(alias = "DMASHARE_MEMORY_MEMFD")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ModuleMemory {
    /// Pages from the page allocator, wherever they are free.
    System,
    /// One run of pages.
    Contiguous,
    /// Pinned pages of memfds.
    Memfd,
}

impl ModuleMemory {
    /// All kinds.
    pub const ALL: [ModuleMemory; 3] = [
        ModuleMemory::System,
        ModuleMemory::Contiguous,
        ModuleMemory::Memfd,
    ];

    /// Path of the device node.
    pub fn node(self) -> &'static str {
        match self {
            ModuleMemory::System => "/dev/dmashare/system",
            ModuleMemory::Contiguous => "/dev/dmashare/contiguous",
            ModuleMemory::Memfd => "/dev/dmashare/memfd",
        }
    }

    /// `None` for a kind that only a newer crate knows.
    pub(super) fn from_uapi(memory: u32) -> Option<ModuleMemory> {
        match memory {
            uapi::MEMORY_SYSTEM => Some(ModuleMemory::System),
            uapi::MEMORY_CONTIGUOUS => Some(ModuleMemory::Contiguous),
            uapi::MEMORY_MEMFD => Some(ModuleMemory::Memfd),
            _ => None,
        }
    }
}
