//! /dev/udmabuf.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null_mut;

use dmashare::buffer::Buffer;
use dmashare_tests::conformance::Verdict;
use dmashare_tests::held;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::{Errno, FdFlags, fcntl_getfd};

use super::{PAGE, UDMABUF, call, exporter, open, owned, refused};
use crate::memory::{holds, put};
use crate::{ensure, text};

/// `struct udmabuf_create` of linux/udmabuf.h
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Create {
    memfd: i32,
    flags: u32,
    offset: u64,
    size: u64,
}

/// `struct udmabuf_create_list` with its items, as many as `count` says of them.
#[repr(C)]
struct List {
    flags: u32,
    count: u32,
    items: [Create; 1025],
}

const CREATE: libc::Ioctl = 0x4018_7542;
const CREATE_LIST: libc::Ioctl = 0x4008_7543;
const CLOEXEC: u32 = 1;

fn memfd(size: u64, seals: SealFlags) -> Result<OwnedFd, String> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = memfd_create("node test", flags).map_err(text)?;
    ftruncate(&memfd, size).map_err(text)?;
    fcntl_add_seals(&memfd, seals).map_err(text)?;
    Ok(memfd)
}

fn create(memfd: &OwnedFd, offset: u64, size: u64) -> Create {
    Create {
        memfd: memfd.as_raw_fd(),
        flags: CLOEXEC,
        offset,
        size,
    }
}

pub(super) fn makes() -> Verdict {
    // As GStreamer does.
    let node = open(UDMABUF, false)?;
    let memfd = memfd(4 * PAGE, SealFlags::SHRINK)?;
    for (flags, close) in [(CLOEXEC, FdFlags::CLOEXEC), (0, FdFlags::empty())] {
        let mut argument = create(&memfd, PAGE, 2 * PAGE);
        argument.flags = flags;
        let made = owned(call(&node, CREATE, &mut argument).map_err(text)?);
        let found = fcntl_getfd(&made).map_err(text)?;
        ensure(found == close, || format!("flags {flags}: {found:?}"))?;
        let exporter = exporter(&made)?;
        ensure(exporter == "udmabuf", || format!("made by {exporter:?}"))?;
        let made = Buffer::from_fd(made).map_err(text)?;
        ensure(made.size() == 2 * PAGE, || format!("{}", made.size()))?;
        put(&made, PAGE, b"shared")?;
        let mut found = [0; 6];
        rustix::io::pread(&memfd, &mut found, 2 * PAGE).map_err(text)?;
        ensure(found == *b"shared", || format!("the memfd has {found:?}"))?;
    }
    Ok(())
}

pub(super) fn refuses() -> Verdict {
    let node = open(UDMABUF, true)?;
    let good = memfd(4 * PAGE, SealFlags::SHRINK)?;
    let sealed = |seals| memfd(4 * PAGE, seals);
    let unsealed = sealed(SealFlags::GROW)?;
    let written = sealed(SealFlags::SHRINK | SealFlags::WRITE)?;
    let future = sealed(SealFlags::SHRINK | SealFlags::FUTURE_WRITE)?;
    let no_memfd: OwnedFd = File::open("/dev/null").map_err(text)?.into();
    let file: OwnedFd = File::open("/proc/self/exe").map_err(text)?.into();
    let folder: OwnedFd = File::open("/").map_err(text)?.into();
    let closed = Create {
        memfd: -1,
        ..create(&good, 0, PAGE)
    };
    for (what, argument, expected) in [
        ("no bytes", create(&good, 0, 0), Errno::INVAL),
        ("half a page", create(&good, 0, PAGE / 2), Errno::INVAL),
        ("from a half", create(&good, PAGE / 2, PAGE), Errno::INVAL),
        ("at the end", create(&good, 4 * PAGE, PAGE), Errno::INVAL),
        ("past it", create(&good, 3 * PAGE, 2 * PAGE), Errno::INVAL),
        ("far off", create(&good, 1 << 40, PAGE), Errno::INVAL),
        (
            "an end that overflows",
            create(&good, u64::MAX - PAGE + 1, PAGE),
            Errno::INVAL,
        ),
        ("unsealed", create(&unsealed, 0, PAGE), Errno::INVAL),
        ("F_SEAL_WRITE", create(&written, 0, PAGE), Errno::INVAL),
        ("FUTURE_WRITE", create(&future, 0, PAGE), Errno::INVAL),
        ("/dev/null", create(&no_memfd, 0, PAGE), Errno::BADFD),
        ("a file", create(&file, 0, PAGE), Errno::BADFD),
        ("a folder", create(&folder, 0, PAGE), Errno::BADFD),
        ("no handle", closed, Errno::BADFD),
    ] {
        refused(&node, what, CREATE, argument, expected)?;
    }
    for request in [CREATE, CREATE_LIST] {
        // SAFETY: there is no memory at zero, so that nothing is written.
        let returned = unsafe { libc::ioctl(node.as_raw_fd(), request, null_mut::<u8>()) };
        let error = std::io::Error::last_os_error().raw_os_error();
        ensure(returned == -1 && error == Some(libc::EFAULT), || {
            format!("NULL for {request:#x}: {error:?}")
        })?;
    }
    // No page was kept by any.
    held::comes_back_to(Ok(()), || Ok(fcntl_add_seals(&good, SealFlags::WRITE)))
}

pub(super) fn lists() -> Verdict {
    let node = open(UDMABUF, false)?;
    let memfd = memfd(4 * PAGE, SealFlags::SHRINK)?;
    let item = |offset, size| Create {
        flags: 0,
        ..create(&memfd, offset, size)
    };
    let list = |count, items: &[Create]| {
        let mut list = List {
            flags: CLOEXEC,
            count,
            items: [item(0, PAGE); 1025],
        };
        list.items[..items.len()].copy_from_slice(items);
        Box::new(list)
    };
    let refused =
        |what: &str, list: Box<List>, expected| refused(&node, what, CREATE_LIST, *list, expected);
    refused("no items", list(0, &[]), Errno::INVAL)?;
    refused("1025 items", list(1025, &[]), Errno::INVAL)?;
    refused("2^32 - 1 items", list(u32::MAX, &[]), Errno::INVAL)?;
    let bad = [item(0, PAGE), item(0, 0)];
    refused("an empty item", list(2, &bad), Errno::INVAL)?;
    let bad = [item(0, PAGE), item(1, PAGE)];
    refused("an unaligned item", list(2, &bad), Errno::INVAL)?;
    let bad = [item(0, PAGE), item(4 * PAGE, PAGE)];
    refused("an item past the end", list(2, &bad), Errno::INVAL)?;
    let closed = Create {
        memfd: -1,
        ..item(0, PAGE)
    };
    refused("no handle", list(2, &[item(0, PAGE), closed]), Errno::BADFD)?;

    let mut most = list(1024, &[]);
    let made = owned(call(&node, CREATE_LIST, &mut *most).map_err(text)?);
    let made = Buffer::from_fd(made).map_err(text)?;
    ensure(made.size() == 1024 * PAGE, || format!("{}", made.size()))?;
    put(&made, 1023 * PAGE, b"every")?;
    holds(&made, 0, b"every")?;

    let mut order = list(2, &[item(3 * PAGE, PAGE), item(0, PAGE)]);
    let made = owned(call(&node, CREATE_LIST, &mut *order).map_err(text)?);
    let made = Buffer::from_fd(made).map_err(text)?;
    put(&made, 0, b"last")?;
    let mut found = [0; 4];
    rustix::io::pread(&memfd, &mut found, 3 * PAGE).map_err(text)?;
    ensure(found == *b"last", || format!("the memfd has {found:?}"))?;
    holds(&made, PAGE, b"every")
}

pub(super) fn knows_two_calls() -> Verdict {
    let node = open(UDMABUF, true)?;
    let memfd = memfd(PAGE, SealFlags::SHRINK)?;
    for request in [
        CREATE & !0xff,
        CREATE + 2,
        CREATE & !0xff00 | 0x4400,
        CREATE & 0x3fff_ffff | 0xc000_0000,
        CREATE & !0x3fff_0000 | 16 << 16,
        CREATE & !0x3fff_0000,
    ] {
        let what = format!("ioctl {request:#x}");
        refused(&node, &what, request, create(&memfd, 0, PAGE), Errno::NOTTY)?;
    }
    Ok(())
}
