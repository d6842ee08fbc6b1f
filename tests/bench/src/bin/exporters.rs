//! Compares the module's dma-bufs with those of the kernel's own exporters, in
//! turns. It takes a kernel with all three: run it in a guest. It sets how the
//! kernel logs and keeps free pages.
//!
//! ```console
//! $ cargo build --release -p dmashare-bench --bin exporters
//! $ cargo vm run --project-module --deadline 10m -- target/release/exporters
//! ```
//!
//! With an argument only operations whose names contain it are timed.

use dmashare_bench::{exporters, turns};

const TURNS: usize = 31;

fn main() {
    // A line on an emulated serial port takes longer than what is measured.
    let _ = std::fs::write("/proc/sys/kernel/printk", "1");
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let (mut ops, remarks) = exporters::ops();
    ops.retain(|op| op.what.contains(&wanted));
    turns::heading();
    for group in ops.chunk_by_mut(|a, b| a.what == b.what) {
        turns::in_turns(group, TURNS);
    }
    // What the importers were given counts, too, as long as it is there.
    drop(ops);
    println!();
    exporters::memory_table();
    for remark in remarks {
        println!("{remark}");
    }
}
