//! vgem, a device that imports dma-bufs and does nothing with them.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use dmashare::import::drm::Card;

use crate::text;

/// The device, open. To close it lets go of all that it imported.
pub(crate) struct Vgem(File);

impl Vgem {
    pub(crate) fn open() -> Result<Vgem, String> {
        let card = Card::find("vgem").map_err(text)?;
        Vgem::at(card.path())
    }

    /// The same, where it was found before.
    pub(crate) fn at(path: &Path) -> Result<Vgem, String> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        file.map(Vgem).map_err(text)
    }
}

impl AsFd for Vgem {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl drm::Device for Vgem {}
impl drm::control::Device for Vgem {}
