//! /dev/udmabuf.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null_mut;

use dmashare::buffer::Buffer;
use dmashare_tests::conformance::Verdict;
use dmashare_tests::guest::kernel_has_nodes;
use dmashare_tests::held;
use rustix::fs::{
    MemfdFlags, Mode, OFlags, SealFlags, SeekFrom, fcntl_add_seals, ftruncate, memfd_create,
};
use rustix::io::{Errno, FdFlags, fcntl_getfd};

use super::mapping::Mapped;
use super::table::{Table, newest};
use super::{PAGE, UDMABUF, call, exporter, open, owned, refused};
use crate::memory::{Pool, holds, put};
use crate::{ensure, text};

/// `struct udmabuf_create` of linux/udmabuf.h
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Create {
    pub(super) memfd: i32,
    pub(super) flags: u32,
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// `struct udmabuf_create_list` with its items, as many as `count` says of them.
#[repr(C)]
struct List {
    flags: u32,
    count: u32,
    items: [Create; 1025],
}

pub(super) const CREATE: libc::Ioctl = 0x4018_7542;
pub(super) const CREATE_LIST: libc::Ioctl = 0x4008_7543;
const CLOEXEC: u32 = 1;

fn memfd(size: u64, seals: SealFlags) -> Result<OwnedFd, String> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = memfd_create("node test", flags).map_err(text)?;
    ftruncate(&memfd, size).map_err(text)?;
    fcntl_add_seals(&memfd, seals).map_err(text)?;
    Ok(memfd)
}

pub(super) fn create(memfd: &OwnedFd, offset: u64, size: u64) -> Create {
    Create {
        memfd: memfd.as_raw_fd(),
        flags: CLOEXEC,
        offset,
        size,
    }
}

impl Create {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let words = [self.memfd.to_ne_bytes(), self.flags.to_ne_bytes()];
        let fields = [self.offset.to_ne_bytes(), self.size.to_ne_bytes()];
        [words.concat(), fields.concat()].concat()
    }
}

/// A memfd of so many pages that can become a buffer.
pub(super) fn sealed(pages: u64) -> Result<OwnedFd, String> {
    memfd(pages * PAGE, SealFlags::SHRINK)
}

/// A buffer of so many pages.
pub(super) fn buffer(pages: u64) -> Result<OwnedFd, String> {
    made_of(&create(&sealed(pages)?, 0, pages * PAGE)).map_err(text)
}

fn made_of(argument: &Create) -> Result<OwnedFd, Errno> {
    let node = open(UDMABUF, true).map_err(|_| Errno::NOENT)?;
    call(&node, CREATE, &mut argument.clone()).map(owned)
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

/// Alignment and the sum of all items come first; then each item by itself: its
/// fd, its seals, its place in the memfd.
pub(super) fn order() -> Verdict {
    let node = open(UDMABUF, true)?;
    let memfd = sealed(4)?;
    let open_to_shrink = self::memfd(4 * PAGE, SealFlags::GROW)?;
    let item = |offset, size| create(&memfd, offset, size);
    let closed = |offset, size| Create {
        memfd: -1,
        ..item(offset, size)
    };
    let unsealed = |offset, size| create(&open_to_shrink, offset, size);
    let (invalid, bad) = (Errno::INVAL, Errno::BADFD);
    let good = item(0, PAGE);
    let huge = 1 << 63;
    let mut table = Table::new();
    for (what, items, expected) in [
        ("good, no file of no size", vec![good, closed(0, 0)], bad),
        ("no file of no size, good", vec![closed(0, 0), good], bad),
        ("good, good of no size", vec![good, item(0, 0)], invalid),
        (
            "good of no size, no file",
            vec![item(0, 0), closed(0, PAGE)],
            invalid,
        ),
        (
            "good, unsealed of no size",
            vec![good, unsealed(0, 0)],
            invalid,
        ),
        ("no file of no size", vec![closed(0, 0)], invalid),
        (
            "no files of no size",
            vec![closed(0, 0), closed(0, 0)],
            invalid,
        ),
        (
            "no file, past any end",
            vec![closed(huge - PAGE, PAGE)],
            bad,
        ),
        (
            "no file, overflow",
            vec![closed(PAGE.wrapping_neg(), PAGE)],
            bad,
        ),
        ("no file, unaligned", vec![closed(1, PAGE)], invalid),
        (
            "no file, unaligned size",
            vec![closed(0, PAGE + 1)],
            invalid,
        ),
        (
            "no file, good unaligned",
            vec![closed(0, PAGE), item(1, PAGE)],
            invalid,
        ),
        ("no file of all bytes", vec![closed(0, huge)], invalid),
        (
            "unsealed, no file",
            vec![unsealed(0, PAGE), closed(0, PAGE)],
            invalid,
        ),
        (
            "no file, unsealed",
            vec![closed(0, PAGE), unsealed(0, PAGE)],
            bad,
        ),
        (
            "past the end, no file",
            vec![item(4 * PAGE, PAGE), closed(0, PAGE)],
            invalid,
        ),
        (
            "no file, past the end",
            vec![closed(0, PAGE), item(4 * PAGE, PAGE)],
            bad,
        ),
    ] {
        let found = list(&node, 0, &items).map(drop);
        table.row(what, found, Err(expected));
    }
    table.verdict()
}

fn list(node: &File, flags: u32, items: &[Create]) -> Result<OwnedFd, Errno> {
    let mut list = List {
        flags,
        count: u32::try_from(items.len()).expect("a few"),
        items: [items[0]; 1025],
    };
    list.items[..items.len()].copy_from_slice(items);
    call(node, CREATE_LIST, &mut list).map(owned)
}

/// Unknown flags, and the padding of a list's items, are not looked at.
pub(super) fn ignores() -> Verdict {
    let node = open(UDMABUF, true)?;
    let memfd = sealed(1)?;
    let mut table = Table::new();
    for flags in [0, CLOEXEC, u32::MAX, u32::MAX - CLOEXEC] {
        let argument = Create {
            flags,
            ..create(&memfd, 0, PAGE)
        };
        let by_list = list(&node, flags, &[argument]);
        for made in [made_of(&argument), by_list] {
            let closes = made.map(|made| fcntl_getfd(&made) == Ok(FdFlags::CLOEXEC));
            table.row(
                format!("flags {flags:#x}"),
                closes,
                Ok(flags & CLOEXEC != 0),
            );
        }
    }
    table.verdict()
}

/// Files that can become a buffer, and those that cannot.
pub(super) fn files() -> Verdict {
    let memfd_of = |flags| {
        let memfd = memfd_create("node test", flags | MemfdFlags::CLOEXEC).map_err(text)?;
        ftruncate(&memfd, 2 << 20).map_err(text)?;
        Ok::<_, String>(memfd)
    };
    let reopened = |memfd: &OwnedFd, flags| {
        let path = format!("/proc/self/fd/{}", memfd.as_raw_fd());
        rustix::fs::open(path, flags, Mode::empty()).map_err(text)
    };
    let good = sealed(1)?;
    let all = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    let no_sealing = memfd_of(MemfdFlags::empty())?;
    let huge = memfd_of(MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB)?;
    fcntl_add_seals(&huge, SealFlags::SHRINK).map_err(text)?;
    let on_tmpfs = tempfile::tempfile_in("/dev/shm").map_err(text)?;
    on_tmpfs.set_len(PAGE).map_err(text)?;
    let mut table = Table::new();
    for (what, file, expected) in [
        ("all other seals", &memfd(PAGE, all)?, Ok(())),
        ("no seals allowed", &no_sealing, Err(Errno::INVAL)),
        ("a file of tmpfs", &on_tmpfs.into(), Err(Errno::INVAL)),
        ("no free huge page", &huge, Err(Errno::NOMEM)),
        ("a dma-buf", &buffer(1)?, Err(Errno::BADFD)),
        ("the node", &open(UDMABUF, true)?.into(), Err(Errno::BADFD)),
        ("O_PATH", &reopened(&good, OFlags::PATH)?, Err(Errno::BADFD)),
        // The module is stricter: such an fd gives no way to write.
        (
            "O_RDONLY",
            &reopened(&good, OFlags::RDONLY)?,
            if kernel_has_nodes() {
                Ok(())
            } else {
                Err(Errno::ACCESS)
            },
        ),
    ] {
        let found = made_of(&create(file, 0, PAGE)).map(drop);
        table.row(what, found, expected);
    }
    table.verdict()
}

/// One buffer of more than 64 MiB, the limit before 7.3.
pub(super) fn large() -> Verdict {
    let size = 65 << 20;
    let mut table = Table::new();
    let sparse = memfd(size, SealFlags::SHRINK)?;
    let argument = create(&sparse, 0, size);
    let expected = newest((7, 3), Ok(()), Err(Errno::INVAL));
    table.row("65 MiB", made_of(&argument).map(drop), expected);
    let closed = Create {
        memfd: -1,
        ..argument
    };
    let expected = newest((7, 3), Err(Errno::BADFD), Err(Errno::INVAL));
    table.row("65 MiB of no file", made_of(&closed).map(drop), expected);
    table.verdict()
}

/// The memfd while a buffer is made of it.
pub(super) fn seals_while_alive() -> Verdict {
    let memfd = sealed(4)?;
    let buffer = made_of(&create(&memfd, 0, 2 * PAGE)).map_err(text)?;
    let mut table = Table::new();
    let seal = |seals| fcntl_add_seals(&memfd, seals);
    table.row("F_SEAL_WRITE", seal(SealFlags::WRITE), Err(Errno::BUSY));
    table.row(
        "ftruncate, shorter",
        ftruncate(&memfd, PAGE),
        Err(Errno::PERM),
    );
    table.row("ftruncate, longer", ftruncate(&memfd, 5 * PAGE), Ok(()));
    table.row("F_SEAL_FUTURE_WRITE", seal(SealFlags::FUTURE_WRITE), Ok(()));
    // Neither the buffer nor its mappings are bound by that.
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let mapped = Mapped::new(&buffer, prot, libc::MAP_SHARED, 0, 2).map(drop);
    table.row("mmap of the buffer", mapped, Ok(()));
    drop(buffer);
    table.verdict()?;
    held::comes_back_to(Ok(()), || Ok(seal(SealFlags::WRITE)))
}

/// Any whole pages of a memfd of huge pages, in one of them or in several.
pub(super) fn huge_pages() -> Verdict {
    const HUGE: u64 = 2 << 20;
    let pool = Pool::of(3)?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
    let huge = memfd_create("node test", flags).map_err(text)?;
    ftruncate(&huge, 3 * HUGE).map_err(text)?;
    fcntl_add_seals(&huge, SealFlags::SHRINK).map_err(text)?;
    let mut table = Table::new();
    for (what, offset, size, expected) in [
        ("a page", PAGE, PAGE, Ok(PAGE)),
        ("all", 0, 3 * HUGE, Ok(3 * HUGE)),
        (
            "the end of one, the next",
            HUGE - PAGE,
            HUGE + PAGE,
            Ok(HUGE + PAGE),
        ),
        ("over the end", 3 * HUGE - PAGE, 2 * PAGE, Err(Errno::INVAL)),
        ("an odd byte", 1, HUGE, Err(Errno::INVAL)),
    ] {
        let made = made_of(&create(&huge, offset, size));
        let found = made.and_then(|made| rustix::fs::seek(&made, SeekFrom::End(0)));
        table.row(what, found, expected);
    }
    drop(huge);
    table.verdict()?;
    pool.has_free(3)
}
