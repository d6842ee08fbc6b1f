//! vgem: a GPU that does nothing, and so a driver whose fences a test can
//! signal when it likes.
//!
//! What it imports keeps the fences of the dma-buf that it came from
//! (drm/vgem_drm.h).

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use dmashare::buffer::Buffer;
use dmashare::import::drm::Card;
use drm::control::Device as _;

use crate::text;

/// `struct drm_vgem_fence_attach`
#[repr(C)]
struct Attach {
    handle: u32,
    flags: u32,
    out_fence: u32,
    pad: u32,
}

/// `struct drm_vgem_fence_signal`
#[repr(C)]
struct Signal {
    fence: u32,
    flags: u32,
}

const FENCE_ATTACH: libc::Ioctl = 0xc010_6441;
const FENCE_SIGNAL: libc::Ioctl = 0x4008_6442;
const FENCE_WRITE: u32 = 1;

/// What the job of a fence does with the buffer.
#[derive(Clone, Copy)]
pub(crate) enum Job {
    Reads,
    Writes,
}

/// The device, open. To close it signals all of its fences.
pub(crate) struct Vgem(File);

/// A job under way, until it is told to end, or for ten seconds.
#[derive(Clone, Copy)]
#[must_use = "someone has to end it"]
pub(crate) struct Fence(u32);

impl Vgem {
    pub(crate) fn open() -> Result<Vgem, String> {
        let card = Card::find("vgem").map_err(text)?;
        let file = OpenOptions::new().read(true).write(true).open(card.path());
        file.map(Vgem).map_err(text)
    }

    /// Starts a job on a dma-buf.
    pub(crate) fn start(&self, job: Job, buffer: &Buffer) -> Result<Fence, String> {
        let dma_buf = buffer.fd().map_err(text)?;
        let handle = self.prime_fd_to_buffer(dma_buf).map_err(text)?;
        let mut attach = Attach {
            handle: handle.into(),
            flags: match job {
                Job::Reads => 0,
                Job::Writes => FENCE_WRITE,
            },
            out_fence: 0,
            pad: 0,
        };
        // SAFETY: the ioctl reads and writes one `struct drm_vgem_fence_attach`.
        let said = unsafe { libc::ioctl(self.0.as_raw_fd(), FENCE_ATTACH, &raw mut attach) };
        let error = std::io::Error::last_os_error();
        self.close_buffer(handle).map_err(text)?;
        match said {
            0 => Ok(Fence(attach.out_fence)),
            _ => Err(format!("DRM_IOCTL_VGEM_FENCE_ATTACH: {error}")),
        }
    }

    /// Ends a job.
    pub(crate) fn end(&self, fence: Fence) -> Result<(), String> {
        let mut signal = Signal {
            fence: fence.0,
            flags: 0,
        };
        // SAFETY: the ioctl reads one `struct drm_vgem_fence_signal`.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), FENCE_SIGNAL, &raw mut signal) } {
            0 => Ok(()),
            _ => Err(format!(
                "DRM_IOCTL_VGEM_FENCE_SIGNAL: {}",
                std::io::Error::last_os_error()
            )),
        }
    }
}

impl AsFd for Vgem {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl drm::Device for Vgem {}
impl drm::control::Device for Vgem {}
