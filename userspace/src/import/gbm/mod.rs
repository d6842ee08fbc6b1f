//! Buffers of a GPU or a display, through GBM.
//!
//! libgbm.so.1 is loaded when a [`Gbm`] is opened on a DRM node, so a program
//! built with this runs where there is none, and says so. [`Gbm::allocate`] lets
//! the driver choose a layout that fits a [`Usage`], [`BufferObject::export`]
//! gives it to others as a frame, [`Gbm::import`] takes one of others, and
//! [`BufferObject::map`] copies its pixels, whatever their layout.
//!
//! A `BufferObject` is no way to allocate ([`Allocate`](crate::alloc::Allocate)):
//! GBM is asked for a picture, not for bytes, and answers with a layout.
//!
//! # What is kept from Mesa
//! Where a node has no GPU, GBM draws with the CPU (kms_swrast). Seen with Mesa
//! 25.0, there it cannot map what was imported, and adds the position of a region
//! to the address that it did not get: a region is mapped from the first pixel
//! on, so that there is no address. It takes a second import of the same buffer
//! for the first, whatever its stride: strides are compared. Its exports are for
//! reading alone: the kernel is asked for them. Several planes it refuses.
//!
//! # Sources
//! `gbm.h` of Mesa, and its `gbm_dri.c` and `kms_dri_sw_winsys.c`.
//!
//! ```no_run
//! // Not run: needs a DRM device.
//! use dmashare::frame::Fourcc;
//! use dmashare::import::gbm::{Gbm, Usage};
//!
//! let gbm = Gbm::open("/dev/dri/card0")?;
//! let object = gbm.allocate(640, 480, Fourcc::XRGB8888, &[], Usage::SCANOUT)?;
//! let (frame, buffers) = object.export()?;
//! println!("{gbm}: modifier {:#x} in {}", frame.modifier, buffers[0].name());
//! # Ok::<(), dmashare::import::gbm::GbmError>(())
//! ```

mod api;
mod device;
mod error;
mod map;
mod object;
mod taker;

pub use device::{Gbm, Usage};
pub use error::GbmError;
pub use map::Mapped;
pub use object::BufferObject;
