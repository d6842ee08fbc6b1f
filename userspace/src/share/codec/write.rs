//! From contents to bytes.

use super::{CodecError, Contents, FRAME, HEADER, MAGIC, MAX_LENGTH, PLANE, SIZE, VERSION, check};
use crate::share::{Frame, MAX_PLANES};

/// Writes a message.
///
/// # Errors
/// [`CodecError`] where a receiver would refuse it.
///
/// ```
/// use dmashare::share::{Fourcc, Frame, codec};
/// let frames = [Frame::packed(64, 32, Fourcc::XRGB8888)?];
/// let message = codec::encode(&codec::Contents {
///     sizes: [8192].as_slice().into(),
///     frames: frames.as_slice().into(),
///     ..Default::default()
/// })?;
/// // The width of the frame, behind the header and one size.
/// assert_eq!(&message[40..44], &[64, 0, 0, 0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn encode(contents: &Contents<'_>) -> Result<Vec<u8>, CodecError> {
    check(contents)?;
    let Contents {
        sequence,
        sizes,
        frames,
        payload,
    } = contents;
    let length = HEADER + sizes.len() * SIZE + frames.len() * FRAME + payload.len();
    debug_assert!(length <= MAX_LENGTH);
    let mut message = Vec::with_capacity(length);
    message.extend(MAGIC);
    message.extend(VERSION.to_le_bytes());
    message.extend(narrow::<2>(sizes.len()));
    message.extend(narrow::<4>(length));
    message.extend(narrow::<4>(payload.len()));
    message.extend(narrow::<2>(frames.len()));
    message.extend([0; 6]);
    message.extend(sequence.to_le_bytes());
    for size in sizes.iter() {
        message.extend(size.to_le_bytes());
    }
    for frame in frames.iter() {
        put_frame(&mut message, frame);
    }
    message.extend(*payload);
    Ok(message)
}

fn put_frame(message: &mut Vec<u8>, frame: &Frame) {
    message.extend(frame.width.to_le_bytes());
    message.extend(frame.height.to_le_bytes());
    message.extend(frame.fourcc.0.to_le_bytes());
    message.extend(narrow::<1>(frame.planes.len()));
    message.extend([0; 3]);
    message.extend(frame.modifier.to_le_bytes());
    for plane in &frame.planes {
        message.extend(plane.offset.to_le_bytes());
        message.extend(plane.stride.to_le_bytes());
        message.extend([plane.buffer, 0, 0, 0, 0, 0, 0, 0]);
    }
    let absent = (MAX_PLANES - frame.planes.len()) * PLANE;
    message.resize(message.len() + absent, 0);
}

/// A count in as many bytes as its field has; it was checked to fit.
fn narrow<const N: usize>(count: usize) -> [u8; N] {
    let bytes = (count as u64).to_le_bytes();
    debug_assert!(bytes[N..].iter().all(|byte| *byte == 0));
    std::array::from_fn(|at| bytes[at])
}
