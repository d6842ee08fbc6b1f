//! Bytes without a copy are there for the access, and no longer.
use dmashare::buffer::{Access, Mapping};

fn keep(mapping: &mut Mapping) -> &[u8] {
    let guard = mapping.access(Access::Read).unwrap();
    // SAFETY: it is the lifetime that is tested.
    unsafe { guard.as_slice() }
}

fn finish(mapping: &mut Mapping) {
    let guard = mapping.access(Access::Read).unwrap();
    // SAFETY: as above.
    let bytes = unsafe { guard.slice(0..1) }.unwrap();
    guard.finish().unwrap();
    assert_eq!(bytes, [0]);
}

fn main() {}
