//! An atomic is there for the access, and no longer.
use std::sync::atomic::{AtomicU32, Ordering};

use dmashare::buffer::{Access, Mapping};

fn count(mapping: &mut Mapping) {
    let mut guard = mapping.access(Access::ReadWrite).unwrap();
    let counter = guard.atomic::<AtomicU32>(0).unwrap();
    guard.finish().unwrap();
    counter.store(1, Ordering::Relaxed);
}

fn main() {}
