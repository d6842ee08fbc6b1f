//! Memory of the kernel in this process's address space, and its end.

use std::ffi::c_void;
use std::ptr::NonNull;

use rustix::mm::munmap;

use super::segment::Attachment;

/// What a mapping was made by, undone on drop.
#[derive(Debug)]
pub(super) enum Memory {
    /// By mmap(2).
    Mapped { base: NonNull<c_void>, len: usize },
    /// By shmat(2).
    Attached(Attachment),
}

// SAFETY: the memory belongs to no thread; who may touch it is the affair of
// the `Mapping` that owns this.
unsafe impl Send for Memory {}
// SAFETY: a `&Memory` gives its address, never its bytes.
unsafe impl Sync for Memory {}

impl Memory {
    pub(super) fn base(&self) -> NonNull<c_void> {
        match self {
            Memory::Mapped { base, .. } => *base,
            Memory::Attached(attachment) => attachment.address(),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Memory::Mapped { base, len } = self {
            // SAFETY: made by `mmap` with this length; guards and slices borrow
            // the mapping that owns this.
            let unmapped = unsafe { munmap(base.as_ptr(), *len) };
            debug_assert!(unmapped.is_ok(), "munmap of our own mapping: {unmapped:?}");
        }
    }
}
