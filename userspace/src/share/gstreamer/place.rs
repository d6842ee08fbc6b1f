//! From what a sink describes to a frame in buffers, and back.

use super::payload::{Described, Layout, Memory};
use super::{Caps, GstreamerError, Stamp, format};
use crate::buffer::{Buffer, Kind};
use crate::frame::{Frame, FrameError, LINEAR, MAX_PLANES, Plane};

/// The frame that this describes, which lies inside of its memories, and these
/// inside of the buffers.
pub(super) fn frame(
    caps: &Caps,
    described: &Described,
    buffers: &[Buffer],
) -> Result<Frame, GstreamerError> {
    if described.memories.is_empty() {
        return Err(GstreamerError::Empty);
    }
    let mut ends = Vec::with_capacity(buffers.len());
    for (at, (memory, buffer)) in described.memories.iter().zip(buffers).enumerate() {
        let kind = buffer.kind();
        if described.dma_buf && kind != Kind::DmaBuf {
            return Err(GstreamerError::NotDmaBuf { memory: at, kind });
        }
        let Memory { offset, size } = *memory;
        let found = buffer.size();
        match offset.checked_add(size) {
            Some(end) if end <= found => ends.push(end),
            _ => {
                return Err(GstreamerError::Range {
                    memory: at,
                    offset,
                    size,
                    found,
                });
            }
        }
    }
    let planes = planes(caps, described.layout.as_ref())?;
    let frame = Frame {
        width: caps.width,
        height: caps.height,
        fourcc: caps.fourcc,
        modifier: caps.modifier,
        planes: planes
            .into_iter()
            .enumerate()
            .map(|(plane, place)| within(&described.memories, plane, place))
            .collect::<Result<_, _>>()?,
    };
    // Up to the end of each memory, not of what is behind the handle.
    frame.check(&ends)?;
    Ok(frame)
}

/// Where the planes begin in all memories one after the other, and the strides.
fn planes(caps: &Caps, layout: Option<&Layout>) -> Result<Vec<(u64, u32)>, GstreamerError> {
    // Who has no word for the planes of a `drm-format` may name none.
    let told = layout.filter(|layout| !layout.planes.is_empty());
    let Some(layout) = told else {
        let frame = caps.frame()?;
        let planes = frame.planes.iter();
        return Ok(planes.map(|p| (p.offset.into(), p.stride)).collect());
    };
    if (layout.width, layout.height) != (caps.width, caps.height) {
        return Err(GstreamerError::Meta("its size is not that of the caps"));
    }
    let strides = layout.planes.iter().map(|(offset, stride)| {
        let stride = u32::try_from(*stride);
        Ok((
            *offset,
            stride.map_err(|_| GstreamerError::Meta("a stride is negative"))?,
        ))
    });
    strides.collect()
}

/// In which memory a plane begins, and where in what is behind its handle.
fn within(
    memories: &[Memory],
    plane: usize,
    (offset, stride): (u64, u32),
) -> Result<Plane, GstreamerError> {
    let mut before = 0u64;
    for (at, memory) in memories.iter().enumerate() {
        let inside = offset.checked_sub(before).filter(|at| *at < memory.size);
        if let (Some(inside), Ok(buffer)) = (inside, u8::try_from(at)) {
            // No overflow: it lies before the memory's end, which was checked.
            let offset = memory.offset + inside;
            return Ok(Plane {
                buffer,
                offset: u32::try_from(offset)
                    .map_err(|_| GstreamerError::Meta("a plane begins beyond 4 GiB"))?,
                stride,
            });
        }
        // The sum of sizes of real memory.
        before = before.saturating_add(memory.size);
    }
    Err(GstreamerError::Plane {
        plane,
        offset,
        size: before,
    })
}

/// How a frame in these buffers is described.
pub(super) fn describe(
    id: u64,
    caps: &Caps,
    frame: &Frame,
    buffers: &[&Buffer],
    stamp: &Stamp,
) -> Result<Described, GstreamerError> {
    if !caps.suit(frame) {
        return Err(GstreamerError::Mismatch {
            frame: (frame.width, frame.height, frame.fourcc),
            caps: caps.to_string(),
        });
    }
    if buffers.is_empty() || buffers.len() > MAX_PLANES {
        return Err(GstreamerError::Buffers(buffers.len()));
    }
    let dma_buf = buffers[0].kind() == Kind::DmaBuf;
    let other = |buffer: &&Buffer| (buffer.kind() == Kind::DmaBuf) != dma_buf;
    if let Some(buffer) = buffers.iter().position(other) {
        let kind = buffers[buffer].kind();
        return Err(GstreamerError::Mixed { buffer, kind });
    }
    let sizes: Vec<u64> = buffers.iter().map(|buffer| buffer.size()).collect();
    frame.check(&sizes)?;
    let memories = sizes
        .iter()
        .zip(0u8..)
        .map(|(&size, buffer)| {
            Ok(Memory {
                size: used(frame, buffer)?.map_or(size, |used| used.min(size)),
                offset: 0,
            })
        })
        .collect::<Result<Vec<_>, FrameError>>()?;
    let layout = layout(caps, frame, &memories)?;
    Ok(Described {
        id,
        stamp: *stamp,
        dma_buf,
        memories,
        layout,
    })
}

/// How much of a buffer its planes take: not known of a tiled one. GStreamer
/// hands on what it is told, and who writes it to a file wants no more.
fn used(frame: &Frame, buffer: u8) -> Result<Option<u64>, FrameError> {
    match frame.modifier {
        LINEAR => Ok(Some(frame.size_of_buffer(buffer)?).filter(|used| *used > 0)),
        _ => Ok(None),
    }
}

/// The layout, where it is another than GStreamer takes by itself.
fn layout(
    caps: &Caps,
    frame: &Frame,
    memories: &[Memory],
) -> Result<Option<Layout>, GstreamerError> {
    let mut planes = Vec::with_capacity(frame.planes.len());
    for plane in &frame.planes {
        let before = memories[..usize::from(plane.buffer)].iter();
        // Four buffers that exist: no overflow.
        let before: u64 = before.map(|memory| memory.size).sum();
        let stride = i32::try_from(plane.stride);
        planes.push((
            before + u64::from(plane.offset),
            stride.map_err(|_| GstreamerError::Meta("GStreamer's strides have 31 bits"))?,
        ));
    }
    let usual = caps.frame().is_ok_and(|usual| {
        let usual = usual.planes.iter();
        let usual = usual.map(|plane| (u64::from(plane.offset), plane.stride));
        usual.eq(planes
            .iter()
            .map(|(offset, stride)| (*offset, stride.unsigned_abs())))
    });
    if usual {
        return Ok(None);
    }
    let named = format::by_fourcc(frame.fourcc);
    Ok(Some(Layout {
        format: match (named, frame.modifier) {
            (Some(format), LINEAR) => format.number,
            _ => format::DMA_DRM,
        },
        width: frame.width,
        height: frame.height,
        planes,
    }))
}
