//! Pins of memfd pages: never so many that the kernel's count overflows, and never
//! in memory that must stay movable.

use std::collections::BTreeSet;
use std::fs::{File, read_to_string};
use std::ops::Range as Span;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr::null_mut;

use dmashare_tests::conformance::Verdict;
use dmashare_tests::guest::kernel_version;
use libtest_mimic::{Completion, Trial};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Errno;

use crate::device::{Device, MIB, Made, PAGE, Range};
use crate::forked::in_another_process;
use crate::limits::Limit;
use crate::memory::Pool;
use crate::{ensure, memfd, test, test_or_skip, text};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("pins::one_page_is_bounded", one_page_is_bounded),
        test_or_skip("pins::signals_leave_huge_pages_alone", signals_are_let_by),
        test_or_skip("pins::movable_memory_is_left", movable_memory_is_left),
    ]
}

/// 1024 times the same page in each call: the kernel would warn at 2^31 references,
/// and let nobody pin the page any more.
fn one_page_is_bounded() -> Verdict {
    let _lifted = Limit::lifted()?;
    let device = Device::open()?;
    let memfd = memfd(PAGE)?;
    let ranges = vec![Range::new(&memfd, 0, PAGE); 1024];
    let mut made: Vec<Made> = Vec::new();
    let refused = loop {
        match device.wrap(&ranges) {
            Ok(one) if made.len() < 32 => made.push(one),
            Ok(_) => return Err("more than 32,768 pins of one page".to_owned()),
            Err(errno) => break errno,
        }
    };
    ensure(refused == Errno::MLINK, || {
        format!(
            "after {} times 1024 pins: {refused}, expected EMLINK",
            made.len()
        )
    })?;
    ensure((15..=16).contains(&made.len()), || {
        format!(
            "refused after {} times 1024 pins, expected 15 or 16",
            made.len()
        )
    })?;
    // A call that was refused has kept none, and what is let go can be had again.
    made.pop();
    made.push(device.wrap(&ranges).map_err(text)?);
    drop(made);
    device.wrap(&ranges).map(drop).map_err(text)
}

/// A signal that kills nobody does not end a call, also where the kernel looks at
/// signals on the way: as often as a timer can send one.
fn signals_are_let_by() -> Result<Completion, String> {
    if let Some(reason) = huge_pages_cannot_be_pinned() {
        return Ok(Completion::ignored_with(reason));
    }
    let _pool = Pool::of(2)?;
    in_another_process(|| {
        extern "C" fn nothing(_: libc::c_int) {}
        let every = libc::timeval {
            tv_sec: 0,
            tv_usec: 200,
        };
        let timer = libc::itimerval {
            it_interval: every,
            it_value: every,
        };
        // SAFETY: the handler does nothing; the timer is this process's own.
        unsafe {
            libc::signal(libc::SIGALRM, nothing as *const () as libc::sighandler_t);
            libc::setitimer(libc::ITIMER_REAL, &timer, null_mut());
        }
        let device = Device::open()?;
        for round in 0..200 {
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
            let memfd = memfd_create("huge", flags).map_err(text)?;
            ftruncate(&memfd, 2 * MIB).map_err(text)?;
            fcntl_add_seals(&memfd, SealFlags::SHRINK).map_err(text)?;
            let wrapped = device.wrap(&[Range::new(&memfd, 0, 2 * MIB)]).map(drop);
            ensure(wrapped.is_ok(), || format!("round {round}: {wrapped:?}"))?;
        }
        Ok(())
    })?;
    Ok(Completion::Completed)
}

/// Frames of the zones that are to stay movable.
fn movable() -> Result<Vec<Span<u64>>, String> {
    let zones = read_to_string("/proc/zoneinfo").map_err(text)?;
    let number = |zone: &str, name: &str| -> Option<u64> {
        let mut words = zone.split_whitespace().skip_while(|word| *word != name);
        words.nth(1)?.parse().ok()
    };
    let zones = zones
        .split("Node ")
        .filter(|zone| zone.contains("zone  Movable"));
    let spans = zones.filter_map(|zone| {
        let start = number(zone, "start_pfn:")?;
        let spanned = number(zone, "spanned")?;
        (spanned > 0).then_some(start..start + spanned)
    });
    Ok(spans.collect())
}

/// Whether memory is set aside to stay movable.
pub(crate) fn has_movable_zone() -> bool {
    movable().is_ok_and(|zones| !zones.is_empty())
}

/// Reason why huge pages of this guest cannot be pinned, if that is so: before
/// Linux 6.11 the kernel moves them from one movable place to another, and gives up.
pub(crate) fn huge_pages_cannot_be_pinned() -> Option<&'static str> {
    let stuck = kernel_version() < (6, 11) && has_movable_zone();
    stuck.then_some("this kernel does not move huge pages out of movable memory")
}

/// Frame of each page of a memfd, as root may read it of a mapping.
fn frames(memfd: &OwnedFd, size: u64) -> Result<Vec<u64>, String> {
    let length = usize::try_from(size).map_err(text)?;
    // SAFETY: a new mapping, where nothing is.
    let at = unsafe {
        libc::mmap(
            null_mut(),
            length,
            libc::PROT_READ,
            libc::MAP_SHARED | libc::MAP_POPULATE,
            memfd.as_raw_fd(),
            0,
        )
    };
    ensure(at != libc::MAP_FAILED, || "mmap failed".to_owned())?;
    let pagemap = File::open("/proc/self/pagemap").map_err(text)?;
    let frame = |page: u64| {
        let mut entry = [0; 8];
        let offset = (at.expose_provenance() as u64 / PAGE + page) * 8;
        pagemap.read_exact_at(&mut entry, offset).map_err(text)?;
        // Bits 0 to 54, of a page that is present (bit 63).
        let entry = u64::from_le_bytes(entry);
        ensure(entry >> 63 == 1, || format!("page {page} is not there"))?;
        Ok(entry & ((1 << 55) - 1))
    };
    let frames = (0..size / PAGE).map(frame).collect();
    // SAFETY: the mapping is ours, and nothing refers into it.
    unsafe { libc::munmap(at, length) };
    frames
}

/// memfd pages are movable, and so lie in such zones; pinned ones must not.
fn movable_memory_is_left() -> Result<Completion, String> {
    let zones = movable()?;
    if zones.is_empty() {
        let reason = "no memory is set aside as movable: the kernel was booted without movablecore";
        return Ok(Completion::ignored_with(reason));
    }
    let in_zone = |frames: &[u64]| {
        let inside = |frame: &&u64| zones.iter().any(|zone| zone.contains(frame));
        frames.iter().filter(inside).count()
    };
    const SIZE: u64 = 16 * MIB;
    let memfd = memfd(SIZE)?;
    for page in 0..SIZE / PAGE {
        rustix::io::pwrite(&memfd, &page.to_le_bytes(), page * PAGE).map_err(text)?;
    }
    let before = frames(&memfd, SIZE)?;
    ensure(in_zone(&before) > 0, || {
        format!("none of {} pages was movable before", before.len())
    })?;
    let buffer = Device::open()?.wrap(&[Range::new(&memfd, 0, SIZE)]);
    let buffer = buffer.map_err(text)?;
    let after = frames(&memfd, SIZE)?;
    let left = in_zone(&after);
    ensure(left == 0, || {
        format!(
            "{left} of {} pinned pages are in movable memory",
            after.len()
        )
    })?;
    let distinct: BTreeSet<u64> = after.iter().copied().collect();
    ensure(distinct.len() == after.len(), || "frames twice".to_owned())?;
    // They are the same bytes, wherever they lie now.
    let buffer = buffer.buffer()?;
    for page in [0, 1, SIZE / PAGE / 2, SIZE / PAGE - 1] {
        crate::memory::holds(&buffer, page * PAGE, &page.to_le_bytes())?;
    }
    Ok(Completion::Completed)
}
