//! Handing a shared frame to a device: one module a device API.
//!
//! | module | device | cargo feature | C library |
//! | --- | --- | --- | --- |
//! | `egl` | GPU, through EGL and OpenGL ES 3 | `egl` | libEGL.so.1, loaded at run time |
//! | `drm` | screen, through KMS | `drm` | none |
//!
//! An importer takes a [`Frame`] and the dma-bufs that it lies in, as borrowed
//! handles: it keeps its own reference in the kernel or the driver, so the
//! handles can be closed as soon as the import has returned. Nothing is copied
//! by an import. What a driver does with the memory afterwards is its own
//! matter; each module says where one is known to copy.
//!
//! Every frame is checked here before a driver sees it, because a frame can
//! come from a peer, and drivers trust what they are told: some that were seen
//! to crash the process, or the kernel, are named where they are kept from it.

use std::os::fd::BorrowedFd;

use crate::buffer::{self, BufferError, Kind};
use crate::share::{Frame, FrameError};

#[cfg(feature = "drm")]
pub mod drm;
#[cfg(feature = "egl")]
pub mod egl;

/// Why a frame and its handles cannot be handed to any device.
///
/// ```
/// use dmashare::import::HandleError;
/// let error = HandleError::NotADmaBuf { index: 0, name: "/memfd:frame".into() };
/// assert!(error.to_string().contains("/memfd:frame (fd 0 of the frame) is not a dma-buf"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// The frame cannot be, or does not lie within its buffers.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The kernel would not say what a handle is, or it is no buffer.
    #[error(transparent)]
    Buffer(#[from] BufferError),
    /// Devices import dma-bufs only.
    #[error(
        "{name} (fd {index} of the frame) is not a dma-buf, and devices import nothing else; \
         allocate the frame from udmabuf, a dma_heap or a device"
    )]
    NotADmaBuf {
        /// Which of the frame's fds, from 0.
        index: usize,
        /// The object, as the kernel names it.
        name: String,
    },
}

/// Whether `frame` lies within `handles`, and these are dma-bufs, as the
/// kernel says.
fn check(frame: &Frame, handles: &[BorrowedFd<'_>]) -> Result<(), HandleError> {
    let sizes = handles
        .iter()
        .enumerate()
        .map(|(index, &handle)| match buffer::examine(handle)? {
            (Kind::DmaBuf, size) => Ok(size),
            _ => Err(HandleError::NotADmaBuf {
                index,
                name: buffer::describe(handle),
            }),
        });
    let sizes = sizes.collect::<Result<Vec<u64>, HandleError>>()?;
    Ok(frame.check(&sizes)?)
}

/// A frame in words, for errors.
fn words(frame: &Frame) -> String {
    let planes = frame
        .planes
        .iter()
        .map(|plane| format!("stride {} from byte {}", plane.stride, plane.offset));
    format!(
        "a frame of {}x{} {}, modifier {:#x}, {}",
        frame.width,
        frame.height,
        frame.fourcc,
        frame.modifier,
        planes.collect::<Vec<_>>().join(" and ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::Fourcc;
    use std::os::fd::AsFd;

    #[test]
    fn a_memfd_is_refused_before_a_driver_sees_it() {
        let memfd = rustix::fs::memfd_create("frame", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&memfd, 4096).unwrap();
        let frame = Frame::packed(8, 8, Fourcc::XRGB8888).unwrap();
        assert_eq!(
            check(&frame, &[memfd.as_fd()]),
            Err(HandleError::NotADmaBuf {
                index: 0,
                name: "/memfd:frame".into()
            })
        );
    }

    #[test]
    fn a_frame_without_handles_is_refused() {
        let frame = Frame::packed(8, 8, Fourcc::XRGB8888).unwrap();
        assert!(matches!(
            check(&frame, &[]),
            Err(HandleError::Frame(FrameError::Buffer { count: 0, .. }))
        ));
    }
}
