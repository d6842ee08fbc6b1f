//! System V shared memory: shmget(2), shmat(2), shmctl(2).

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use rustix::io::{Errno, Result};

/// The key that is no key: a segment which is found by its id alone.
pub(crate) const PRIVATE: i32 = libc::IPC_PRIVATE;
pub(crate) const CREATE: i32 = libc::IPC_CREAT;
pub(crate) const EXCLUSIVE: i32 = libc::IPC_EXCL;
pub(crate) const HUGETLB: i32 = libc::SHM_HUGETLB;

/// `SHM_HUGE_SHIFT` of linux/shm.h: where the logarithm of a page size goes.
pub(crate) const HUGE_SHIFT: u32 = 26;

/// The id of a segment: a new one, or that of a key.
pub(crate) fn get(key: i32, size: usize, flags: i32) -> Result<i32> {
    // SAFETY: takes three numbers.
    check(unsafe { libc::shmget(key, size, flags) })
}

/// Attaches a segment at an address of the kernel's choice.
pub(crate) fn attach(id: i32, read_only: bool) -> Result<NonNull<c_void>> {
    let flags = if read_only { libc::SHM_RDONLY } else { 0 };
    // SAFETY: a new mapping at an address of the kernel's choice touches no
    // memory that exists.
    let memory = unsafe { libc::shmat(id, std::ptr::null(), flags) };
    if memory.addr() == usize::MAX {
        return Err(last_error());
    }
    Ok(NonNull::new(memory).expect("shmat without SHM_REMAP never maps address 0"))
}

/// Detaches what [`attach`] gave.
///
/// # Safety
/// Nobody may use that memory any more.
pub(crate) unsafe fn detach(memory: NonNull<c_void>) -> Result<()> {
    // SAFETY: the caller vouches for it.
    check(unsafe { libc::shmdt(memory.as_ptr()) }).map(drop)
}

/// What the kernel knows of a segment: `IPC_STAT`.
pub(crate) fn stat(id: i32) -> Result<libc::shmid_ds> {
    let mut stat = MaybeUninit::<libc::shmid_ds>::zeroed();
    // SAFETY: the kernel writes one `shmid_ds`.
    check(unsafe { libc::shmctl(id, libc::IPC_STAT, stat.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, and every bit pattern is one.
    Ok(unsafe { stat.assume_init() })
}

/// Takes the key from a segment, whose memory goes with the last who has it
/// attached: `IPC_RMID`.
pub(crate) fn remove(id: i32) -> Result<()> {
    // SAFETY: IPC_RMID uses no third argument.
    check(unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) }).map(drop)
}

fn check(returned: i32) -> Result<i32> {
    match returned {
        -1 => Err(last_error()),
        value => Ok(value),
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
