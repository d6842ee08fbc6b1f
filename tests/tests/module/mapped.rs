//! Mappings: shared, never to run, and of any part.

use std::os::fd::AsRawFd;
use std::ptr::null_mut;

use dmashare::buffer::{Access, Buffer};
use dmashare_tests::conformance::Verdict;
use libc::{MAP_FAILED, MAP_PRIVATE, MAP_SHARED, PROT_EXEC, PROT_READ};
use libtest_mimic::Trial;
use rustix::io::Errno;

use crate::device::{Alloc, CONTIGUOUS, Device, MIB, PAGE, WRITE_COMBINED, last_errno};
use crate::memory::put;
use crate::users;
use crate::{ensure, test, text};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("module::maps_shared_and_never_to_run", maps_shared_only),
        test("module::maps_any_part", maps_any_part),
        test("module::maps_no_more_than_there_is", maps_no_more),
        test(
            "module::stays_while_a_buffer_lives",
            stays_while_a_buffer_lives,
        ),
    ]
}

fn maps_shared_only() -> Verdict {
    let buffer = Device::open()?.alloc(Alloc::new(PAGE)).map_err(text)?.fd;
    let map = |prot, flags| {
        // SAFETY: a new mapping, where nothing is; no one reads or writes it.
        unsafe { libc::mmap(null_mut(), 4096, prot, flags, buffer.as_raw_fd(), 0) }
    };
    for (what, prot, flags, expected) in [
        ("MAP_PRIVATE", PROT_READ, MAP_PRIVATE, Errno::INVAL),
        ("PROT_EXEC", PROT_READ | PROT_EXEC, MAP_SHARED, Errno::PERM),
        ("PROT_EXEC alone", PROT_EXEC, MAP_SHARED, Errno::PERM),
    ] {
        let errno = (map(prot, flags) == MAP_FAILED).then(last_errno);
        ensure(errno == Some(expected), || {
            format!("mmap with {what}: {errno:?}, expected {expected}")
        })?;
    }
    let mapped = map(PROT_READ, MAP_SHARED);
    ensure(mapped != MAP_FAILED, || format!("mmap: {}", last_errno()))?;
    // SAFETY: the mapping is ours, and nothing refers into it.
    let changed = unsafe { libc::mprotect(mapped, 4096, PROT_READ | PROT_EXEC) };
    let refusal = (changed == -1).then(last_errno);
    // SAFETY: as above.
    unsafe { libc::munmap(mapped, 4096) };
    ensure(refusal == Some(Errno::ACCESS), || {
        format!("mprotect to PROT_EXEC: {refusal:?}, expected EACCES")
    })
}

/// The number of each page, at its beginning.
fn numbered(buffer: &Buffer) -> Verdict {
    let mut mapping = buffer.map(Access::Write).map_err(text)?;
    let mut guard = mapping.access(Access::Write).map_err(text)?;
    for page in 0..buffer.size() / PAGE {
        guard.write(page * PAGE, &page).map_err(text)?;
    }
    guard.finish().map_err(text)
}

/// From the middle of one chunk to that of another, whatever the chunks are.
fn maps_any_part() -> Verdict {
    let device = Device::open()?;
    let size = 64 * PAGE;
    for (max_chunk, flags) in [
        (PAGE, 0),
        (4 * PAGE, 0),
        (16 * PAGE, WRITE_COMBINED),
        (0, 0),
        (0, CONTIGUOUS),
    ] {
        let alloc = Alloc::new(size).max_chunk(max_chunk).flags(flags);
        let buffer = device.alloc(alloc).map_err(text)?.buffer()?;
        numbered(&buffer)?;
        for (from, to) in [
            (0, 64),
            (0, 1),
            (63, 64),
            (1, 63),
            (3, 5),
            (4, 8),
            (15, 17),
            (7, 57),
            (31, 33),
        ] {
            let part = from * PAGE..to * PAGE;
            let mut mapping = buffer.map_part(part, Access::Read).map_err(text)?;
            let guard = mapping.access(Access::Read).map_err(text)?;
            for page in from..to {
                let found: u64 = guard.read((page - from) * PAGE).map_err(text)?;
                ensure(found == page, || {
                    format!("pages {from} to {to} of {alloc:?}: {found} where {page} lies")
                })?;
            }
        }
    }
    Ok(())
}

fn maps_no_more() -> Verdict {
    let buffer = Device::open()?.alloc(Alloc::new(MIB)).map_err(text)?.fd;
    let map = |offset: i64, pages: usize| {
        let (prot, fd) = (PROT_READ, buffer.as_raw_fd());
        // SAFETY: a new mapping, where nothing is; no one reads or writes it.
        let mapped = unsafe { libc::mmap(null_mut(), pages * 4096, prot, MAP_SHARED, fd, offset) };
        match mapped == MAP_FAILED {
            true => Err(last_errno()),
            // SAFETY: the mapping is ours, and nothing refers into it.
            false => Ok(unsafe { libc::munmap(mapped, pages * 4096) }),
        }
    };
    for (offset, pages) in [
        (0, 257),
        (4096, 256),
        (1 << 20, 1),
        (1 << 40, 1),
        (i64::MAX - 4095, 1),
    ] {
        let answer = map(offset, pages);
        let expected = [Errno::INVAL, Errno::OVERFLOW];
        ensure(answer.is_err_and(|errno| expected.contains(&errno)), || {
            format!("{pages} pages at {offset}: {answer:?}, expected EINVAL")
        })?;
    }
    map((1 << 20) - 4096, 1).map(drop).map_err(text)
}

fn stays_while_a_buffer_lives() -> Verdict {
    let before = users()?;
    let buffer = Device::open()?
        .alloc(Alloc::new(PAGE))
        .map_err(text)?
        .buffer()?;
    // The device is closed again: it is the buffer that counts.
    let with = users()?;
    ensure(with == before + 1, || {
        format!("{before} users before, {with} with a buffer")
    })?;
    put(&buffer, 0, b"alive")?;
    let mapping = buffer.map(Access::Read).map_err(text)?;
    drop(buffer);
    let mapped = users()?;
    ensure(mapped == with, || {
        format!("{mapped} users with a mapping alone")
    })?;
    drop(mapping);
    let after = users()?;
    ensure(after == before, || {
        format!("{before} users before, {after} after")
    })
}
