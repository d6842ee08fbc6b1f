//! GEM handles, counted.
//!
//! The kernel gives one handle for one dma-buf and open card, however often it
//! is imported, and one GEM_CLOSE closes it for all: who closes after each
//! import takes it from the others, whose next use fails, or finds another
//! buffer under the same number. So an open card counts who holds a handle, and
//! closes it after the last.

use std::collections::HashMap;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, MutexGuard, PoisonError};

use drm::buffer::Handle;
use drm::control::Device as _;

use super::card::Inner;
use super::error::{PRIME_FD_TO_HANDLE, PRIME_HANDLE_TO_FD};
use super::{Card, DrmError};
use crate::buffer::{Buffer, BufferError};
use crate::import;

/// `DRM_CLOEXEC` and `DRM_RDWR` of `drm/drm.h`, which have the values of these.
const EXPORT_FLAGS: u32 = (libc::O_CLOEXEC | libc::O_RDWR).cast_unsigned();

/// A dma-buf as an open card knows it, for ioctls of its driver; made by
/// [`Card::open_handle`].
///
/// The same dma-buf twice has the same number, which stays open until the last
/// of its `GemHandle`s is dropped.
pub struct GemHandle {
    card: Arc<Inner>,
    raw: Handle,
}

/// How many hold each handle.
#[derive(Default)]
pub(super) struct Counts(HashMap<Handle, usize>);

impl Card {
    /// The handle of this dma-buf on this open card (PRIME_FD_TO_HANDLE of
    /// drm-memory(7)).
    ///
    /// It does as well on a render node, and needs no DRM master.
    ///
    /// # Errors
    /// [`DrmError::Handle`] for what is no dma-buf, [`DrmError::Ioctl`] where
    /// the driver does not import it.
    ///
    /// ```no_run
    /// // Not run: needs a DRM device and a dma-buf.
    /// # use dmashare::import::drm::Card;
    /// # use dmashare::buffer::Buffer;
    /// # fn f(card: &Card, dma_buf: &Buffer) -> Result<(), Box<dyn std::error::Error>> {
    /// let handle = card.open_handle(dma_buf)?;
    /// let again = card.open_handle(dma_buf)?;
    /// assert_eq!(handle.number(), again.number());
    /// drop(handle); // It stays open for the other.
    /// assert_eq!(again.export()?.size(), dma_buf.size());
    /// # Ok(()) }
    /// ```
    pub fn open_handle(&self, buffer: &Buffer) -> Result<GemHandle, DrmError> {
        GemHandle::open(&self.0, import::dma_buf(0, buffer)?)
    }
}

impl GemHandle {
    /// Of a dma-buf.
    pub(super) fn open(card: &Arc<Inner>, dma_buf: BorrowedFd<'_>) -> Result<GemHandle, DrmError> {
        // Locked from before the kernel finds the handle until it is counted, so
        // that nobody closes it in between.
        let mut counts = card.counts();
        let raw = card
            .prime_fd_to_buffer(dma_buf)
            .map_err(card.failed(PRIME_FD_TO_HANDLE))?;
        *counts.0.entry(raw).or_default() += 1;
        drop(counts);
        Ok(GemHandle {
            card: Arc::clone(card),
            raw,
        })
    }

    /// The number that ioctls of this open card take. It is nothing to another.
    ///
    /// ```no_run
    /// // Not run: needs an imported dma-buf.
    /// # fn f(handle: &dmashare::import::drm::GemHandle) {
    /// assert_ne!(handle.number(), 0);
    /// # }
    /// ```
    pub fn number(&self) -> u32 {
        self.raw.into()
    }

    /// The dma-buf again (PRIME_HANDLE_TO_FD). What was imported comes back as
    /// the dma-buf that it came from.
    ///
    /// # Errors
    /// [`DrmError::Ioctl`] where the driver does not export.
    ///
    /// ```no_run
    /// // Not run: needs an imported dma-buf.
    /// # use dmashare::import::drm::{DrmError, GemHandle};
    /// # fn f(handle: &GemHandle) -> Result<(), DrmError> {
    /// println!("{}", handle.export()?.name());
    /// # Ok(()) }
    /// ```
    pub fn export(&self) -> Result<Buffer, DrmError> {
        let fd = self
            .card
            .buffer_to_prime_fd(self.raw, EXPORT_FLAGS)
            .map_err(self.card.failed(PRIME_HANDLE_TO_FD))?;
        Buffer::from_fd(fd).map_err(|error: BufferError| DrmError::Handle(error.into()))
    }

    pub(super) fn raw(&self) -> Handle {
        self.raw
    }
}

impl Inner {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        // A panic leaves no count half-changed.
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// One holder less; whether that was the last.
    fn release(&mut self, handle: Handle) -> bool {
        let Some(count) = self.0.get_mut(&handle) else {
            return false;
        };
        *count -= 1;
        if *count > 0 {
            return false;
        }
        self.0.remove(&handle);
        true
    }
}

impl Drop for GemHandle {
    fn drop(&mut self) {
        let mut counts = self.card.counts();
        if counts.release(self.raw) {
            // It fails only for a handle that is not open. Locked, so that it
            // is not found once more by an import before it is closed.
            let _ = self.card.close_buffer(self.raw);
        }
    }
}

impl fmt::Debug for GemHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GemHandle({} on {})", self.number(), self.card)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_holder_closes() {
        let [one, other] = [1, 2].map(|number| drm::control::from_u32(number).unwrap());
        let mut counts = Counts::default();
        for handle in [one, one, other] {
            *counts.0.entry(handle).or_default() += 1;
        }
        assert!(!counts.release(one));
        assert!(counts.release(other));
        assert!(counts.release(one));
        assert!(!counts.release(one));
        assert!(counts.0.is_empty());
    }
}
