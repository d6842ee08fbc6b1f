//! Raw ioctls and uapi structs, one line an ioctl, and the system calls that no
//! crate has in a safe form.
//!
//! The only place with ioctl numbers, and nothing but them: no retry, no
//! policy, no names. Layouts are tested against the numbers of the headers.

pub(crate) mod dma_buf;
pub(crate) mod dma_heap;
pub(crate) mod drm;
#[cfg(any(feature = "egl", feature = "gbm"))]
pub(crate) mod drm_version;
pub(crate) mod module;
pub(crate) mod socket;
pub(crate) mod sync_file;
pub(crate) mod sysv;
pub(crate) mod udmabuf;
#[cfg(feature = "v4l2")]
pub(crate) mod v4l2;
