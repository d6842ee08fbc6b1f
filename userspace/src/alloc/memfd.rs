//! Memory for CPUs: memfd_create(2).

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::Errno;

use super::{AllocError, Allocate, Request, Way};
use crate::buffer::{Buffer, Seals};

/// Allocates memfds: memory that any process can map that holds a handle, on
/// every kernel and for every user.
///
/// A buffer is sealed with `F_SEAL_SHRINK` and `F_SEAL_GROW`, so that its size
/// is fixed, and cannot be executed where the kernel has `MFD_NOEXEC_SEAL`
/// (6.3). Pages are taken as they are first written; a request beyond what the
/// system has is not refused here.
///
/// ```
/// use dmashare::alloc::{Allocate, Memfd, Request};
/// use dmashare::buffer::{Kind, Seals};
/// let buffer = Memfd::new().allocate(&Request::new(4096).named("frame"))?;
/// let Kind::Memfd(seals) = buffer.kind() else { unreachable!() };
/// assert!(seals.contains(Seals::SHRINK | Seals::GROW));
/// # Ok::<(), dmashare::alloc::AllocError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Memfd;

impl Memfd {
    /// Needs nothing.
    pub fn new() -> Memfd {
        Memfd
    }
}

impl Allocate for Memfd {
    fn way(&self) -> Way {
        Way::Memfd
    }

    fn allocate(&self, request: &Request) -> Result<Buffer, AllocError> {
        if request.device {
            return Err(AllocError::NotForDevices(Way::Memfd));
        }
        create(request)
    }
}

/// A sealed memfd of whole pages; also what a udmabuf is made of.
pub(super) fn create(request: &Request) -> Result<Buffer, AllocError> {
    let size = request.whole_pages()?;
    let name = request.c_name()?;
    let os = |operation| {
        move |source| AllocError::Os {
            operation,
            name: request.name.clone(),
            source,
            help: String::new(),
        }
    };
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match memfd_create(&*name, flags | MemfdFlags::NOEXEC_SEAL) {
        // A kernel before 6.3 does not know the flag.
        Err(Errno::INVAL) => memfd_create(&*name, flags),
        result => result,
    }
    .map_err(os("memfd_create"))?;
    ftruncate(&fd, size).map_err(os("ftruncate"))?;
    let mut buffer = Buffer::from_fd(fd)?;
    buffer.seal(Seals::SHRINK | Seals::GROW)?;
    Ok(buffer)
}
