//! The handle of a System V segment: an id, and an attachment that keeps it.

use std::ffi::c_void;
use std::ptr::NonNull;

use rustix::io::Errno;
use rustix::mm::{MprotectFlags, MremapFlags, mprotect, mremap};
use rustix::param::page_size;

use super::memory::Memory;
use super::{Access, BufferError, Ownership};
use crate::sys::sysv;

/// A System V segment (shmget(2)), attached for as long as this lives.
///
/// Linux keeps a segment that was removed (`IPC_RMID`) for those who have it
/// attached, and lets others attach it by its id meanwhile. So whoever removes
/// it right after this was made leaves nothing behind, however the process
/// ends.
#[derive(Debug)]
pub(super) struct Segment {
    id: i32,
    size: u64,
    huge: bool,
    writable: bool,
    keep: Attachment,
}

impl Segment {
    pub(super) fn open(id: i32) -> Result<Segment, BufferError> {
        let (keep, writable) = match Attachment::new(id, Access::ReadWrite) {
            Err(BufferError::Os {
                source: Errno::ACCESS,
                ..
            }) => (Attachment::new(id, Access::Read)?, false),
            keep => (keep?, true),
        };
        let stat = sysv::stat(id).map_err(os("shmctl(IPC_STAT)", id))?;
        Ok(Segment {
            id,
            size: stat.shm_segsz as u64,
            huge: keep.lies_in_huge_pages(id)?,
            writable,
            keep,
        })
    }

    /// The users who own and made it, and its permissions now.
    pub(super) fn ownership(&self) -> Result<Ownership, BufferError> {
        let stat = sysv::stat(self.id).map_err(os("shmctl(IPC_STAT)", self.id))?;
        let permissions = stat.shm_perm;
        #[allow(clippy::useless_conversion, reason = "u16 on some machines only")]
        let mode = u32::from(permissions.mode) & 0o777;
        Ok(Ownership {
            uid: permissions.uid,
            creator: permissions.cuid,
            mode,
        })
    }

    /// A mapping of its own of whole pages, `len` bytes from `offset` on, and
    /// where in it these begin.
    pub(super) fn map(
        &self,
        offset: usize,
        len: usize,
        access: Access,
    ) -> Result<(Memory, usize), BufferError> {
        if access.writes() && !self.writable {
            return Err(os("shmat", self.id)(Errno::ACCESS));
        }
        if self.huge {
            return Ok((self.attached_again(access)?, offset));
        }
        // The memory that is attached, and not what has its id now: in another
        // IPC namespace that is another segment. With an old size of 0,
        // mremap(2) maps the same pages once more.
        let address = self.keep.address().as_ptr();
        // SAFETY: these pages are attached for as long as self lives, and a new
        // mapping at an address of the kernel's choice leaves them as they are.
        let again = unsafe { mremap(address.byte_add(offset), 0, len, MremapFlags::MAYMOVE) };
        let base = again.map_err(os("mremap", self.id))?;
        let memory = Memory::Mapped {
            base: NonNull::new(base).expect("mremap never maps address 0"),
            len,
        };
        if !access.writes() {
            // SAFETY: a mapping that was just made, and that nobody uses yet.
            unsafe { mprotect(base, len, MprotectFlags::READ) }.map_err(os("mprotect", self.id))?;
        }
        Ok((memory, 0))
    }

    /// The whole of it once more, by its id: mremap(2) does not do that with
    /// huge pages. At least it is as large as ours.
    fn attached_again(&self, access: Access) -> Result<Memory, BufferError> {
        let again = Attachment::new(self.id, access)?;
        let stat = sysv::stat(self.id).map_err(os("shmctl(IPC_STAT)", self.id))?;
        match stat.shm_segsz as u64 == self.size {
            true => Ok(Memory::Attached(again)),
            false => Err(os("shmat", self.id)(Errno::IDRM)),
        }
    }

    pub(super) fn id(&self) -> i32 {
        self.id
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn lies_in_huge_pages(&self) -> bool {
        self.huge
    }
}

/// One shmat(2); detached on drop.
#[derive(Debug)]
pub(super) struct Attachment {
    memory: NonNull<c_void>,
}

// SAFETY: an address that only its owner detaches; the memory belongs to no
// thread.
unsafe impl Send for Attachment {}
// SAFETY: as above, and nothing of it changes.
unsafe impl Sync for Attachment {}

impl Attachment {
    pub(super) fn new(id: i32, access: Access) -> Result<Attachment, BufferError> {
        let memory = sysv::attach(id, !access.writes()).map_err(os("shmat", id))?;
        Ok(Attachment { memory })
    }

    pub(super) fn address(&self) -> NonNull<c_void> {
        self.memory
    }

    /// Nothing else tells of a segment that was made elsewhere: `IPC_STAT` does
    /// not, and it has no file to ask.
    fn lies_in_huge_pages(&self, id: i32) -> Result<bool, BufferError> {
        let address = self.memory.as_ptr().addr();
        if !address.is_multiple_of(SMALLEST_HUGE) {
            return Ok(false);
        }
        let unknown = |errno| os("read of /proc/self/smaps", id)(errno);
        let maps = std::fs::read_to_string("/proc/self/smaps")
            .map_err(|error| unknown(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        let start = format!("{address:08x}-");
        let ours = maps
            .lines()
            .skip_while(|line| !line.starts_with(&start))
            .find_map(|line| line.strip_prefix("KernelPageSize:"));
        let kib = ours.and_then(|size| size.trim().strip_suffix(" kB")?.parse::<usize>().ok());
        let kib = kib.ok_or_else(|| unknown(Errno::NODATA))?;
        Ok(kib * 1024 > page_size())
    }
}

/// No architecture has huge pages of less: they begin at a multiple of it.
const SMALLEST_HUGE: usize = 64 << 10;

impl Drop for Attachment {
    fn drop(&mut self) {
        // SAFETY: made by `attach`; what borrows the memory borrows self.
        let detached = unsafe { sysv::detach(self.memory) };
        debug_assert!(detached.is_ok(), "shmdt of our own: {detached:?}");
    }
}

/// How messages name a segment.
pub(super) fn name(id: i32) -> String {
    format!("System V segment {id}")
}

fn os(operation: &'static str, id: i32) -> impl FnOnce(Errno) -> BufferError {
    move |source| BufferError::Os {
        operation,
        name: name(id),
        source,
    }
}
