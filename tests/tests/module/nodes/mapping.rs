//! mmap of buffers, and what can be done with the mapping.

use std::collections::BTreeSet;
use std::fs::{File, read_to_string};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::raw::{c_int, c_void};
use std::os::unix::fs::FileExt;
use std::ptr::null_mut;

use dmashare_tests::conformance::Verdict;
use libc::{
    MAP_FAILED, MAP_GROWSDOWN, MAP_LOCKED, MAP_POPULATE, MAP_PRIVATE, MAP_SHARED,
    MAP_SHARED_VALIDATE, PROT_EXEC, PROT_NONE, PROT_READ, PROT_WRITE,
};
use rustix::io::Errno;

use super::table::{Answer, NO_EXEC, Table, answer, newest, of_kernel};
use super::{heap, udmabuf};
use crate::device::last_errno;
use crate::forked::in_another_process;
use crate::{ensure, text};

const PAGE: usize = 4096;
/// Pages of each buffer.
const PAGES: u64 = 16;

/// A mapping, until this is dropped.
#[derive(Debug)]
pub(super) struct Mapped {
    at: *mut c_void,
    pages: usize,
}

impl Mapped {
    pub(super) fn new(
        buffer: &OwnedFd,
        prot: c_int,
        flags: c_int,
        offset: i64,
        pages: usize,
    ) -> Result<Mapped, Errno> {
        let (fd, offset) = (buffer.as_raw_fd(), offset * 4096);
        // SAFETY: a new mapping, where nothing is.
        let at = unsafe { libc::mmap(null_mut(), pages * PAGE, prot, flags, fd, offset) };
        match at == MAP_FAILED {
            true => Err(last_errno()),
            false => Ok(Mapped { at, pages }),
        }
    }

    /// A byte of this page.
    fn byte(&self, page: usize) -> *mut u8 {
        assert!(page < self.pages, "out of the mapping");
        // SAFETY: within the mapping.
        unsafe { self.at.cast::<u8>().add(page * PAGE) }
    }

    fn put(&self, page: usize, value: u8) {
        // SAFETY: the caller mapped it for writing, and keeps no reference to it.
        unsafe { self.byte(page).write_volatile(value) };
    }

    fn get(&self, page: usize) -> u8 {
        // SAFETY: the caller mapped it for reading.
        unsafe { self.byte(page).read_volatile() }
    }

    fn advise(&self, advice: c_int) -> Answer {
        // SAFETY: none of the advice given here takes memory of another away.
        answer(unsafe { libc::madvise(self.at, self.pages * PAGE, advice) } != -1)
    }

    fn protect(&self, prot: c_int) -> Answer {
        // SAFETY: no reference into the mapping is kept.
        answer(unsafe { libc::mprotect(self.at, self.pages * PAGE, prot) } != -1)
    }

    /// mremap(2), after which the mapping is where it says.
    fn remap(&mut self, old: usize, new: usize, flags: c_int, to: *mut c_void) -> Answer {
        // SAFETY: no reference into the mapping is kept, and `to` is the caller's.
        let at = unsafe { libc::mremap(self.at, old * PAGE, new * PAGE, flags, to) };
        if at == MAP_FAILED {
            return Err(last_errno());
        }
        (self.at, self.pages) = (at, new);
        Ok(())
    }

    /// The flags that /proc/self/smaps shows.
    fn flags(&self) -> Result<BTreeSet<String>, String> {
        let smaps = read_to_string("/proc/self/smaps").map_err(text)?;
        let start = format!("{:x}-", self.at.addr());
        let mut lines = smaps.lines().skip_while(|line| !line.starts_with(&start));
        let flags = lines.find_map(|line| line.strip_prefix("VmFlags:"));
        let flags = flags.ok_or("the mapping is not in smaps")?;
        Ok(flags.split_whitespace().map(str::to_owned).collect())
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers into it.
        unsafe { libc::munmap(self.at, self.pages * PAGE) };
    }
}

fn read_write(buffer: &OwnedFd, pages: usize) -> Result<Mapped, String> {
    Mapped::new(buffer, PROT_READ | PROT_WRITE, MAP_SHARED, 0, pages).map_err(text)
}

/// `READ_IMPLIES_EXEC`, as an old program has it, until this is dropped.
struct ReadImpliesExec(u32);

impl ReadImpliesExec {
    fn new() -> ReadImpliesExec {
        // SAFETY: changes what mmap of this thread does, for as long as this lives.
        unsafe {
            let before = libc::personality(0xffff_ffff).cast_unsigned();
            let implied = before | libc::READ_IMPLIES_EXEC.cast_unsigned();
            libc::personality(implied.into());
            ReadImpliesExec(before)
        }
    }
}

impl Drop for ReadImpliesExec {
    fn drop(&mut self) {
        // SAFETY: what it was before.
        unsafe { libc::personality(self.0.into()) };
    }
}

pub(super) fn of_udmabuf() -> Verdict {
    mmap(&udmabuf::buffer(PAGES)?, Err(Errno::INVAL))
}

pub(super) fn of_heap() -> Verdict {
    mmap(&heap::buffer(PAGES)?, Ok(()))?;
    // An odd number of pages is more than one chunk, which a private mapping is not.
    let found = Mapped::new(&heap::buffer(3)?, PROT_READ, MAP_PRIVATE, 0, 3).map(drop);
    ensure(found == Err(Errno::INVAL), || {
        format!("MAP_PRIVATE of two chunks: {found:?}, expected EINVAL")
    })
}

fn mmap(buffer: &OwnedFd, private: Answer) -> Verdict {
    let both = PROT_READ | PROT_WRITE;
    let invalid = Err(Errno::INVAL);
    let denied = newest(NO_EXEC, Err(Errno::PERM), Ok(()));
    let mut table = Table::new();
    for (what, prot, flags, offset, pages, expected) in [
        ("all of it", both, MAP_SHARED, 0, 16, Ok(())),
        ("no access", PROT_NONE, MAP_SHARED, 0, 16, Ok(())),
        ("PROT_WRITE", PROT_WRITE, MAP_SHARED, 0, 1, Ok(())),
        ("VALIDATE", both, MAP_SHARED_VALIDATE, 0, 1, Ok(())),
        ("POPULATE", both, MAP_SHARED | MAP_POPULATE, 0, 16, Ok(())),
        ("LOCKED", both, MAP_SHARED | MAP_LOCKED, 0, 1, Ok(())),
        ("GROWSDOWN", both, MAP_SHARED | MAP_GROWSDOWN, 0, 1, invalid),
        ("the last page", both, MAP_SHARED, 15, 1, Ok(())),
        ("a page too many", both, MAP_SHARED, 0, 17, invalid),
        ("one past the end", both, MAP_SHARED, 15, 2, invalid),
        ("from the end", both, MAP_SHARED, 16, 1, invalid),
        ("far off", both, MAP_SHARED, 1 << 40, 1, invalid),
        ("PROT_EXEC", PROT_EXEC, MAP_SHARED, 0, 1, denied),
        (
            "PROT_READ and EXEC",
            PROT_READ | PROT_EXEC,
            MAP_SHARED,
            0,
            1,
            denied,
        ),
        ("PRIVATE, PROT_READ", PROT_READ, MAP_PRIVATE, 0, 1, private),
        ("PRIVATE, both", both, MAP_PRIVATE, 0, 1, private),
        ("PRIVATE, the last page", both, MAP_PRIVATE, 15, 1, private),
    ] {
        let found = Mapped::new(buffer, prot, flags, offset, pages).map(drop);
        table.row(format!("mmap, {what}"), found, expected);
    }
    let implied = ReadImpliesExec::new();
    for (what, prot, expected) in [
        ("PROT_READ", PROT_READ, Ok(())),
        ("both", both, Ok(())),
        ("PROT_WRITE", PROT_WRITE, Ok(())),
        ("PROT_NONE", PROT_NONE, Ok(())),
        ("PROT_EXEC", PROT_EXEC, denied),
        // Before, it cannot be told from PROT_READ alone.
        (
            "PROT_READ and EXEC",
            PROT_READ | PROT_EXEC,
            of_kernel(NO_EXEC, Err(Errno::PERM), Ok(())),
        ),
    ] {
        let found = Mapped::new(buffer, prot, MAP_SHARED, 0, 16);
        let what = format!("mmap under READ_IMPLIES_EXEC, {what}");
        if let (PROT_READ, Ok(mapped)) = (prot, &found) {
            let executable = mapped.flags()?.contains("ex");
            let expected = newest(NO_EXEC, false, true);
            table.row(format!("{what}: executable"), executable, expected);
            table.row(
                format!("{what}: mprotect"),
                mapped.protect(PROT_READ),
                Ok(()),
            );
        }
        table.row(what, found.map(drop), expected);
    }
    drop(implied);
    table.verdict()
}

/// What is written to a private mapping does not reach the buffer.
pub(super) fn private_is_a_copy() -> Verdict {
    let buffer = heap::buffer(1)?;
    let shared = read_write(&buffer, 1)?;
    shared.put(0, 1);
    let private = Mapped::new(&buffer, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, 1).map_err(text)?;
    let mut table = Table::new();
    table.row("before a write", private.get(0), 1);
    shared.put(0, 2);
    table.row("after a write to the buffer", private.get(0), 2);
    private.put(0, 3);
    table.row(
        "after a write of its own",
        (private.get(0), shared.get(0)),
        (3, 2),
    );
    shared.put(0, 4);
    table.row("after both", (private.get(0), shared.get(0)), (3, 4));
    drop((private, shared));
    drop(buffer);
    table.verdict()
}

pub(super) fn mapped_udmabuf() -> Verdict {
    // VM_IO kept it from that alone, and since then VM_PFNMAP does.
    let do_fork = of_kernel((7, 0), Err(Errno::INVAL), Ok(()));
    mapped(&udmabuf::buffer(PAGES)?, &[], do_fork)
}

pub(super) fn mapped_heap() -> Verdict {
    mapped(&heap::buffer(PAGES)?, &["io"], Err(Errno::INVAL))
}

fn mapped(buffer: &OwnedFd, more_flags: &[&str], do_fork: Answer) -> Verdict {
    let mut table = Table::new();
    let pages = 4;
    flags(&read_write(buffer, pages)?, more_flags, &mut table)?;
    advice(&read_write(buffer, pages)?, do_fork, &mut table);
    protections(&read_write(buffer, pages)?, &mut table);
    page_references(&read_write(buffer, pages)?, &mut table)?;
    moves(read_write(buffer, pages)?, &mut table)?;
    table.verdict()
}

fn flags(mapping: &Mapped, more: &[&str], table: &mut Table) -> Verdict {
    let common = ["rd", "wr", "sh", "mr", "mw", "ms", "pf", "de", "dd"];
    let executable: &[&str] = newest(NO_EXEC, &[], &["me"]);
    let expected = [&common, more, executable].concat();
    let expected: BTreeSet<String> = expected.into_iter().map(str::to_owned).collect();
    let mut found = mapping.flags()?;
    // Soft-dirty, and x86's own for memory types.
    found.retain(|flag| flag != "sd" && flag != "ar");
    table.row("VmFlags", found, expected);
    Ok(())
}

fn advice(mapping: &Mapped, do_fork: Answer, table: &mut Table) {
    let invalid = Err(Errno::INVAL);
    for (what, advice, expected) in [
        ("NORMAL", libc::MADV_NORMAL, Ok(())),
        ("RANDOM", libc::MADV_RANDOM, Ok(())),
        ("SEQUENTIAL", libc::MADV_SEQUENTIAL, Ok(())),
        ("WILLNEED", libc::MADV_WILLNEED, Ok(())),
        ("DONTNEED", libc::MADV_DONTNEED, invalid),
        ("FREE", libc::MADV_FREE, invalid),
        ("REMOVE", libc::MADV_REMOVE, Err(Errno::NODEV)),
        ("DONTDUMP", libc::MADV_DONTDUMP, Ok(())),
        ("DODUMP", libc::MADV_DODUMP, invalid),
        ("WIPEONFORK", libc::MADV_WIPEONFORK, invalid),
        ("KEEPONFORK", libc::MADV_KEEPONFORK, Ok(())),
        ("COLD", libc::MADV_COLD, invalid),
        ("PAGEOUT", libc::MADV_PAGEOUT, invalid),
        ("POPULATE_READ", libc::MADV_POPULATE_READ, invalid),
        ("POPULATE_WRITE", libc::MADV_POPULATE_WRITE, invalid),
        ("DONTNEED_LOCKED", libc::MADV_DONTNEED_LOCKED, invalid),
        ("DONTFORK", libc::MADV_DONTFORK, Ok(())),
        ("DOFORK", libc::MADV_DOFORK, do_fork),
    ] {
        table.row(format!("madvise, {what}"), mapping.advise(advice), expected);
    }
}

fn protections(mapping: &Mapped, table: &mut Table) {
    let no_exec = newest(NO_EXEC, Err(Errno::ACCESS), Ok(()));
    for (what, prot, expected) in [
        ("PROT_NONE", PROT_NONE, Ok(())),
        ("PROT_READ", PROT_READ, Ok(())),
        ("PROT_READ and EXEC", PROT_READ | PROT_EXEC, no_exec),
        ("both", PROT_READ | PROT_WRITE, Ok(())),
    ] {
        table.row(format!("mprotect, {what}"), mapping.protect(prot), expected);
    }
    mapping.put(1, 7);
    table.row("a byte after mprotect", mapping.get(1), 7);
}

/// Calls that would keep a reference to a page, or look at one from outside.
fn page_references(mapping: &Mapped, table: &mut Table) -> Verdict {
    let mut bytes = [0_u8; 16];
    let local = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: 16,
    };
    let remote = libc::iovec {
        iov_base: mapping.at,
        iov_len: 16,
    };
    let (from, into) = rustix::pipe::pipe().map_err(text)?;
    let memory = File::options()
        .read(true)
        .write(true)
        .open("/proc/self/mem");
    let memory = memory.map_err(text)?;
    let at = u64::try_from(mapping.at.addr()).map_err(text)?;
    let (fault, io) = (Err(Errno::FAULT), Some(libc::EIO));
    // SAFETY: 16 bytes of the mapping and of a local array, both ours.
    unsafe {
        let pid = libc::getpid();
        // A kernel may lack both calls, which it then says of any memory.
        let known = libc::process_vm_readv(pid, &raw const local, 1, &raw const local, 1, 0);
        let fault_or_none = answer(known != -1).and(fault);
        let read = libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0);
        table.row("process_vm_readv", answer(read != -1), fault_or_none);
        let wrote = libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0);
        table.row("process_vm_writev", answer(wrote != -1), fault_or_none);
        let spliced = libc::vmsplice(into.as_raw_fd(), &raw const remote, 1, 0);
        table.row("vmsplice", answer(spliced != -1), fault);
        let wrote = libc::write(into.as_raw_fd(), mapping.at, 16);
        table.row("write to a pipe", answer(wrote == 16), Ok(()));
        let read = libc::read(from.as_raw_fd(), mapping.at, 16);
        table.row("read from a pipe", answer(read == 16), Ok(()));
        table.row("mlock", answer(libc::mlock(mapping.at, PAGE) != -1), Ok(()));
        table.row(
            "munlock",
            answer(libc::munlock(mapping.at, PAGE) != -1),
            Ok(()),
        );
        let synced = libc::msync(mapping.at, PAGE, libc::MS_SYNC) != -1;
        table.row("msync, MS_SYNC", answer(synced), Err(Errno::INVAL));
        let synced = libc::msync(mapping.at, PAGE, libc::MS_INVALIDATE) != -1;
        table.row("msync, MS_INVALIDATE", answer(synced), Ok(()));
    }
    let read = memory.read_at(&mut bytes, at);
    let read = read.map_err(|error| error.raw_os_error());
    table.row("a read of /proc/self/mem", read, Err(io));
    let wrote = memory.write_at(&bytes, at);
    let wrote = wrote.map_err(|error| error.raw_os_error());
    table.row("a write to /proc/self/mem", wrote, Err(io));
    Ok(())
}

fn moves(mut mapping: Mapped, table: &mut Table) -> Verdict {
    let may_move = libc::MREMAP_MAYMOVE;
    let (fault, invalid) = (Err(Errno::FAULT), Err(Errno::INVAL));
    mapping.put(1, 9);
    let mut row = |what, old, new, flags, to, expected| {
        let found = mapping.remap(old, new, flags, to);
        table.row(format!("mremap, {what}"), found, expected);
        table.row(format!("mremap, {what}: a byte"), mapping.get(1), 9);
    };
    row("longer", 4, 5, may_move, null_mut(), fault);
    row("a second one", 0, 4, may_move, null_mut(), fault);
    let keep = may_move | libc::MREMAP_DONTUNMAP;
    row("one that stays", 4, 4, keep, null_mut(), invalid);
    // SAFETY: a new mapping, which the next call replaces.
    let to = unsafe {
        let flags = MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(null_mut(), 4 * PAGE, PROT_NONE, flags, -1, 0)
    };
    ensure(to != MAP_FAILED, || format!("mmap: {}", last_errno()))?;
    row(
        "to another place",
        4,
        4,
        may_move | libc::MREMAP_FIXED,
        to,
        Ok(()),
    );
    row("shorter", 4, 2, 0, null_mut(), Ok(()));
    row("longer again", 2, 4, may_move, null_mut(), fault);
    Ok(())
}

pub(super) fn forked_udmabuf() -> Verdict {
    forked(&udmabuf::buffer(PAGES)?)
}

pub(super) fn forked_heap() -> Verdict {
    forked(&heap::buffer(PAGES)?)
}

/// A child shares the mapping, but for what it was not to get.
fn forked(buffer: &OwnedFd) -> Verdict {
    let (kept, withheld) = (read_write(buffer, 2)?, read_write(buffer, 2)?);
    withheld.advise(libc::MADV_DONTFORK).map_err(text)?;
    kept.put(0, 1);
    let mut table = Table::new();
    let child = in_another_process(|| {
        let mut table = Table::new();
        table.row("a byte of the parent", kept.get(0), 1);
        kept.put(1, 2);
        let is_mapped = |mapping: &Mapped| {
            // SAFETY: changes nothing.
            answer(unsafe { libc::msync(mapping.at, PAGE, libc::MS_ASYNC) } != -1)
        };
        table.row("the mapping", is_mapped(&kept), Ok(()));
        table.row(
            "one of MADV_DONTFORK",
            is_mapped(&withheld),
            Err(Errno::NOMEM),
        );
        table.verdict()
    });
    table.row("in the child", child, Ok(()));
    table.row("a byte of the child", kept.get(1), 2);
    table.verdict()
}
