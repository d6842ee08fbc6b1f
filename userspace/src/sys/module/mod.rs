//! `dmashare_uapi.h`: what our own module answers to at `/dev/dmashare`.

pub(crate) mod uapi;

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::ioctl::{self, Updater};

use uapi::Alloc;

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
        assert_eq!(size_of::<uapi::Range>(), 24);
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
