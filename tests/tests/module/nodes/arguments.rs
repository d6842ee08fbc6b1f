//! Arguments in memory that ends, or that cannot be written, from some byte on.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::raw::c_void;
use std::ptr::null_mut;

use dmashare_tests::conformance::Verdict;
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::table::{Answer, Table, answer};
use super::{SYSTEM, UDMABUF, heap, lowest_free_fd, open, owned, udmabuf};
use crate::{text, users};

/// More than the longest argument that a request can announce, 16,383 bytes.
const HALF: usize = 5 * 4096;

/// Access to the second half of the memory.
#[derive(Clone, Copy, Debug)]
enum Beyond {
    None,
    Read,
    Write,
}

/// Memory in two halves.
struct Halves(*mut c_void);

impl Halves {
    fn new(beyond: Beyond) -> Result<Halves, String> {
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        let access = match beyond {
            Beyond::None => MprotectFlags::empty(),
            Beyond::Read => MprotectFlags::READ,
            Beyond::Write => MprotectFlags::READ | MprotectFlags::WRITE,
        };
        // SAFETY: a new mapping, and its second half is accessed by the kernel alone.
        unsafe {
            let both = mmap_anonymous(null_mut(), 2 * HALF, prot, flags).map_err(text)?;
            mprotect(both.byte_add(HALF), HALF, access).map_err(text)?;
            Ok(Halves(both))
        }
    }

    /// The address so many bytes before the second half.
    fn before(&self, bytes: usize) -> *mut c_void {
        assert!(bytes <= HALF, "out of the mapping");
        // SAFETY: within the mapping.
        unsafe { self.0.byte_add(HALF - bytes) }
    }

    /// Copies these bytes to the end of the first half.
    fn put(&self, bytes: &[u8]) -> *mut c_void {
        let at = self.before(bytes.len());
        // SAFETY: the first half has that many bytes, and nobody refers to them.
        unsafe { at.cast::<u8>().copy_from(bytes.as_ptr(), bytes.len()) };
        at
    }

    /// Makes the first half read-only, too.
    fn seal(&self) -> Verdict {
        // SAFETY: the mapping is ours, and is not written any more.
        unsafe { mprotect(self.0, HALF, MprotectFlags::READ) }.map_err(text)
    }
}

impl Drop for Halves {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers into it.
        unsafe { munmap(self.0, 2 * HALF) }.expect("it was mapped");
    }
}

/// A call, and whether it left a new fd, which is closed.
fn call_at(node: &File, request: libc::Ioctl, at: *mut c_void) -> Result<(Answer, bool), String> {
    let next = lowest_free_fd()?;
    // SAFETY: the caller put an argument there, and the kernel checks the rest.
    let returned = unsafe { libc::ioctl(node.as_raw_fd(), request, at) };
    let answer = answer(returned != -1);
    let made = lowest_free_fd()? != next;
    if made {
        drop(owned(next));
    }
    Ok((answer, made))
}

const READS: libc::Ioctl = 0x4000_0000;
const WRITES: libc::Ioctl = 0x8000_0000;

/// The heap copies as many bytes as the request announces, in the directions that
/// it announces: a shorter argument is extended with zeroes, and all of a longer
/// one must be there.
pub(super) fn heap_sizes() -> Verdict {
    let node = open(SYSTEM, true)?;
    let references = users()?;
    let mut table = Table::new();
    let both = READS | WRITES;
    let fault = Err(Errno::FAULT);
    let invalid = Err(Errno::INVAL);
    for (directions, size, beyond, expected, told) in [
        // Without a length there is no buffer.
        (both, 0, Beyond::None, invalid, false),
        (WRITES, 24, Beyond::Write, invalid, false),
        (WRITES, 64, Beyond::None, invalid, false),
        (0, 24, Beyond::Write, invalid, false),
        (0, 64, Beyond::None, invalid, false),
        // Without its field, the fd is made and not reported.
        (both, 4, Beyond::None, Ok(()), false),
        (both, 8, Beyond::None, Ok(()), false),
        (both, 12, Beyond::None, Ok(()), true),
        (both, 16, Beyond::None, Ok(()), true),
        (both, 20, Beyond::None, Ok(()), true),
        (both, 24, Beyond::None, Ok(()), true),
        (READS, 8, Beyond::None, Ok(()), false),
        (READS, 24, Beyond::None, Ok(()), false),
        // Beyond the structure.
        (both, 25, Beyond::Write, Ok(()), true),
        (both, 128, Beyond::Write, Ok(()), true),
        (both, 129, Beyond::Write, Ok(()), true),
        (both, 16383, Beyond::Write, Ok(()), true),
        (READS, 64, Beyond::Read, Ok(()), false),
        (READS, 16383, Beyond::Read, Ok(()), false),
        (both, 25, Beyond::None, fault, false),
        (both, 64, Beyond::None, fault, false),
        (both, 129, Beyond::None, fault, false),
        (both, 16383, Beyond::None, fault, false),
        (READS, 64, Beyond::None, fault, false),
        // The fd exists by then, and is taken back.
        (both, 25, Beyond::Read, fault, false),
        (both, 64, Beyond::Read, fault, false),
        (both, 129, Beyond::Read, fault, false),
        (both, 16383, Beyond::Read, fault, false),
    ] {
        let halves = Halves::new(beyond)?;
        let at = halves.put(&heap::data(4096).bytes());
        let request = directions | size << 16 | 0x4800;
        let what = format!("request {request:#x}, {size} bytes, beyond {beyond:?}");
        let next = lowest_free_fd()?;
        let (found, made) = call_at(&node, request, at)?;
        table.row(&what, found, expected);
        table.row(format!("{what}: a new fd"), made, expected.is_ok());
        if expected.is_ok() {
            // SAFETY: its field, in the half that can be read.
            let fd = unsafe { at.byte_add(8).cast::<i32>().read_unaligned() };
            table.row(format!("{what}: fd"), fd, if told { next } else { 0 });
        }
    }
    table.row("references to the module", users()?, references);
    table.verdict()
}

/// Where the argument begins so near the end that a part of it is missing, where it
/// is read-only, and where there is none.
pub(super) fn heap_edges() -> Verdict {
    let node = open(SYSTEM, true)?;
    let mut table = Table::new();
    let halves = Halves::new(Beyond::None)?;
    for bytes in [0, 1, 8, 12, 16, 23] {
        let at = halves.put(&heap::data(4096).bytes()[..bytes]);
        let found = call_at(&node, heap::ALLOC, at)?;
        let expected = (Err(Errno::FAULT), false);
        table.row(format!("{bytes} bytes before the end"), found, expected);
    }
    let at = halves.put(&heap::data(4096).bytes());
    halves.seal()?;
    let sized = |directions, size: libc::Ioctl| directions | size << 16 | 0x4800;
    for (what, request, at, expected) in [
        ("_IOWR, read-only", heap::ALLOC, at, Err(Errno::FAULT)),
        ("_IOW, read-only", sized(READS, 24), at, Ok(())),
        (
            "_IOW, NULL",
            sized(READS, 24),
            null_mut(),
            Err(Errno::FAULT),
        ),
        (
            "_IOR, NULL",
            sized(WRITES, 24),
            null_mut(),
            Err(Errno::INVAL),
        ),
        ("_IO, NULL", sized(0, 24), null_mut(), Err(Errno::INVAL)),
        (
            "no size, NULL",
            sized(READS | WRITES, 0),
            null_mut(),
            Err(Errno::INVAL),
        ),
    ] {
        let found = call_at(&node, request, at)?;
        table.row(what, found, (expected, expected.is_ok()));
    }
    table.verdict()
}

pub(super) fn udmabuf_edges() -> Verdict {
    let node = open(UDMABUF, true)?;
    let memfd = udmabuf::sealed(4)?;
    let mut table = Table::new();
    let halves = Halves::new(Beyond::None)?;
    let fault = (Err(Errno::FAULT), false);
    let good = udmabuf::create(&memfd, 0, 4096);
    for bytes in [0, 1, 8, 16, 23] {
        let at = halves.put(&good.bytes()[..bytes]);
        let found = call_at(&node, udmabuf::CREATE, at)?;
        table.row(format!("{bytes} bytes before the end"), found, fault);
    }
    // A list whose head alone is there, or all but its last bytes.
    let list = |count: u32, items: &[OwnedFd]| {
        let mut bytes = [0_u32.to_ne_bytes(), count.to_ne_bytes()].concat();
        for memfd in items {
            bytes.extend(udmabuf::create(memfd, 0, 4096).bytes());
        }
        bytes
    };
    let two = [
        memfd.try_clone().map_err(text)?,
        memfd.try_clone().map_err(text)?,
    ];
    let mut bad_first = list(2, &two);
    bad_first[8..12].copy_from_slice(&(-1_i32).to_ne_bytes());
    for (what, bytes, expected) in [
        ("7 bytes of a head", &list(1, &[])[..7], fault),
        ("a head of none", &list(0, &[]), (Err(Errno::INVAL), false)),
        ("a head of one", &list(1, &[]), fault),
        ("a head of 1024", &list(1024, &[]), fault),
        (
            "a head of 1025",
            &list(1025, &[]),
            (Err(Errno::INVAL), false),
        ),
        ("two, the last byte missing", &list(2, &two)[..55], fault),
        ("two, the first of no file", &bad_first[..55], fault),
        ("two", &list(2, &two), (Ok(()), true)),
    ] {
        let at = halves.put(bytes);
        let found = call_at(&node, udmabuf::CREATE_LIST, at)?;
        table.row(what, found, expected);
    }
    // Nothing is written to either.
    let made = (Ok(()), true);
    halves.put(&list(2, &two));
    halves.seal()?;
    let found = call_at(&node, udmabuf::CREATE_LIST, halves.before(56))?;
    table.row("a list, read-only", found, made);
    let halves = Halves::new(Beyond::None)?;
    let at = halves.put(&good.bytes());
    halves.seal()?;
    table.row("read-only", call_at(&node, udmabuf::CREATE, at)?, made);
    table.verdict()
}
