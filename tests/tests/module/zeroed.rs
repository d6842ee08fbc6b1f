//! New buffers hold zeroes, whatever was in their memory before.
//!
//! Debian's kernels clear all pages when they allocate them, whoever asks; so these
//! need a guest that does not: `cargo vm run --append "init_on_alloc=0 init_on_free=0"`.

use std::fs::read_to_string;

use dmashare::alloc::{Allocate, DmaHeap, Request};
use dmashare::buffer::{Access, Buffer};
use dmashare_tests::conformance::Verdict;
use libtest_mimic::{Completion, Trial};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use crate::device::{
    Alloc, BELOW_4G, CONTIGUOUS, Device, MIB, Made, NODE_DMA_HEAP, PAGE, Range, WRITE_COMBINED,
};
use crate::forked::in_another_process;
use crate::memory::{Pool, map};
use crate::pins::huge_pages_cannot_be_pinned;
use crate::pressure::{free, reserve};
use crate::{ensure, test_or_skip, text};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test_or_skip("zeroed::buffers_hold_no_old_data", no_old_data),
        test_or_skip("zeroed::huge_pages_hold_no_old_data", huge_pages),
    ]
}

const SIZE: u64 = 32 * MIB;

/// Reason why zeroes would show nothing here.
fn kernel_clears_pages() -> Result<Option<&'static str>, String> {
    let words = read_to_string("/proc/cmdline").map_err(text)?;
    let words: Vec<&str> = words.split_whitespace().collect();
    let told = ["init_on_alloc=0", "init_on_free=0"].map(|word| words.contains(&word));
    let reason = "the kernel may clear pages by itself; boot it with --append \"init_on_alloc=0 init_on_free=0\"";
    Ok((told != [true, true]).then_some(reason))
}

/// Shows that each kind of buffer is zero from its first byte to its last, in memory
/// that was full of another process's bytes just before.
fn no_old_data() -> Result<Completion, String> {
    if let Some(reason) = kernel_clears_pages()? {
        return Ok(Completion::ignored_with(reason));
    }
    dirty().map_err(|error| format!("dirtying memory: {error}"))?;
    let device = Device::open()?;
    let system = Alloc::new(SIZE);
    let range = Alloc::new(SIZE).flags(CONTIGUOUS);
    let block = |size| Alloc::new(size).flags(CONTIGUOUS);
    // All at once, so that none gets what another has given back.
    let mut buffers = Vec::new();
    for (kind, alloc) in [
        ("blocks", system),
        ("single pages", system.max_chunk(PAGE)),
        ("64 KiB", system.max_chunk(16 * PAGE)),
        ("below 4 GiB", system.flags(BELOW_4G)),
        ("write-combined", system.flags(WRITE_COMBINED)),
        ("a contiguous block", block(4 * MIB)),
        ("a part of one", block(3 * MIB)),
        ("a contiguous range", range),
        ("a range below 4 GiB", range.flags(CONTIGUOUS | BELOW_4G)),
        (
            "a write-combined range",
            range.flags(CONTIGUOUS | WRITE_COMBINED),
        ),
    ] {
        let made = device.alloc(alloc).map_err(text).and_then(Made::buffer);
        buffers.push((kind, made));
    }
    buffers.push(("a memfd", wrapped(&device, MemfdFlags::empty())));
    if device.info().map_err(text)?.nodes & NODE_DMA_HEAP != 0 {
        buffers.push(("the standard heap", standard_heap()));
    }
    for (kind, buffer) in buffers {
        let zero = buffer.and_then(|buffer| is_zero(&buffer));
        zero.map_err(|error| format!("{kind}: {error}"))?;
    }
    Ok(Completion::Completed)
}

/// Shows the same of huge pages, which the kernel clears only where they are mapped.
fn huge_pages() -> Result<Completion, String> {
    let reason = match kernel_clears_pages()? {
        None => huge_pages_cannot_be_pinned(),
        reason => reason,
    };
    if let Some(reason) = reason {
        return Ok(Completion::ignored_with(reason));
    }
    dirty().map_err(|error| format!("dirtying memory: {error}"))?;
    let _pool = Pool::of(SIZE / (2 * MIB))?;
    is_zero(&wrapped(&Device::open()?, MemfdFlags::HUGETLB)?)?;
    Ok(Completion::Completed)
}

/// Fills most of the free memory with something, by a process that ends.
fn dirty() -> Verdict {
    let size = usize::try_from(free()?.saturating_sub(reserve()?)).map_err(text)?;
    in_another_process(|| {
        let pattern = vec![0xa5_u8; size];
        // Read, so that it is really there.
        ensure(
            pattern.iter().step_by(4096).all(|byte| *byte == 0xa5),
            || "it was not kept".to_owned(),
        )
    })
}

/// Pages that the memfd does not have yet, so that to wrap it allocates them.
fn wrapped(device: &Device, flags: MemfdFlags) -> Result<Buffer, String> {
    let flags = flags | MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = memfd_create("zeroed", flags).map_err(text)?;
    ftruncate(&memfd, SIZE).map_err(text)?;
    fcntl_add_seals(&memfd, SealFlags::SHRINK).map_err(text)?;
    let made = device.wrap(&[Range::new(&memfd, 0, SIZE)]).map_err(text)?;
    made.buffer()
}

/// /dev/dma_heap/system, where it is the module's.
fn standard_heap() -> Result<Buffer, String> {
    let heap = DmaHeap::open("system").map_err(text)?;
    heap.allocate(&Request::new(SIZE)).map_err(text)
}

fn is_zero(buffer: &Buffer) -> Verdict {
    let zeroes = vec![0; 1 << 20];
    let mut found = zeroes.clone();
    let mut mapping = map(buffer)?;
    let guard = mapping.access(Access::Read).map_err(text)?;
    for offset in (0..buffer.size()).step_by(found.len()) {
        guard.read_at(offset, &mut found).map_err(text)?;
        // Compared as a whole: byte by byte takes long under emulation.
        ensure(found == zeroes, || {
            let first = (offset..).zip(&found).find(|(_, byte)| **byte != 0);
            format!("(offset, byte) {first:?}")
        })?;
    }
    guard.finish().map_err(text)
}
