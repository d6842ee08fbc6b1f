//! `dmashare_uapi.h`: what our own module answers to at `/dev/dmashare`.

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Result;
use rustix::ioctl::{self, Opcode, Updater, opcode};

#[repr(C)]
struct Allocation {
    size: u64,
    flags: u32,
    fd: RawFd,
    reserved: [u64; 2],
}

const ALLOC: Opcode = opcode::read_write::<Allocation>(b'D', 0x01);

/// `DMASHARE_IOCTL_ALLOC`: a new dma-buf of `size` bytes, rounded up to pages.
pub(crate) fn alloc(device: BorrowedFd<'_>, size: u64) -> Result<OwnedFd> {
    let mut request = Allocation {
        size,
        flags: 0,
        fd: -1,
        reserved: [0; 2],
    };
    // SAFETY: the opcode reads and writes one `Allocation`.
    unsafe { ioctl::ioctl(device, Updater::<ALLOC, Allocation>::new(&mut request))? };
    // SAFETY: the call succeeded, so this is a new fd that no one else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(request.fd) })
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn layout_is_that_of_the_header() {
        assert_eq!(size_of::<Allocation>(), 32);
        assert_eq!(offset_of!(Allocation, flags), 8);
        assert_eq!(offset_of!(Allocation, fd), 12);
        assert_eq!(offset_of!(Allocation, reserved), 16);
        assert_eq!(ALLOC, 0xc020_4401);
    }
}
