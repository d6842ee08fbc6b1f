//! What memory a buffer takes beside its own pages: what some thousands of them
//! take from the system, less their size.

use std::fs::{read_to_string, write};

use super::Maker;
use crate::raw;

/// Made first, and not counted: they use up what others left half used.
const BEFORE: usize = 1000;
const COUNTED: usize = 4000;
const SIZES: [(&str, usize); 2] = [("4 KiB", 4 << 10), ("64 KiB", 64 << 10)];

/// What is free, and what of the rest is the kernel's small objects, in bytes.
#[derive(Clone, Copy)]
struct Taken {
    free: i64,
    slab: i64,
}

fn taken() -> Taken {
    // The counters of each processor are added up only now and then.
    let _ = write("/proc/sys/vm/stat_refresh", "1");
    let text = read_to_string("/proc/meminfo").expect("/proc");
    let bytes = |name: &str| -> i64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<i64>().ok());
        kib.expect("a number of KiB") << 10
    };
    Taken {
        free: bytes("MemFree"),
        slab: bytes("Slab"),
    }
}

/// Prints a line for each exporter and size: bytes a buffer beside its own, as
/// the free memory and the kernel's small objects tell.
pub fn table() {
    let makers = super::makers(&mut Vec::new());
    raw::allow_files((BEFORE + COUNTED + 100) as u64);
    // Few free pages are kept aside for each processor, where nobody counts them.
    let _ = write("/proc/sys/vm/percpu_pagelist_high_fraction", "1000000");
    println!(
        "{:<34} {:<20} {:>12} {:>8}",
        "beside a buffer's own memory", "who", "of free", "of slab"
    );
    for (name, size) in SIZES {
        for maker in &makers {
            let (free, slab) = beside(maker, size);
            let who = maker.exporter.name();
            println!("{name:<34} {who:<20} {free:>12} {slab:>8}");
        }
    }
}

/// Bytes a buffer, of the free memory beside the buffer's, and of the slab.
fn beside(maker: &Maker, size: usize) -> (i64, i64) {
    let make = |count| (0..count).map(|_| maker.make(size)).collect::<Vec<i32>>();
    let first = make(BEFORE);
    let before = taken();
    let counted = make(COUNTED);
    let after = taken();
    counted.into_iter().chain(first).for_each(raw::close);
    let count = i64::try_from(COUNTED).expect("small");
    let size = i64::try_from(size).expect("small");
    (
        (before.free - after.free) / count - size,
        (after.slab - before.slab) / count,
    )
}
