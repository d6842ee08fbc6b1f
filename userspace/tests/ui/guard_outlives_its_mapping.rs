//! A guard is one access of its mapping, and ends before it.
use dmashare::alloc::{Allocate, Memfd, Request};
use dmashare::buffer::Access;

fn main() {
    let buffer = Memfd::new().allocate(&Request::new(4096)).unwrap();
    let mut mapping = buffer.map(Access::Read).unwrap();
    let guard = mapping.access(Access::Read).unwrap();
    drop(mapping);
    guard.read_at(0, &mut [0]).unwrap();
}
