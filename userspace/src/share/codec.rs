//! The form of a [`Frame`] on the wire, version 1.
//!
//! One message is one frame: [`SIZE`] bytes in one datagram of a
//! `SOCK_SEQPACKET` socket, and with them in `SCM_RIGHTS` (unix(7)) as many
//! handles as byte 7 says. All numbers are little endian, and every message has
//! the same length, whatever the number of planes.
//!
//! | at | bytes | what |
//! | -: | -: | --- |
//! | 0 | 4 | the letters `DMSF` |
//! | 4 | 2 | version: 1 |
//! | 6 | 1 | planes: 1 to 4 |
//! | 7 | 1 | handles: 1 to 4 |
//! | 8 | 4 | width in pixels, above 0 |
//! | 12 | 4 | height in rows, above 0 |
//! | 16 | 4 | fourcc, as in `drm_fourcc.h` |
//! | 20 | 4 | 0 |
//! | 24 | 8 | modifier, as in `drm_fourcc.h` |
//! | 32 | 64 | four planes of 16 bytes; those beyond the count are all 0 |
//!
//! A plane:
//!
//! | at | bytes | what |
//! | -: | -: | --- |
//! | 0 | 4 | offset in its buffer, in bytes |
//! | 4 | 4 | stride, in bytes |
//! | 8 | 1 | which of the handles holds it, from 0 |
//! | 9 | 7 | 0 |
//!
//! A receiver refuses what is not written so, byte by byte: another length or
//! version, a byte above that is not 0, a count out of its range, a plane whose
//! handle did not come, a handle that no plane names. Whether the planes lie
//! inside of their buffers is not the codec's to say, since the sizes are the
//! kernel's to tell: [`Frame::check`].

use super::{Fourcc, Frame, MAX_PLANES, Plane};

/// The bytes of a message.
pub const SIZE: usize = PLANES + MAX_PLANES * PLANE;

/// The version that this crate writes, and the only one it reads.
pub const VERSION: u16 = 1;

/// The most handles a message can bring: one for each plane.
pub const MAX_HANDLES: usize = MAX_PLANES;

const MAGIC: [u8; 4] = *b"DMSF";
const PLANES: usize = 32;
const PLANE: usize = 16;

/// Why a message is no frame, or a frame no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The message has another length.
    #[error("a message of {0} bytes; one has {SIZE}")]
    Length(usize),
    /// The message does not begin as one of ours.
    #[error("a message that begins with {0:02x?} is not of this protocol")]
    Magic([u8; 4]),
    /// The message is of another version.
    #[error(
        "a message of version {0}; this side speaks version {VERSION}, so update the older one"
    )]
    Version(u16),
    /// No plane, or more than a frame has.
    #[error("{0} planes; a frame has 1 to {MAX_PLANES}")]
    Planes(usize),
    /// No handle, or more than planes could lie in.
    #[error("{0} handles; a frame has 1 to {MAX_HANDLES}")]
    Handles(usize),
    /// A byte that is to be 0 is not.
    #[error("byte {0} is not 0")]
    Reserved(usize),
    /// A plane lies in a handle that is not there.
    #[error("plane {plane} lies in handle {buffer} of {count}")]
    Missing {
        /// Which plane, from 0.
        plane: usize,
        /// The handle that it names, from 0.
        buffer: u8,
        /// How many handles there are.
        count: usize,
    },
    /// No plane lies in this handle.
    #[error("handle {0} came along, but no plane lies in it")]
    Unused(usize),
}

/// Writes a frame as a message that brings `handles` handles.
///
/// # Errors
/// [`CodecError`] where a receiver would refuse the message.
///
/// ```
/// use dmashare::share::{Fourcc, Frame, codec};
/// let frame = Frame::packed(64, 32, Fourcc::XRGB8888)?;
/// let message = codec::encode(&frame, 1)?;
/// assert_eq!(&message[8..12], &[64, 0, 0, 0]);
/// assert_eq!(codec::decode(&message)?, (frame, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn encode(frame: &Frame, handles: usize) -> Result<[u8; SIZE], CodecError> {
    let counts = check(frame, handles)?;
    let mut message = Writer::default();
    message.put(&MAGIC);
    message.put(&VERSION.to_le_bytes());
    message.put(&counts);
    message.put(&frame.width.to_le_bytes());
    message.put(&frame.height.to_le_bytes());
    message.put(&frame.fourcc.0.to_le_bytes());
    message.put(&[0; 4]);
    message.put(&frame.modifier.to_le_bytes());
    for plane in &frame.planes {
        message.put(&plane.offset.to_le_bytes());
        message.put(&plane.stride.to_le_bytes());
        message.put(&[plane.buffer, 0, 0, 0, 0, 0, 0, 0]);
    }
    Ok(message.bytes)
}

/// Reads a message: the frame, and how many handles it should have brought.
///
/// # Errors
/// [`CodecError`] for whatever is not written as this module says.
///
/// ```
/// use dmashare::share::codec::{self, CodecError};
/// assert_eq!(codec::decode(b"hello"), Err(CodecError::Length(5)));
/// ```
pub fn decode(message: &[u8]) -> Result<(Frame, usize), CodecError> {
    let mut message = match <&[u8; SIZE]>::try_from(message) {
        Ok(bytes) => Reader { bytes, at: 0 },
        Err(_) => return Err(CodecError::Length(message.len())),
    };
    let magic = message.take();
    if magic != MAGIC {
        return Err(CodecError::Magic(magic));
    }
    let version = u16::from_le_bytes(message.take());
    if version != VERSION {
        return Err(CodecError::Version(version));
    }
    let [planes, handles] = message.take().map(usize::from);
    let mut frame = Frame {
        width: u32::from_le_bytes(message.take()),
        height: u32::from_le_bytes(message.take()),
        fourcc: Fourcc(u32::from_le_bytes(message.take())),
        modifier: {
            message.zeros(4)?;
            u64::from_le_bytes(message.take())
        },
        planes: Vec::new(),
    };
    if planes > MAX_PLANES {
        return Err(CodecError::Planes(planes));
    }
    for _ in 0..planes {
        frame.planes.push(Plane {
            offset: u32::from_le_bytes(message.take()),
            stride: u32::from_le_bytes(message.take()),
            buffer: u8::from_le_bytes(message.take()),
        });
        message.zeros(7)?;
    }
    message.zeros((MAX_PLANES - planes) * PLANE)?;
    check(&frame, handles)?;
    Ok((frame, handles))
}

/// What holds of every message, written or read; and its counts, of planes and
/// of handles.
fn check(frame: &Frame, handles: usize) -> Result<[u8; 2], CodecError> {
    let count = |n: usize, max| u8::try_from(n).ok().filter(|_| (1..=max).contains(&n));
    let planes = frame.planes.len();
    let counts = [
        count(planes, MAX_PLANES).ok_or(CodecError::Planes(planes))?,
        count(handles, MAX_HANDLES).ok_or(CodecError::Handles(handles))?,
    ];
    let mut used = [false; MAX_HANDLES];
    for (plane, p) in frame.planes.iter().enumerate() {
        match used[..handles].get_mut(usize::from(p.buffer)) {
            Some(used) => *used = true,
            None => {
                return Err(CodecError::Missing {
                    plane,
                    buffer: p.buffer,
                    count: handles,
                });
            }
        }
    }
    match used[..handles].iter().position(|used| !used) {
        Some(handle) => Err(CodecError::Unused(handle)),
        None => Ok(counts),
    }
}

struct Writer {
    bytes: [u8; SIZE],
    at: usize,
}

impl Default for Writer {
    fn default() -> Writer {
        Writer {
            bytes: [0; SIZE],
            at: 0,
        }
    }
}

impl Writer {
    fn put(&mut self, field: &[u8]) {
        self.bytes[self.at..][..field.len()].copy_from_slice(field);
        self.at += field.len();
    }
}

struct Reader<'b> {
    bytes: &'b [u8; SIZE],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut field = [0; N];
        field.copy_from_slice(&self.bytes[self.at..][..N]);
        self.at += N;
        field
    }

    fn zeros(&mut self, count: usize) -> Result<(), CodecError> {
        let from = self.at;
        self.at += count;
        match self.bytes[from..self.at].iter().position(|byte| *byte != 0) {
            Some(byte) => Err(CodecError::Reserved(from + byte)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        Frame {
            width: 0x0102_0304,
            height: 0x0506_0708,
            fourcc: Fourcc::new(*b"NV12"),
            modifier: 0x1122_3344_5566_7788,
            planes: vec![
                Plane {
                    buffer: 1,
                    offset: 0x090a_0b0c,
                    stride: 0x0d0e_0f10,
                },
                Plane {
                    buffer: 0,
                    offset: 0,
                    stride: 1,
                },
            ],
        }
    }

    /// The bytes as the table in the module's documentation gives them,
    /// written out by hand.
    #[test]
    fn the_bytes_are_those_documented() {
        let mut expected = Vec::new();
        expected.extend(b"DMSF\x01\x00\x02\x02");
        expected.extend([4, 3, 2, 1, 8, 7, 6, 5]);
        expected.extend(b"NV12\0\0\0\0");
        expected.extend([0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
        expected.extend([
            0xc, 0xb, 0xa, 9, 0x10, 0xf, 0xe, 0xd, 1, 0, 0, 0, 0, 0, 0, 0,
        ]);
        expected.extend([0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([0; 32]);
        let message = encode(&frame(), 2).unwrap();
        assert_eq!(message.as_slice(), expected);
        assert_eq!(decode(&message).unwrap(), (frame(), 2));
    }

    #[test]
    fn every_other_length_is_refused() {
        let mut long = encode(&frame(), 2).unwrap().to_vec();
        long.push(0);
        for len in (0..SIZE).chain([SIZE + 1]) {
            assert_eq!(decode(&long[..len]), Err(CodecError::Length(len)));
        }
    }

    /// Every byte matters: change one, and the message means something else or
    /// is refused. None is read twice, and none is skipped.
    #[test]
    fn every_bit_matters() {
        let message = encode(&frame(), 2).unwrap();
        for byte in 0..SIZE {
            for bit in 0..8 {
                let mut changed = message;
                changed[byte] ^= 1 << bit;
                match decode(&changed) {
                    Err(_) => {}
                    Ok((frame, handles)) => {
                        assert_eq!(encode(&frame, handles).unwrap(), changed);
                    }
                }
            }
        }
        let reserved = (20..24).chain(41..48).chain(57..64).chain(64..96);
        for byte in reserved {
            let mut changed = message;
            changed[byte] = 1;
            assert_eq!(decode(&changed), Err(CodecError::Reserved(byte)));
        }
    }

    #[test]
    fn counts_are_checked_both_ways() {
        let mut frame = frame();
        assert_eq!(encode(&frame, 0), Err(CodecError::Handles(0)));
        assert_eq!(encode(&frame, 5), Err(CodecError::Handles(5)));
        assert_eq!(encode(&frame, 3), Err(CodecError::Unused(2)));
        let missing = CodecError::Missing {
            plane: 0,
            buffer: 1,
            count: 1,
        };
        assert_eq!(encode(&frame, 1), Err(missing));
        frame.planes.clear();
        assert_eq!(encode(&frame, 1), Err(CodecError::Planes(0)));

        let mut message = encode(&self::frame(), 2).unwrap();
        message[6] = 5;
        assert_eq!(decode(&message), Err(CodecError::Planes(5)));
        message[6] = 2;
        message[7] = 0;
        assert_eq!(decode(&message), Err(CodecError::Handles(0)));
        message[7] = 2;
        message[4] = 2;
        assert_eq!(decode(&message), Err(CodecError::Version(2)));
        message[0] = b'd';
        assert_eq!(decode(&message), Err(CodecError::Magic(*b"dMSF")));
    }
}
