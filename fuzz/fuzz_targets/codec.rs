//! Any bytes, decoded: what can be read is written again as the same bytes, so
//! that no two messages mean the same. And any contents, written: they are read
//! again as the same, or, with bytes changed, as the first half says.

#![no_main]

use dmashare::share::codec::{self, Contents, decode, encode};
use dmashare::share::{Fourcc, Frame, Plane};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    canonical(bytes);
    // Few bytes are a message by chance, so that these make one.
    let _ = written(&mut Unstructured::new(bytes));
});

fn canonical(message: &[u8]) {
    if let Ok(contents) = decode(message) {
        assert_eq!(encode(&contents).as_deref(), Ok(message));
    }
}

fn written(bytes: &mut Unstructured<'_>) -> Result<()> {
    let handles = match bytes.ratio(1, 16)? {
        true => bytes.int_in_range(0..=codec::MAX_HANDLES + 1)?,
        false => bytes.int_in_range(0..=4)?,
    };
    let sizes = (0..handles).map(|_| bytes.arbitrary());
    let sizes = sizes.collect::<Result<Vec<u64>>>()?;
    let frames = (0..bytes.int_in_range(0..=4)?).map(|_| frame(bytes));
    let frames = frames.collect::<Result<Vec<_>>>()?;
    let payload = bytes.int_in_range(0..=40)?.min(bytes.len());
    let contents = Contents {
        sequence: bytes.arbitrary()?,
        sizes: sizes.into(),
        frames: frames.into(),
        payload: bytes.peek_bytes(payload).unwrap_or_default(),
    };
    let Ok(mut message) = encode(&contents) else {
        return Ok(());
    };
    assert_eq!(decode(&message).as_ref(), Ok(&contents));
    while !bytes.is_empty() {
        let at = bytes.choose_index(message.len())?;
        message[at] = bytes.arbitrary()?;
        canonical(&message);
    }
    Ok(())
}

fn frame(bytes: &mut Unstructured<'_>) -> Result<Frame> {
    let mut frame = Frame {
        width: bytes.arbitrary()?,
        height: bytes.arbitrary()?,
        fourcc: Fourcc(bytes.arbitrary()?),
        modifier: bytes.arbitrary()?,
        planes: Vec::new(),
    };
    for _ in 0..bytes.int_in_range(0..=5)? {
        frame.planes.push(Plane {
            buffer: match bytes.ratio(1, 16)? {
                true => bytes.arbitrary()?,
                false => 0,
            },
            offset: bytes.arbitrary()?,
            stride: bytes.arbitrary()?,
        });
    }
    Ok(frame)
}
