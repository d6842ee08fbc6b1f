//! Memory of the requested shape: its length and chunks, zeroed, its mapping by the
//! CPU, and its fd.

use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null_mut;

use dmashare::alloc::{Allocate, DmaHeap, Request, Udmabuf};
use dmashare::buffer::{Access, Buffer};
use dmashare_tests::conformance::Verdict;
use dmashare_tests::guest::kernel_has_nodes;
use libtest_mimic::Trial;
use rustix::io::{Errno, FdFlags, fcntl_getfd};

use crate::device::{
    Alloc, BELOW_4G, CONTIGUOUS, Device, MIB, Node, PAGE, QUERY, Query, Range, WRITE_COMBINED,
    Wrap, last_errno,
};
use crate::memfd;
use crate::memory::{holds, put};
use crate::{ensure, test, text};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("module::alloc_length_is_whole_pages", lengths),
        test("module::fd_flags_set_fd_and_mode", fd_flags),
        test("module::query_reports_length_and_chunks", query),
        test(
            "module::query_standard_node_reports_own",
            query_standard_nodes,
        ),
        test("module::counts_its_chunks", counts_its_chunks),
        test("module::gives_one_run", gives_one_run),
        test("module::gives_zeroed_memory", gives_zeroed_memory),
        test("module::gives_memory_below_4g", below_4g),
        test("module::write_combined_holds_data", write_combined),
        test("module::cached_after_write_combined", cached_again),
    ]
}

fn lengths() -> Verdict {
    let device = Device::open()?;
    for flags in [0, CONTIGUOUS] {
        for length in [1, PAGE - 1, PAGE, PAGE + 1, 3 * MIB + 1] {
            let made = device.alloc(Alloc::new(length).flags(flags));
            let made = made.map_err(text)?;
            let told = device.query(&made.fd).map_err(text)?;
            let buffer = made.buffer()?;
            let expected = length.next_multiple_of(PAGE);
            ensure((buffer.size(), told.length) == (expected, expected), || {
                format!("{} bytes, and {told:?}, for {length}", buffer.size())
            })?;
        }
    }
    Ok(())
}

/// Whether it can be mapped, shared, for a moment.
fn map(fd: &OwnedFd, prot: i32) -> Result<(), Errno> {
    let (fd, shared) = (fd.as_raw_fd(), libc::MAP_SHARED);
    // SAFETY: a new mapping, where nothing is; no one reads or writes it.
    let mapped = unsafe { libc::mmap(null_mut(), 4096, prot, shared, fd, 0) };
    if mapped == libc::MAP_FAILED {
        return Err(last_errno());
    }
    // SAFETY: the mapping is ours, and nothing refers into it.
    unsafe { libc::munmap(mapped, 4096) };
    Ok(())
}

fn fd_flags() -> Verdict {
    let device = Device::open()?;
    let memfd = memfd(PAGE)?;
    let ranges = [Range::new(&memfd, 0, PAGE)];
    let (read, write) = (libc::PROT_READ, libc::PROT_WRITE);
    let denied = Err(Errno::ACCESS);
    for (mode, reads, writes) in [
        (libc::O_RDONLY, Ok(()), denied),
        (libc::O_WRONLY, denied, denied),
        (libc::O_RDWR, Ok(()), Ok(())),
    ] {
        for (close, expected) in [(0, FdFlags::empty()), (libc::O_CLOEXEC, FdFlags::CLOEXEC)] {
            let alloc = Alloc::new(PAGE).fd_flags(mode | close);
            let wrap = Wrap::new(&ranges).fd_flags(mode | close);
            for (node, made) in [
                (Node::System, device.alloc_fd(alloc)),
                (Node::Contiguous, device.alloc_fd(alloc.flags(CONTIGUOUS))),
                (Node::Memfd, device.wrap_fd(wrap)),
            ] {
                let what = format!("fd_flags {:#o}, {node:?}", mode | close);
                let made = made.map_err(|errno| format!("{what}: {errno}"))?;
                let found = fcntl_getfd(&made).map_err(text)?;
                ensure(found == expected, || format!("{what}: F_GETFD {found:?}"))?;
                // SAFETY: no memory is passed.
                let found = unsafe { libc::fcntl(made.as_raw_fd(), libc::F_GETFL) };
                ensure(found & libc::O_ACCMODE == mode, || {
                    format!("{what}: F_GETFL {found:#o}")
                })?;
                let found = (map(&made, read), map(&made, read | write));
                ensure(found == (reads, writes), || {
                    format!(
                        "{what}: mapped for reading {:?}, for writing {:?}",
                        found.0, found.1
                    )
                })?;
            }
        }
    }
    Ok(())
}

/// By each node, whichever the buffer was made through.
fn query() -> Verdict {
    let device = Device::open()?;
    let memfd = memfd(8 * PAGE)?;
    let range = |page, pages| Range::new(&memfd, page * PAGE, pages * PAGE);
    let alloc = |alloc| device.alloc_fd(alloc).map_err(text);
    let wrap = device.wrap_fd(Wrap::new(&[range(4, 1), range(0, 1), range(4, 1)]));
    for (fd, length, node, flags, chunks) in [
        (
            alloc(Alloc::new(PAGE + 1).max_chunk(PAGE))?,
            2 * PAGE,
            Node::System,
            0,
            2,
        ),
        (
            alloc(Alloc::new(64 * PAGE).max_chunk(PAGE).flags(BELOW_4G))?,
            64 * PAGE,
            Node::System,
            BELOW_4G,
            64,
        ),
        (
            alloc(Alloc::new(3 * PAGE).flags(CONTIGUOUS | BELOW_4G | WRITE_COMBINED))?,
            3 * PAGE,
            Node::Contiguous,
            BELOW_4G | WRITE_COMBINED,
            1,
        ),
        (wrap.map_err(text)?, 3 * PAGE, Node::Memfd, 0, 3),
    ] {
        let given = Query::new(&fd);
        let expected = Query {
            length,
            memory: node.memory(),
            flags,
            chunks,
            ..given
        };
        for asked in Node::ALL {
            let mut found = given;
            let answer = device.call(asked, QUERY, &mut found);
            ensure(answer == Ok(0) && found == expected, || {
                format!("by {asked:?}: {answer:?}, {found:?}, expected {expected:?}")
            })?;
        }
    }
    Ok(())
}

/// A buffer is the module's if it added the node, and foreign where the kernel has
/// its own.
fn query_standard_nodes() -> Verdict {
    let device = Device::open()?;
    let request = Request::new(3 * PAGE);
    let udmabuf = Udmabuf::open().map_err(text)?;
    let heap = DmaHeap::open("system").map_err(text)?;
    for (made, node) in [
        (udmabuf.allocate(&request).map_err(text)?, Node::Memfd),
        (heap.allocate(&request).map_err(text)?, Node::System),
    ] {
        let answer = device.query(made.fd().map_err(text)?);
        let found = answer.map(|told| (told.length, told.memory, told.flags));
        let expected = match kernel_has_nodes() {
            true => Err(Errno::INVAL),
            false => Ok((3 * PAGE, node.memory(), 0)),
        };
        ensure(found == expected, || {
            format!("{node:?} of a standard node: {answer:?}, expected {expected:?}")
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
    let used = device.info_of(Node::Contiguous).map_err(text)?;
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
