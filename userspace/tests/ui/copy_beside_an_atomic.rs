//! A copy of bytes that another thread may store to atomically is a data race.
use std::sync::atomic::{AtomicU32, Ordering};

use dmashare::buffer::Guard;

fn race(guard: &mut Guard<'_>) {
    let counter = guard.atomic::<AtomicU32>(0).unwrap();
    guard.read_at(0, &mut [0; 4]).unwrap();
    counter.store(1, Ordering::Relaxed);
}

fn main() {}
