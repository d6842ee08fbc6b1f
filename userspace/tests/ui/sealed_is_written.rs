//! Sealed memory is mapped for reading: to write to it would end in SIGSEGV.
use dmashare::buffer::Buffer;

fn write(buffer: &Buffer) {
    let sealed = buffer.map_sealed().unwrap();
    sealed[0] = 1;
}

fn main() {}
