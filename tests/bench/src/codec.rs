//! A frame's description to bytes and back.

use std::borrow::Cow;
use std::hint::black_box;

use dmashare::frame::{Fourcc, Frame};
use dmashare::share::codec::{Contents, decode, encode};

use crate::Op;

const WHAT: &str = "description to bytes and back";

/// The same as a struct of C, which is copied as it lies, and believed.
#[repr(C)]
#[derive(Clone, Copy)]
struct Raw {
    width: u32,
    height: u32,
    fourcc: u32,
    planes: u32,
    modifier: u64,
    plane: [[u32; 4]; 4],
}

pub(crate) fn ops(ops: &mut Vec<Op>) {
    let raw = Raw {
        width: 1920,
        height: 1080,
        fourcc: Fourcc::XRGB8888.0,
        planes: 1,
        modifier: 0,
        plane: [[0, 0, 7680, 0]; 4],
    };
    ops.push(Op::new(WHAT, "a struct, unchecked", move || {
        let mut message = [0u8; size_of::<Raw>()];
        // SAFETY: as many bytes as the struct has, and any are one.
        let back = unsafe {
            message
                .as_mut_ptr()
                .cast::<Raw>()
                .write_unaligned(black_box(raw));
            black_box(message.as_ptr()).cast::<Raw>().read_unaligned()
        };
        black_box(back.width + back.height + back.fourcc + back.planes);
        black_box((back.modifier, back.plane));
    }));
    let frames = [Frame::packed(1920, 1080, Fourcc::XRGB8888).expect("a frame")];
    ops.push(Op::new(WHAT, "dmashare", move || {
        let contents = Contents {
            sequence: 0,
            sizes: Cow::Borrowed(&[1920 * 1080 * 4]),
            frames: Cow::Borrowed(black_box(&frames)),
            payload: &[],
        };
        let message = encode(&contents).expect("a message");
        black_box(decode(black_box(&message)).expect("the same"));
    }));
}
