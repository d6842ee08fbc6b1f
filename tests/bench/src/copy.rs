//! A 1080p frame copied into shared memory and out of it.

use std::hint::black_box;

use dmashare::alloc::{Allocate, Memfd, Request};
use dmashare::buffer::{Access, Mapping};

use crate::Op;

const SIZE: usize = 1920 * 1080 * 4;
const IN: &str = "1080p frame in";
const OUT: &str = "1080p frame out";

fn memory() -> Mapping {
    let buffer = Memfd::new()
        .allocate(&Request::new(SIZE as u64))
        .expect("a memfd");
    let mut mapping = buffer.map(Access::ReadWrite).expect("a mapping");
    mapping
        .access(Access::Write)
        .expect("an access")
        .fill(1)
        .expect("mapped for it");
    mapping
}

pub(crate) fn ops(ops: &mut Vec<Op>) {
    let (mapping, picture) = (memory(), vec![7u8; SIZE]);
    ops.push(Op::new(IN, "memcpy", move || {
        // SAFETY: both have SIZE bytes, and nobody else has the memory.
        unsafe {
            std::ptr::copy_nonoverlapping(black_box(picture.as_ptr()), mapping.as_ptr(), SIZE)
        };
    }));
    let (mut mapping, picture) = (memory(), vec![7u8; SIZE]);
    ops.push(Op::new(IN, "dmashare", move || {
        let mut guard = mapping.access(Access::Write).expect("an access");
        guard.write_at(0, &picture).expect("in range");
    }));
    let (mapping, mut picture) = (memory(), vec![7u8; SIZE]);
    ops.push(Op::new(OUT, "memcpy", move || {
        // SAFETY: as above.
        unsafe {
            std::ptr::copy_nonoverlapping(
                black_box(mapping.as_ptr().cast_const()),
                picture.as_mut_ptr(),
                SIZE,
            )
        };
    }));
    let (mut mapping, mut picture) = (memory(), vec![7u8; SIZE]);
    ops.push(Op::new(OUT, "dmashare", move || {
        let guard = mapping.access(Access::Read).expect("an access");
        guard.read_at(0, &mut picture).expect("in range");
    }));
}
