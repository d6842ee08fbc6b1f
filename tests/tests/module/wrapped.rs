//! Memory of memfds, shared without a copy.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use dmashare::buffer::{Access, Buffer};
use dmashare_tests::conformance::Verdict;
use dmashare_tests::held;
use libtest_mimic::Trial;
use rustix::fs::{
    FallocateFlags, MemfdFlags, OFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate,
    memfd_create, open,
};
use rustix::io::{Errno, pread, pwrite};

use crate::device::{Device, MIB, Made, Node, PAGE, Range, WRAP, Wrap};
use crate::limits::Limit;
use crate::memfd;
use crate::memory::{Pool, holds, put};
use crate::pins::huge_pages_cannot_be_pinned;
use crate::refused::without_free_fds;
use crate::{ensure, skipped, test, text};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("module::wraps_without_a_copy", without_a_copy),
        test("module::wraps_in_any_order", in_any_order),
        test("module::wraps_the_same_pages_twice", the_same_twice),
        test("module::keeps_a_memfd_writable", keeps_it_writable),
        test("module::keeps_memory_without_its_memfd", without_its_memfd),
        test("module::survives_a_hole", survives_a_hole),
        test(
            "module::leaves_in_the_memfd_what_it_wrote",
            leaves_what_it_wrote,
        ),
        match huge_pages_cannot_be_pinned() {
            None => test("module::wraps_huge_pages", huge_pages),
            Some(reason) => skipped("module::wraps_huge_pages", reason),
        },
        test("module::wrap_failed_allocates_no_page", no_page_of_failed),
    ]
}

fn wrap(device: &Device, ranges: &[Range]) -> Result<Buffer, String> {
    device.wrap(ranges).map_err(text).and_then(Made::buffer)
}

fn write(memfd: &OwnedFd, offset: u64, bytes: &[u8]) -> Verdict {
    let written = pwrite(memfd, bytes, offset).map_err(text)?;
    ensure(written == bytes.len(), || {
        format!("{written} bytes written")
    })
}

fn contains(memfd: impl AsFd, offset: u64, expected: &[u8]) -> Verdict {
    let mut found = vec![0; expected.len()];
    pread(memfd, &mut found, offset).map_err(text)?;
    ensure(found == expected, || {
        format!("the memfd at {offset}: {found:?}, expected {expected:?}")
    })
}

fn without_a_copy() -> Verdict {
    let device = Device::open()?;
    let memfd = memfd(4 * PAGE)?;
    write(&memfd, PAGE - 2, b"before")?;
    let buffer = wrap(&device, &[Range::new(&memfd, 0, 4 * PAGE)])?;
    ensure(buffer.size() == 4 * PAGE, || format!("{}", buffer.size()))?;
    holds(&buffer, PAGE - 2, b"before")?;
    // What was not there yet is zero, and there from then on.
    holds(&buffer, 3 * PAGE, &[0; 8])?;
    put(&buffer, 3 * PAGE - 4, b"from dma-buf")?;
    contains(&memfd, 3 * PAGE - 4, b"from dma-buf")?;
    write(&memfd, 3 * PAGE - 4, b"from a memfd")?;
    holds(&buffer, 3 * PAGE - 4, b"from a memfd")
}

/// A page of each letter.
fn lettered(letters: &[u8]) -> Result<OwnedFd, String> {
    let memfd = memfd(letters.len() as u64 * PAGE)?;
    for (letter, at) in letters.iter().zip(0..) {
        write(&memfd, at * PAGE, &[*letter; 4096])?;
    }
    Ok(memfd)
}

fn letters(buffer: &Buffer) -> Result<String, String> {
    let mut mapping = buffer.map(Access::Read).map_err(text)?;
    let guard = mapping.access(Access::Read).map_err(text)?;
    let mut letters = String::new();
    for page in 0..buffer.size() / PAGE {
        let first: u8 = guard.read(page * PAGE).map_err(text)?;
        let last: u8 = guard.read((page + 1) * PAGE - 1).map_err(text)?;
        ensure(first == last, || format!("page {page}: {first} to {last}"))?;
        letters.push(first.into());
    }
    Ok(letters)
}

fn in_any_order() -> Verdict {
    let device = Device::open()?;
    let (first, second) = (lettered(b"abcdefgh")?, lettered(b"xyz")?);
    let range = |memfd, from, count| Range::new(memfd, from * PAGE, count * PAGE);
    let buffer = wrap(
        &device,
        &[
            range(&second, 1, 2),
            range(&first, 7, 1),
            range(&second, 0, 1),
            range(&first, 0, 3),
            range(&first, 5, 2),
            range(&first, 4, 1),
        ],
    )?;
    let found = letters(&buffer)?;
    ensure(found == "yzhxabcfge", || found.clone())?;
    put(&buffer, 2 * PAGE, b"H")?;
    put(&buffer, 10 * PAGE - 1, b"E")?;
    contains(&first, 7 * PAGE, b"H")?;
    contains(&first, 5 * PAGE - 1, b"E")
}

fn the_same_twice() -> Verdict {
    let device = Device::open()?;
    let memfd = lettered(b"ab")?;
    let (whole, last) = (
        Range::new(&memfd, 0, 2 * PAGE),
        Range::new(&memfd, PAGE, PAGE),
    );
    let buffer = wrap(&device, &[whole, last, whole, last])?;
    let again = wrap(&device, &[last])?;
    ensure(letters(&buffer)? == "abbabb", || format!("{buffer:?}"))?;
    put(&buffer, 2 * PAGE, b"B")?;
    for page in [1, 2, 4, 5] {
        holds(&buffer, page * PAGE, b"Bb")?;
    }
    holds(&again, 0, b"B")?;
    drop(buffer);
    // Each held the page by itself.
    holds(&again, 0, b"B")?;
    busy(&memfd)?;
    drop(again);
    sealable(&memfd)
}

fn busy(memfd: &OwnedFd) -> Verdict {
    let answer = fcntl_add_seals(memfd, SealFlags::WRITE);
    ensure(answer == Err(Errno::BUSY), || {
        format!("F_SEAL_WRITE: {answer:?}, expected EBUSY")
    })
}

/// The kernel may let go of the pages a little later.
fn sealable(memfd: &OwnedFd) -> Verdict {
    held::comes_back_to(Ok(()), || Ok(fcntl_add_seals(memfd, SealFlags::WRITE)))
}

fn keeps_it_writable() -> Verdict {
    let device = Device::open()?;
    let memfd = lettered(b"abc")?;
    let buffer = wrap(&device, &[Range::new(&memfd, PAGE, PAGE)])?;
    busy(&memfd)?;
    let mapping = buffer.map(Access::Write).map_err(text)?;
    drop(buffer);
    busy(&memfd)?;
    drop(mapping);
    sealable(&memfd)?;
    let answer = device.wrap(&[Range::new(&memfd, PAGE, PAGE)]).map(drop);
    ensure(answer == Err(Errno::INVAL), || {
        format!("wrapping it sealed: {answer:?}")
    })
}

fn without_its_memfd() -> Verdict {
    let memfd = lettered(b"abc")?;
    let buffer = wrap(&Device::open()?, &[Range::new(&memfd, 0, 3 * PAGE)])?;
    drop(memfd);
    // Its pages would be someone else's by now.
    let others = lettered(b"zzzzzzzz")?;
    ensure(letters(&buffer)? == "abc", || "it is gone".to_owned())?;
    drop(others);
    put(&buffer, 0, b"still")?;
    holds(&buffer, 0, b"still")
}

fn survives_a_hole() -> Verdict {
    let device = Device::open()?;
    let memfd = lettered(b"abcd")?;
    let buffer = wrap(&device, &[Range::new(&memfd, 0, 4 * PAGE)])?;
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&memfd, hole, PAGE, 2 * PAGE).map_err(text)?;
    contains(&memfd, PAGE, &[0])?;
    // The buffer keeps them, and what it writes is its own.
    ensure(letters(&buffer)? == "abcd", || "other pages".to_owned())?;
    put(&buffer, PAGE, b"mine")?;
    write(&memfd, PAGE, b"yours")?;
    holds(&buffer, PAGE, b"mine")?;
    contains(&memfd, PAGE, b"yours")?;
    // A new one has what the memfd has now.
    let again = wrap(&device, &[Range::new(&memfd, PAGE, PAGE)])?;
    holds(&again, 0, b"yours")
}

/// What no one wrote to the memfd by its own calls is not clean, or it would be
/// dropped where memory is short.
fn leaves_what_it_wrote() -> Verdict {
    let device = Device::open()?;
    let memfd = memfd(MIB)?;
    let buffer = wrap(&device, &[Range::new(&memfd, 0, MIB)])?;
    let page = |page: u64| page.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    for at in 0..MIB / PAGE {
        put(&buffer, at * PAGE, &page(at))?;
    }
    drop(buffer);
    std::fs::write("/proc/sys/vm/drop_caches", "3").map_err(text)?;
    (0..MIB / PAGE).try_for_each(|at| contains(&memfd, at * PAGE, &page(at)))
}

fn huge_pages() -> Verdict {
    const HUGE: u64 = 2 << 20;
    let pool = Pool::of(2)?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
    let memfd = memfd_create("huge", flags).map_err(text)?;
    ftruncate(&memfd, 2 * HUGE).map_err(text)?;
    let huge = Buffer::from_fd(memfd.try_clone().map_err(text)?).map_err(text)?;
    put(&huge, PAGE, b"second")?;
    put(&huge, HUGE - PAGE, b"last of the first")?;
    put(&huge, HUGE, b"first of the second")?;
    fcntl_add_seals(&memfd, SealFlags::SHRINK).map_err(text)?;

    let device = Device::open()?;
    let whole = wrap(&device, &[Range::new(&memfd, 0, 2 * HUGE)])?;
    holds(&whole, HUGE - PAGE, b"last of the first")?;
    holds(&whole, HUGE, b"first of the second")?;
    // Small pages of huge ones, over their border, and back to front.
    let range = |offset, pages| Range::new(&memfd, offset, pages * PAGE);
    let parts = wrap(&device, &[range(HUGE - PAGE, 2), range(PAGE, 1)])?;
    holds(&parts, 0, b"last of the first")?;
    holds(&parts, PAGE, b"first of the second")?;
    holds(&parts, 2 * PAGE, b"second")?;
    put(&parts, 3 * PAGE - 4, b"here")?;
    holds(&whole, 2 * PAGE - 4, b"here")?;
    for (offset, size) in [(2 * HUGE, PAGE), (2 * HUGE - PAGE, 2 * PAGE)] {
        let answer = device.wrap(&[Range::new(&memfd, offset, size)]).map(drop);
        ensure(answer == Err(Errno::INVAL), || {
            format!("{size} bytes at {offset}: {answer:?}, expected EINVAL")
        })?;
    }
    // They are kept for the buffer, and go back to the pool after it.
    drop((memfd, huge, whole));
    holds(&parts, 2 * PAGE, b"second")?;
    drop(parts);
    pool.has_free(2)
}

/// Bytes that a memfd holds, by its pages that exist.
fn held_by(memfd: &OwnedFd) -> Result<u64, String> {
    let stat = rustix::fs::fstat(memfd).map_err(text)?;
    Ok(stat.st_blocks.cast_unsigned() * 512)
}

/// Everything is checked before the first page is allocated.
fn no_page_of_failed() -> Verdict {
    let device = Device::open()?;
    let memfd = memfd(4 * MIB)?;
    let refused = |what: &str, wrap: Wrap, expected| {
        let mut wrap = wrap;
        let answer = device.call(Node::Memfd, WRAP, &mut wrap);
        ensure(answer == Err(expected), || {
            format!("{what}: {answer:?}, expected {expected}")
        })?;
        let held = held_by(&memfd)?;
        ensure(held == 0, || format!("{what}: the memfd has {held} bytes"))
    };

    let good = Range::new(&memfd, 0, MIB);
    let sealed = crate::memfd(PAGE)?;
    fcntl_add_seals(&sealed, SealFlags::WRITE).map_err(text)?;
    let short = crate::memfd(PAGE)?;
    let link = format!("/proc/self/fd/{}", short.as_fd().as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let read_only = open(link, flags, 0.into()).map_err(text)?;
    for (what, second, expected) in [
        ("no fd", Range { memfd: -1, ..good }, Errno::BADF),
        (
            "no memfd",
            Range::new(device.node(Node::Memfd), 0, PAGE),
            Errno::BADFD,
        ),
        ("sealed", Range::new(&sealed, 0, PAGE), Errno::INVAL),
        ("read-only", Range::new(&read_only, 0, PAGE), Errno::ACCESS),
        ("past its end", Range::new(&short, PAGE, PAGE), Errno::INVAL),
        ("empty", Range::new(&memfd, 0, 0), Errno::INVAL),
        ("no whole page", Range::new(&memfd, 0, 1), Errno::INVAL),
        ("of 4 GiB", Range::new(&memfd, 0, 1 << 32), Errno::FBIG),
        (
            "reserved",
            Range {
                reserved: 1,
                ..good
            },
            Errno::INVAL,
        ),
    ] {
        let (first, last) = ([good, second], [second, good]);
        let what = format!("second range {what}");
        refused(&what, Wrap::new(&first), expected)?;
        refused(&what, Wrap::new(&last), expected)?;
    }

    let ranges = [good, good];
    let wrap = Wrap::new(&ranges);
    refused("a flag", Wrap { flags: 1, ..wrap }, Errno::INVAL)?;
    let beyond = libc::O_RDWR | libc::O_NONBLOCK;
    refused("an fd flag", wrap.fd_flags(beyond), Errno::INVAL)?;
    without_free_fds(&memfd, || refused("no free fd", wrap, Errno::MFILE))??;
    for (name, expected) in [
        ("max_buffer_mb", Errno::FBIG),
        ("max_file_mb", Errno::DQUOT),
        ("max_user_mb", Errno::DQUOT),
        ("max_total_mb", Errno::DQUOT),
    ] {
        let _limit = Limit::set(name, 1)?;
        refused(name, wrap, expected)?;
    }

    // The same without any of that does allocate.
    let made = device.wrap(&ranges).map_err(text)?;
    let held = held_by(&memfd)?;
    ensure(held == MIB, || {
        format!("a wrap of 1 MiB, and the memfd has {held} bytes")
    })?;
    drop(made);
    Ok(())
}
