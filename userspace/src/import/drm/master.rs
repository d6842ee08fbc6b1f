//! DRM master: the right to set modes, which one open file of a card has at a
//! time.
//!
//! The kernel gives it to the first that opens a primary node, and keeps a
//! compositor from it (SET_MASTER: EBUSY) until that gives it up. A card that is
//! opened to import, or to be asked, does not need it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use drm::Device as _;

use super::DrmError;
use super::card::{Inner, again};
use super::error::SET_MASTER;

/// How many hold the right of a card that this crate opened.
#[derive(Debug, Default)]
pub(super) struct Holders(Mutex<usize>);

/// The right to set modes, given up with the last of a card.
pub(super) struct Master(Arc<Inner>);

impl Master {
    /// Becomes DRM master, unless the card is so already.
    ///
    /// Of a card that someone else opened ([`Card::from_fd`](super::Card::from_fd))
    /// that one decides: it stays what it is.
    ///
    /// # Errors
    /// [`DrmError::Ioctl`]: `EBUSY` where another program is master, `EACCES`
    /// where this one was not when it opened the card, and is not root.
    pub(super) fn take(card: &Arc<Inner>) -> Result<Master, DrmError> {
        let mut holders = card.masters.lock();
        if *holders == 0 && card.is_ours() {
            again(|| card.acquire_master_lock()).map_err(card.failed(SET_MASTER))?;
        }
        *holders += 1;
        drop(holders);
        Ok(Master(Arc::clone(card)))
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        let mut holders = self.0.masters.lock();
        *holders -= 1;
        if *holders == 0 && self.0.is_ours() {
            // It fails where the right is lost already.
            let _ = give_up(&self.0);
        }
    }
}

impl Holders {
    fn lock(&self) -> std::sync::MutexGuard<'_, usize> {
        // Nothing in between that could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has the card be no master, as after it was opened first.
pub(super) fn give_up(card: &Inner) -> io::Result<()> {
    again(|| card.release_master_lock())
}
