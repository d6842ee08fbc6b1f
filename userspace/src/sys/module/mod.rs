//! `dmashare_uapi.h`: the requests of the module's nodes below `/dev/dmashare`.

pub(crate) mod uapi;

use std::ffi::c_void;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::{Errno, Result};
use rustix::ioctl::{self, Ioctl, IoctlOutput, Opcode, Updater};

use uapi::{Alloc, Info, Query, Range, Wrap};

/// Flags of every new fd. Without RDWR the buffer could not be mapped for writing.
const FD_FLAGS: OFlags = OFlags::RDWR.union(OFlags::CLOEXEC);

/// `DMASHARE_IOCTL_ALLOC`: a new dma-buf of `length` bytes, rounded up to pages.
pub(crate) fn alloc(
    node: BorrowedFd<'_>,
    length: u64,
    max_chunk: u64,
    flags: u32,
) -> Result<OwnedFd> {
    let request = Alloc {
        size: size_of_struct::<Alloc>(),
        fd_flags: FD_FLAGS.bits(),
        length,
        max_chunk,
        flags,
        ..Alloc::default()
    };
    // SAFETY: the request reads one `Alloc`, whose size is in it, and returns a
    // new fd.
    unsafe { ioctl::ioctl(node, NewFd::<{ uapi::IOCTL_ALLOC }, _>(request)) }
}

/// `DMASHARE_IOCTL_WRAP`: a new dma-buf of parts of memfds, each its offset and
/// length in bytes.
pub(crate) fn wrap(node: BorrowedFd<'_>, items: &[(BorrowedFd<'_>, u64, u64)]) -> Result<OwnedFd> {
    let ranges: Vec<Range> = items
        .iter()
        .map(|(memfd, offset, length)| Range {
            memfd: memfd.as_raw_fd(),
            offset: *offset,
            length: *length,
            ..Range::default()
        })
        .collect();
    let request = Wrap {
        size: size_of_struct::<Wrap>(),
        fd_flags: FD_FLAGS.bits(),
        ranges: ranges.as_ptr().expose_provenance() as u64,
        count: u32::try_from(ranges.len()).map_err(|_| Errno::INVAL)?,
        ..Wrap::default()
    };
    // SAFETY: the request reads one `Wrap`, whose size is in it, and as many ranges
    // as it counts, which live until the call is over; it returns a new fd.
    unsafe { ioctl::ioctl(node, NewFd::<{ uapi::IOCTL_WRAP }, _>(request)) }
}

/// `DMASHARE_IOCTL_QUERY`: the description of a dma-buf of the module.
pub(crate) fn query(node: BorrowedFd<'_>, buffer: BorrowedFd<'_>) -> Result<Query> {
    let mut query = Query {
        size: size_of_struct::<Query>(),
        fd: buffer.as_raw_fd(),
        ..Query::default()
    };
    // SAFETY: the request reads and writes one `Query`, whose size is in it and of
    // which every bit pattern is valid.
    unsafe {
        ioctl::ioctl(
            node,
            Updater::<{ uapi::IOCTL_QUERY }, Query>::new(&mut query),
        )?;
    }
    Ok(query)
}

/// `DMASHARE_IOCTL_INFO`: the features of a node, and the limits.
pub(crate) fn info(node: BorrowedFd<'_>) -> Result<Info> {
    let mut info = Info {
        size: size_of_struct::<Info>(),
        ..Info::default()
    };
    // SAFETY: the request reads and writes one `Info`, whose size is in it and of
    // which every bit pattern is valid.
    unsafe { ioctl::ioctl(node, Updater::<{ uapi::IOCTL_INFO }, Info>::new(&mut info))? };
    Ok(info)
}

/// The first field of every structure.
fn size_of_struct<T>() -> u32 {
    u32::try_from(size_of::<T>()).expect("a structure has less than 4 GiB")
}

/// A request that reads its argument and returns a new fd.
struct NewFd<const OPCODE: Opcode, T>(T);

// SAFETY: the callers choose an opcode that reads one `T` and returns a new fd that
// no one else owns.
unsafe impl<const OPCODE: Opcode, T> Ioctl for NewFd<OPCODE, T> {
    type Output = OwnedFd;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        OPCODE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut(&mut self.0).cast()
    }

    unsafe fn output_from_ptr(fd: IoctlOutput, _: *mut c_void) -> Result<OwnedFd> {
        // SAFETY: the call succeeded, so this is the new fd.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As in the first release: programs that were built then have these in them.
    #[test]
    fn numbers_and_first_sizes_stay() {
        assert_eq!(uapi::IOCTL_INFO, 0xda00);
        assert_eq!(uapi::IOCTL_ALLOC, 0xda01);
        assert_eq!(uapi::IOCTL_WRAP, 0xda02);
        assert_eq!(uapi::IOCTL_QUERY, 0xda03);
        assert_eq!(uapi::ALLOC_SIZE_V0, 32);
        assert_eq!(uapi::WRAP_SIZE_V0, 24);
        assert_eq!(uapi::QUERY_SIZE_V0, 32);
        assert_eq!(uapi::INFO_SIZE_V0, 88);
        assert_eq!(size_of::<Range>(), 24);
    }

    #[test]
    fn sizes_are_those_of_the_structures() {
        assert_eq!(size_of_struct::<Alloc>(), 32);
        assert!(size_of_struct::<Info>() >= uapi::INFO_SIZE_V0);
    }
}
