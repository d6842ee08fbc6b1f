//! The calls that do something with a dma-buf, or with what is beside it.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;

use rustix::fs::{FallocateFlags, OFlags, SealFlags};
use rustix::io::Errno;

use super::arguments::SyncFile;
use super::fuzzer::Fuzzer;
use crate::device::{PAGE, last_errno};
use crate::memfd;

impl Fuzzer {
    pub(super) fn dma_buf(&mut self) -> Result<i32, Errno> {
        let at = self.index(self.dma_bufs.len())?;
        Ok(self.dma_bufs[at].as_raw_fd())
    }

    pub(super) fn sync(&mut self) -> Result<(), Errno> {
        let node = self.dma_buf()?;
        let mut flags = match self.chance(8) {
            true => self.random.next(),
            false => self.random.of(&[1, 2, 3, 5, 6, 7]),
        };
        self.call(node, 0x4008_6200, &mut flags).map(drop)
    }

    pub(super) fn set_name(&mut self) -> Result<(), Errno> {
        let node = self.dma_buf()?;
        let mut name = self.bad_name();
        self.call(node, 0x4008_6201, &mut name).map(drop)
    }

    pub(super) fn export_sync_file(&mut self) -> Result<(), Errno> {
        let node = self.dma_buf()?;
        let mut argument = SyncFile {
            flags: self.random.few(4),
            fd: -1,
        };
        self.flip(&mut argument);
        self.call(node, 0xc008_6202, &mut argument)?;
        // SAFETY: the kernel made this handle for us, and nobody else owns it.
        self.fences
            .push(unsafe { OwnedFd::from_raw_fd(argument.fd) });
        if self.fences.len() > 4 {
            self.fences.remove(0);
        }
        Ok(())
    }

    pub(super) fn import_sync_file(&mut self) -> Result<(), Errno> {
        let node = self.dma_buf()?;
        let fence = self.fences.last().map(AsRawFd::as_raw_fd);
        let mut argument = SyncFile {
            flags: 1 + self.random.few(2),
            fd: fence.unwrap_or(-1),
        };
        self.flip(&mut argument);
        self.call(node, 0x4008_6203, &mut argument).map(drop)
    }

    /// Any part, and its first and last byte read.
    pub(super) fn mmap(&mut self) -> Result<(), Errno> {
        let fd = self.dma_buf()?;
        let length = usize::try_from((1 + self.random.below(32)) * PAGE).expect("few");
        let offset = match self.random.below(4) {
            0 => self.random.below(64) * PAGE,
            1 if self.random.below(8) == 0 => self.random.next() >> 1 & !(PAGE - 1),
            _ => 0,
        };
        let prot = match self.chance(8) {
            true => self.random.few(8).cast_signed(),
            false => libc::PROT_READ | libc::PROT_WRITE,
        };
        let flags = match self.chance(8) {
            true => libc::MAP_PRIVATE,
            false => libc::MAP_SHARED,
        };
        let offset = offset.cast_signed();
        // SAFETY: a new mapping, where nothing is.
        let at = unsafe { libc::mmap(null_mut(), length, prot, flags, fd, offset) };
        if at == libc::MAP_FAILED {
            return Err(last_errno());
        }
        self.mappings.push((at, length));
        if prot & libc::PROT_READ != 0 {
            let first = at.cast::<u8>();
            // SAFETY: both are within the mapping, which can be read: it is as
            // long as the buffer at most, and a buffer keeps its size.
            unsafe {
                first.read_volatile();
                first.add(length - 1).read_volatile();
            }
        }
        if self.mappings.len() > 16 {
            self.munmap()?;
        }
        Ok(())
    }

    pub(super) fn munmap(&mut self) -> Result<(), Errno> {
        let at = self.index(self.mappings.len())?;
        let (at, length) = self.mappings.swap_remove(at);
        // SAFETY: the mapping is ours, and nothing refers into it.
        match unsafe { libc::munmap(at, length) } {
            0 => Ok(()),
            _ => Err(last_errno()),
        }
    }

    pub(super) fn dup(&mut self) -> Result<(), Errno> {
        let at = self.index(self.dma_bufs.len())?;
        let copy = rustix::io::fcntl_dupfd_cloexec(&self.dma_bufs[at], 0)?;
        self.dma_bufs.push(copy);
        Ok(())
    }

    pub(super) fn close(&mut self) -> Result<(), Errno> {
        let at = self.index(self.dma_bufs.len())?;
        drop(self.dma_bufs.swap_remove(at));
        Ok(())
    }

    /// What its owner does while others have it: holes, more, or a new one.
    pub(super) fn memfd(&mut self) -> Result<(), Errno> {
        let at = self.index(self.memfds.len())?;
        let pages = 1 << (2 * at);
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match self.random.below(3) {
            0 => rustix::fs::fallocate(&self.memfds[at], hole, 0, pages * PAGE),
            1 => rustix::fs::fcntl_add_seals(&self.memfds[at], SealFlags::WRITE),
            _ => {
                self.memfds[at] = memfd(pages * PAGE).map_err(|_| Errno::NOMEM)?;
                Ok(())
            }
        }
    }

    pub(super) fn debugfs(&mut self) -> Result<(), Errno> {
        let path = "/sys/kernel/debug/dmashare/buffers";
        let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, 0.into())?;
        let mut bytes = vec![0; 1 << 16];
        rustix::io::read(&file, &mut bytes).map(drop)
    }
}
