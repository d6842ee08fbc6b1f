//! What the device takes, in the terms of a negotiation.

use std::collections::BTreeSet;

use super::draw::BLOCK;
use super::format::Modifier;
use super::{Gpu, Use, planes};
use crate::frame::Fourcc;
use crate::negotiate::{Layout, Memory, Sync, Taker};

/// What strides and offsets must be multiples of, where the driver does not
/// say: the most that any is known to want of a linear frame.
const UNTOLD: u32 = 256;

/// lavapipe's targets: 16 for its stores, and 32 for four pixels of 8 bytes.
const LAVAPIPE_TARGET: u32 = 32;

impl Gpu {
    /// What it takes to [read](Gpu::import_texture), YUV formats
    /// [plane by plane](Gpu::import_planes) included.
    ///
    /// ```no_run
    /// // Not run: needs a driver that imports dma-bufs.
    /// # use dmashare::import::vulkan::Gpu;
    /// # fn f(gpu: &Gpu) {
    /// println!("{:?}", gpu.texture_taker());
    /// # }
    /// ```
    pub fn texture_taker(&self) -> Taker {
        let mut taker = self.taker(Use::Texture, "to read");
        let yuv = planes::FORMATS.iter().map(|code| Fourcc::new(**code));
        for fourcc in yuv.filter(|fourcc| self.reads_planes(*fourcc)) {
            if let Some(layouts) = &mut taker.layouts {
                layouts.insert(Layout::linear(fourcc));
            }
        }
        taker
    }

    /// What it takes to [draw into](Gpu::import_target).
    ///
    /// ```no_run
    /// // Not run: needs a driver that imports dma-bufs.
    /// # use dmashare::import::vulkan::Gpu;
    /// # fn f(gpu: &Gpu) {
    /// println!("{:?}", gpu.target_taker());
    /// # }
    /// ```
    pub fn target_taker(&self) -> Taker {
        self.taker(Use::Target, "to draw into")
    }

    fn taker(&self, usage: Use, purpose: &str) -> Taker {
        let mut taker = Taker::new(format!("{} ({purpose})", self.name()));
        let mut layouts = BTreeSet::new();
        let (mut width, mut height) = (u32::MAX, u32::MAX);
        for format in self.formats() {
            for modifier in format.modifiers {
                let support = modifier.support(usage).filter(|support| support.import);
                let Some(support) = support else { continue };
                width = width.min(support.max_width);
                height = height.min(support.max_height);
                layouts.insert(Layout {
                    fourcc: format.fourcc,
                    modifier: modifier.code,
                });
            }
        }
        taker.layouts = Some(layouts);
        taker.width = 1..=width;
        taker.height = 1..=height;
        let (align, rows) = match (self.0.is_lavapipe, usage) {
            // It requires memory for whole blocks to read, too.
            (true, Use::Texture) => (1, BLOCK),
            (true, Use::Target) => (LAVAPIPE_TARGET, BLOCK),
            (false, _) => (UNTOLD, 1),
        };
        taker.stride_align = align;
        taker.offset_align = align;
        taker.rows_align = rows;
        taker.memory = Memory::AnyDmaBuf;
        if self.has_native_fences() {
            taker.sync |= Sync::SYNC_FILE;
        }
        taker
    }

    /// Whether it reads each plane of a linear frame of this format.
    fn reads_planes(&self, fourcc: Fourcc) -> bool {
        let reads = |modifier: &Modifier| {
            modifier.is_linear() && modifier.texture.is_some_and(|support| support.import)
        };
        let planes = planes::planes(fourcc).unwrap_or_default();
        let mut formats = planes.iter().map(|plane| plane.pixel.format);
        !planes.is_empty() && formats.all(|format| self.0.modifiers_of(format).iter().any(reads))
    }
}
