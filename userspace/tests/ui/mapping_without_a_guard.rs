//! An access that its exporter is not told of.
use dmashare::buffer::Mapping;

fn peek(mapping: &mut Mapping) {
    mapping.read_at(0, &mut [0; 4]).unwrap();
    let bytes: &[u8] = &mapping[..];
}

fn main() {}
