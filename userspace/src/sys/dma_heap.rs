//! `linux/dma-heap.h`: a dma-buf from one of the kernel's heaps.

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::fs::OFlags;
use rustix::io::Result;
use rustix::ioctl::{self, Opcode, Updater, opcode};

#[repr(C)]
struct Allocation {
    len: u64,
    fd: RawFd,
    fd_flags: u32,
    heap_flags: u64,
}

const ALLOC: Opcode = opcode::read_write::<Allocation>(b'H', 0);

/// `DMA_HEAP_IOCTL_ALLOC`: a new dma-buf of `len` bytes, rounded up to pages.
///
/// The heap itself sets no limit to `len`: the caller must.
pub(crate) fn alloc(heap: BorrowedFd<'_>, len: u64) -> Result<OwnedFd> {
    let mut request = Allocation {
        len,
        fd: 0,
        // Without RDWR the buffer could not be mapped for writing.
        fd_flags: (OFlags::RDWR | OFlags::CLOEXEC).bits(),
        heap_flags: 0,
    };
    // SAFETY: the opcode reads and writes one `Allocation`.
    unsafe { ioctl::ioctl(heap, Updater::<ALLOC, Allocation>::new(&mut request))? };
    // SAFETY: the call succeeded, so this is a new fd that no one else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(request.fd) })
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn layout_is_that_of_the_header() {
        assert_eq!(size_of::<Allocation>(), 24);
        assert_eq!(offset_of!(Allocation, fd), 8);
        assert_eq!(offset_of!(Allocation, fd_flags), 12);
        assert_eq!(offset_of!(Allocation, heap_flags), 16);
        assert_eq!(ALLOC, 0xc018_4800);
    }
}
