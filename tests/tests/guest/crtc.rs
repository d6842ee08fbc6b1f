//! What the screens show, asked from the kernel and not from the library.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use drm::control::Device as _;

use crate::text;

/// A card that is open once more, only to look.
struct Observer(File);

impl AsFd for Observer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl drm::Device for Observer {}
impl drm::control::Device for Observer {}

/// The dma-bufs that the CRTCs of this card scan out.
///
/// From GETCRTC by GETFB to a GEM handle: exported, one that was imported is the
/// dma-buf that it came from. Of its own, an old kernel may make a new dma-buf.
pub(crate) fn dma_bufs_scanned_out(card: &Path) -> Result<Vec<OwnedFd>, String> {
    let card = Observer(File::open(card).map_err(text)?);
    let mut dma_bufs = Vec::new();
    for &crtc in card.resource_handles().map_err(text)?.crtcs() {
        let Some(framebuffer) = card.get_crtc(crtc).map_err(text)?.framebuffer() else {
            continue;
        };
        let framebuffer = card.get_framebuffer(framebuffer).map_err(text)?;
        let handle = framebuffer.buffer().ok_or("no handle: this takes root")?;
        dma_bufs.push(card.buffer_to_prime_fd(handle, 0).map_err(text)?);
    }
    Ok(dma_bufs)
}

/// What tells a dma-buf from others, whoever's fd it is.
pub(crate) fn inode(dma_buf: impl AsFd) -> Result<u64, String> {
    Ok(rustix::fs::fstat(dma_buf).map_err(text)?.st_ino)
}
