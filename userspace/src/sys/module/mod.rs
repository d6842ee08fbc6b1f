//! `dmashare_uapi.h`: what our own module answers to at `/dev/dmashare`.

pub(crate) mod uapi;

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::ioctl::{self, Getter, Updater};

use uapi::{Alloc, Info, Range, Wrap};

/// `DMASHARE_IOCTL_ALLOC`: a new dma-buf of `size` bytes, rounded up to pages,
/// and how many entries its scatter list has.
pub(crate) fn alloc(
    device: BorrowedFd<'_>,
    size: u64,
    max_chunk: u64,
    flags: u32,
    name: &CStr,
) -> Result<(OwnedFd, u32)> {
    let mut request = Alloc {
        size,
        max_chunk,
        flags,
        name: bytes(name)?,
        fd: -1,
        ..Alloc::default()
    };
    // SAFETY: the opcode reads and writes one `Alloc`.
    unsafe {
        ioctl::ioctl(
            device,
            Updater::<{ uapi::IOCTL_ALLOC }, Alloc>::new(&mut request),
        )?
    };
    // SAFETY: the call succeeded, so this is a new fd that no one else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(request.fd) };
    Ok((fd, request.chunks))
}

/// `DMASHARE_IOCTL_WRAP`: a new dma-buf of parts of memfds, each its offset and
/// size, and how many entries its scatter list has.
pub(crate) fn wrap(
    device: BorrowedFd<'_>,
    items: &[(BorrowedFd<'_>, u64, u64)],
    name: &CStr,
) -> Result<(OwnedFd, u32)> {
    let ranges: Vec<Range> = items
        .iter()
        .map(|(memfd, offset, size)| Range {
            memfd: memfd.as_raw_fd(),
            offset: *offset,
            size: *size,
            ..Range::default()
        })
        .collect();
    let mut request = Wrap {
        ranges: ranges.as_ptr().expose_provenance() as u64,
        count: u32::try_from(ranges.len()).map_err(|_| Errno::INVAL)?,
        name: bytes(name)?,
        fd: -1,
        ..Wrap::default()
    };
    // SAFETY: the opcode reads and writes one `Wrap`, and reads as many ranges as
    // it says, which live until the call is over.
    unsafe {
        ioctl::ioctl(
            device,
            Updater::<{ uapi::IOCTL_WRAP }, Wrap>::new(&mut request),
        )?
    };
    // SAFETY: the call succeeded, so this is a new fd that no one else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(request.fd) };
    Ok((fd, request.chunks))
}

/// `DMASHARE_IOCTL_INFO`: what the module speaks, and what is left of its limits.
pub(crate) fn info(device: BorrowedFd<'_>) -> Result<Info> {
    // SAFETY: the opcode writes one `Info`, of which every bit pattern is one.
    unsafe { ioctl::ioctl(device, Getter::<{ uapi::IOCTL_INFO }, Info>::new()) }
}

/// A name as the structures have it; `EINVAL`, as the kernel's answer would be,
/// where it is too long.
fn bytes(name: &CStr) -> Result<[u8; uapi::NAME_LEN as usize]> {
    let mut bytes = [0; uapi::NAME_LEN as usize];
    let name = name.to_bytes_with_nul();
    let place = bytes.get_mut(..name.len()).ok_or(Errno::INVAL)?;
    place.copy_from_slice(name);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As they were when version 2 came out: programs that were built then have
    /// these in them.
    #[test]
    fn numbers_are_those_of_version_2() {
        assert_eq!(size_of::<Alloc>(), 80);
        assert_eq!(size_of::<Range>(), 24);
        assert_eq!(uapi::IOCTL_ALLOC, 0xc050_4401);
        assert_eq!(uapi::IOCTL_WRAP, 0xc048_4402);
        assert_eq!(uapi::IOCTL_INFO, 0x8058_4403);
    }

    #[test]
    fn names_are_as_long_as_those_of_any_dma_buf() {
        assert_eq!(uapi::NAME_LEN as usize, crate::sys::dma_buf::NAME_LEN);
        let longest = c"a name of thirty-one characters";
        assert_eq!(&bytes(longest).unwrap()[..], longest.to_bytes_with_nul());
        assert_eq!(
            bytes(c"a name of thirty-two characters."),
            Err(Errno::INVAL)
        );
        assert_eq!(bytes(c"").unwrap(), [0; 32]);
    }
}
