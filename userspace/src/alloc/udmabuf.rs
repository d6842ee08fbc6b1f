//! A dma-buf over a memfd's pages: `/dev/udmabuf`.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use super::{AllocError, Allocate, Request, Way, memfd, node};
use crate::buffer::Buffer;
use crate::sys;

const NODE: &str = "/dev/udmabuf";
const LIMIT: &str = "/sys/module/udmabuf/parameters/size_limit_mb";

/// Allocates dma-bufs through `/dev/udmabuf` (linux/udmabuf.h), or makes them
/// of memfds that exist.
///
/// A buffer has at most as many MiB as the module parameter `size_limit_mb`
/// allows: 64 by default before 7.3.
///
/// ```no_run
/// // Not run: needs /dev/udmabuf.
/// use dmashare::alloc::{Allocate, Request, Udmabuf};
/// use dmashare::buffer::Kind;
/// let buffer = Udmabuf::open()?.allocate(&Request::new(1 << 20).for_device())?;
/// assert_eq!(buffer.kind(), Kind::DmaBuf);
/// # Ok::<(), dmashare::alloc::AllocError>(())
/// ```
#[derive(Debug)]
pub struct Udmabuf {
    device: OwnedFd,
}

impl Udmabuf {
    /// Opens `/dev/udmabuf`.
    ///
    /// # Errors
    /// [`AllocError::Os`], with what would help.
    pub fn open() -> Result<Udmabuf, AllocError> {
        let device = node::open(
            NODE,
            "the kernel needs CONFIG_UDMABUF, which Debian's have from 6.12 on",
        )?;
        Ok(Udmabuf { device })
    }

    /// Makes a dma-buf of a memfd, which it shares its pages with.
    ///
    /// # Errors
    /// [`AllocError::TooLarge`] above the module's limit. [`AllocError::Os`]:
    /// `EINVAL` where the memfd is not sealed against shrinking, is sealed
    /// against writing, or is no whole number of pages; `EBADFD` where it is no
    /// memfd.
    ///
    /// ```no_run
    /// // Not run: needs /dev/udmabuf.
    /// use dmashare::alloc::{Allocate, Memfd, Request, Udmabuf};
    /// let memfd = Memfd::new().allocate(&Request::new(1 << 20))?;
    /// let dmabuf = Udmabuf::open()?.export(&memfd)?;
    /// assert_eq!(dmabuf.size(), memfd.size());
    /// # Ok::<(), dmashare::alloc::AllocError>(())
    /// ```
    pub fn export(&self, memfd: &Buffer) -> Result<Buffer, AllocError> {
        within_limit(memfd.size())?;
        let fd = sys::udmabuf::create(self.device.as_fd(), memfd.as_fd(), 0, memfd.size())
            .map_err(|source| AllocError::Os {
                operation: "UDMABUF_CREATE",
                name: NODE.to_owned(),
                source,
                help: match source {
                    Errno::INVAL => {
                        "the memfd must be whole pages, sealed with F_SEAL_SHRINK \
                         and not against writing"
                    }
                    Errno::BADFD => "only a memfd can become a udmabuf",
                    Errno::NOMEM => "free memory, or ask for less",
                    _ => "",
                }
                .to_owned(),
            })?;
        Ok(Buffer::from_fd(fd)?)
    }
}

impl Allocate for Udmabuf {
    fn way(&self) -> Way {
        Way::Udmabuf
    }

    fn allocate(&self, request: &Request) -> Result<Buffer, AllocError> {
        within_limit(request.pages_at_hand()?)?;
        let buffer = self.export(&memfd::create(request)?)?;
        node::name(&buffer, request)?;
        Ok(buffer)
    }
}

/// The kernel's own answer would be an EINVAL among many.
fn within_limit(size: u64) -> Result<(), AllocError> {
    let limit = std::fs::read_to_string(LIMIT).ok();
    let limit = limit.and_then(|mib| mib.trim().parse::<u64>().ok());
    match limit.map(|mib| mib.saturating_mul(1 << 20)) {
        Some(limit) if size > limit => Err(AllocError::TooLarge {
            size,
            limit,
            of: "udmabuf takes (/sys/module/udmabuf/parameters/size_limit_mb)",
        }),
        _ => Ok(()),
    }
}
