//! Raw ioctls and uapi structs, one line an ioctl.
//!
//! The only place with ioctl numbers, and nothing but them: no retry, no
//! policy, no names. Layouts are tested against the numbers of the headers.

pub(crate) mod dma_buf;
pub(crate) mod dma_heap;
pub(crate) mod module;
pub(crate) mod udmabuf;
