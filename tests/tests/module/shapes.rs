//! Memory in the shape that was asked for: how many pieces, zeroed, and how the
//! CPU sees it.

use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;

use dmashare::buffer::{Access, Buffer};
use dmashare_tests::conformance::Verdict;
use libtest_mimic::Trial;

use crate::device::{
    self, Alloc, BELOW_4G, CONTIGUOUS, Device, MIB, Made, PAGE, Range, WRITE_COMBINED, Wrap,
};
use crate::memfd;
use crate::memory::{holds, put};
use crate::{ensure, test, text};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("module::allocates_by_its_ioctl", allocates),
        test("module::counts_its_chunks", counts_its_chunks),
        test("module::gives_one_run", gives_one_run),
        test("module::gives_zeroed_memory", gives_zeroed_memory),
        test("module::gives_memory_below_4g", below_4g),
        test("module::write_combined_holds_data", write_combined),
        test("module::cached_after_write_combined", cached_again),
        test("module::calls_buffers_by_their_names", names),
    ]
}

fn allocates() -> Verdict {
    let device = Device::open()?;
    for size in [1, PAGE - 1, PAGE, PAGE + 1, 3 * MIB + 1] {
        let made = device.alloc(Alloc::new(size)).map_err(text)?;
        let flags = rustix::io::fcntl_getfd(&made.fd).map_err(text)?;
        ensure(flags.contains(rustix::io::FdFlags::CLOEXEC), || {
            "its handle does not close on exec".to_owned()
        })?;
        let mode = rustix::fs::fcntl_getfl(&made.fd).map_err(text)?;
        ensure(mode.contains(rustix::fs::OFlags::RDWR), || {
            format!("opened {mode:?}")
        })?;
        let buffer = made.buffer()?;
        ensure(buffer.size() == size.next_multiple_of(PAGE), || {
            format!("{} bytes for {size}", buffer.size())
        })?;
    }
    Ok(())
}

/// No chunk is larger than was asked for, so that there are as many at least.
fn counts_its_chunks() -> Verdict {
    let device = Device::open()?;
    let chunks = |size, max_chunk, flags| -> Result<u64, String> {
        let alloc = Alloc::new(size).max_chunk(max_chunk).flags(flags);
        let made = device.alloc(alloc).map_err(text)?;
        Ok(made.chunks.into())
    };
    for flags in [0, BELOW_4G, WRITE_COMBINED] {
        for pages in [1, 2, 255, 256, 1000] {
            let found = chunks(pages * PAGE, PAGE, flags)?;
            ensure(found == pages, || {
                format!("{pages} pages in single ones, flags {flags}: {found} chunks")
            })?;
        }
        for max_chunk in [2 * PAGE, 16 * PAGE, MIB, 4 * MIB, 1 << 40, 1 << 63, 0] {
            let size = 2 * MIB + 3 * PAGE;
            let found = chunks(size, max_chunk, flags)?;
            let least = match max_chunk {
                0 => 1,
                _ => size.div_ceil(max_chunk),
            };
            ensure((least..=size / PAGE).contains(&found), || {
                format!("{size} bytes in chunks of {max_chunk}, flags {flags}: {found} chunks")
            })?;
        }
    }
    // A guest has most of its memory free: as few as can be, or not many more.
    let found = chunks(4 * MIB, 0, 0)?;
    ensure(found <= 64, || {
        format!("4 MiB are in {found} chunks, where nothing asked for small ones")
    })
}

fn gives_one_run() -> Verdict {
    let device = Device::open()?;
    for size in [
        1,
        PAGE,
        3 * PAGE,
        4 * MIB - PAGE,
        4 * MIB,
        4 * MIB + PAGE,
        32 * MIB,
    ] {
        for flags in [0, BELOW_4G, WRITE_COMBINED] {
            let alloc = Alloc::new(size).flags(CONTIGUOUS | flags);
            let what = format!("{size} bytes, flags {flags}");
            let made = device.alloc(alloc);
            let made = made.map_err(|errno| format!("{what}: {errno}"))?;
            ensure(made.chunks == 1, || {
                format!("{what}: {} chunks", made.chunks)
            })?;
            let buffer = made.buffer()?;
            let last = buffer.size() - 8;
            let bytes = size.to_le_bytes();
            put(&buffer, last, &bytes)?;
            holds(&buffer, last, &bytes)?;
        }
    }
    // What was left over of a power of two of pages went back.
    let used = device.info().map_err(text)?;
    ensure((used.file_used, used.buffers) == (0, 0), || {
        format!("{used:?} after all are gone")
    })
}

/// Every byte of it, also where others left theirs.
fn gives_zeroed_memory() -> Verdict {
    let device = Device::open()?;
    for round in 0..3 {
        for (size, max_chunk, flags) in [
            (PAGE, 0, 0),
            (8 * MIB, 0, 0),
            (2 * MIB, PAGE, 0),
            (8 * MIB, 64 * PAGE, BELOW_4G),
            (3 * PAGE, 0, CONTIGUOUS),
            (4 * MIB, 0, CONTIGUOUS),
            (8 * MIB + PAGE, 0, CONTIGUOUS),
            (2 * MIB, 0, WRITE_COMBINED),
            (4 * MIB + PAGE, 0, CONTIGUOUS | WRITE_COMBINED),
        ] {
            let alloc = Alloc::new(size).max_chunk(max_chunk).flags(flags);
            let buffer = device.alloc(alloc).map_err(text)?.buffer()?;
            let dirty = read(&buffer)?.iter().position(|byte| *byte != 0);
            ensure(dirty.is_none(), || {
                let at = dirty.unwrap_or_default();
                format!("round {round}: byte {at} of {alloc:?} is not zero")
            })?;
            let mut mapping = buffer.map(Access::Write).map_err(text)?;
            let mut guard = mapping.access(Access::Write).map_err(text)?;
            guard.fill(0xa5).map_err(text)?;
            guard.finish().map_err(text)?;
        }
    }
    Ok(())
}

fn read(buffer: &Buffer) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; usize::try_from(buffer.size()).map_err(text)?];
    let mut mapping = buffer.map(Access::Read).map_err(text)?;
    let guard = mapping.access(Access::Read).map_err(text)?;
    guard.read_at(0, &mut bytes).map_err(text)?;
    guard.finish().map_err(text)?;
    Ok(bytes)
}

/// Where a page is, only root may ask, and only of memory with a page behind it:
/// here it is enough that it works, alone and with each other flag.
fn below_4g() -> Verdict {
    let device = Device::open()?;
    for flags in [0, CONTIGUOUS, WRITE_COMBINED, CONTIGUOUS | WRITE_COMBINED] {
        let alloc = Alloc::new(5 * MIB).flags(BELOW_4G | flags);
        let buffer = device.alloc(alloc).map_err(text)?.buffer()?;
        put(&buffer, 5 * MIB - 4, b"last")?;
        holds(&buffer, 5 * MIB - 4, b"last")?;
    }
    Ok(())
}

/// Bytes that differ from page to page.
fn picture(round: u64, size: u64) -> Vec<u8> {
    let word = |at: u64| (at ^ round << 48 ^ at << 32).to_le_bytes();
    (0..size / 8).flat_map(word).collect()
}

fn write_combined() -> Verdict {
    let device = Device::open()?;
    for round in 0..8 {
        let size = (1 + round) * 16 * PAGE;
        for (max_chunk, flags) in [(0, 0), (PAGE, 0), (0, CONTIGUOUS), (0, BELOW_4G)] {
            let alloc = Alloc::new(size)
                .max_chunk(max_chunk)
                .flags(WRITE_COMBINED | flags);
            let buffer = device.alloc(alloc).map_err(text)?.buffer()?;
            let picture = picture(round, size);
            put(&buffer, 0, &picture)?;
            // By another mapping.
            ensure(read(&buffer)? == picture, || {
                format!("round {round}: other bytes in {alloc:?}")
            })?;
        }
    }
    Ok(())
}

/// The pages of a write-combined buffer are ordinary ones again for who gets
/// them next.
fn cached_again() -> Verdict {
    let device = Device::open()?;
    for round in 0..8 {
        let size = 4 * MIB;
        for flags in [WRITE_COMBINED, 0, WRITE_COMBINED | CONTIGUOUS, CONTIGUOUS] {
            let alloc = Alloc::new(size).flags(flags);
            let buffer = device.alloc(alloc).map_err(text)?.buffer()?;
            let at = size - 8 * (round + 1);
            put(&buffer, at, &round.to_le_bytes())?;
            holds(&buffer, at, &round.to_le_bytes())?;
        }
    }
    Ok(())
}

fn names() -> Verdict {
    let device = Device::open()?;
    let memfd = memfd(PAGE)?;
    let ranges = [Range::new(&memfd, 0, PAGE)];
    let longest = [b'x'; 31];
    for name in [
        &b""[..],
        b"x",
        b"a picture",
        b"line\nline\ttab",
        b"\xff\xfe",
        "b\u{fc}ffer".as_bytes(),
        &longest,
    ] {
        let alloc = device.alloc(Alloc::new(PAGE).name(name)).map_err(text)?;
        let wrap = Wrap {
            name: device::name(name),
            ..Wrap::new(&ranges)
        };
        let wrap = device.wrap_as(wrap).map_err(text)?;
        for made in [&alloc, &wrap] {
            let shown = shown_name(made)?;
            let mut expected = b"/dmabuf:".to_vec();
            expected.extend(name);
            ensure(shown == expected, || {
                format!("{} shows as {}", name.escape_ascii(), shown.escape_ascii())
            })?;
        }
    }
    // What is behind a name's end does not count, nor goes anywhere.
    let mut alloc = Alloc::new(PAGE).name(b"short");
    alloc.name[20] = b'x';
    let shown = shown_name(&device.alloc(alloc).map_err(text)?)?;
    ensure(shown == b"/dmabuf:short", || {
        format!("shows as {}", shown.escape_ascii())
    })
}

fn shown_name(made: &Made) -> Result<Vec<u8>, String> {
    let link = format!("/proc/self/fd/{}", made.fd.as_raw_fd());
    let target = std::fs::read_link(link).map_err(text)?;
    Ok(target.into_os_string().into_vec())
}
