//! The form of a message on the wire, version 2.
//!
//! A message is a run of bytes, and with its first byte come, in `SCM_RIGHTS`
//! (unix(7)), as many handles as it says. In a `SOCK_SEQPACKET` socket it is one
//! datagram. In a `SOCK_STREAM` socket messages follow each other without a gap,
//! and no handle comes with any byte but the first of a message. All numbers are
//! little endian and without a sign, all sizes are in bytes.
//!
//! | at | bytes | what |
//! | -: | -: | --- |
//! | 0 | 4 | the letters `DMSF` |
//! | 4 | 2 | version: 2 |
//! | 6 | 2 | handles: 0 to 253 |
//! | 8 | 4 | length of the whole message, this header included |
//! | 12 | 4 | length of the payload: 0 to 65536 |
//! | 16 | 2 | frames: 0 to 1024 |
//! | 18 | 6 | 0 |
//! | 24 | 8 | sequence number: 0 for a sender's first message of a connection, then 1 more for each; below 2⁶⁴ - 1 |
//! | 32 | 8 a handle | its size: what the buffer has at least |
//! | … | 88 a frame | the frames |
//! | … | | the payload: the user's own bytes, of no form |
//!
//! A frame:
//!
//! | at | bytes | what |
//! | -: | -: | --- |
//! | 0 | 4 | width in pixels, above 0 |
//! | 4 | 4 | height in rows, above 0 |
//! | 8 | 4 | fourcc, as in `drm_fourcc.h` |
//! | 12 | 1 | planes: 1 to 4 |
//! | 13 | 3 | 0 |
//! | 16 | 8 | modifier, as in `drm_fourcc.h` |
//! | 24 | 64 | four planes of 16 bytes; those beyond the count are all 0 |
//!
//! A plane:
//!
//! | at | bytes | what |
//! | -: | -: | --- |
//! | 0 | 4 | offset in its buffer |
//! | 4 | 4 | stride |
//! | 8 | 1 | which of the handles holds it, from 0 |
//! | 9 | 7 | 0 |
//!
//! A receiver refuses what is not written so, byte by byte: a length that is not
//! that of what came or not the sum of its parts, a byte above that is not 0, a
//! count out of its range, a plane whose handle did not come. A handle that no
//! plane lies in is no fault: a message can bring buffers that are no pictures.
//!
//! What the codec cannot say, the receiver finds out from the kernel: whether
//! the handles came, whether each has the size that is claimed for it, and
//! whether the planes lie inside of their buffers
//! ([`Frame::check`](super::Frame::check)).
//!
//! In a stream, the first 16 bytes tell where a message ends. Where letters,
//! version or length are wrong there, nothing tells where the next one begins,
//! and the connection is at its end. Any other fault is that of one message; but
//! one that cannot be read is not counted, so that the next one of a sender who
//! counted it comes out of its turn, and is refused as well.

mod error;
mod read;
mod write;

use std::borrow::Cow;

pub use error::CodecError;
pub use read::{decode, message_length};
pub use write::encode;

use super::Frame;

/// The version that this crate writes, and the only one it reads.
pub const VERSION: u16 = 2;

/// The bytes before the sizes of the handles.
pub const HEADER: usize = 32;

/// The most handles a message can bring: `SCM_MAX_FD` of the kernel.
pub const MAX_HANDLES: usize = 253;

/// The most frames a message can describe.
pub const MAX_FRAMES: usize = 1024;

/// The longest payload.
pub const MAX_PAYLOAD: usize = 1 << 16;

/// The longest message. It fits the send buffer that a socket has where nobody
/// changed `net.core.wmem_default`.
pub const MAX_LENGTH: usize = HEADER + MAX_HANDLES * SIZE + MAX_FRAMES * FRAME + MAX_PAYLOAD;

const MAGIC: [u8; 4] = *b"DMSF";
/// The size of one handle.
const SIZE: usize = 8;
const FRAME: usize = 24 + super::MAX_PLANES * PLANE;
const PLANE: usize = 16;

/// What the bytes of a message say.
///
/// ```
/// use dmashare::share::codec::{Contents, decode, encode};
/// let contents = Contents { sequence: 7, payload: b"hello", ..Contents::default() };
/// let message = encode(&contents)?;
/// assert_eq!(message.len(), 32 + 5);
/// assert_eq!(decode(&message)?, contents);
/// # Ok::<(), dmashare::share::codec::CodecError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents<'m> {
    /// The number of this message among those of its sender.
    pub sequence: u64,
    /// For each handle, the bytes that its buffer has at least.
    pub sizes: Cow<'m, [u64]>,
    /// The pictures that lie in these buffers.
    pub frames: Cow<'m, [Frame]>,
    /// The user's own bytes.
    pub payload: &'m [u8],
}

/// What holds of every message, written or read.
fn check(contents: &Contents<'_>) -> Result<(), CodecError> {
    let handles = contents.sizes.len();
    if handles > MAX_HANDLES {
        return Err(CodecError::Handles(handles));
    }
    if contents.frames.len() > MAX_FRAMES {
        return Err(CodecError::Frames(contents.frames.len()));
    }
    if contents.payload.len() > MAX_PAYLOAD {
        return Err(CodecError::Payload(contents.payload.len()));
    }
    if contents.sequence == u64::MAX {
        return Err(CodecError::LastSequence);
    }
    for (index, frame) in contents.frames.iter().enumerate() {
        let planes = frame.planes.len();
        if !(1..=super::MAX_PLANES).contains(&planes) {
            return Err(CodecError::Planes {
                frame: index,
                planes,
            });
        }
        for (plane, &super::Plane { buffer, .. }) in frame.planes.iter().enumerate() {
            if usize::from(buffer) >= handles {
                return Err(CodecError::Missing {
                    frame: index,
                    plane,
                    buffer,
                    count: handles,
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
