//! `linux/dma-buf.h`: what any dma-buf answers to, whoever exported it.

use std::ffi::{CStr, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::fs::FsWord;
use rustix::io::Result;
use rustix::ioctl::{self, Opcode, Setter, Updater, opcode};

/// `DMA_BUF_MAGIC` of `linux/magic.h`: what `fstatfs` says of a dma-buf.
pub(crate) const MAGIC: FsWord = 0x444d_4142;

/// `DMA_BUF_NAME_LEN`, its terminating NUL counted.
pub(crate) const NAME_LEN: usize = 32;

bitflags::bitflags! {
    /// `DMA_BUF_SYNC_*`. START is the absence of END.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct SyncFlags: u64 {
        const READ = 1;
        const WRITE = 2;
        const END = 4;
    }
}

#[repr(C)]
struct Sync {
    flags: u64,
}

/// `struct dma_buf_export_sync_file` and `struct dma_buf_import_sync_file`.
#[repr(C)]
struct SyncFile {
    flags: u32,
    fd: RawFd,
}

const SYNC: Opcode = opcode::write::<Sync>(b'b', 0);
// The kernel has two numbers for one call, since its argument was declared as
// a pointer once; this is DMA_BUF_SET_NAME_A or _B, as the pointer is wide.
const SET_NAME: Opcode = opcode::write::<usize>(b'b', 1);
const EXPORT_SYNC_FILE: Opcode = opcode::read_write::<SyncFile>(b'b', 2);
const IMPORT_SYNC_FILE: Opcode = opcode::write::<SyncFile>(b'b', 3);

/// `DMA_BUF_IOCTL_SYNC`. `EINTR` and `EAGAIN` want to be called again.
pub(crate) fn sync(fd: BorrowedFd<'_>, flags: SyncFlags) -> Result<()> {
    let flags = flags.bits();
    // SAFETY: the opcode reads one `Sync`, and writes nothing.
    unsafe { ioctl::ioctl(fd, Setter::<SYNC, Sync>::new(Sync { flags })) }
}

/// `DMA_BUF_SET_NAME`. `EINVAL` where the name has [`NAME_LEN`] bytes or more.
pub(crate) fn set_name(fd: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let name: *mut c_void = name.as_ptr().cast_mut().cast();
    // SAFETY: the argument is the address of a NUL-terminated string that the
    // kernel reads before the call returns.
    unsafe { ioctl::ioctl(fd, ioctl::IntegerSetter::<SET_NAME>::new_pointer(name)) }
}

/// `DMA_BUF_IOCTL_EXPORT_SYNC_FILE`: what an access of this kind must wait for.
/// `ENOTTY` before 6.0.
pub(crate) fn export_sync_file(fd: BorrowedFd<'_>, flags: SyncFlags) -> Result<OwnedFd> {
    let mut request = SyncFile {
        flags: low(flags),
        fd: -1,
    };
    // SAFETY: the opcode reads and writes one `SyncFile`.
    unsafe { ioctl::ioctl(fd, Updater::<EXPORT_SYNC_FILE, SyncFile>::new(&mut request))? };
    // SAFETY: the call succeeded, so this is a new fd that no one else owns.
    // The kernel made it to close on exec.
    Ok(unsafe { OwnedFd::from_raw_fd(request.fd) })
}

/// `DMA_BUF_IOCTL_IMPORT_SYNC_FILE`: an access of this kind goes on until that
/// fence signals. `ENOTTY` before 6.0.
pub(crate) fn import_sync_file(
    fd: BorrowedFd<'_>,
    flags: SyncFlags,
    sync_file: BorrowedFd<'_>,
) -> Result<()> {
    let request = SyncFile {
        flags: low(flags),
        fd: sync_file.as_raw_fd(),
    };
    // SAFETY: the opcode reads one `SyncFile`, and writes nothing.
    unsafe { ioctl::ioctl(fd, Setter::<IMPORT_SYNC_FILE, SyncFile>::new(request)) }
}

/// The flags as the calls about fences have them.
fn low(flags: SyncFlags) -> u32 {
    u32::try_from(flags.bits()).expect("the flags are the lowest three bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_header() {
        assert_eq!(size_of::<Sync>(), 8);
        assert_eq!(SYNC, 0x4008_6200);
        #[cfg(target_pointer_width = "64")]
        assert_eq!(SET_NAME, 0x4008_6201);
        #[cfg(target_pointer_width = "32")]
        assert_eq!(SET_NAME, 0x4004_6201);
        assert_eq!(size_of::<SyncFile>(), 8);
        assert_eq!(EXPORT_SYNC_FILE, 0xc008_6202);
        assert_eq!(IMPORT_SYNC_FILE, 0x4008_6203);
    }
}
