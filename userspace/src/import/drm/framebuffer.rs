//! A frame as a framebuffer object of a card.
//!
//! The kernel gives one GEM handle for one dma-buf and open card, however often
//! it is imported, and one GEM_CLOSE closes it for all. So no handle outlives
//! the import here: the framebuffer holds the memory by itself, and a lock
//! keeps two imports from closing each other's handles. There is nothing left
//! to count.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, MutexGuard, PoisonError};

use drm::Device as _;
use drm::DriverCapability;
use drm::buffer::{DrmFourcc, DrmModifier, Handle, PlanarBuffer};
use drm::control::{Device as _, FbCmd2Flags, framebuffer};

use super::card::Inner;
use super::error::PRIME_FD_TO_HANDLE;
use super::{Card, DrmError};
use crate::buffer::Buffer;
use crate::import::{self, words};
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
        let handles = import::check(frame, buffers)?;
        let card = &self.0;
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
            handles: opened.of_planes(frame),
        };
        let raw = card.add_planar_framebuffer(&layout, flags);
        let raw = raw.map_err(|source| DrmError::Refused {
            card: card.to_string(),
            frame: words(frame),
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

/// The GEM handles of a frame's buffers, all closed on drop, each once.
struct GemHandles<'card> {
    card: &'card Inner,
    /// By the number of the buffer; two buffers can be one dma-buf, and then
    /// they have one handle.
    of_buffer: HashMap<u8, Handle>,
    _alone: MutexGuard<'card, ()>,
}

impl<'card> GemHandles<'card> {
    fn open(
        card: &'card Inner,
        frame: &Frame,
        handles: &[BorrowedFd<'_>],
    ) -> Result<GemHandles<'card>, DrmError> {
        // The lock guards no data that a panic could leave half-changed.
        let alone = card.handles.lock().unwrap_or_else(PoisonError::into_inner);
        let mut opened = GemHandles {
            card,
            of_buffer: HashMap::new(),
            _alone: alone,
        };
        for plane in &frame.planes {
            if let Entry::Vacant(place) = opened.of_buffer.entry(plane.buffer) {
                let handle = card
                    .prime_fd_to_buffer(handles[usize::from(plane.buffer)])
                    .map_err(card.failed(PRIME_FD_TO_HANDLE))?;
                place.insert(handle);
            }
        }
        Ok(opened)
    }

    fn of_planes(&self, frame: &Frame) -> [Option<Handle>; 4] {
        let of_plane = |plane: usize| {
            let plane = frame.planes.get(plane)?;
            self.of_buffer.get(&plane.buffer).copied()
        };
        [of_plane(0), of_plane(1), of_plane(2), of_plane(3)]
    }
}

impl Drop for GemHandles<'_> {
    fn drop(&mut self) {
        for handle in distinct(self.of_buffer.values().copied()) {
            // It fails only for a handle that is not open.
            let _ = self.card.close_buffer(handle);
        }
    }
}

/// Each handle once: closing it a second time could close another's.
fn distinct(handles: impl Iterator<Item = Handle>) -> Vec<Handle> {
    let mut distinct = Vec::new();
    for handle in handles {
        if !distinct.contains(&handle) {
            distinct.push(handle);
        }
    }
    distinct
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
    fn one_dma_buf_under_two_numbers_is_closed_once() {
        let handles = [handle(1), handle(2), handle(1)];
        assert_eq!(distinct(handles.into_iter()), [handle(1), handle(2)]);
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
