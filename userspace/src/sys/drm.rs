//! `drm/drm.h` and `drm/drm_mode.h`: dumb buffers, and their dma-bufs.
//!
//! By hand, so that this way to allocate needs no cargo feature.

#[cfg(feature = "gbm")]
use std::os::fd::AsRawFd;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::fs::OFlags;
use rustix::io::Result;
use rustix::ioctl::{self, NoArg, Opcode, Setter, Updater, opcode};

/// `DRM_CAP_DUMB_BUFFER`.
pub(crate) const CAP_DUMB_BUFFER: u64 = 1;

/// `DRM_CAP_PRIME`, and the bit of it that tells of exporting.
pub(crate) const CAP_PRIME: u64 = 5;
pub(crate) const PRIME_CAP_EXPORT: u64 = 2;

#[repr(C)]
struct GetCap {
    capability: u64,
    value: u64,
}

/// `struct drm_mode_create_dumb`: asked of the driver, and completed by it.
#[repr(C)]
#[derive(Default)]
pub(crate) struct CreateDumb {
    pub(crate) height: u32,
    pub(crate) width: u32,
    pub(crate) bpp: u32,
    pub(crate) flags: u32,
    pub(crate) handle: u32,
    /// The stride, in bytes.
    pub(crate) pitch: u32,
    pub(crate) size: u64,
}

#[repr(C)]
struct DestroyDumb {
    handle: u32,
}

#[repr(C)]
struct PrimeHandle {
    handle: u32,
    flags: u32,
    fd: RawFd,
}

const GET_CAP: Opcode = opcode::read_write::<GetCap>(b'd', 0x0c);
const DROP_MASTER: Opcode = opcode::none(b'd', 0x1f);
const PRIME_HANDLE_TO_FD: Opcode = opcode::read_write::<PrimeHandle>(b'd', 0x2d);
#[cfg(feature = "gbm")]
const PRIME_FD_TO_HANDLE: Opcode = opcode::read_write::<PrimeHandle>(b'd', 0x2e);
const CREATE_DUMB: Opcode = opcode::read_write::<CreateDumb>(b'd', 0xb2);
const DESTROY_DUMB: Opcode = opcode::read_write::<DestroyDumb>(b'd', 0xb4);

/// `DRM_IOCTL_GET_CAP`.
pub(crate) fn capability(card: BorrowedFd<'_>, capability: u64) -> Result<u64> {
    let mut request = GetCap {
        capability,
        value: 0,
    };
    // SAFETY: the opcode reads and writes one `GetCap`.
    unsafe { ioctl::ioctl(card, Updater::<GET_CAP, GetCap>::new(&mut request))? };
    Ok(request.value)
}

/// `DRM_IOCTL_DROP_MASTER`: lets others set modes again.
pub(crate) fn drop_master(card: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the opcode takes no argument.
    unsafe { ioctl::ioctl(card, NoArg::<DROP_MASTER>::new()) }
}

/// `DRM_IOCTL_MODE_CREATE_DUMB`.
pub(crate) fn create_dumb(card: BorrowedFd<'_>, dumb: &mut CreateDumb) -> Result<()> {
    // SAFETY: the opcode reads and writes one `CreateDumb`.
    unsafe { ioctl::ioctl(card, Updater::<CREATE_DUMB, CreateDumb>::new(dumb)) }
}

/// `DRM_IOCTL_MODE_DESTROY_DUMB`: closes the handle, which must be no one
/// else's.
pub(crate) fn destroy_dumb(card: BorrowedFd<'_>, handle: u32) -> Result<()> {
    let request = DestroyDumb { handle };
    // SAFETY: the opcode reads one `DestroyDumb`.
    unsafe { ioctl::ioctl(card, Setter::<DESTROY_DUMB, DestroyDumb>::new(request)) }
}

/// `DRM_IOCTL_PRIME_HANDLE_TO_FD`: the dma-buf of a handle.
pub(crate) fn prime_handle_to_fd(card: BorrowedFd<'_>, handle: u32) -> Result<OwnedFd> {
    let mut request = PrimeHandle {
        handle,
        // DRM_RDWR and DRM_CLOEXEC have the values of these.
        flags: (OFlags::RDWR | OFlags::CLOEXEC).bits(),
        fd: -1,
    };
    // SAFETY: the opcode reads and writes one `PrimeHandle`.
    unsafe {
        ioctl::ioctl(
            card,
            Updater::<PRIME_HANDLE_TO_FD, PrimeHandle>::new(&mut request),
        )?;
    }
    // SAFETY: the call succeeded, so this is a new fd that no one else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(request.fd) })
}

/// `DRM_IOCTL_PRIME_FD_TO_HANDLE`: the handle of a dma-buf, one for each open
/// file.
#[cfg(feature = "gbm")]
pub(crate) fn prime_fd_to_handle(card: BorrowedFd<'_>, dma_buf: BorrowedFd<'_>) -> Result<u32> {
    let mut request = PrimeHandle {
        handle: 0,
        flags: 0,
        fd: dma_buf.as_raw_fd(),
    };
    // SAFETY: the opcode reads and writes one `PrimeHandle`.
    unsafe {
        ioctl::ioctl(
            card,
            Updater::<PRIME_FD_TO_HANDLE, PrimeHandle>::new(&mut request),
        )?;
    }
    Ok(request.handle)
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn layout_is_that_of_the_header() {
        assert_eq!(size_of::<CreateDumb>(), 32);
        assert_eq!(offset_of!(CreateDumb, handle), 16);
        assert_eq!(offset_of!(CreateDumb, pitch), 20);
        assert_eq!(offset_of!(CreateDumb, size), 24);
        assert_eq!(offset_of!(PrimeHandle, fd), 8);
        assert_eq!(GET_CAP, 0xc010_640c);
        assert_eq!(DROP_MASTER, 0x641f);
        assert_eq!(PRIME_HANDLE_TO_FD, 0xc00c_642d);
        assert_eq!(CREATE_DUMB, 0xc020_64b2);
        assert_eq!(DESTROY_DUMB, 0xc004_64b4);
    }
}
