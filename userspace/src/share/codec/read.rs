//! From bytes to contents.

use super::{
    CodecError, Contents, FRAME, HEADER, MAGIC, MAX_FRAMES, MAX_HANDLES, MAX_LENGTH, MAX_PAYLOAD,
    PLANE, SIZE, VERSION, check,
};
use crate::share::{Fourcc, Frame, MAX_PLANES, Plane};

/// Reads from its header how long a message is: for a stream, where the next
/// one begins.
///
/// # Errors
/// [`CodecError::Magic`], [`CodecError::Version`] and [`CodecError::Length`]:
/// after each of them a stream has no next message.
///
/// ```
/// use dmashare::share::codec::{CodecError, HEADER, message_length};
/// let mut header = [0; HEADER];
/// header[..6].copy_from_slice(b"DMSF\x02\x00");
/// header[8] = 40;
/// assert_eq!(message_length(&header), Ok(40));
/// header[8] = 31;
/// assert_eq!(message_length(&header), Err(CodecError::Length(31)));
/// ```
pub fn message_length(header: &[u8; HEADER]) -> Result<usize, CodecError> {
    let mut header = Reader::new(header);
    let magic = header.take()?;
    if magic != MAGIC {
        return Err(CodecError::Magic(magic));
    }
    let version = u16::from_le_bytes(header.take()?);
    if version != VERSION {
        return Err(CodecError::Version(version));
    }
    header.take::<2>()?;
    let length = u32::from_le_bytes(header.take()?);
    match usize::try_from(length) {
        Ok(sound) if (HEADER..=MAX_LENGTH).contains(&sound) => Ok(sound),
        _ => Err(CodecError::Length(length)),
    }
}

/// Reads a message.
///
/// It takes memory for what came, not for what is announced.
///
/// # Errors
/// [`CodecError`] for whatever is not written as the module's documentation
/// says.
///
/// ```
/// use dmashare::share::codec::{self, CodecError};
/// assert_eq!(codec::decode(b"hello"), Err(CodecError::Short(5)));
/// ```
pub fn decode(message: &[u8]) -> Result<Contents<'_>, CodecError> {
    let header = message.first_chunk();
    let header: &[u8; HEADER] = header.ok_or(CodecError::Short(message.len()))?;
    let length = message_length(header)?;
    if length != message.len() {
        return Err(CodecError::Cut {
            announced: u32::from_le_bytes([header[8], header[9], header[10], header[11]]),
            bytes: message.len(),
        });
    }

    let mut reader = Reader::new(message);
    reader.skip(6)?;
    let handles = usize::from(u16::from_le_bytes(reader.take()?));
    reader.skip(4)?;
    let payload = u32::from_le_bytes(reader.take()?);
    let frames = usize::from(u16::from_le_bytes(reader.take()?));
    reader.zeros(6)?;
    let sequence = u64::from_le_bytes(reader.take()?);

    // Each by itself first, so that the error names the one that is wrong.
    if handles > MAX_HANDLES {
        return Err(CodecError::Handles(handles));
    }
    if frames > MAX_FRAMES {
        return Err(CodecError::Frames(frames));
    }
    let payload = usize::try_from(payload).unwrap_or(usize::MAX);
    if payload > MAX_PAYLOAD {
        return Err(CodecError::Payload(payload));
    }
    let parts = HEADER + handles * SIZE + frames * FRAME + payload;
    if parts != length {
        let parts = parts as u64;
        return Err(CodecError::Parts { length, parts });
    }

    let sizes = (0..handles).map(|_| Ok(u64::from_le_bytes(reader.take()?)));
    let sizes = sizes.collect::<Result<Vec<_>, _>>()?;
    let frames = (0..frames).map(|index| take_frame(&mut reader, index));
    let frames = frames.collect::<Result<Vec<_>, _>>()?;
    let contents = Contents {
        sequence,
        sizes: sizes.into(),
        frames: frames.into(),
        payload: reader.rest(),
    };
    check(&contents)?;
    Ok(contents)
}

fn take_frame(reader: &mut Reader<'_>, index: usize) -> Result<Frame, CodecError> {
    let width = u32::from_le_bytes(reader.take()?);
    let height = u32::from_le_bytes(reader.take()?);
    let fourcc = Fourcc(u32::from_le_bytes(reader.take()?));
    let planes = usize::from(u8::from_le_bytes(reader.take()?));
    reader.zeros(3)?;
    let modifier = u64::from_le_bytes(reader.take()?);
    if !(1..=MAX_PLANES).contains(&planes) {
        return Err(CodecError::Planes {
            frame: index,
            planes,
        });
    }
    let mut frame = Frame {
        width,
        height,
        fourcc,
        modifier,
        planes: Vec::with_capacity(planes),
    };
    for _ in 0..planes {
        frame.planes.push(Plane {
            offset: u32::from_le_bytes(reader.take()?),
            stride: u32::from_le_bytes(reader.take()?),
            buffer: u8::from_le_bytes(reader.take()?),
        });
        reader.zeros(7)?;
    }
    reader.zeros((MAX_PLANES - planes) * PLANE)?;
    Ok(frame)
}

struct Reader<'m> {
    message: &'m [u8],
    at: usize,
}

impl<'m> Reader<'m> {
    fn new(message: &'m [u8]) -> Reader<'m> {
        Reader { message, at: 0 }
    }

    /// What has not been read yet.
    fn rest(&self) -> &'m [u8] {
        &self.message[self.at..]
    }

    fn skip(&mut self, count: usize) -> Result<&'m [u8], CodecError> {
        let short = CodecError::Short(self.message.len());
        let field = self.rest().get(..count).ok_or(short)?;
        self.at += count;
        Ok(field)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let mut field = [0; N];
        field.copy_from_slice(self.skip(N)?);
        Ok(field)
    }

    fn zeros(&mut self, count: usize) -> Result<(), CodecError> {
        let from = self.at;
        match self.skip(count)?.iter().position(|byte| *byte != 0) {
            Some(byte) => Err(CodecError::Reserved(from + byte)),
            None => Ok(()),
        }
    }
}
