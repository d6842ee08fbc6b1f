//! Ordinary tests, which `cargo vm test` runs in a guest, on each kernel.

use std::fs;

#[test]
fn fills_every_row() {
    paint::paint("fb0", [200, 100, 50]).unwrap();
    let buffer = paint::FrameBuffer::open("fb0").unwrap();
    let bytes = fs::read("/dev/fb0").unwrap();
    let shown = &bytes[..buffer.stride * buffer.height];
    assert!(shown.chunks(4).all(|pixel| pixel[..3] == [50, 100, 200]));
}

#[test]
fn says_which_frame_buffer_is_missing() {
    let error = paint::paint("fb9", [0; 3]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}
