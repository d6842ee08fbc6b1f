//! Whether a taker takes this one frame, in this one memory.
//!
//! Written from what the fields of [`Taker`] say and nothing else, so that it can
//! be held against what [`negotiate`](super::negotiate()) found.

use std::path::PathBuf;

use super::{Layout, Memory, Reach, Taker};
use crate::frame::{Frame, FrameError, INVALID, LINEAR};

/// The memory that a frame lies in.
///
/// ```
/// use dmashare::negotiate::Backing;
/// let memfd = Backing::new(4096);
/// let dma_buf = Backing { dma_buf: true, ..Backing::new(4096) };
/// assert!(memfd.mappable && memfd != dma_buf);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backing {
    /// The size of each of the frame's buffers, in bytes.
    pub size: u64,
    /// Whether it is a dma-buf.
    pub dma_buf: bool,
    /// Whether the CPU can map it.
    pub mappable: bool,
    /// The device that allocated it, where one did.
    pub maker: Option<PathBuf>,
    /// Whether it is one piece of the machine's memory.
    pub contiguous: bool,
    /// Where it lies.
    pub reach: Reach,
}

impl Backing {
    /// Buffers of this size that are no more than memory to map, as a memfd is.
    ///
    /// ```
    /// # use dmashare::negotiate::Backing;
    /// assert!(!Backing::new(4096).dma_buf);
    /// ```
    pub fn new(size: u64) -> Backing {
        Backing {
            size,
            dma_buf: false,
            mappable: true,
            maker: None,
            contiguous: false,
            reach: Reach::All,
        }
    }
}

/// Why a taker does not take a frame.
///
/// ```
/// use dmashare::negotiate::Refusal;
/// let refusal = Refusal::Contiguous { taker: "the camera".into() };
/// assert!(refusal.to_string().starts_with("the camera takes memory in one piece only"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The frame cannot be, or does not lie within its buffers.
    #[error("{taker} gets a frame that cannot be: {source}")]
    Frame {
        /// The taker.
        taker: String,
        /// Why it cannot be.
        source: FrameError,
    },
    /// It does not take this format with this modifier.
    #[error("{taker} does not take {layout}; give it one that it names")]
    Layout {
        /// The taker.
        taker: String,
        /// The format and the modifier.
        layout: Layout,
    },
    /// It does not take this many pixels.
    #[error("{taker} does not take {width}x{height} pixels; scale it")]
    Size {
        /// The taker.
        taker: String,
        /// Width of the frame, in pixels.
        width: u32,
        /// Height of the frame, in rows.
        height: u32,
    },
    /// A stride is no multiple of what it must be one of.
    #[error(
        "{taker} takes strides that are multiples of {align} bytes, and plane {plane} has {stride}"
    )]
    Stride {
        /// The taker.
        taker: String,
        /// Which plane, from 0.
        plane: usize,
        /// The stride, in bytes.
        stride: u32,
        /// What it must be a multiple of, in bytes.
        align: u32,
    },
    /// An offset is no multiple of what it must be one of.
    #[error("{taker} takes planes at multiples of {align} bytes, and plane {plane} is at {offset}")]
    Offset {
        /// The taker.
        taker: String,
        /// Which plane, from 0.
        plane: usize,
        /// The offset, in bytes.
        offset: u32,
        /// What it must be a multiple of, in bytes.
        align: u32,
    },
    /// There is no room for whole groups of rows.
    #[error("{taker} writes rows in groups of {align}, and plane {plane} ends too early for that")]
    Rows {
        /// The taker.
        taker: String,
        /// Which plane, from 0.
        plane: usize,
        /// What the number of rows must be a multiple of.
        align: u32,
    },
    /// The memory is in pieces, or nobody knows.
    #[error("{taker} takes memory in one piece only; ask a dma_heap over CMA, or our module")]
    Contiguous {
        /// The taker.
        taker: String,
    },
    /// The memory may lie too high.
    #[error("{taker} takes memory below 4 GiB only; ask our module")]
    Reach {
        /// The taker.
        taker: String,
    },
    /// It is another's memory, or no dma-buf, or cannot be mapped.
    #[error("{taker} takes {wants} only")]
    Memory {
        /// The taker.
        taker: String,
        /// What it takes, in words.
        wants: String,
    },
}

impl Taker {
    /// Whether it takes this frame in this memory.
    ///
    /// Who takes only what its own device allocated takes that in however many
    /// pieces and wherever it lies.
    ///
    /// ```
    /// use dmashare::frame::{Fourcc, Frame};
    /// use dmashare::negotiate::{Backing, Refusal, Taker};
    /// let mut gpu = Taker::new("the GPU");
    /// gpu.stride_align = 64;
    /// let frame = Frame::packed(100, 8, Fourcc::XRGB8888)?;
    /// let refused = gpu.accepts(&frame, &Backing::new(4096)).unwrap_err();
    /// assert!(matches!(refused, Refusal::Stride { plane: 0, stride: 400, align: 64, .. }));
    ///
    /// let frame = Frame::aligned(100, 8, Fourcc::XRGB8888, 64)?;
    /// assert!(gpu.accepts(&frame, &Backing::new(4096)).is_ok());
    /// # Ok::<(), dmashare::frame::FrameError>(())
    /// ```
    ///
    /// # Errors
    /// The first thing that it does not take.
    pub fn accepts(&self, frame: &Frame, backing: &Backing) -> Result<(), Refusal> {
        let taker = || self.name.clone();
        let sizes = [backing.size; 256]; // as many as a plane can name
        frame.check(&sizes).map_err(|source| Refusal::Frame {
            taker: taker(),
            source,
        })?;
        self.accepts_layout(frame, backing)?;
        let (width, height) = (frame.width, frame.height);
        if !self.width.contains(&width) || !self.height.contains(&height) {
            return Err(Refusal::Size {
                taker: taker(),
                width,
                height,
            });
        }
        self.accepts_memory(backing)?;
        self.accepts_planes(frame, backing)
    }

    fn accepts_layout(&self, frame: &Frame, backing: &Backing) -> Result<(), Refusal> {
        let layout = Layout {
            fourcc: frame.fourcc,
            modifier: frame.modifier,
        };
        let named = |layouts: &std::collections::BTreeSet<Layout>| layouts.contains(&layout);
        let taken = match layout.modifier {
            // Only the driver that made it knows what it is.
            INVALID => {
                self.layouts.as_ref().is_some_and(named)
                    && matches!(&self.memory, Memory::Own { node, .. }
                        if backing.maker.as_ref() == Some(node))
            }
            _ => self.layouts.as_ref().is_none_or(named),
        };
        match taken {
            true => Ok(()),
            false => Err(Refusal::Layout {
                taker: self.name.clone(),
                layout,
            }),
        }
    }

    fn accepts_memory(&self, backing: &Backing) -> Result<(), Refusal> {
        let taker = self.name.clone();
        let taken = match &self.memory {
            Memory::Any => backing.mappable,
            Memory::AnyDmaBuf => backing.dma_buf,
            Memory::Own { node, .. } => backing.maker.as_ref() == Some(node),
        };
        match (&self.memory, taken) {
            (wants, false) => Err(Refusal::Memory {
                taker,
                wants: wants.to_string(),
            }),
            (Memory::Own { .. }, true) => Ok(()),
            _ if self.contiguous && !backing.contiguous => Err(Refusal::Contiguous { taker }),
            _ if self.reach == Reach::Below4G && backing.reach != Reach::Below4G => {
                Err(Refusal::Reach { taker })
            }
            _ => Ok(()),
        }
    }

    fn accepts_planes(&self, frame: &Frame, backing: &Backing) -> Result<(), Refusal> {
        let is_multiple = |value: u32, align: u32| value.is_multiple_of(align.max(1));
        for (plane, p) in frame.planes.iter().enumerate() {
            let taker = self.name.clone();
            if !is_multiple(p.stride, self.stride_align) {
                return Err(Refusal::Stride {
                    taker,
                    plane,
                    stride: p.stride,
                    align: self.stride_align,
                });
            }
            if !is_multiple(p.offset, self.offset_align) {
                return Err(Refusal::Offset {
                    taker,
                    plane,
                    offset: p.offset,
                    align: self.offset_align,
                });
            }
            // How many rows there are is known of linear frames only. Where rows
            // come alone the last one needs its pixels, not its whole stride.
            if frame.modifier != LINEAR || self.rows_align <= 1 {
                continue;
            }
            let Ok(rows) = frame.rows(plane) else {
                continue;
            };
            let others = frame.planes.iter().filter(|other| other.buffer == p.buffer);
            let next = others
                .map(|other| u64::from(other.offset))
                .filter(|offset| *offset > u64::from(p.offset))
                .min();
            let end = next.unwrap_or(backing.size);
            // Neither factor has more than 33 bits.
            let groups = u128::from(rows.count.div_ceil(self.rows_align.max(1)));
            let needed = groups * u128::from(self.rows_align.max(1)) * u128::from(p.stride);
            if u128::from(p.offset) + needed > u128::from(end) {
                return Err(Refusal::Rows {
                    taker,
                    plane,
                    align: self.rows_align,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::frame::Fourcc;

    /// Each field by itself makes the difference.
    #[test]
    fn every_field_narrows() {
        let mut frame = Frame::packed(100, 8, Fourcc::new(*b"NV12")).unwrap();
        frame.planes[1].offset = 804;
        let backing = Backing::new(1204);
        let all = Taker::new("it");
        assert_eq!(all.accepts(&frame, &backing), Ok(()));
        let refused = |narrow: fn(&mut Taker)| {
            let mut taker = all.clone();
            narrow(&mut taker);
            taker.accepts(&frame, &backing).unwrap_err()
        };
        let xr24 = |taker: &mut Taker| {
            taker.layouts = Some(BTreeSet::from([Layout::linear(Fourcc::XRGB8888)]));
        };
        assert!(matches!(refused(xr24), Refusal::Layout { .. }));
        assert!(matches!(
            refused(|t| t.width = 1..=99),
            Refusal::Size { .. }
        ));
        assert!(matches!(
            refused(|t| t.height = 9..=9),
            Refusal::Size { .. }
        ));
        let stride = refused(|t| t.stride_align = 8);
        assert!(matches!(stride, Refusal::Stride { plane: 0, .. }));
        let offset = refused(|t| t.offset_align = 8);
        assert!(matches!(offset, Refusal::Offset { plane: 1, .. }));
        // 9 rows of luma do not fit before chroma, nor 6 of chroma at the end.
        let luma = refused(|t| t.rows_align = 9);
        assert!(matches!(luma, Refusal::Rows { plane: 0, .. }));
        let chroma = refused(|t| t.rows_align = 8);
        assert!(matches!(chroma, Refusal::Rows { plane: 1, .. }));
        let pieces = refused(|t| t.contiguous = true);
        assert!(matches!(pieces, Refusal::Contiguous { .. }));
        let high = refused(|t| t.reach = Reach::Below4G);
        assert!(matches!(high, Refusal::Reach { .. }));
        let memfd = refused(|t| t.memory = Memory::AnyDmaBuf);
        assert!(matches!(memfd, Refusal::Memory { .. }));
        let small = all.accepts(&frame, &Backing::new(1203)).unwrap_err();
        assert!(matches!(small, Refusal::Frame { .. }));
    }

    #[test]
    fn implicit_is_for_the_driver_that_made_it() {
        let mut frame = Frame::packed(8, 8, Fourcc::XRGB8888).unwrap();
        frame.modifier = INVALID;
        let mut taker = Taker::new("it");
        let backing = Backing {
            dma_buf: true,
            maker: Some("/dev/dri/card0".into()),
            ..Backing::new(256)
        };
        assert!(taker.accepts(&frame, &backing).is_err());
        taker.layouts = Some(BTreeSet::from([Layout {
            fourcc: Fourcc::XRGB8888,
            modifier: INVALID,
        }]));
        assert!(taker.accepts(&frame, &backing).is_err());
        taker.memory = Memory::Own {
            node: "/dev/dri/card0".into(),
            why: "no PRIME import".into(),
        };
        assert_eq!(taker.accepts(&frame, &backing), Ok(()));
    }
}
