//! What travels at once: pictures, the buffers they lie in, and bytes.

use super::Frame;
use crate::buffer::Buffer;

/// A message that came: buffers, descriptions of pictures in them, and the
/// user's own bytes. Each of the three can be empty.
///
/// ```
/// use dmashare::alloc::{Allocate, Memfd, Request};
/// use dmashare::share::{Draft, Socket};
/// let (here, there) = Socket::pair()?;
/// let buffer = Memfd::new().allocate(&Request::new(4096))?;
/// here.send_message(&Draft::new().buffers([&buffer]).payload(b"a list of points"))?;
///
/// let message = there.recv_message()?;
/// assert_eq!(message.buffers[0].size(), 4096);
/// assert_eq!(message.payload, b"a list of points");
///
/// there.send_message(&message.draft())?;
/// assert_eq!(here.recv_message()?.payload, message.payload);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Message {
    /// Descriptions of pictures; their planes count `buffers` from 0, and lie
    /// inside of them.
    pub frames: Vec<Frame>,
    /// The buffers, each examined.
    pub buffers: Vec<Buffer>,
    /// The user's own bytes.
    pub payload: Vec<u8>,
}

impl Message {
    /// The same message, to be sent on.
    pub fn draft(&self) -> Draft<'_> {
        Draft::new()
            .frames(&self.frames)
            .buffers(&self.buffers)
            .payload(&self.payload)
    }
}

/// A message to be sent: what its parts are borrowed from stays the sender's.
///
/// ```
/// use dmashare::alloc::{Allocate, Memfd, Request};
/// use dmashare::share::{Draft, Fourcc, Frame, Plane, Socket};
/// let (here, there) = Socket::pair()?;
/// let frame = Frame::packed(32, 32, Fourcc::XRGB8888)?;
/// let mut second = frame.clone();
/// second.planes[0].buffer = 1;
/// let buffer = Memfd::new().allocate(&Request::new(4096))?;
/// here.send_message(&Draft::new().frames(&[frame, second]).buffers([&buffer, &buffer]))?;
/// assert_eq!(there.recv_message()?.frames.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Draft<'m> {
    pub(super) frames: &'m [Frame],
    pub(super) buffers: Vec<&'m Buffer>,
    pub(super) payload: &'m [u8],
}

impl<'m> Draft<'m> {
    /// An empty message.
    pub fn new() -> Draft<'m> {
        Draft::default()
    }

    /// The pictures: up to [`MAX_FRAMES`](super::codec::MAX_FRAMES).
    #[must_use]
    pub fn frames(mut self, frames: &'m [Frame]) -> Draft<'m> {
        self.frames = frames;
        self
    }

    /// The buffers, in the order in which
    /// [`Plane::buffer`](super::Plane::buffer) counts them: up to
    /// [`MAX_HANDLES`](super::codec::MAX_HANDLES).
    #[must_use]
    pub fn buffers(mut self, buffers: impl IntoIterator<Item = &'m Buffer>) -> Draft<'m> {
        self.buffers = buffers.into_iter().collect();
        self
    }

    /// The user's own bytes: up to [`MAX_PAYLOAD`](super::codec::MAX_PAYLOAD).
    #[must_use]
    pub fn payload(mut self, payload: &'m [u8]) -> Draft<'m> {
        self.payload = payload;
        self
    }
}
