//! `linux/udmabuf.h`: a dma-buf over the pages of a memfd.

use std::ffi::c_void;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{Errno, Result};
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

/// `struct udmabuf_create_list` without its items.
#[repr(C)]
struct List {
    flags: u32,
    count: u32,
}

const CREATE: Opcode = opcode::write::<Create>(b'u', 0x42);
const CREATE_LIST: Opcode = opcode::write::<List>(b'u', 0x43);

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

/// `UDMABUF_CREATE_LIST`: as [`create`], of parts of several memfds, each its
/// offset and size; there are fewer than 4 Gi of them.
pub(crate) fn create_list(
    device: BorrowedFd<'_>,
    items: &[(BorrowedFd<'_>, u64, u64)],
) -> Result<OwnedFd> {
    // Words, for their alignment. A List is one; `struct udmabuf_create_item`
    // three: the memfd and its padding, the offset, the size.
    let pair = |low: u32, high: u32| {
        let [[a, b, c, d], [e, f, g, h]] = [low.to_ne_bytes(), high.to_ne_bytes()];
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    };
    let count = u32::try_from(items.len()).map_err(|_| Errno::INVAL)?;
    let mut words = vec![pair(CLOEXEC, count)];
    for (memfd, offset, size) in items {
        let memfd = memfd.as_raw_fd().cast_unsigned();
        words.extend([pair(memfd, 0), *offset, *size]);
    }
    // SAFETY: a `List` and as many items as it says.
    unsafe { ioctl::ioctl(device, CreateList(words)) }
}

struct CreateList(Vec<u64>);

// SAFETY: the opcode reads a `List` and the items behind it, and returns a new
// fd that no one else owns.
unsafe impl Ioctl for CreateList {
    type Output = OwnedFd;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        CREATE_LIST
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.0.as_mut_ptr().cast()
    }

    unsafe fn output_from_ptr(fd: IoctlOutput, _: *mut c_void) -> Result<OwnedFd> {
        // SAFETY: the call succeeded, so this is the new fd.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
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
        assert_eq!(size_of::<List>(), 8);
        assert_eq!(offset_of!(List, count), 4);
        assert_eq!(CREATE_LIST, 0x4008_7543);
    }
}
