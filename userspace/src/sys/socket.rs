//! The socket options that rustix has not, or not for every value they take.

use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

/// `SO_PASSPIDFD` of `asm-generic/socket.h`, since Linux 6.5.
const SO_PASSPIDFD: libc::c_int = 76;

/// `SO_PEERPIDFD` of `asm-generic/socket.h`, since Linux 6.5.
const SO_PEERPIDFD: libc::c_int = 77;

/// `SO_PEERCRED`. Its pid is 0 where the peer is in a PID namespace that ours
/// does not see, which rustix's type does not allow for.
pub(crate) fn peer_credentials(fd: BorrowedFd<'_>) -> Result<libc::ucred, Errno> {
    // SAFETY: a struct of plain numbers.
    unsafe { option(fd, libc::SO_PEERCRED) }
}

/// `SO_PEERPIDFD`; the kernel makes it to close on exec.
pub(crate) fn peer_pidfd(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    // SAFETY: a plain number.
    let fd: libc::c_int = unsafe { option(fd, SO_PEERPIDFD) }?;
    // SAFETY: the kernel has just made it for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Unsets `SO_PASSPIDFD`, by which each message brings a handle of its sender's
/// process, that nothing here would close.
pub(crate) fn refuse_pidfds(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let value: libc::c_int = 0;
    let size = libc::socklen_t::try_from(size_of_val(&value)).map_err(|_| Errno::INVAL)?;
    // SAFETY: the kernel reads `size` bytes at `value`.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSPIDFD,
            (&raw const value).cast(),
            size,
        )
    };
    match result {
        0 => Ok(()),
        // A kernel that has no such handles to bring.
        _ => match last_error() {
            Errno::NOPROTOOPT => Ok(()),
            errno => Err(errno),
        },
    }
}

/// `SIOCOUTQ`: the memory that the kernel needs for what the peer has not read,
/// in bytes.
pub(crate) fn unread(fd: BorrowedFd<'_>) -> Result<usize, Errno> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes an int at `bytes`.
    match unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) } {
        0 => usize::try_from(bytes).map_err(|_| Errno::INVAL),
        _ => Err(last_error()),
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

/// # Safety
/// Every pattern of bits is a `T`.
unsafe fn option<T>(fd: BorrowedFd<'_>, name: libc::c_int) -> Result<T, Errno> {
    let mut value = MaybeUninit::<T>::zeroed();
    let size = libc::socklen_t::try_from(size_of::<T>()).map_err(|_| Errno::INVAL)?;
    let mut written = size;
    // SAFETY: the kernel writes at most `size` bytes at `value`.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            value.as_mut_ptr().cast(),
            &raw mut written,
        )
    };
    match result {
        0 if written == size => {
            // SAFETY: zeroed or written, and the caller vouches for any pattern.
            Ok(unsafe { value.assume_init() })
        }
        0 => Err(Errno::INVAL),
        _ => Err(last_error()),
    }
}
