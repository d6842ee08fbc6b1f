//! `DMA_BUF_IOCTL_SYNC`, begin and end.

use std::fs::File;
use std::os::fd::AsRawFd;

use dmashare::alloc::{Allocate, DmaHeap, Request};
use dmashare::buffer::Access;

use crate::{Op, raw};

const WHAT: &str = "SYNC begin+end";
const SIZE: u64 = 1 << 20;

pub(crate) fn ops(ops: &mut Vec<Op>, cannot: &mut Vec<String>) {
    let heap = match DmaHeap::open(DmaHeap::SYSTEM) {
        Ok(heap) => heap,
        Err(reason) => return cannot.push(format!("{WHAT}: {reason}")),
    };
    let file = File::open("/dev/dma_heap/system").expect("the heap");
    let fd = raw::heap_alloc(file.as_raw_fd(), SIZE);
    ops.push(Op::new(WHAT, "raw calls", move || {
        raw::sync(fd, 1);
        raw::sync(fd, 5);
    }));
    let buffer = heap
        .allocate(&Request::new(SIZE).for_device())
        .expect("a buffer");
    let mut mapping = buffer.map(Access::Read).expect("a mapping");
    ops.push(Op::new(WHAT, "dmashare", move || {
        mapping
            .access(Access::Read)
            .expect("an access")
            .finish()
            .expect("an end");
    }));
    let heap = dma_heap::Heap::new(dma_heap::HeapKind::System).expect("the heap");
    let fd = heap
        .allocate(usize::try_from(SIZE).expect("small"))
        .expect("a buffer");
    let mapping = dma_buf::DmaBuf::from(fd).memory_map().expect("a mapping");
    ops.push(Op::new(WHAT, "dma-buf", move || {
        mapping
            .read(|_: &[u8], _: Option<()>| Ok(()), None)
            .expect("an access");
    }));
}
