//! Sealed bytes are there as long as their mapping.
use dmashare::buffer::Buffer;

fn keep(buffer: &Buffer) -> &[u8] {
    let sealed = buffer.map_sealed().unwrap();
    &sealed[..]
}

fn dropped(buffer: &Buffer) {
    let sealed = buffer.map_sealed().unwrap();
    let bytes: &[u8] = &sealed;
    drop(sealed);
    assert!(bytes.is_empty());
}

fn main() {}
