//! Holes punched into a wrapped memfd: whole pages leave the memfd and stay in the
//! buffer, a part of a huge page is zeroed in both.

use std::fs::{read_to_string, write};
use std::os::fd::OwnedFd;

use dmashare::buffer::Buffer;
use dmashare_tests::conformance::Verdict;
use libtest_mimic::{Completion, Trial};
use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create,
};
use rustix::io::pread;

use crate::device::{Device, Made, PAGE, Range};
use crate::memory::{Pool, holds, put};
use crate::pins::huge_pages_cannot_be_pinned;
use crate::{ensure, test, test_or_skip, text};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("holes::small_pages_stay_in_buffer", small_pages),
        test_or_skip("holes::hugetlb_parts_are_zeroed", hugetlb),
        test_or_skip("holes::transparent_parts_are_zeroed", transparent),
    ]
}

const HUGE: u64 = 2 << 20;

fn contains(memfd: &OwnedFd, offset: u64, expected: &[u8]) -> Verdict {
    let mut found = vec![0; expected.len()];
    pread(memfd, &mut found, offset).map_err(text)?;
    ensure(found == expected, || {
        format!("the memfd at {offset}: {found:?}, expected {expected:?}")
    })
}

fn punch(memfd: &OwnedFd, offset: u64, size: u64) -> Verdict {
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(memfd, hole, offset, size).map_err(text)
}

fn wrapped(memfd: &OwnedFd, size: u64) -> Result<Buffer, String> {
    let device = Device::open()?;
    let made = device.wrap(&[Range::new(memfd, 0, size)]).map_err(text);
    made.and_then(Made::buffer)
}

fn sealed(flags: MemfdFlags, size: u64) -> Result<OwnedFd, String> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | flags;
    let memfd = memfd_create("holes", flags).map_err(text)?;
    ftruncate(&memfd, size).map_err(text)?;
    fcntl_add_seals(&memfd, SealFlags::SHRINK).map_err(text)?;
    Ok(memfd)
}

fn small_pages() -> Verdict {
    let memfd = sealed(MemfdFlags::empty(), 4 * PAGE)?;
    let buffer = wrapped(&memfd, 4 * PAGE)?;
    put(&buffer, PAGE, b"kept")?;
    put(&buffer, 3 * PAGE - 4, b"kept")?;
    punch(&memfd, PAGE, PAGE)?;
    contains(&memfd, PAGE, &[0; 4])?;
    holds(&buffer, PAGE, b"kept")?;
    // A hole of less than a page zeroes these bytes, and takes no page away.
    punch(&memfd, 3 * PAGE - 2, 2)?;
    contains(&memfd, 3 * PAGE - 4, b"ke\0\0")?;
    holds(&buffer, 3 * PAGE - 4, b"ke\0\0")
}

/// A page of the second huge one, then all of the first.
fn parts_of(buffer: &Buffer, memfd: &OwnedFd) -> Verdict {
    put(buffer, 0, b"first")?;
    put(buffer, HUGE, b"second")?;
    put(buffer, HUGE + PAGE, b"third")?;
    punch(memfd, HUGE, PAGE)?;
    contains(memfd, HUGE, &[0; 6])?;
    holds(buffer, HUGE, &[0; 6])?;
    contains(memfd, HUGE + PAGE, b"third")?;
    holds(buffer, HUGE + PAGE, b"third")?;
    // What is written there is still seen by both: it is the same page.
    put(buffer, HUGE, b"again")?;
    contains(memfd, HUGE, b"again")?;
    punch(memfd, 0, HUGE)?;
    contains(memfd, 0, &[0; 5])?;
    holds(buffer, 0, b"first")
}

fn hugetlb() -> Result<Completion, String> {
    if let Some(reason) = huge_pages_cannot_be_pinned() {
        return Ok(Completion::ignored_with(reason));
    }
    let _pool = Pool::of(4)?;
    let memfd = sealed(MemfdFlags::HUGETLB, 2 * HUGE)?;
    let buffer = wrapped(&memfd, 2 * HUGE)?;
    parts_of(&buffer, &memfd)?;
    Ok(Completion::Completed)
}

/// The setting for memfds, until this is dropped.
struct Transparent(String);

const SETTING: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

impl Drop for Transparent {
    fn drop(&mut self) {
        write(SETTING, &self.0).expect("it was written before");
    }
}

fn transparent() -> Result<Completion, String> {
    let Ok(before) = read_to_string(SETTING) else {
        return Ok(Completion::ignored_with(format!("no {SETTING}")));
    };
    let before = before
        .split(['[', ']'])
        .nth(1)
        .unwrap_or("never")
        .to_owned();
    let setting = Transparent(before);
    write(SETTING, "force").map_err(text)?;
    let memfd = sealed(MemfdFlags::empty(), 2 * HUGE)?;
    // Written from its beginning, so that huge pages are allocated.
    let zeroes = vec![0_u8; 1 << 20];
    for at in 0..4 {
        rustix::io::pwrite(&memfd, &zeroes, at << 20).map_err(text)?;
    }
    drop(setting);
    let device = Device::open()?;
    let made = device
        .wrap(&[Range::new(&memfd, 0, 2 * HUGE)])
        .map_err(text)?;
    if made.chunks > 2 {
        let reason = format!("no huge pages were to be had: {} chunks", made.chunks);
        return Ok(Completion::ignored_with(reason));
    }
    let buffer = made.buffer()?;
    parts_of(&buffer, &memfd)?;
    Ok(Completion::Completed)
}
