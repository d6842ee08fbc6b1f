//! A frame as a framebuffer object of a card.
//!
//! The framebuffer holds the memory by itself: no GEM handle outlives the
//! import.

use std::borrow::Borrow;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use drm::Device as _;
use drm::DriverCapability;
use drm::buffer::{DrmFourcc, DrmModifier, Handle, PlanarBuffer};
use drm::control::{Device as _, FbCmd2Flags, framebuffer};

use super::card::Inner;
use super::gem::GemHandle;
use super::{Card, DrmError};
use crate::buffer::Buffer;
use crate::import::{self, words};
use crate::negotiate;
use crate::share::{Frame, INVALID, LINEAR};

/// A frame that a card can show; made by [`Card::import`], removed on drop.
pub struct Framebuffer(pub(super) Arc<Object>);

/// The framebuffer object in the kernel.
pub(super) struct Object {
    pub(super) card: Arc<Inner>,
    pub(super) raw: framebuffer::Handle,
    pub(super) size: (u32, u32),
    /// Bytes from its first row to the end of its last, in the first plane.
    pub(super) bytes: u64,
}

impl Card {
    /// The frame in these dma-bufs as a framebuffer of this card.
    ///
    /// Nothing is copied, and the handles can be closed. DRM master is not
    /// needed.
    ///
    /// # Errors
    /// [`DrmError::Handle`] for a frame that does not lie in its handles or
    /// handles that are no dma-bufs, [`DrmError::Ioctl`] where the driver does
    /// not import from other devices, [`DrmError::Inexpressible`] and
    /// [`DrmError::Refused`] where it does not take the frame's layout.
    ///
    /// ```no_run
    /// // Not run: needs a DRM device and a dma-buf.
    /// # use dmashare::import::drm::{Card, Framebuffer};
    /// # use dmashare::share::{Fourcc, Frame};
    /// # use dmashare::buffer::Buffer;
    /// # fn f(card: &Card, dma_buf: &Buffer) -> Result<Framebuffer, Box<dyn std::error::Error>> {
    /// let frame = Frame::packed(1024, 768, Fourcc::XRGB8888)?;
    /// let framebuffer = card.import(&frame, &[dma_buf])?;
    /// # Ok(framebuffer) }
    /// ```
    pub fn import(
        &self,
        frame: &Frame,
        buffers: &[impl Borrow<Buffer>],
    ) -> Result<Framebuffer, DrmError> {
        let handles = import::check(frame, &import::resolve(buffers))?;
        let card = &self.0;
        card.has_kms()?;
        let inexpressible = |reason| DrmError::Inexpressible {
            card: card.to_string(),
            frame: words(frame),
            reason,
        };
        let format = DrmFourcc::try_from(frame.fourcc.0)
            .map_err(|_| inexpressible("its format is not in drm_fourcc.h"))?;
        let modifiers = card.takes_modifiers();
        if !modifiers && ![LINEAR, INVALID].contains(&frame.modifier) {
            return Err(inexpressible("this driver takes linear frames only"));
        }
        if ![LINEAR, INVALID].contains(&frame.modifier) && !self.some_plane_takes(frame)? {
            return Err(inexpressible("no plane of it takes this modifier"));
        }
        let modifier = match modifiers && frame.modifier != INVALID {
            true => Some(DrmModifier::from(frame.modifier)),
            false => None,
        };

        let opened = GemHandles::open(card, frame, &handles)?;
        let flags = match modifier {
            Some(_) => FbCmd2Flags::MODIFIERS,
            None => FbCmd2Flags::empty(),
        };
        let layout = Layout {
            frame,
            format,
            modifier,
            handles: opened.of_planes(),
        };
        let raw = card.add_planar_framebuffer(&layout, flags);
        let raw = raw.map_err(|source| DrmError::Refused {
            card: card.to_string(),
            frame: words(frame),
            suspect: self.suspect(frame, &source),
            source,
        })?;
        Ok(Framebuffer(Arc::new(Object {
            card: Arc::clone(card),
            raw,
            size: (frame.width, frame.height),
            bytes: u64::from(frame.planes[0].stride) * u64::from(frame.height),
        })))
    }
}

impl Card {
    /// Asked here, since an old kernel does not: cirrus on 6.1 takes a tiled
    /// frame and shows it as if it were linear.
    fn some_plane_takes(&self, frame: &Frame) -> Result<bool, DrmError> {
        let layout = negotiate::Layout {
            fourcc: frame.fourcc,
            modifier: frame.modifier,
        };
        let planes = self.planes()?;
        Ok(planes.iter().any(|plane| plane.layouts.contains(&layout)))
    }
}

impl Inner {
    fn takes_modifiers(&self) -> bool {
        let capability = self.get_driver_capability(DriverCapability::AddFB2Modifiers);
        capability.is_ok_and(|value| value == 1)
    }
}

impl Framebuffer {
    /// Width and height in pixels.
    ///
    /// ```no_run
    /// // Not run: needs an imported dma-buf.
    /// # fn f(framebuffer: &dmashare::import::drm::Framebuffer) {
    /// let (width, height) = framebuffer.size();
    /// # }
    /// ```
    pub fn size(&self) -> (u32, u32) {
        self.0.size
    }
}

impl fmt::Debug for Framebuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (width, height) = self.size();
        write!(f, "Framebuffer({width}x{height} on {})", self.0.card)
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // It fails only for a card that is gone, and its framebuffers with it.
        let _ = self.card.destroy_framebuffer(self.raw);
    }
}

/// The GEM handles of a frame's planes.
struct GemHandles(Vec<GemHandle>);

impl GemHandles {
    fn open(
        card: &Arc<Inner>,
        frame: &Frame,
        handles: &[BorrowedFd<'_>],
    ) -> Result<GemHandles, DrmError> {
        let planes = frame.planes.iter();
        let opened = planes.map(|plane| GemHandle::open(card, handles[usize::from(plane.buffer)]));
        opened.collect::<Result<_, _>>().map(GemHandles)
    }

    fn of_planes(&self) -> [Option<Handle>; 4] {
        std::array::from_fn(|plane| self.0.get(plane).map(GemHandle::raw))
    }
}

/// A frame in the terms of the drm crate.
struct Layout<'a> {
    frame: &'a Frame,
    format: DrmFourcc,
    modifier: Option<DrmModifier>,
    handles: [Option<Handle>; 4],
}

impl Layout<'_> {
    fn of_planes(&self, field: impl Fn(&crate::share::Plane) -> u32) -> [u32; 4] {
        std::array::from_fn(|plane| self.frame.planes.get(plane).map_or(0, &field))
    }
}

impl PlanarBuffer for Layout<'_> {
    fn size(&self) -> (u32, u32) {
        (self.frame.width, self.frame.height)
    }

    fn format(&self) -> DrmFourcc {
        self.format
    }

    fn modifier(&self) -> Option<DrmModifier> {
        self.modifier
    }

    fn pitches(&self) -> [u32; 4] {
        self.of_planes(|plane| plane.stride)
    }

    fn handles(&self) -> [Option<Handle>; 4] {
        self.handles
    }

    fn offsets(&self) -> [u32; 4] {
        self.of_planes(|plane| plane.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::{Fourcc, Plane};

    fn handle(number: u32) -> Handle {
        drm::control::from_u32(number).unwrap()
    }

    #[test]
    fn planes_that_are_not_there_are_zero() {
        let plane = |buffer, offset, stride| Plane {
            buffer,
            offset,
            stride,
        };
        let frame = Frame {
            width: 64,
            height: 32,
            fourcc: Fourcc::new(*b"NV12"),
            modifier: LINEAR,
            planes: vec![plane(0, 0, 64), plane(0, 2048, 128)],
        };
        let layout = Layout {
            frame: &frame,
            format: DrmFourcc::Nv12,
            modifier: None,
            handles: [Some(handle(1)), Some(handle(1)), None, None],
        };
        assert_eq!(layout.pitches(), [64, 128, 0, 0]);
        assert_eq!(layout.offsets(), [0, 2048, 0, 0]);
    }
}
