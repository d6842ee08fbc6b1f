//! A dma-buf from a display's driver: a dumb buffer of `/dev/dri/cardN`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::io::{Errno, retry_on_intr};
use rustix::param::page_size;

use super::{AllocError, Allocate, Limit, Request, Way, node};
use crate::buffer::{Access, Buffer};
use crate::sys::drm::{self, CreateDumb};

const FOLDER: &str = "/dev/dri";

/// A dumb buffer is counted in 32 bits, in whole pages (drm_dumb_buffers.c).
const LARGEST: Limit = Limit {
    bytes: 0xffff_f000,
    of: "what a dumb buffer can have (32 bits)",
};

/// Allocates dumb buffers of a DRM card (drm-kms.rst) and exports them as
/// dma-bufs.
///
/// They are for what the CPU draws and that card shows, and every driver of a
/// display has them. A request for a GPU or a camera is refused. Where a driver
/// keeps them in the card's own memory, such as bochs on 6.12, no other device
/// imports them at all.
///
/// ```no_run
/// // Not run: needs a DRM card.
/// use dmashare::alloc::{Allocate, Dumb, Request, Usage};
/// use dmashare::frame::Fourcc;
/// let request = Request::picture(1024, 768, Fourcc::XRGB8888)?
///     .for_usage(Usage::CPU_WRITE | Usage::SCANOUT);
/// let buffer = Dumb::open_first()?.allocate(&request)?;
/// assert!(buffer.size() >= 1024 * 768 * 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Dumb {
    card: OwnedFd,
    node: PathBuf,
}

impl Dumb {
    /// Opens the first card that has dumb buffers (`DRM_CAP_DUMB_BUFFER`) and
    /// exports dma-bufs (`DRM_CAP_PRIME`).
    ///
    /// # Errors
    /// [`AllocError::Os`], with what would help.
    ///
    /// ```
    /// use dmashare::alloc::Dumb;
    /// match Dumb::open_first() {
    ///     Ok(card) => println!("{}", card.node().display()),
    ///     Err(why) => println!("{why}"),
    /// }
    /// ```
    pub fn open_first() -> Result<Dumb, AllocError> {
        let mut reason = None;
        for node in Dumb::cards() {
            let tried = Dumb::open(&node).and_then(|dumb| dumb.announced().map(|()| dumb));
            match tried {
                Ok(dumb) => return Ok(dumb),
                Err(why) => reason = reason.or(Some(why)),
            }
        }
        Err(reason.unwrap_or_else(|| AllocError::Os {
            operation: "open",
            name: format!("{FOLDER}/card*"),
            source: Errno::NOENT,
            help: "load the driver of a display (CONFIG_DRM), such as bochs, virtio-gpu or vkms"
                .to_owned(),
        }))
    }

    /// Opens this card, whatever it announces: vgem has dumb buffers and does
    /// not say so.
    ///
    /// # Errors
    /// [`AllocError::Os`], with what would help.
    ///
    /// ```
    /// use dmashare::alloc::Dumb;
    /// let error = Dumb::open("/dev/dri/no such card").unwrap_err();
    /// assert!(error.to_string().contains("No such file"));
    /// ```
    pub fn open(node: impl AsRef<Path>) -> Result<Dumb, AllocError> {
        let node = node.as_ref().to_owned();
        let card = node::open(&node.to_string_lossy(), || {
            "load the driver of a display, or name a card in /dev/dri".to_owned()
        })?;
        // Whoever opens a card first may set its modes; this wants memory only,
        // and is not to stand in a compositor's way. Refused to who may not.
        let _ = drm::drop_master(card.as_fd());
        Ok(Dumb { card, node })
    }

    /// The cards that announce dumb buffers, and that they export them.
    pub(super) fn usable_cards() -> Vec<PathBuf> {
        let mut cards = Dumb::cards();
        cards.retain(|card| Dumb::open(card).is_ok_and(|dumb| dumb.announced().is_ok()));
        cards
    }

    /// The cards of this system, with dumb buffers or without.
    fn cards() -> Vec<PathBuf> {
        node::numbered(FOLDER, "card").unwrap_or_default()
    }

    /// The card's device node.
    pub fn node(&self) -> &Path {
        &self.node
    }

    /// Whether it says that it has dumb buffers and exports them. An old driver
    /// that does not export says so, such as bochs on 6.1.
    fn announced(&self) -> Result<(), AllocError> {
        for (operation, capability, bits) in [
            ("DRM_CAP_DUMB_BUFFER", drm::CAP_DUMB_BUFFER, u64::MAX),
            ("DRM_CAP_PRIME", drm::CAP_PRIME, drm::PRIME_CAP_EXPORT),
        ] {
            let value = retry_on_intr(|| drm::capability(self.card.as_fd(), capability))
                .map_err(self.os("DRM_IOCTL_GET_CAP"))?;
            if value & bits == 0 {
                return Err(self.os(operation)(Errno::OPNOTSUPP));
            }
        }
        Ok(())
    }

    fn os(&self, operation: &'static str) -> impl Fn(Errno) -> AllocError {
        let name = self.node.display().to_string();
        move |source| AllocError::Os {
            operation,
            name: name.clone(),
            source,
            help: help(operation, source).to_owned(),
        }
    }

    /// A dumb buffer of so many rows of `stride` bytes, as a dma-buf, and the
    /// stride that the driver gave it.
    fn create(&self, stride: u32, rows: u32) -> Result<(OwnedFd, u32), AllocError> {
        // Every driver knows 32 bits a pixel, and pixels are all it knows.
        let (bpp, width) = match stride.is_multiple_of(4) {
            true => (32, stride / 4),
            false => (8, stride),
        };
        let mut dumb = CreateDumb {
            height: rows,
            width,
            bpp,
            ..CreateDumb::default()
        };
        let card = self.card.as_fd();
        retry_on_intr(|| drm::create_dumb(card, &mut dumb))
            .map_err(self.os("DRM_IOCTL_MODE_CREATE_DUMB"))?;
        let exported = retry_on_intr(|| drm::prime_handle_to_fd(card, dumb.handle));
        // The dma-buf keeps the memory. Nobody else knows this handle, which
        // this file never gives twice while it lives.
        let destroyed = retry_on_intr(|| drm::destroy_dumb(card, dumb.handle));
        let fd = exported.map_err(self.os("DRM_IOCTL_PRIME_HANDLE_TO_FD"))?;
        destroyed.map_err(self.os("DRM_IOCTL_MODE_DESTROY_DUMB"))?;
        Ok((fd, dumb.pitch))
    }
}

fn help(operation: &str, source: Errno) -> &'static str {
    match (operation, source) {
        ("DRM_CAP_DUMB_BUFFER" | "DRM_IOCTL_GET_CAP", Errno::OPNOTSUPP) => {
            "it announces no dumb buffers; name another card"
        }
        ("DRM_CAP_PRIME", _)
        | ("DRM_IOCTL_PRIME_HANDLE_TO_FD", Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => {
            "this driver exports no dma-bufs; take another card or way"
        }
        ("DRM_IOCTL_MODE_CREATE_DUMB", Errno::NOSYS) => "this driver has no dumb buffers",
        ("DRM_IOCTL_MODE_CREATE_DUMB", Errno::NOMEM | Errno::NOSPC) => {
            "free memory, or ask for less: it may have to fit the card's own memory"
        }
        (_, Errno::ACCESS) => "the process must be authenticated with the card, or run as root",
        _ => "",
    }
}

/// The most that one buffer can have.
pub(super) fn largest() -> Limit {
    LARGEST
}

impl Allocate for Dumb {
    fn way(&self) -> Way {
        Way::Dumb
    }

    fn allocate(&self, request: &Request) -> Result<Buffer, AllocError> {
        request.fits(Way::Dumb)?;
        LARGEST.admits(request.whole_pages()?)?;
        let size = request.pages_at_hand()?;
        let ours = match &request.frame {
            Some(frame) => frame.planes.first().map_or(0, |plane| plane.stride),
            None => u32::try_from(page_size()).unwrap_or(u32::MAX),
        };
        // A frame of one's own can have any stride; this is no card's.
        if ours == 0 {
            return Err(AllocError::Empty);
        }
        let rows = request.size.div_ceil(ours.into());
        let rows = u32::try_from(rows).map_err(|_| AllocError::TooLarge {
            size,
            limit: LARGEST.bytes,
            of: LARGEST.of,
        })?;
        let (fd, theirs) = self.create(ours, rows)?;
        let buffer = Buffer::from_fd(fd)?;
        if request.frame.is_some() && theirs != ours {
            return Err(AllocError::Stride {
                card: self.node.display().to_string(),
                ours,
                theirs,
            });
        }
        node::name(&buffer, request)?;
        if request.usage.needs_mapping() {
            let first = buffer.map_part(0..1, Access::ReadWrite);
            first.map_err(|source| AllocError::Unmappable {
                name: buffer.name(),
                source,
            })?;
        }
        Ok(buffer)
    }
}
