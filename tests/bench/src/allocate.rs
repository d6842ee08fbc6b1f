//! A buffer made, mapped, its first byte written, and given back.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;

use dmashare::alloc::{Allocate, DmaHeap, Memfd, Request};
use dmashare::buffer::Access;

use crate::{Op, raw};

const SIZES: [(&str, &str, usize); 2] = [
    (
        "memfd 4 KiB: alloc+map+free",
        "dma_heap 4 KiB: alloc+map+free",
        4096,
    ),
    (
        "memfd 8 MiB: alloc+map+free",
        "dma_heap 8 MiB: alloc+map+free",
        8 << 20,
    ),
];

pub(crate) fn ops(ops: &mut Vec<Op>, cannot: &mut Vec<String>) {
    for (what, _, size) in SIZES {
        memfd(ops, what, size);
    }
    match DmaHeap::open(DmaHeap::SYSTEM) {
        Err(reason) => cannot.push(format!("dma_heap: {reason}")),
        Ok(_) => {
            for (_, what, size) in SIZES {
                dma_heap(ops, what, size);
            }
        }
    }
}

fn ours(way: &dyn Allocate, request: &Request) {
    let buffer = way.allocate(request).expect("a buffer");
    let mut mapping = buffer.map(Access::Write).expect("a mapping");
    let mut guard = mapping.access(Access::Write).expect("an access");
    guard.write_at(0, &[1]).expect("in range");
    guard.finish().expect("an end");
}

fn memfd(ops: &mut Vec<Op>, what: &'static str, size: usize) {
    let name = CString::new("dmashare").expect("no NUL");
    ops.push(Op::new(what, "raw calls", move || {
        let fd = raw::memfd(&name, size);
        let memory = raw::map(fd, size);
        // SAFETY: mapped for writing, and of at least a byte.
        unsafe { memory.write_volatile(1) };
        raw::unmap(memory, size);
        raw::close(fd);
    }));
    let request = Request::new(size as u64);
    ops.push(Op::new(what, "dmashare", move || {
        ours(&Memfd::new(), &request)
    }));
}

fn dma_heap(ops: &mut Vec<Op>, what: &'static str, size: usize) {
    let heap = File::open("/dev/dma_heap/system").expect("the heap");
    ops.push(Op::new(what, "raw calls", move || {
        let fd = raw::heap_alloc(heap.as_raw_fd(), size as u64);
        let memory = raw::map(fd, size);
        raw::sync(fd, 2);
        // SAFETY: mapped for writing, and of at least a byte.
        unsafe { memory.write_volatile(1) };
        raw::sync(fd, 6);
        raw::unmap(memory, size);
        raw::close(fd);
    }));
    let heap = DmaHeap::open(DmaHeap::SYSTEM).expect("the heap");
    let request = Request::new(size as u64).for_device();
    ops.push(Op::new(what, "dmashare", move || ours(&heap, &request)));
    let heap = dma_heap::Heap::new(dma_heap::HeapKind::System).expect("the heap");
    ops.push(Op::new(what, "dma-heap + dma-buf", move || {
        let fd = heap.allocate(size).expect("a buffer");
        let mut mapping = dma_buf::DmaBuf::from(fd).memory_map().expect("a mapping");
        let write = |bytes: &mut [u8], _: Option<()>| {
            bytes[0] = 1;
            Ok(())
        };
        mapping.write(write, None).expect("an access");
    }));
}
