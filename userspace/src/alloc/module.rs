//! A dma-buf from our own kernel module: `/dev/dmashare`.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use super::{AllocError, Allocate, Limit, Request, Way, limit, node};
use crate::buffer::{Buffer, Kind};
use crate::sys;

const NODE: &str = "/dev/dmashare";

/// Allocates dma-bufs through `/dev/dmashare` (`kmod/dmashare_uapi.h`).
///
/// ```no_run
/// // Not run: needs the module dmashare.
/// use dmashare::alloc::{Allocate, Module, Request};
/// use dmashare::buffer::Kind;
/// let buffer = Module::open()?.allocate(&Request::new(1 << 20).for_device())?;
/// assert_eq!(buffer.kind(), Kind::DmaBuf);
/// # Ok::<(), dmashare::alloc::AllocError>(())
/// ```
#[derive(Debug)]
pub struct Module {
    device: OwnedFd,
}

impl Module {
    /// Opens `/dev/dmashare`.
    ///
    /// # Errors
    /// [`AllocError::Os`], with what would help.
    pub fn open() -> Result<Module, AllocError> {
        let device = node::open(
            NODE,
            "build the kernel module in kmod/ and load dmashare.ko",
        )?;
        Ok(Module { device })
    }
}

/// The most that one buffer can have.
pub(super) fn largest() -> Option<Limit> {
    limit::of_module(
        "/sys/module/dmashare/parameters/max_buffer_mb",
        "max_buffer_mb of the module dmashare (/sys/module/dmashare/parameters)",
    )
}

impl Allocate for Module {
    fn way(&self) -> Way {
        Way::Module
    }

    fn allocate(&self, request: &Request) -> Result<Buffer, AllocError> {
        request.fits(Way::Module)?;
        let size = request.pages_at_hand()?;
        let name = request.c_name()?;
        let (fd, _) =
            sys::module::alloc(self.device.as_fd(), size, 0, 0, &name).map_err(|source| {
                AllocError::Os {
                    operation: "DMASHARE_IOCTL_ALLOC",
                    name: NODE.to_owned(),
                    source,
                    help: match source {
                        Errno::TOOBIG => "raise the limits in /sys/module/dmashare/parameters",
                        Errno::NOMEM => "free memory, or ask for less",
                        Errno::NOTTY => "this is not the module of this project's kmod/",
                        _ => "",
                    }
                    .to_owned(),
                }
            })?;
        Ok(Buffer::new(fd, Kind::DmaBuf, size))
    }
}
