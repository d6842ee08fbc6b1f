//! `linux/udmabuf.h`: a dma-buf over the pages of a memfd.

use std::ffi::c_void;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Result;
use rustix::ioctl::{self, Ioctl, IoctlOutput, Opcode, opcode};

/// `UDMABUF_FLAGS_CLOEXEC`.
const CLOEXEC: u32 = 1;

#[repr(C)]
struct Create {
    memfd: RawFd,
    flags: u32,
    offset: u64,
    size: u64,
}

const CREATE: Opcode = opcode::write::<Create>(b'u', 0x42);

/// `UDMABUF_CREATE`: the bytes `offset..offset + size` of the memfd, in whole
/// pages, as a new dma-buf.
pub(crate) fn create(
    device: BorrowedFd<'_>,
    memfd: BorrowedFd<'_>,
    offset: u64,
    size: u64,
) -> Result<OwnedFd> {
    let request = Create {
        memfd: memfd.as_raw_fd(),
        flags: CLOEXEC,
        offset,
        size,
    };
    // SAFETY: `Create` is laid out as the opcode expects.
    unsafe { ioctl::ioctl(device, request) }
}

// SAFETY: the opcode reads one `Create`, and returns a new fd that no one else
// owns.
unsafe impl Ioctl for Create {
    type Output = OwnedFd;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        CREATE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut(self).cast()
    }

    unsafe fn output_from_ptr(fd: IoctlOutput, _: *mut c_void) -> Result<OwnedFd> {
        // SAFETY: the call succeeded, so this is the new fd.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn layout_is_that_of_the_header() {
        assert_eq!(size_of::<Create>(), 24);
        assert_eq!(offset_of!(Create, offset), 8);
        assert_eq!(offset_of!(Create, size), 16);
        assert_eq!(CREATE, 0x4018_7542);
    }
}
