//! Frames on a screen, through DRM/KMS.
//!
//! A [`Card`] is an open primary node. [`Card::import`] makes a
//! [`Framebuffer`] of the dma-bufs of a frame, and [`Card::show`] has a screen
//! scan it out for as long as the [`Scanout`] lives.
//!
//! The next frame is a [`Scanout::flip`], which can wait for a fence, and gives
//! one that tells when the frame before is free. What a card takes, its planes
//! tell: [`Card::planes`], and for negotiation [`Card::takers`].
//! [`Card::open_handle`] gives a GEM handle for ioctls of a driver, and counts
//! who holds it.
//!
//! # Which drivers import
//! Whether a driver takes a dma-buf of another device is found out by trying:
//! DRM_CAP_PRIME says yes for drivers that never do. Of QEMU's displays,
//! bochs-display imports from Linux 7 on, cirrus on every kernel; virtio-gpu
//! without blob resources and qxl do not. vgem imports, but has no screen.
//!
//! # Where it copies
//! The import copies nothing, and hardware that scans out system memory reads
//! the frame where it lies. Drivers of displays with memory of their own
//! (bochs, cirrus and others built on the kernel's shadow planes) map the
//! dma-buf and copy the frame into that memory with the CPU: whole when it is
//! shown, and again at every [`Scanout::flush`].
//!
//! # Sources
//! drm-kms(7), drm-memory(7), `drm/drm_mode.h`, and the kernel's
//! [Explicit Fencing Properties][fences]; for the copies the kernel's
//! `drivers/gpu/drm/tiny/bochs.c` and `drm_gem_atomic_helper.c`.
//!
//! [fences]: https://docs.kernel.org/gpu/drm-kms.html#explicit-fencing-properties
//!
//! ```no_run
//! // Not run: needs a screen and a dma-buf.
//! use dmashare::import::drm::Card;
//! use dmashare::share::{Fourcc, Frame};
//! use dmashare::buffer::Buffer;
//!
//! fn show(dma_buf: &Buffer) -> Result<(), Box<dyn std::error::Error>> {
//!     let card = Card::find("bochs-drm")?;
//!     let frame = Frame::packed(1024, 768, Fourcc::XRGB8888)?;
//!     let framebuffer = card.import(&frame, &[dma_buf])?;
//!     let scanout = card.show(&framebuffer)?;
//!     println!("{frame:?} is on {scanout}");
//!     Ok(()) // Here the screen goes back to what it showed before.
//! }
//! ```

mod atomic;
mod card;
mod error;
mod flip;
mod framebuffer;
mod gem;
mod in_formats;
mod master;
mod mode;
mod plane;
mod property;
mod scanout;
mod suspect;
mod taker;

pub use card::{Card, Screen};
pub use error::DrmError;
pub use flip::Flip;
pub use framebuffer::Framebuffer;
pub use gem::GemHandle;
pub use mode::Mode;
pub use plane::{PlaneKind, ScanoutPlane};
pub use scanout::{Method, Scanout, Show};
