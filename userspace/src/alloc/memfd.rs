//! Memory for CPUs: memfd_create(2).

use rustix::fs::{MemfdFlags, fcntl_add_seals, fcntl_get_seals, ftruncate, memfd_create};
use rustix::io::Errno;

use super::feature::ALWAYS;
use super::{AllocError, Allocate, HugePages, Request, Way};
use crate::buffer::{Buffer, Kind};

/// Allocates memfds: memory that any process can map that holds a handle, on
/// every kernel and for every user.
///
/// It gives every seal but those against writing, memory that can be executed,
/// and huge pages. A buffer is sealed with `F_SEAL_SHRINK` and `F_SEAL_GROW`, so that its size
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
        request.fits(Way::Memfd)?;
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
            help: help(operation, source).to_owned(),
        }
    };
    let mut flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    if let Some(pages) = request.huge_pages {
        pages.at_hand(size)?;
        flags |= match pages {
            HugePages::Size2M => MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB,
            HugePages::Size1G => MemfdFlags::HUGETLB | MemfdFlags::HUGE_1GB,
        };
    }
    let may_run = match request.executable {
        true => MemfdFlags::EXEC,
        false => MemfdFlags::NOEXEC_SEAL,
    };
    let fd = match memfd_create(&*name, flags | may_run) {
        // A kernel before 6.3 knows neither flag: every memfd can be executed.
        Err(Errno::INVAL) => memfd_create(&*name, flags),
        result => result,
    }
    .map_err(os("memfd_create"))?;
    ftruncate(&fd, size).map_err(os("ftruncate"))?;
    // Where `EXEC` was asked for, a kernel that does not know it refuses here.
    fcntl_add_seals(&fd, ALWAYS | request.seals).map_err(os("fcntl(F_ADD_SEALS)"))?;
    let kind = match request.huge_pages {
        Some(_) => Kind::HugeTlb,
        // The kernel adds one of its own where it cannot be executed.
        None => Kind::Memfd(fcntl_get_seals(&fd).map_err(os("fcntl(F_GET_SEALS)"))?),
    };
    Ok(Buffer::new(fd, kind, size))
}

fn help(operation: &str, source: Errno) -> &'static str {
    match (operation, source) {
        ("memfd_create", Errno::NOSYS | Errno::PERM) => {
            "a security policy (seccomp) forbids it: allow memfd_create"
        }
        ("memfd_create", Errno::ACCESS) => {
            "vm.memfd_noexec forbids executable ones; ask for memory that is not executable"
        }
        (_, Errno::MFILE) => "close handles or raise RLIMIT_NOFILE",
        (_, Errno::FBIG) => "raise RLIMIT_FSIZE, or ask for less",
        _ => "",
    }
}
