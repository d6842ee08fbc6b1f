//! A buffer made, mapped, and given back: untouched, and with every page written
//! to.

use crate::{Op, raw};

struct Size {
    bytes: usize,
    untouched: &'static str,
    touched: &'static str,
}

const SIZES: [Size; 4] = [
    Size {
        bytes: 4 << 10,
        untouched: "4 KiB: alloc+map+free",
        touched: "4 KiB: alloc+map+touch+free",
    },
    Size {
        bytes: 1 << 20,
        untouched: "1 MiB: alloc+map+free",
        touched: "1 MiB: alloc+map+touch+free",
    },
    Size {
        bytes: 8 << 20,
        untouched: "8 MiB: alloc+map+free",
        touched: "8 MiB: alloc+map+touch+free",
    },
    Size {
        bytes: 64 << 20,
        untouched: "64 MiB: alloc+map+free",
        touched: "64 MiB: alloc+map+touch+free",
    },
];

const PAGE: usize = 4096;

pub(super) fn ops(ops: &mut Vec<Op>, remarks: &mut Vec<String>) {
    for (what, bytes, touch) in SIZES.iter().flat_map(|size| {
        [
            (size.untouched, size.bytes, false),
            (size.touched, size.bytes, true),
        ]
    }) {
        // Who is not there is told once.
        remarks.clear();
        for maker in super::makers(remarks) {
            let who = maker.exporter.name();
            ops.push(Op::new(what, who, move || {
                let fd = maker.make(bytes);
                let memory = raw::map(fd, bytes);
                if touch {
                    for at in (0..bytes).step_by(PAGE) {
                        // SAFETY: mapped for writing, and of so many bytes.
                        unsafe { memory.add(at).write_volatile(1) };
                    }
                }
                raw::unmap(memory, bytes);
                raw::close(fd);
            }));
        }
    }
}
