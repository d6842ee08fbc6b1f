//! Handing a shared frame to a device: one module a device API.
//!
//! | module | device | cargo feature | C library |
//! | --- | --- | --- | --- |
//! | `drm` | screen, through KMS | `drm` | none |
//! | `egl` | GPU, through EGL and OpenGL ES 3 | `egl` | libEGL.so.1, loaded at run time |
//! | `gbm` | GPU and screen, through GBM | `gbm` | libgbm.so.1, loaded at run time |
//! | `v4l2` | camera, and other video devices | `v4l2` | none |
//! | `vulkan` | GPU, through Vulkan | `vulkan` | libvulkan.so.1, loaded at run time |
//!
//! An importer takes a [`Frame`] and the dma-bufs that it lies in, borrowed: it
//! keeps its own reference in the kernel or the driver, so these can be dropped
//! as soon as the import has returned. Nothing is copied
//! by an import. The buffers of a call are resolved once, at its entry: what an
//! `impl Borrow<Buffer>` returns later, or does, no longer matters to the call.
//! What a driver does with the memory afterwards is its own
//! matter; each module says where one is known to copy.
//!
//! Every frame is checked here before a driver sees it, because a frame can
//! come from a peer, and drivers trust what they are told: some that were seen
//! to crash the process, or the kernel, are named where they are kept from it.

use std::borrow::Borrow;
use std::os::fd::BorrowedFd;

use crate::buffer::{Buffer, BufferError, Kind};
use crate::share::{Frame, FrameError};

#[cfg(feature = "drm")]
pub mod drm;
#[cfg(feature = "egl")]
pub mod egl;
#[cfg(feature = "gbm")]
pub mod gbm;
#[cfg(any(feature = "egl", feature = "gbm", feature = "vulkan"))]
mod part;
#[cfg(any(feature = "drm", feature = "v4l2"))]
mod scattered;
#[cfg(feature = "v4l2")]
pub mod v4l2;
#[cfg(feature = "vulkan")]
pub mod vulkan;

#[cfg(any(feature = "egl", feature = "gbm", feature = "vulkan"))]
pub use part::Part;

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

/// The buffers that the caller's `Borrow` impls return, called once each.
///
/// `Borrow` is safe to implement, so an impl can return another buffer each
/// time, or make another GL context current. Every public function therefore
/// resolves its buffers at its entry, and passes on plain references.
fn resolve<B: Borrow<Buffer>>(buffers: &[B]) -> Vec<&Buffer> {
    buffers.iter().map(Borrow::borrow).collect()
}

/// The handles of these buffers, if `frame` lies within them and they are
/// dma-bufs.
fn check<'b>(frame: &Frame, buffers: &[&'b Buffer]) -> Result<Vec<BorrowedFd<'b>>, HandleError> {
    let handles = buffers
        .iter()
        .enumerate()
        .map(|(index, buffer)| dma_buf(index, buffer));
    let handles = handles.collect::<Result<Vec<_>, _>>()?;
    let sizes: Vec<u64> = buffers.iter().map(|buffer| buffer.size()).collect();
    frame.check(&sizes)?;
    Ok(handles)
}

/// The handle of this buffer, the frame's `index`th, if it is a dma-buf.
fn dma_buf(index: usize, buffer: &Buffer) -> Result<BorrowedFd<'_>, HandleError> {
    match buffer.kind() {
        Kind::DmaBuf => Ok(buffer.fd()?),
        _ => Err(HandleError::NotADmaBuf {
            index,
            name: buffer.name(),
        }),
    }
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
    use crate::alloc::{Allocate, Memfd, Request};
    use crate::share::Fourcc;

    #[test]
    fn a_memfd_is_refused_before_a_driver_sees_it() {
        let request = Request::new(4096).named("frame");
        let memfd = Memfd::new().allocate(&request).unwrap();
        let frame = Frame::packed(8, 8, Fourcc::XRGB8888).unwrap();
        let refused = HandleError::NotADmaBuf {
            index: 0,
            name: "/memfd:frame".into(),
        };
        assert_eq!(check(&frame, &[&memfd]).unwrap_err(), refused);
    }

    #[test]
    fn a_frame_without_buffers_is_refused() {
        let frame = Frame::packed(8, 8, Fourcc::XRGB8888).unwrap();
        assert!(matches!(
            check(&frame, &[]),
            Err(HandleError::Frame(FrameError::Buffer { count: 0, .. }))
        ));
    }

    /// Returns a small buffer and a large one by turns.
    struct Alternating {
        buffers: [Buffer; 2],
        calls: std::cell::Cell<usize>,
    }

    impl Borrow<Buffer> for Alternating {
        fn borrow(&self) -> &Buffer {
            let call = self.calls.replace(self.calls.get() + 1);
            &self.buffers[call % 2]
        }
    }

    #[test]
    fn borrow_is_called_once() {
        let memfd = |size| Memfd::new().allocate(&Request::new(size)).unwrap();
        let alternating = [Alternating {
            buffers: [memfd(4096), memfd(1 << 20)],
            calls: 0.into(),
        }];
        let resolved = resolve(&alternating);
        assert_eq!(resolved[0].size(), 4096);
        assert_eq!(alternating[0].calls.get(), 1);
    }
}
