//! Two accesses of one mapping would each end the other's.
use dmashare::buffer::{Access, Mapping};

fn both(mapping: &mut Mapping) {
    let mut first = mapping.access(Access::Write).unwrap();
    let mut second = mapping.access(Access::Write).unwrap();
    first.fill(1).unwrap();
    second.fill(2).unwrap();
}

fn main() {}
