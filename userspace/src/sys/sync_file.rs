//! `linux/sync_file.h`: what any sync_file answers to, whoever's fence it holds.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::fs::FsWord;
use rustix::io::{Errno, Result};
use rustix::ioctl::{self, Opcode, Setter, Updater, opcode};

/// `ANON_INODE_FS_MAGIC` of `linux/magic.h`: what `fstatfs` says of a sync_file,
/// and of other handles without a file system.
pub(crate) const ANON_INODE: FsWord = 0x0904_1934;

/// The size of every name here, its terminating NUL counted.
pub(crate) const NAME_LEN: usize = 32;

#[repr(C)]
struct Merge {
    name: [u8; NAME_LEN],
    fd2: RawFd,
    fence: RawFd,
    flags: u32,
    pad: u32,
}

/// `struct sync_file_info`: the whole.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileInfo {
    pub(crate) name: [u8; NAME_LEN],
    /// 1 signalled, 0 pending, negative an errno.
    pub(crate) status: i32,
    flags: u32,
    pub(crate) num_fences: u32,
    pad: u32,
    sync_fence_info: u64,
}

/// `struct sync_fence_info`: one of the fences in it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FenceInfo {
    pub(crate) obj_name: [u8; NAME_LEN],
    pub(crate) driver_name: [u8; NAME_LEN],
    /// As in [`FileInfo`].
    pub(crate) status: i32,
    flags: u32,
    /// Of CLOCK_MONOTONIC, 0 where it is pending.
    pub(crate) timestamp_ns: u64,
}

impl FenceInfo {
    pub(crate) const EMPTY: FenceInfo = FenceInfo {
        obj_name: [0; NAME_LEN],
        driver_name: [0; NAME_LEN],
        status: 0,
        flags: 0,
        timestamp_ns: 0,
    };
}

#[repr(C)]
struct Deadline {
    deadline_ns: u64,
    pad: u64,
}

const MERGE: Opcode = opcode::read_write::<Merge>(b'>', 3);
const FILE_INFO: Opcode = opcode::read_write::<FileInfo>(b'>', 4);
const SET_DEADLINE: Opcode = opcode::write::<Deadline>(b'>', 5);

/// `SYNC_IOC_MERGE`: a new sync_file that signals when both have.
pub(crate) fn merge(one: BorrowedFd<'_>, other: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    let mut request = Merge {
        name: [0; NAME_LEN],
        fd2: other.as_raw_fd(),
        fence: -1,
        flags: 0,
        pad: 0,
    };
    let name = name.to_bytes_with_nul();
    let place = request.name.get_mut(..name.len()).ok_or(Errno::INVAL)?;
    place.copy_from_slice(name);
    // SAFETY: the opcode reads and writes one `Merge`.
    unsafe { ioctl::ioctl(one, Updater::<MERGE, Merge>::new(&mut request))? };
    // SAFETY: the call succeeded, so this is a new fd that no one else owns.
    // The kernel made it to close on exec.
    Ok(unsafe { OwnedFd::from_raw_fd(request.fence) })
}

/// `SYNC_IOC_FILE_INFO`: the whole, and as many of its fences as `fences` takes.
/// `EINVAL` where that is fewer than there are, but for none at all.
pub(crate) fn file_info(fd: BorrowedFd<'_>, fences: &mut [FenceInfo]) -> Result<FileInfo> {
    let mut info = FileInfo {
        name: [0; NAME_LEN],
        status: 0,
        flags: 0,
        num_fences: u32::try_from(fences.len()).map_err(|_| Errno::INVAL)?,
        pad: 0,
        sync_fence_info: fences.as_mut_ptr().expose_provenance() as u64,
    };
    // SAFETY: the opcode reads and writes one `FileInfo`, and at most
    // `num_fences` of the structs that it points to.
    unsafe { ioctl::ioctl(fd, Updater::<FILE_INFO, FileInfo>::new(&mut info))? };
    Ok(info)
}

/// `SYNC_IOC_SET_DEADLINE`, in nanoseconds of CLOCK_MONOTONIC. `ENOTTY` before
/// 6.4.
pub(crate) fn set_deadline(fd: BorrowedFd<'_>, deadline_ns: u64) -> Result<()> {
    deadline(
        fd,
        Deadline {
            deadline_ns,
            pad: 0,
        },
    )
}

/// The same with what the kernel refuses, so that nothing happens but that it
/// says whether it knows the call: `EINVAL` where it does.
pub(crate) fn try_deadline(fd: BorrowedFd<'_>) -> Result<()> {
    let refused = Deadline {
        deadline_ns: 0,
        pad: 1,
    };
    deadline(fd, refused)
}

fn deadline(fd: BorrowedFd<'_>, request: Deadline) -> Result<()> {
    // SAFETY: the opcode reads one `Deadline`, and writes nothing.
    unsafe { ioctl::ioctl(fd, Setter::<SET_DEADLINE, Deadline>::new(request)) }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn layout_is_that_of_the_header() {
        assert_eq!(size_of::<Merge>(), 48);
        assert_eq!(offset_of!(Merge, fd2), 32);
        assert_eq!(offset_of!(Merge, fence), 36);
        assert_eq!(MERGE, 0xc030_3e03);
        assert_eq!(size_of::<FileInfo>(), 56);
        assert_eq!(offset_of!(FileInfo, status), 32);
        assert_eq!(offset_of!(FileInfo, num_fences), 40);
        assert_eq!(offset_of!(FileInfo, sync_fence_info), 48);
        assert_eq!(FILE_INFO, 0xc038_3e04);
        assert_eq!(size_of::<FenceInfo>(), 80);
        assert_eq!(offset_of!(FenceInfo, driver_name), 32);
        assert_eq!(offset_of!(FenceInfo, status), 64);
        assert_eq!(offset_of!(FenceInfo, timestamp_ns), 72);
        assert_eq!(size_of::<Deadline>(), 16);
        assert_eq!(SET_DEADLINE, 0x4010_3e05);
    }
}
