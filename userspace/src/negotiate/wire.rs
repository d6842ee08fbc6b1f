//! A taker as bytes, for the payload of a message
//! ([`share::Message`](crate::share::Message)): `Taker::to_bytes` has the table.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{Layout, Memory, Reach, Sync, Taker};
use crate::frame::Fourcc;
use crate::text::is_printable;

/// The longest text of a taker that travels, in bytes.
pub const MAX_TEXT: usize = 1024;

/// The most layouts of a taker that travels. The longest taker fits the payload
/// of a message.
pub const MAX_LAYOUTS: usize = 4096;

const MAGIC: [u8; 4] = *b"DMST";
const VERSION: u8 = 1;
const HEADER: usize = 48;
const LAYOUT: usize = 12;

const _: () =
    assert!(HEADER + 3 * MAX_TEXT + MAX_LAYOUTS * LAYOUT <= crate::share::codec::MAX_PAYLOAD);

/// Why a taker cannot travel, or what came is none.
///
/// ```
/// use dmashare::negotiate::{Taker, TakerError};
/// assert_eq!(Taker::from_bytes(b"hello"), Err(TakerError::Length(5)));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TakerError {
    /// The bytes are fewer or more than the taker that they begin has.
    #[error("{0} bytes are not the length of this taker; send it whole, and alone")]
    Length(usize),
    /// They do not begin as a taker does.
    #[error("this is no taker of version {VERSION}; both ends need the same release")]
    Version,
    /// A field has a value that means nothing.
    #[error("byte {0} of the taker has a value that means nothing")]
    Field(usize),
    /// A text is too long, is not UTF-8, or has control characters.
    #[error(
        "a text of a taker is UTF-8 of at most {MAX_TEXT} bytes without control \
             characters, line separators and bidirectional controls"
    )]
    Text,
    /// Too many layouts, or layouts out of order.
    #[error("a taker has at most {MAX_LAYOUTS} layouts, each once and in ascending order")]
    Layouts,
}

impl Taker {
    /// This taker, to be the payload of a message to a peer.
    ///
    /// All numbers are little endian and without a sign.
    ///
    /// | at | bytes | what |
    /// | -: | -: | --- |
    /// | 0 | 4 | the letters `DMST` |
    /// | 4 | 1 | version: 1 |
    /// | 5 | 1 | bit 0: layouts are named; bit 1: contiguous |
    /// | 6 | 1 | reach: 0 all, 1 below 4 GiB |
    /// | 7 | 1 | memory: 0 any, 1 any dma-buf, 2 its own |
    /// | 8 | 4 | how it synchronises: 1 CPU, 2 implicit, 4 sync_file, or their sum |
    /// | 12 | 8 | smallest and largest width, in pixels |
    /// | 20 | 8 | smallest and largest height, in rows |
    /// | 28 | 12 | alignment of strides, of offsets, of rows |
    /// | 40 | 6 | lengths of the three texts, 2 bytes each: 0 to 1024 |
    /// | 46 | 2 | layouts: 0 to 4096 |
    /// | 48 | … | name, node, why: UTF-8 without control characters |
    /// | … | 12 a layout | fourcc (4) and modifier (8), in ascending order |
    ///
    /// Node and why are empty but for a taker of its own memory, and there are no
    /// layouts but where they are named. Nothing comes behind them. What is not
    /// written so is refused: one taker has one form.
    ///
    /// # Errors
    /// [`TakerError::Text`] and [`TakerError::Layouts`] where a peer would refuse
    /// it.
    ///
    /// ```
    /// use dmashare::negotiate::Taker;
    /// use dmashare::share::{Draft, Socket};
    /// let (one, other) = Socket::pair()?;
    /// let bytes = Taker::cpu().to_bytes()?;
    /// one.send_message(&Draft::new().payload(&bytes))?;
    /// let taker = Taker::from_bytes(&other.recv_message()?.payload)?;
    /// assert_eq!(taker, Taker::cpu());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn to_bytes(&self) -> Result<Vec<u8>, TakerError> {
        let (memory, node, why) = match &self.memory {
            Memory::Any => (0, "", ""),
            Memory::AnyDmaBuf => (1, "", ""),
            Memory::Own { node, why } => (2, node.to_str().ok_or(TakerError::Text)?, why.as_str()),
        };
        let texts = [self.name.as_str(), node, why];
        if !texts.into_iter().all(is_text) {
            return Err(TakerError::Text);
        }
        let layouts = self.layouts.iter().flatten();
        let count = layouts.clone().count();
        if count > MAX_LAYOUTS {
            return Err(TakerError::Layouts);
        }
        let narrow = |length: usize| u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes();
        let mut bytes = Vec::new();
        bytes.extend(MAGIC);
        bytes.push(VERSION);
        bytes.push(u8::from(self.layouts.is_some()) | u8::from(self.contiguous) << 1);
        bytes.push(match self.reach {
            Reach::All => 0,
            Reach::Below4G => 1,
        });
        bytes.push(memory);
        for number in [
            self.sync.bits(),
            *self.width.start(),
            *self.width.end(),
            *self.height.start(),
            *self.height.end(),
            self.stride_align,
            self.offset_align,
            self.rows_align,
        ] {
            bytes.extend(number.to_le_bytes());
        }
        for text in texts {
            bytes.extend(narrow(text.len()));
        }
        bytes.extend(narrow(count));
        for text in texts {
            bytes.extend(text.as_bytes());
        }
        for layout in layouts {
            bytes.extend(layout.fourcc.0.to_le_bytes());
            bytes.extend(layout.modifier.to_le_bytes());
        }
        Ok(bytes)
    }

    /// The taker that a peer sent. It takes memory for what came, not for what
    /// is announced.
    ///
    /// # Errors
    /// [`TakerError`], for whatever [`to_bytes`](Self::to_bytes) does not write.
    ///
    /// ```
    /// # use dmashare::negotiate::{Taker, TakerError};
    /// let mut bytes = Taker::peer().to_bytes()?;
    /// assert_eq!(Taker::from_bytes(&bytes)?, Taker::peer());
    /// bytes[7] = 3;
    /// assert_eq!(Taker::from_bytes(&bytes), Err(TakerError::Field(7)));
    /// # Ok::<(), TakerError>(())
    /// ```
    pub fn from_bytes(bytes: &[u8]) -> Result<Taker, TakerError> {
        let length = TakerError::Length(bytes.len());
        let (header, mut rest) = bytes.split_first_chunk::<HEADER>().ok_or(length.clone())?;
        if header[..4] != MAGIC || header[4] != VERSION {
            return Err(TakerError::Version);
        }
        let byte = |at: usize, below: u8| match header[at] {
            value if value < below => Ok(value),
            _ => Err(TakerError::Field(at)),
        };
        let long = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| header[at + byte]));
        let short = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
        let flags = byte(5, 4)?;

        let mut texts = [""; 3];
        for (text, at) in texts.iter_mut().zip([40, 42, 44]) {
            let (this, others) = rest.split_at_checked(short(at)).ok_or(length.clone())?;
            *text = std::str::from_utf8(this).map_err(|_| TakerError::Text)?;
            if !is_text(text) {
                return Err(TakerError::Text);
            }
            rest = others;
        }
        let [name, node, why] = texts;

        let count = short(46);
        if count > MAX_LAYOUTS {
            return Err(TakerError::Layouts);
        }
        if rest.len() != count * LAYOUT {
            return Err(length);
        }
        let layouts: Vec<Layout> = rest.chunks_exact(LAYOUT).map(layout).collect();
        if !layouts.is_sorted_by(|one, next| one < next) {
            return Err(TakerError::Layouts);
        }
        let named = flags & 1 != 0;
        if !named && count > 0 {
            return Err(TakerError::Field(5));
        }
        let memory = match byte(7, 3)? {
            2 => Memory::Own {
                node: PathBuf::from(node),
                why: why.to_owned(),
            },
            _ if !node.is_empty() || !why.is_empty() => return Err(TakerError::Field(7)),
            0 => Memory::Any,
            _ => Memory::AnyDmaBuf,
        };
        Ok(Taker {
            layouts: named.then(|| BTreeSet::from_iter(layouts)),
            width: long(12)..=long(16),
            height: long(20)..=long(24),
            stride_align: long(28),
            offset_align: long(32),
            rows_align: long(36),
            contiguous: flags & 2 != 0,
            reach: match byte(6, 2)? {
                0 => Reach::All,
                _ => Reach::Below4G,
            },
            memory,
            sync: Sync::from_bits(long(8)).ok_or(TakerError::Field(8))?,
            ..Taker::new(name)
        })
    }
}

fn layout(bytes: &[u8]) -> Layout {
    Layout {
        fourcc: Fourcc(u32::from_le_bytes(std::array::from_fn(|at| bytes[at]))),
        modifier: u64::from_le_bytes(std::array::from_fn(|at| bytes[4 + at])),
    }
}

/// Whether it can travel, and be shown on a terminal then.
fn is_text(text: &str) -> bool {
    text.len() <= MAX_TEXT && text.chars().all(is_printable)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes as the table has them, written out by hand.
    #[test]
    fn the_bytes_are_those_documented() {
        let mut expected = b"DMST\x01\x03\x01\x02".to_vec();
        expected.extend([5, 0, 0, 0]);
        expected.extend([1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0]);
        expected.extend([0, 1, 0, 0, 6, 0, 0, 0, 7, 0, 0, 0]);
        expected.extend([2, 0, 3, 0, 1, 0, 1, 0]);
        expected.extend(b"me/dvyXR24");
        expected.extend([8, 7, 6, 5, 4, 3, 2, 1]);
        let taker = Taker {
            layouts: Some(BTreeSet::from([Layout {
                fourcc: Fourcc::XRGB8888,
                modifier: 0x0102_0304_0506_0708,
            }])),
            width: 1..=2,
            height: 3..=4,
            stride_align: 256,
            offset_align: 6,
            rows_align: 7,
            contiguous: true,
            reach: Reach::Below4G,
            memory: Memory::Own {
                node: "/dv".into(),
                why: "y".into(),
            },
            sync: Sync::CPU | Sync::SYNC_FILE,
            ..Taker::new("me")
        };
        assert_eq!(taker.to_bytes().unwrap(), expected);
        assert_eq!(Taker::from_bytes(&expected), Ok(taker));
        for length in 0..expected.len() {
            let cut = Taker::from_bytes(&expected[..length]);
            assert_eq!(cut, Err(TakerError::Length(length)));
        }
        let with = |at: usize, value: u8| {
            let mut changed = expected.clone();
            changed[at] = value;
            Taker::from_bytes(&changed).unwrap_err()
        };
        assert_eq!(with(0, b'd'), TakerError::Version);
        assert_eq!(with(4, 2), TakerError::Version);
        assert_eq!(with(5, 4), TakerError::Field(5));
        assert_eq!(with(5, 2), TakerError::Field(5));
        assert_eq!(with(6, 2), TakerError::Field(6));
        assert_eq!(with(7, 1), TakerError::Field(7));
        assert_eq!(with(8, 8), TakerError::Field(8));
        assert_eq!(with(47, 17), TakerError::Layouts);
        assert_eq!(with(48, b'\n'), TakerError::Text);
        assert_eq!(with(48, 0xff), TakerError::Text);
    }

    #[test]
    fn what_a_peer_would_refuse_does_not_leave() {
        let named = |name: String| Taker::new(name).to_bytes();
        assert!(named("x".repeat(MAX_TEXT)).is_ok());
        assert_eq!(named("x".repeat(MAX_TEXT + 1)), Err(TakerError::Text));
        // These would show it as another text, or on two lines.
        for hidden in ["a\u{202e}b", "a\u{2028}b", "a\u{2066}b"] {
            assert_eq!(named(hidden.to_owned()), Err(TakerError::Text));
        }
        assert_eq!(named("\u{1b}[2J".into()), Err(TakerError::Text));
        let mut many = Taker::peer();
        let layouts = |count| {
            (0..count)
                .map(|code| Layout::linear(Fourcc(code)))
                .collect()
        };
        many.layouts = Some(layouts(4096));
        assert_eq!(
            Taker::from_bytes(&many.to_bytes().unwrap()),
            Ok(many.clone())
        );
        many.layouts = Some(layouts(4097));
        assert_eq!(many.to_bytes(), Err(TakerError::Layouts));
    }
}
