//! /dev/dma_heap/system.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null_mut;

use dmashare::buffer::Buffer;
use dmashare_tests::conformance::Verdict;
use rustix::io::{Errno, FdFlags, fcntl_getfd};

use super::{PAGE, SYSTEM, call, exporter, open, owned, refused};
use crate::memory::{holds, put};
use crate::{ensure, text};

/// `struct dma_heap_allocation_data` of linux/dma-heap.h, and more behind it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Data {
    len: u64,
    fd: u32,
    fd_flags: u32,
    heap_flags: u64,
    beyond: [u64; 2],
}

const ALLOC: libc::Ioctl = 0xc018_4800;

fn data(len: u64) -> Data {
    Data {
        len,
        fd: 0,
        fd_flags: (libc::O_RDWR | libc::O_CLOEXEC).cast_unsigned(),
        heap_flags: 0,
        beyond: [0; 2],
    }
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

/// The handle's mode is what a mapping can be.
pub(super) fn modes() -> Verdict {
    let node = open(SYSTEM, true)?;
    for (flags, close, write) in [
        (libc::O_RDWR, false, Ok(())),
        (libc::O_RDWR | libc::O_CLOEXEC, true, Ok(())),
        (libc::O_RDONLY, false, Err(Errno::ACCESS)),
        (libc::O_RDONLY | libc::O_CLOEXEC, true, Err(Errno::ACCESS)),
    ] {
        let mut data = data(PAGE);
        data.fd_flags = flags.cast_unsigned();
        let made = heap_alloc(&node, ALLOC, &mut data).map_err(text)?;
        let closes = fcntl_getfd(&made).map_err(text)? == FdFlags::CLOEXEC;
        ensure(closes == close, || {
            format!("flags {flags:#o}: closes on exec: {closes}")
        })?;
        let read = map(&made, libc::PROT_READ);
        ensure(read.is_ok(), || {
            format!("flags {flags:#o}: mapped for reading: {read:?}")
        })?;
        let found = map(&made, libc::PROT_READ | libc::PROT_WRITE);
        ensure(found == write, || {
            format!("flags {flags:#o}: mapped for writing: {found:?}")
        })?;
    }
    Ok(())
}

/// Whether it can be mapped, shared, for a moment.
fn map(fd: &OwnedFd, prot: i32) -> Result<(), Errno> {
    let (fd, shared) = (fd.as_raw_fd(), libc::MAP_SHARED);
    // SAFETY: a new mapping, where nothing is; no one reads or writes it.
    let mapped = unsafe { libc::mmap(null_mut(), 4096, prot, shared, fd, 0) };
    if mapped == libc::MAP_FAILED {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).expect("the system's"));
    }
    // SAFETY: the mapping is ours, and nothing refers into it.
    unsafe { libc::munmap(mapped, 4096) };
    Ok(())
}
