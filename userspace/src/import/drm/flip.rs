//! The next frame on a screen that is on.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drm::control::{Device as _, Event, PageFlipFlags};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};

use super::card::{Inner, again};
use super::error::{MODE_ATOMIC, MODE_PAGE_FLIP};
use super::{DrmError, Framebuffer, Scanout};
use crate::fence::{Fence, FenceError};

/// How long a flip may take that nothing holds up, and a fence that it is to
/// wait for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A frame on its way to the screen; made by [`Scanout::flip`].
///
/// The frame before is free, to be drawn into again, once this is done.
#[derive(Clone, Debug)]
pub struct Flip {
    card: String,
    /// `None` where it is done.
    fence: Option<Arc<Fence>>,
}

impl Flip {
    /// What is signalled when the frame is on the screen (OUT_FENCE_PTR); its
    /// time stamp is when that was. `None` where it was done when
    /// [`Scanout::flip`] returned, as without atomic modesetting.
    ///
    /// ```no_run
    /// // Not run: needs a screen.
    /// # use dmashare::import::drm::Flip;
    /// # use dmashare::fence::FenceError;
    /// # fn f(flip: &Flip) -> Result<(), FenceError> {
    /// if let Some(fence) = flip.fence() {
    ///     println!("{:?}", fence.info()?); // to be passed on, or polled
    /// }
    /// # Ok(()) }
    /// ```
    pub fn fence(&self) -> Option<&Fence> {
        self.fence.as_deref()
    }

    /// Waits until the frame is on the screen; `None` waits for ever.
    ///
    /// # Errors
    /// [`DrmError::Fence`] with the time that is over, or what went wrong.
    ///
    /// ```no_run
    /// // Not run: needs a screen.
    /// # use dmashare::import::drm::{DrmError, Flip};
    /// # fn f(flip: &Flip) -> Result<(), DrmError> {
    /// flip.wait(Some(std::time::Duration::from_millis(100)))
    /// # }
    /// ```
    pub fn wait(&self, timeout: Option<Duration>) -> Result<(), DrmError> {
        let Some(fence) = &self.fence else {
            return Ok(());
        };
        let failed = |source| DrmError::Fence {
            card: self.card.clone(),
            source,
        };
        fence.wait(timeout).map_err(failed)
    }
}

impl Scanout {
    /// Shows another frame of the same size and format, once `after` is
    /// signalled, and keeps it on the screen in place of the one before.
    ///
    /// With atomic modesetting the kernel does the waiting (IN_FENCE_FD), and
    /// this returns at once. While the flip before is not done, it waits for
    /// that first, for ten seconds at most. Without, it waits for both, and
    /// until the frame is on the screen (MODE_PAGE_FLIP).
    ///
    /// # Errors
    /// [`DrmError::FlipSize`], [`DrmError::OtherCard`], [`DrmError::Overrun`],
    /// [`DrmError::Replaced`], [`DrmError::Ioctl`] for a format that the screen cannot change to, or
    /// where it was turned off; [`DrmError::Fence`] and [`DrmError::Stuck`]
    /// where what is to be waited for does not come.
    ///
    /// ```no_run
    /// // Not run: needs a screen and imported dma-bufs.
    /// # use dmashare::import::drm::{Card, DrmError, Framebuffer};
    /// # use dmashare::fence::Fence;
    /// # fn f(card: &Card, frames: &[Framebuffer], drawn: &Fence) -> Result<(), DrmError> {
    /// let mut scanout = card.show(&frames[0])?;
    /// let flip = scanout.flip(&frames[1], Some(drawn))?;
    /// flip.wait(None)?; // Now the first can be drawn into.
    /// # Ok(()) }
    /// ```
    pub fn flip(
        &mut self,
        framebuffer: &Framebuffer,
        after: Option<&Fence>,
    ) -> Result<Flip, DrmError> {
        let card = Arc::clone(&self.framebuffer.card);
        self.takes(framebuffer)?;
        let fence = match &self.pipe {
            Some(pipe) => {
                let after = after.map(AsFd::as_fd);
                let mut committed = pipe.flip(&card, framebuffer.0.raw, after)?;
                if is_busy(&committed) && self.wait_for_pending(&card)? {
                    committed = pipe.flip(&card, framebuffer.0.raw, after)?;
                }
                let fence = committed.map_err(card.failed(MODE_ATOMIC))?;
                self.framebuffer = Arc::clone(&framebuffer.0);
                let fence = Fence::from_fd(fence).map_err(failed(&card))?;
                Some(Arc::new(fence))
            }
            None => {
                if let Some(after) = after {
                    after.wait(Some(PATIENCE)).map_err(failed(&card))?;
                }
                self.flip_by_event(&card, framebuffer)?;
                None
            }
        };
        self.pending.clone_from(&fence);
        Ok(Flip {
            card: card.to_string(),
            fence,
        })
    }

    /// Whether the screen can go over to this one.
    fn takes(&self, framebuffer: &Framebuffer) -> Result<(), DrmError> {
        let card = &self.framebuffer.card;
        if !Arc::ptr_eq(card, &framebuffer.0.card) {
            return Err(DrmError::OtherCard {
                card: card.to_string(),
            });
        }
        if !self.is_latest() {
            return Err(DrmError::Replaced {
                card: card.to_string(),
                screen: self.screen().to_owned(),
            });
        }
        if framebuffer.0.size != self.framebuffer.size {
            return Err(DrmError::FlipSize {
                card: card.to_string(),
                screen: self.screen().to_owned(),
                shown: self.framebuffer.size,
                size: framebuffer.0.size,
            });
        }
        card.keep_from_overrun(self.room, &framebuffer.0)
    }

    /// Until the flip before is done; whether there was one.
    fn wait_for_pending(&self, card: &Inner) -> Result<bool, DrmError> {
        let Some(pending) = &self.pending else {
            return Ok(false);
        };
        pending.wait(Some(PATIENCE)).map_err(failed(card))?;
        Ok(true)
    }

    /// By MODE_PAGE_FLIP, until its event has come.
    fn flip_by_event(&mut self, card: &Inner, framebuffer: &Framebuffer) -> Result<(), DrmError> {
        // Events are those of the open card: two that wait would take each
        // other's.
        let _alone = card.shown();
        // One of a flip that was given up is not to be taken for this one's.
        while readable(card, Duration::ZERO)? {
            let _ = again(|| card.receive_events()).map_err(card.failed("read"))?;
        }
        again(|| card.page_flip(self.crtc, framebuffer.0.raw, PageFlipFlags::EVENT, None))
            .map_err(card.failed(MODE_PAGE_FLIP))?;
        // From now on the kernel shows it, whatever comes of the wait.
        self.framebuffer = Arc::clone(&framebuffer.0);
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || !readable(card, left)? {
                return Err(DrmError::Stuck {
                    card: card.to_string(),
                    screen: self.screen().to_owned(),
                    within: PATIENCE,
                });
            }
            let events = again(|| card.receive_events()).map_err(card.failed("read"))?;
            let mut flips = events.filter_map(|event| match event {
                Event::PageFlip(flip) => Some(flip.crtc),
                _ => None,
            });
            if flips.any(|crtc| crtc == self.crtc) {
                return Ok(());
            }
        }
    }
}

/// Whether the card has an event within this time.
fn readable(card: &Inner, within: Duration) -> Result<bool, DrmError> {
    let mut fds = [PollFd::new(card, PollFlags::IN)];
    let within = within.try_into().ok();
    let ready = retry_on_intr(|| poll(&mut fds, within.as_ref()));
    let ready = ready.map_err(|error| card.failed("poll")(error.into()))?;
    Ok(ready > 0)
}

fn is_busy<T>(committed: &std::io::Result<T>) -> bool {
    let error = committed.as_ref().err();
    error.and_then(Errno::from_io_error) == Some(Errno::BUSY)
}

fn failed(card: &Inner) -> impl Fn(FenceError) -> DrmError {
    let card = card.to_string();
    move |source| DrmError::Fence {
        card: card.clone(),
        source,
    }
}
