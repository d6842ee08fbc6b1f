//! A dma-buf over a memfd's pages: `/dev/udmabuf`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;

use super::piece::{self, Piece};
use super::{AllocError, Allocate, Limit, Request, Way, limit, memfd, module, node};
use crate::buffer::{Buffer, Kind};
use crate::sys;

const NODE: &str = "/dev/udmabuf";
const LIST_LIMIT: &str = "/sys/module/udmabuf/parameters/list_limit";

/// Whether the node, where there is one, is our module's: the kernel's own, loaded
/// or built in, would show here.
fn is_ours() -> bool {
    !Path::new("/sys/module/udmabuf").exists()
}

/// Allocates dma-bufs through `/dev/udmabuf` (linux/udmabuf.h), or makes them
/// of memfds that exist.
///
/// A buffer has at most as many MiB as the module parameter `size_limit_mb`
/// allows: 64 by default before 7.3. Where our own module offers the node, on a
/// kernel without it, that module's limits hold.
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
        let missing = || {
            format!(
                "the kernel needs CONFIG_UDMABUF, which Debian's have from 6.12 on{}",
                module::standard_nodes()
            )
        };
        Ok(Udmabuf {
            device: node::open(NODE, missing)?,
        })
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
        let range = 0..memfd.size();
        self.export_pieces(&[Piece { memfd, range }])
    }

    /// Makes one dma-buf of parts of memfds, in this order: they need not lie
    /// together, and one may come twice. Each is whole pages of its memfd,
    /// which may lie in huge pages from Linux 6.12 on.
    ///
    /// # Errors
    /// [`AllocError::Empty`] for no pieces, [`AllocError::TooMany`] above the
    /// module's `list_limit`, and those of [`export`](Self::export).
    ///
    /// ```no_run
    /// // Not run: needs /dev/udmabuf.
    /// use dmashare::alloc::{Allocate, Memfd, Piece, Request, Udmabuf};
    /// let memfd = Memfd::new().allocate(&Request::new(1 << 20))?;
    /// let ring = Udmabuf::open()?.export_pieces(&[
    ///     Piece { memfd: &memfd, range: 65536..1 << 20 },
    ///     Piece { memfd: &memfd, range: 0..65536 },
    /// ])?;
    /// assert_eq!(ring.size(), 1 << 20);
    /// # Ok::<(), dmashare::alloc::AllocError>(())
    /// ```
    pub fn export_pieces(&self, pieces: &[Piece<'_>]) -> Result<Buffer, AllocError> {
        let (items, total) = piece::items(pieces)?;
        within_list_limit(items.len())?;
        within_limit(total)?;
        let device = self.device.as_fd();
        let (operation, made) = match items[..] {
            [(memfd, offset, size)] => (
                "UDMABUF_CREATE",
                sys::udmabuf::create(device, memfd, offset, size),
            ),
            _ => (
                "UDMABUF_CREATE_LIST",
                sys::udmabuf::create_list(device, &items),
            ),
        };
        let fd = made.map_err(|source| AllocError::Os {
            operation,
            name: NODE.to_owned(),
            source,
            help: match source {
                // It answers so over a limit, too.
                Errno::NOMEM if is_ours() => format!(
                    "{}; or raise max_udmabuf_mb, max_user_mb or max_file_mb in \
                     /sys/module/dmashare/parameters",
                    help(source)
                ),
                _ => help(source).to_owned(),
            },
        })?;
        Ok(Buffer::new(fd, Kind::DmaBuf, total))
    }
}

/// Also of the wrapping of memfds by our module, which asks the same of them.
pub(super) fn help(source: Errno) -> &'static str {
    match source {
        Errno::INVAL => {
            "the memfd must be whole pages, sealed with F_SEAL_SHRINK and not against \
             writing; in huge pages it takes Linux 6.12"
        }
        Errno::BADFD => "only memfds become dma-bufs this way; in huge pages it takes Linux 6.12",
        Errno::NOMEM => "free memory, or ask for less",
        _ => "",
    }
}

impl Allocate for Udmabuf {
    fn way(&self) -> Way {
        Way::Udmabuf
    }

    fn allocate(&self, request: &Request) -> Result<Buffer, AllocError> {
        request.fits(Way::Udmabuf)?;
        within_limit(match request.huge_pages {
            // Set aside already: no other memory is taken.
            Some(_) => request.whole_pages()?,
            None => request.pages_at_hand()?,
        })?;
        let buffer = self.export(&memfd::create(request)?)?;
        node::name(&buffer, request)?;
        Ok(buffer)
    }
}

/// The most that one buffer can have; unknown before the module is loaded.
pub(super) fn largest() -> Option<Limit> {
    if is_ours() {
        return module::largest_udmabuf();
    }
    limit::of_module(
        "/sys/module/udmabuf/parameters/size_limit_mb",
        "size_limit_mb of the module udmabuf (/sys/module/udmabuf/parameters)",
    )
}

/// The kernel's own answer would be an EINVAL among many.
fn within_limit(size: u64) -> Result<(), AllocError> {
    largest().map_or(Ok(()), |limit| limit.admits(size))
}

/// As above, for the number of pieces.
fn within_list_limit(count: usize) -> Result<(), AllocError> {
    if is_ours() {
        return module::within_ranges(count);
    }
    let limit = std::fs::read_to_string(LIST_LIMIT).ok();
    match limit.and_then(|limit| limit.trim().parse::<usize>().ok()) {
        Some(limit) if count > limit => Err(AllocError::TooMany {
            count,
            limit,
            of: "list_limit of the module udmabuf (/sys/module/udmabuf/parameters)",
        }),
        _ => Ok(()),
    }
}
