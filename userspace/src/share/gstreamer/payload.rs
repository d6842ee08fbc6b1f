//! The description of a buffer as it is written: numbers in the machine's byte
//! order, metas in little endian. Nothing here is checked but that it is there.

use std::time::Duration;

use super::{GstreamerError, Stamp};
use crate::frame::MAX_PLANES;

/// Types of commands.
pub(super) const NEW_BUFFER: u32 = 0;
pub(super) const RELEASE_BUFFER: u32 = 1;
pub(super) const CAPS: u32 = 2;
pub(super) const EOS: u32 = 3;

/// What GStreamer has for a time or a number that is not known.
const NONE: u64 = u64::MAX;

const VIDEO_META: &[u8] = b"GstVideoMeta";

/// A buffer, as the sink describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) id: u64,
    pub(super) stamp: Stamp,
    /// Whether its memories are said to be dma-bufs.
    pub(super) dma_buf: bool,
    pub(super) memories: Vec<Memory>,
    pub(super) layout: Option<Layout>,
}

/// A part of what is behind a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) size: u64,
    pub(super) offset: u64,
}

/// `GstVideoMeta`: where the planes lie in the memories, these one after the
/// other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// `GstVideoFormat`
    pub(super) format: u32,
    pub(super) width: u32,
    pub(super) height: u32,
    /// Of each plane the offset and the stride.
    pub(super) planes: Vec<(u64, i32)>,
}

/// The id alone, of whatever begins as a buffer does.
pub(super) fn id_of(payload: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(*payload.first_chunk()?))
}

impl Described {
    pub(super) fn read(payload: &[u8]) -> Result<Described, GstreamerError> {
        let short = GstreamerError::Short {
            command: NEW_BUFFER,
            length: payload.len(),
        };
        let mut bytes = Bytes(payload);
        let (mut described, metas) = Described::head(&mut bytes).ok_or(short)?;
        for _ in 0..metas {
            let (name, version, mut content) = bytes
                .meta()
                .ok_or(GstreamerError::Meta("it is cut short"))?;
            // The first counts; others belong to other views of the scene.
            if name == VIDEO_META && described.layout.is_none() {
                if version != 0 {
                    return Err(GstreamerError::Meta("it is of a later version than 0"));
                }
                let layout = Layout::read(&mut content);
                let layout = layout.ok_or(GstreamerError::Meta("it is cut short"))?;
                if layout.planes.len() > MAX_PLANES {
                    return Err(GstreamerError::Meta("it has more than four planes"));
                }
                described.layout = Some(layout);
            }
        }
        Ok(described)
    }

    /// All before the metas, and how many of them there are.
    fn head(bytes: &mut Bytes<'_>) -> Option<(Described, u16)> {
        let id = bytes.u64()?;
        let [pts, dts, duration] = [bytes.u64()?, bytes.u64()?, bytes.u64()?].map(time);
        let [offset, offset_end] = [bytes.u64()?, bytes.u64()?].map(number);
        let flags = bytes.u32()?;
        let [kind, memories] = bytes.take()?;
        let metas = u16::from_ne_bytes(bytes.take()?);
        let memories = (0..memories).map(|_| {
            let (size, offset) = (bytes.u64()?, bytes.u64()?);
            Some(Memory { size, offset })
        });
        let described = Described {
            id,
            stamp: Stamp {
                pts,
                dts,
                duration,
                offset,
                offset_end,
                flags,
            },
            // Of types to come nothing is known; what the handles are, the
            // kernel says.
            dma_buf: kind == 1,
            memories: memories.collect::<Option<_>>()?,
            layout: None,
        };
        Some((described, metas))
    }

    /// As a payload. There are at most 255 memories.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let Stamp {
            pts,
            dts,
            duration,
            offset,
            offset_end,
            flags,
        } = self.stamp;
        let times = [pts, dts, duration].map(|time| time.map_or(NONE, nanoseconds));
        let numbers = [offset, offset_end].map(|number| number.unwrap_or(NONE));
        for word in [self.id].iter().chain(&times).chain(&numbers) {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(flags.to_ne_bytes());
        let count = u8::try_from(self.memories.len()).expect("the callers let no more pass");
        bytes.extend([u8::from(self.dma_buf), count]);
        bytes.extend(u16::from(self.layout.is_some()).to_ne_bytes());
        for memory in &self.memories {
            bytes.extend(memory.size.to_ne_bytes());
            bytes.extend(memory.offset.to_ne_bytes());
        }
        if let Some(layout) = &self.layout {
            layout.write(&mut bytes);
        }
        bytes
    }
}

impl Layout {
    fn read(bytes: &mut Bytes<'_>) -> Option<Layout> {
        let _flags = bytes.le_u32()?;
        let (format, width, height) = (bytes.le_u32()?, bytes.le_u32()?, bytes.le_u32()?);
        let count = usize::try_from(bytes.le_u32()?).ok()?;
        // More than there are bytes for are cut short.
        if count > bytes.0.len() {
            return None;
        }
        let offsets = (0..count).map(|_| bytes.take().map(u64::from_le_bytes));
        let offsets = offsets.collect::<Option<Vec<_>>>()?;
        let strides = (0..count).map(|_| bytes.take().map(i32::from_le_bytes));
        let strides = strides.collect::<Option<Vec<_>>>()?;
        // The alignments that follow tell how these came to be.
        Some(Layout {
            format,
            width,
            height,
            planes: offsets.into_iter().zip(strides).collect(),
        })
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        let start = bytes.len();
        let length = |length: usize| {
            let length = u32::try_from(length).expect("a meta of four planes is short");
            length.to_le_bytes()
        };
        bytes.extend([0; 4]);
        bytes.extend(length(VIDEO_META.len()));
        bytes.extend(VIDEO_META);
        bytes.extend([0, 0]); // the NUL, and the version
        let count = u32::from_le_bytes(length(self.planes.len()));
        for word in [0, self.format, self.width, self.height, count] {
            bytes.extend(word.to_le_bytes());
        }
        for (offset, _) in &self.planes {
            bytes.extend(offset.to_le_bytes());
        }
        for (_, stride) in &self.planes {
            bytes.extend(stride.to_le_bytes());
        }
        // Nothing is padded, and no plane's stride aligned by a mask.
        bytes.extend([0; 16]);
        bytes.extend(std::iter::repeat_n([0; 4], self.planes.len()).flatten());
        let whole = length(bytes.len() - start);
        bytes[start..start + 4].copy_from_slice(&whole);
    }
}

fn time(word: u64) -> Option<Duration> {
    number(word).map(Duration::from_nanos)
}

fn number(word: u64) -> Option<u64> {
    (word != NONE).then_some(word)
}

/// The last that is a time, where there is none so large.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NONE).min(NONE - 1)
}

/// What is left to be read.
struct Bytes<'b>(&'b [u8]);

impl<'b> Bytes<'b> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    fn le_u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    /// The next meta: its name, its version and its content.
    fn meta(&mut self) -> Option<(&'b [u8], u8, Bytes<'b>)> {
        let whole = *self
            .0
            .first_chunk()
            .map(|word| u32::from_le_bytes(*word))
            .as_ref()?;
        let (meta, rest) = self.0.split_at_checked(usize::try_from(whole).ok()?)?;
        let name_length = u32::from_le_bytes(*meta.get(4..)?.first_chunk()?);
        let (name, after) = meta
            .get(8..)?
            .split_at_checked(usize::try_from(name_length).ok()?)?;
        let ([nul, version], content) = after.split_first_chunk()?;
        self.0 = rest;
        (*nul == 0).then_some((name, *version, Bytes(content)))
    }
}
