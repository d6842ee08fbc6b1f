//! A thread may outlive the access, unless it is scoped.
use dmashare::buffer::{Access, Mapping};

fn send(mapping: &mut Mapping) {
    let guard = mapping.access(Access::Read).unwrap();
    // SAFETY: it is the lifetime that is tested.
    let bytes = unsafe { guard.as_slice() };
    std::thread::spawn(move || bytes[0]);
}

fn main() {}
