//! /dev/dma_heap/system.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null_mut;

use dmashare::buffer::Buffer;
use dmashare_tests::conformance::Verdict;
use rustix::io::{Errno, FdFlags, fcntl_getfd};

use super::mapping::Mapped;
use super::sync::{READ, sync};
use super::table::Table;
use super::{PAGE, SYSTEM, call, exporter, open, owned, refused};
use crate::memory::{holds, put};
use crate::{ensure, text};

/// `struct dma_heap_allocation_data` of linux/dma-heap.h, and more behind it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Data {
    pub(super) len: u64,
    pub(super) fd: u32,
    pub(super) fd_flags: u32,
    pub(super) heap_flags: u64,
    pub(super) beyond: [u64; 2],
}

pub(super) const ALLOC: libc::Ioctl = 0xc018_4800;

pub(super) fn data(len: u64) -> Data {
    Data {
        len,
        fd: 0,
        fd_flags: (libc::O_RDWR | libc::O_CLOEXEC).cast_unsigned(),
        heap_flags: 0,
        beyond: [0; 2],
    }
}

impl Data {
    /// The structure, without what is behind it.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let fields = [self.len.to_ne_bytes(), self.heap_flags.to_ne_bytes()];
        let words = [self.fd.to_ne_bytes(), self.fd_flags.to_ne_bytes()];
        [&fields[0][..], &words.concat(), &fields[1]].concat()
    }
}

/// A buffer of so many pages, in an fd of this access mode.
pub(super) fn buffer_for(mode: i32, pages: u64) -> Result<OwnedFd, String> {
    let mut data = Data {
        fd_flags: (mode | libc::O_CLOEXEC).cast_unsigned(),
        ..data(pages * PAGE)
    };
    heap_alloc(&open(SYSTEM, true)?, ALLOC, &mut data).map_err(text)
}

pub(super) fn buffer(pages: u64) -> Result<OwnedFd, String> {
    buffer_for(libc::O_RDWR, pages)
}

fn heap_alloc(node: &File, request: libc::Ioctl, data: &mut Data) -> Result<OwnedFd, Errno> {
    let returned = call(node, request, data)?;
    assert_eq!(returned, 0, "the handle is in the argument");
    Ok(owned(data.fd.cast_signed()))
}

pub(super) fn makes() -> Verdict {
    for write in [false, true] {
        let node = open(SYSTEM, write)?;
        for (len, size) in [
            (1, PAGE),
            (PAGE, PAGE),
            (PAGE + 1, 2 * PAGE),
            (8 << 20, 8 << 20),
        ] {
            let made = heap_alloc(&node, ALLOC, &mut data(len)).map_err(text)?;
            let exporter = exporter(&made)?;
            ensure(exporter == "system", || format!("made by {exporter:?}"))?;
            let made = Buffer::from_fd(made).map_err(text)?;
            ensure(made.size() == size, || {
                format!("{} bytes for {len}", made.size())
            })?;
            holds(&made, size - 8, &[0; 8])?;
            put(&made, size - 4, b"last")?;
            holds(&made, size - 4, b"last")?;
        }
    }
    Ok(())
}

pub(super) fn refuses() -> Verdict {
    let node = open(SYSTEM, true)?;
    let good = data(PAGE);
    let fd_flags = |flags: i32| Data {
        fd_flags: flags.cast_unsigned(),
        ..good
    };
    for (what, request, argument, expected) in [
        ("no bytes", ALLOC, data(0), Errno::INVAL),
        ("all bytes", ALLOC, data(u64::MAX), Errno::INVAL),
        (
            "all but a page",
            ALLOC,
            data(u64::MAX - PAGE + 2),
            Errno::INVAL,
        ),
        ("a handle", ALLOC, Data { fd: 1, ..good }, Errno::INVAL),
        (
            "no handle",
            ALLOC,
            Data {
                fd: u32::MAX,
                ..good
            },
            Errno::INVAL,
        ),
        (
            "O_APPEND",
            ALLOC,
            fd_flags(libc::O_APPEND | libc::O_RDWR),
            Errno::INVAL,
        ),
        (
            "O_NONBLOCK",
            ALLOC,
            fd_flags(libc::O_NONBLOCK),
            Errno::INVAL,
        ),
        ("the highest bit", ALLOC, fd_flags(i32::MIN), Errno::INVAL),
        (
            "a heap flag",
            ALLOC,
            Data {
                heap_flags: 1,
                ..good
            },
            Errno::INVAL,
        ),
        (
            "the highest heap flag",
            ALLOC,
            Data {
                heap_flags: 1 << 63,
                ..good
            },
            Errno::INVAL,
        ),
        ("another call", ALLOC + 1, good, Errno::INVAL),
        (
            "another call of another type",
            0xc018_5401,
            good,
            Errno::INVAL,
        ),
        ("the last call", ALLOC | 0xff, good, Errno::INVAL),
        // What is not read is zero, the length too.
        (
            "_IOR",
            ALLOC & 0x3fff_ffff | 0x8000_0000,
            good,
            Errno::INVAL,
        ),
    ] {
        refused(&node, what, request, argument, expected)?;
    }
    // SAFETY: there is no memory at zero, so that nothing is written.
    let returned = unsafe { libc::ioctl(node.as_raw_fd(), ALLOC, null_mut::<u8>()) };
    let error = std::io::Error::last_os_error().raw_os_error();
    ensure(returned == -1 && error == Some(libc::EFAULT), || {
        format!("NULL: {error:?}")
    })
}

/// Of a shorter structure the rest is zero, and of a longer one it is ignored:
/// an older or a newer program can use it.
pub(super) fn any_size() -> Verdict {
    let node = open(SYSTEM, true)?;
    let sized = |size: libc::Ioctl| ALLOC & !0x3fff_0000 | size << 16;
    let mut longer = data(PAGE);
    longer.beyond = [7; 2];
    let made = heap_alloc(&node, sized(40), &mut longer).map_err(text)?;
    ensure(exporter(&made)? == "system", || "of another".to_owned())?;
    ensure(longer.beyond == [7; 2], || {
        format!("it wrote {:?} behind the structure", longer.beyond)
    })?;
    // Without heap_flags, which would be refused.
    let mut shorter = data(PAGE);
    shorter.heap_flags = 7;
    let made = heap_alloc(&node, sized(16), &mut shorter).map_err(text)?;
    ensure(exporter(&made)? == "system", || "of another".to_owned())?;
    // The length alone has no place for the handle.
    refused(&node, "of no size", sized(0), data(PAGE), Errno::INVAL)
}

/// Of a request only the number counts, whatever type it has.
pub(super) fn any_type() -> Verdict {
    let node = open(SYSTEM, true)?;
    let mut table = Table::new();
    for request in [0xc018_0000, 0xc018_5400, 0xc018_ff00] {
        let made = heap_alloc(&node, request, &mut data(PAGE)).map(drop);
        table.row(format!("request {request:#x}"), made, Ok(()));
    }
    table.verdict()
}

/// The access mode of the fd limits the mappings, and nothing else.
pub(super) fn modes() -> Verdict {
    let (read, write) = (libc::PROT_READ, libc::PROT_WRITE);
    let denied = Err(Errno::ACCESS);
    let mut table = Table::new();
    for (mode, prot_none, prot_read, prot_write) in [
        (libc::O_RDONLY, Ok(()), Ok(()), denied),
        (libc::O_WRONLY, denied, denied, denied),
        (libc::O_RDWR, Ok(()), Ok(()), Ok(())),
        // No access at all, which open(2) has for ioctls alone.
        (libc::O_ACCMODE, denied, denied, denied),
    ] {
        for close in [0, libc::O_CLOEXEC] {
            let flags = mode | close;
            let mut data = data(PAGE);
            data.fd_flags = flags.cast_unsigned();
            let made = heap_alloc(&open(SYSTEM, true)?, ALLOC, &mut data).map_err(text)?;
            let mut row = |what, found, expected| {
                table.row(format!("flags {flags:#o}: {what}"), found, expected);
            };
            let closes = fcntl_getfd(&made).map_err(text)? == FdFlags::CLOEXEC;
            row("FD_CLOEXEC", format!("{closes}"), format!("{}", close != 0));
            // SAFETY: only reads the flags.
            let found = unsafe { libc::fcntl(made.as_raw_fd(), libc::F_GETFL) };
            let found = found & libc::O_ACCMODE;
            row("F_GETFL", format!("{found:#o}"), format!("{mode:#o}"));
            for (prot, expected) in [
                (libc::PROT_NONE, prot_none),
                (read, prot_read),
                (write, prot_write),
                (read | write, prot_write),
            ] {
                for sharing in [libc::MAP_SHARED, libc::MAP_PRIVATE] {
                    // A private mapping can be written where the fd can be read.
                    let expected = match sharing {
                        libc::MAP_PRIVATE => prot_read,
                        _ => expected,
                    };
                    let found = Mapped::new(&made, prot, sharing, 0, 1).map(drop);
                    let what = format!("mmap {prot:#x}, {sharing:#x}");
                    table.row(format!("flags {flags:#o}: {what}"), found, expected);
                }
            }
            let begun = sync(&made, READ);
            table.row(format!("flags {flags:#o}: SYNC"), begun, Ok(()));
        }
    }
    table.verdict()
}
