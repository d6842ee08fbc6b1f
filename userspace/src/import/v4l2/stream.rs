//! Slots that go to the driver and come back, each with the buffers of a frame.

use std::borrow::Borrow;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytemuck::Zeroable;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::fstat;
use rustix::io::{Errno, retry_on_intr};

use super::error::{DQBUF, EXPBUF, STREAMON};
use super::{Direction, Filled, Format, Queue, V4l2Error};
use crate::buffer::{Access, Buffer};
use crate::fence;
use crate::import;
use crate::sys::v4l2::{self, MAX_PLANES, Memory, Plane};

/// Frames under way: slots of buffers, by turns the driver's and the caller's.
///
/// It is made by [`Queue::stream`] of buffers from anywhere, owned, borrowed or
/// counted (`B`), or by [`Queue::export`] of the driver's. A slot is the
/// caller's until [`queue`](Self::queue), and then the driver's until
/// [`dequeue`](Self::dequeue) names it: meanwhile what is in its buffers is
/// undefined to read, and what is written there may be lost.
///
/// On drop it stops, and the kernel lets go of every buffer. So it does when a
/// process ends, whatever way.
///
/// ```no_run
/// // Not run: needs a camera.
/// use std::time::Duration;
/// use dmashare::import::v4l2::Device;
/// let camera = Device::open("/dev/video0")?.capture()?;
/// let mut stream = camera.export(4)?;
/// for slot in 0..stream.slots() {
///     stream.queue(slot, None)?;
/// }
/// stream.start()?;
/// let first = stream.dequeue(Some(Duration::from_secs(5)))?;
/// let picture = &stream.buffers(first.slot)?[0];
/// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
/// ```
pub struct Stream<B: Borrow<Buffer> = Buffer> {
    claim: Claim,
    memory: Memory,
    format: Format,
    slots: Vec<Slot<B>>,
    started: bool,
}

struct Slot<B> {
    buffers: Vec<B>,
    queued: bool,
}

/// The right to stream from a queue. Dropped, the queue has no buffers.
pub(super) struct Claim {
    pub(super) queue: Queue,
    /// Whether there are slots.
    requested: Option<Memory>,
    /// Whether the kernel tells of changes of the source.
    watched: bool,
}

impl Queue {
    /// A stream over these buffers: for each slot those of a frame, in the order
    /// of [`Format::sizes`]. It is to have the [`format`](Self::format) that the
    /// queue has now. Most cameras want two slots queued before they start, and
    /// three for no frame to be lost.
    ///
    /// # Errors
    /// [`V4l2Error::Buffers`], [`V4l2Error::Small`], [`V4l2Error::Same`] and
    /// [`V4l2Error::Handle`] for buffers that cannot have such frames,
    /// [`V4l2Error::Memory`] where the device takes no dma-bufs,
    /// [`V4l2Error::Busy`], [`V4l2Error::Slots`], those of
    /// [`format`](Self::format), and [`V4l2Error::Ioctl`].
    ///
    /// ```no_run
    /// // Not run: needs a camera and dma-bufs.
    /// # use dmashare::buffer::Buffer;
    /// # use dmashare::import::v4l2::{Device, V4l2Error};
    /// fn borrowed(a: &Buffer, b: &Buffer) -> Result<(), V4l2Error> {
    ///     let camera = Device::open("/dev/video0")?.capture()?;
    ///     let stream = camera.stream(vec![vec![a], vec![b]])?;
    ///     assert_eq!(stream.slots(), 2);
    ///     Ok(())
    /// }
    /// ```
    pub fn stream<B: Borrow<Buffer>>(&self, slots: Vec<Vec<B>>) -> Result<Stream<B>, V4l2Error> {
        let resolved: Vec<_> = slots.iter().map(|slot| import::resolve(slot)).collect();
        let mut claim = Claim::new(self)?;
        // From here on nobody changes the format.
        let count = claim.request(Memory::DmaBuf, slots.len())?;
        let format = self.format()?;
        for (slot, buffers) in resolved.iter().enumerate() {
            self.check(&format, slot, buffers)?;
        }
        // It can have more than that: those stay empty.
        if (count as usize) < slots.len() {
            return Err(V4l2Error::Slots {
                device: self.device.to_string(),
                wanted: slots.len(),
                given: count,
            });
        }
        Ok(Stream::new(claim, Memory::DmaBuf, format, slots))
    }

    /// A stream over memory of the driver's, exported as dma-bufs: about
    /// `slots` frames, since the driver may need more or have less.
    ///
    /// The memory lives as long as anyone holds one of them, the stream or not.
    ///
    /// # Errors
    /// [`V4l2Error::Memory`] where it has no memory, [`V4l2Error::Ioctl`] where
    /// it does not export, [`V4l2Error::Busy`], and those of
    /// [`format`](Self::format).
    ///
    /// ```no_run
    /// // Not run: needs a camera.
    /// # use dmashare::import::v4l2::Device;
    /// let stream = Device::open("/dev/video0")?.capture()?.export(3)?;
    /// assert_eq!(stream.buffers(0)?[0].kind(), dmashare::buffer::Kind::DmaBuf);
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn export(&self, slots: usize) -> Result<Stream, V4l2Error> {
        let mut claim = Claim::new(self)?;
        // From here on nobody changes the format.
        let count = claim.request(Memory::Mmap, slots)?;
        let format = self.format()?;
        let mut exported = Vec::new();
        for slot in 0..count {
            let mut buffers = Vec::new();
            for (plane, _) in (0..).zip(&format.sizes) {
                let fd = self
                    .device
                    .call(EXPBUF, |node| v4l2::export(node, self.kind, slot, plane))?;
                buffers.push(Buffer::from_fd(fd)?);
            }
            self.check(&format, slot as usize, &import::resolve(&buffers))?;
            exported.push(buffers);
        }
        Ok(Stream::new(claim, Memory::Mmap, format, exported))
    }

    /// Whether a slot's buffers can have a frame of this format.
    fn check(&self, format: &Format, slot: usize, buffers: &[&Buffer]) -> Result<(), V4l2Error> {
        let device = || self.device.to_string();
        if buffers.len() != format.sizes.len() {
            return Err(V4l2Error::Buffers {
                device: device(),
                slot,
                given: buffers.len(),
                wanted: format.sizes.len(),
            });
        }
        for (buffer, &needed) in buffers.iter().zip(&format.sizes) {
            if buffer.size() < needed {
                return Err(V4l2Error::Small {
                    device: device(),
                    name: buffer.name(),
                    size: buffer.size(),
                    needed,
                });
            }
        }
        let mut inodes = Vec::with_capacity(buffers.len());
        for (index, handle) in import::check(&format.frame, buffers)?.iter().enumerate() {
            let stat = fstat(handle).map_err(|errno| self.device.failed("fstat", errno))?;
            if let Some(other) = inodes.iter().position(|inode| *inode == stat.st_ino) {
                return Err(V4l2Error::Same {
                    device: device(),
                    slot,
                    pair: (other, index),
                });
            }
            inodes.push(stat.st_ino);
        }
        Ok(())
    }
}

impl Claim {
    /// # Errors
    /// [`V4l2Error::Busy`] where a stream of this open file has it. Of others
    /// the kernel will tell.
    pub(super) fn new(queue: &Queue) -> Result<Claim, V4l2Error> {
        match flag(queue).swap(true, Ordering::AcqRel) {
            true => Err(V4l2Error::Busy {
                operation: "REQBUFS",
                device: queue.device.to_string(),
            }),
            false => Ok(Claim {
                queue: queue.clone(),
                requested: None,
                // Before the format is asked for: a later change is told.
                watched: queue.direction == Direction::Capture && queue.device.watch_source(),
            }),
        }
    }

    /// So many slots, or what the driver makes of it.
    pub(super) fn request(&mut self, memory: Memory, count: usize) -> Result<u32, V4l2Error> {
        let Queue { device, kind, .. } = &self.queue;
        // Where it cannot be said, it is more than any driver has.
        let wanted = u32::try_from(count).unwrap_or(u32::MAX).max(1);
        let given = retry_on_intr(|| v4l2::request_buffers(device.node(), *kind, memory, wanted));
        match given {
            Ok((given, _)) => {
                self.requested = Some(memory);
                Ok(given)
            }
            // The queue knows no such memory.
            Err(Errno::INVAL) => Err(V4l2Error::Memory {
                device: device.to_string(),
                memory: match memory {
                    Memory::Mmap => "MMAP",
                    Memory::DmaBuf => "DMABUF",
                },
            }),
            Err(errno) => Err(device.failed("REQBUFS", errno)),
        }
    }
}

fn flag(queue: &Queue) -> &AtomicBool {
    let [capture, output] = &queue.device.streaming;
    match queue.direction {
        Direction::Capture => capture,
        Direction::Output => output,
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let Queue { device, kind, .. } = &self.queue;
        if let Some(memory) = self.requested {
            // Both can fail only where the device is gone, and the buffers with
            // it. Streaming ends first: some drivers do not let go before.
            let _ = retry_on_intr(|| v4l2::stream_off(device.node(), *kind));
            let _ = retry_on_intr(|| v4l2::request_buffers(device.node(), *kind, memory, 0));
        }
        flag(&self.queue).store(false, Ordering::Release);
    }
}

impl<B: Borrow<Buffer>> Stream<B> {
    fn new(claim: Claim, memory: Memory, format: Format, slots: Vec<Vec<B>>) -> Stream<B> {
        let slots = slots.into_iter().map(|buffers| Slot {
            buffers,
            queued: false,
        });
        Stream {
            claim,
            memory,
            format,
            slots: slots.collect(),
            started: false,
        }
    }

    /// What frames it has.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// How many slots there are.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Whether the driver has this slot.
    ///
    /// ```no_run
    /// // Not run: needs a camera.
    /// # fn f(stream: &dmashare::import::v4l2::Stream) {
    /// let ours = (0..stream.slots()).find(|slot| !stream.is_queued(*slot));
    /// # }
    /// ```
    pub fn is_queued(&self, slot: usize) -> bool {
        self.slots.get(slot).is_some_and(|slot| slot.queued)
    }

    /// The buffers of a slot, whosever it is now.
    ///
    /// # Errors
    /// [`V4l2Error::Slot`] where there is none of this number.
    ///
    /// ```no_run
    /// // Not run: needs a camera.
    /// # use dmashare::buffer::Access;
    /// # fn f(stream: &dmashare::import::v4l2::Stream) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut mapping = stream.buffers(0)?[0].map(Access::Read)?;
    /// # Ok(()) }
    /// ```
    pub fn buffers(&self, slot: usize) -> Result<&[B], V4l2Error> {
        let slot = self.slots.get(slot).ok_or_else(|| self.no_slot(slot))?;
        Ok(&slot.buffers)
    }

    /// Gives a slot other buffers, and the caller the old ones. The kernel lets
    /// go of those when the slot is queued next, or the stream ends.
    ///
    /// # Errors
    /// [`V4l2Error::Slot`] where the driver has it, or it is the driver's own
    /// memory, and those of [`Queue::stream`] for buffers that cannot have such
    /// frames.
    ///
    /// ```no_run
    /// // Not run: needs a camera and dma-bufs.
    /// # use dmashare::buffer::Buffer;
    /// # use dmashare::import::v4l2::{Stream, V4l2Error};
    /// fn next(stream: &mut Stream<Buffer>, slot: usize, free: Buffer) -> Result<(), V4l2Error> {
    ///     let filled = stream.replace(slot, vec![free])?; // Away with them.
    ///     stream.queue(slot, None)
    /// }
    /// ```
    pub fn replace(&mut self, slot: usize, buffers: Vec<B>) -> Result<Vec<B>, V4l2Error> {
        self.ours(slot)?;
        if self.memory == Memory::Mmap {
            return Err(self.bad_slot(slot, "is the driver's own memory; make a stream of others'"));
        }
        let resolved = import::resolve(&buffers);
        self.claim.queue.check(&self.format, slot, &resolved)?;
        Ok(std::mem::replace(&mut self.slots[slot].buffers, buffers))
    }

    /// Gives a slot to the driver: to be filled, or, with a frame in it, to be
    /// put out.
    ///
    /// It waits before for the fences of the slot's buffers, which drivers of
    /// video devices do not look at: to be filled, for all who write or read
    /// them, and to be put out for who writes them. Without a `timeout`, as long
    /// as that takes.
    ///
    /// # Errors
    /// [`V4l2Error::Slot`] where the driver has it already, those of
    /// [`Queue::stream`] where a `B` now returns buffers that cannot have such
    /// frames, [`V4l2Error::Fence`], [`V4l2Error::Scattered`] for memory that the device
    /// cannot reach, and [`V4l2Error::Ioctl`]. The slot is then the caller's
    /// still.
    ///
    /// ```no_run
    /// // Not run: needs a camera.
    /// # use std::time::Duration;
    /// # use dmashare::import::v4l2::{Stream, V4l2Error};
    /// # fn f(stream: &mut Stream) -> Result<(), V4l2Error> {
    /// stream.queue(0, Some(Duration::from_millis(100)))?;
    /// # Ok(()) }
    /// ```
    pub fn queue(&mut self, slot: usize, timeout: Option<Duration>) -> Result<(), V4l2Error> {
        self.queue_at(slot, Duration::ZERO, timeout)
    }

    /// As [`queue`](Self::queue), of a frame to put out that is of this time:
    /// what is captured of it has the same ([`Clock::Copied`](super::Clock)),
    /// where the device makes pictures of pictures.
    ///
    /// # Errors
    /// As [`queue`](Self::queue).
    ///
    /// ```no_run
    /// // Not run: needs an encoder.
    /// # use std::time::Duration;
    /// # use dmashare::import::v4l2::{Stream, V4l2Error};
    /// # fn f(pictures: &mut Stream) -> Result<(), V4l2Error> {
    /// pictures.queue_at(0, Duration::from_millis(40), None)?;
    /// # Ok(()) }
    /// ```
    pub fn queue_at(
        &mut self,
        slot: usize,
        time: Duration,
        timeout: Option<Duration>,
    ) -> Result<(), V4l2Error> {
        self.ours(slot)?;
        let Queue {
            device, direction, ..
        } = &self.claim.queue;
        let access = match direction {
            Direction::Capture => Access::Write,
            Direction::Output => Access::Read,
        };
        let buffers = import::resolve(&self.slots[slot].buffers);
        if self.memory == Memory::DmaBuf {
            // A `B` can return other buffers than it did when the slot was made.
            self.claim.queue.check(&self.format, slot, &buffers)?;
        }
        let begun = Instant::now();
        let mut planes = Vec::with_capacity(MAX_PLANES);
        for (index, &buffer) in buffers.iter().enumerate() {
            let left = timeout.map(|limit| limit.saturating_sub(begun.elapsed()));
            fence::ready(buffer, access, left).map_err(|source| V4l2Error::Fence {
                device: device.to_string(),
                source,
            })?;
            let mut plane = self.plane(index, buffer)?;
            if *direction == Direction::Output {
                // All that a frame can have.
                let size = self.format.sizes[index];
                plane.bytesused = u32::try_from(size).unwrap_or(u32::MAX);
            }
            planes.push(plane);
        }
        let mut buffer = self.described(slot);
        if *direction == Direction::Output {
            buffer.field = v4l2::FIELD_NONE;
            buffer.timestamp = v4l2::Time {
                seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
                microseconds: time.subsec_micros().into(),
            };
        }
        retry_on_intr(|| v4l2::queue(device.node(), &mut buffer, &mut planes))
            .map_err(|errno| self.not_queued(&buffers, errno))?;
        self.slots[slot].queued = true;
        Ok(())
    }

    /// Begins. Some drivers need a number of slots queued before.
    ///
    /// # Errors
    /// [`V4l2Error::Busy`], and [`V4l2Error::Ioctl`].
    ///
    /// ```no_run
    /// // Not run: needs a camera.
    /// # fn f(stream: &mut dmashare::import::v4l2::Stream)
    /// # -> Result<(), dmashare::import::v4l2::V4l2Error> {
    /// stream.start()?;
    /// # Ok(()) }
    /// ```
    pub fn start(&mut self) -> Result<(), V4l2Error> {
        let Queue { device, kind, .. } = &self.claim.queue;
        device.call(STREAMON, |node| v4l2::stream_on(node, *kind))?;
        self.started = true;
        Ok(())
    }

    /// Ends: every slot is the caller's again, and frames that were under way
    /// are lost. It can be started anew.
    ///
    /// # Errors
    /// [`V4l2Error::Ioctl`].
    ///
    /// ```no_run
    /// // Not run: needs a camera.
    /// # fn f(stream: &mut dmashare::import::v4l2::Stream)
    /// # -> Result<(), dmashare::import::v4l2::V4l2Error> {
    /// stream.stop()?;
    /// assert!(!stream.is_queued(0));
    /// # Ok(()) }
    /// ```
    pub fn stop(&mut self) -> Result<(), V4l2Error> {
        let Queue { device, kind, .. } = &self.claim.queue;
        device.call("STREAMOFF", |node| v4l2::stream_off(node, *kind))?;
        self.started = false;
        for slot in &mut self.slots {
            slot.queued = false;
        }
        Ok(())
    }

    /// The next slot that the driver is done with, which is the caller's then;
    /// it waits for one, at most so long where there is a `timeout`.
    ///
    /// A frame can be [`damaged`](Filled::damaged): it comes all the same, so
    /// that its slot does.
    ///
    /// # Errors
    /// [`V4l2Error::SourceChanged`] once for each change of a camera's source that
    /// the driver tells of, after which the stream goes on;
    /// [`V4l2Error::Timeout`], [`V4l2Error::Idle`] where none would ever come,
    /// and [`V4l2Error::Ioctl`]: `EIO` where the signal is lost, `EPIPE` after
    /// the last.
    ///
    /// ```no_run
    /// // Not run: needs a camera.
    /// # use std::time::Duration;
    /// # use dmashare::import::v4l2::{Stream, V4l2Error};
    /// # fn f(stream: &mut Stream) -> Result<(), V4l2Error> {
    /// let filled = stream.dequeue(Some(Duration::from_secs(1)))?;
    /// println!("frame {} is in slot {}", filled.sequence, filled.slot);
    /// # Ok(()) }
    /// ```
    pub fn dequeue(&mut self, timeout: Option<Duration>) -> Result<Filled, V4l2Error> {
        let idle = |problem| V4l2Error::Idle {
            device: self.claim.queue.device.to_string(),
            problem,
        };
        if !self.started {
            return Err(idle("it is not started"));
        }
        if !self.slots.iter().any(|slot| slot.queued) {
            return Err(idle("no slot is queued"));
        }
        let begun = Instant::now();
        loop {
            self.look_at_source()?;
            if let Some(filled) = self.take()? {
                return Ok(filled);
            }
            let left = timeout.map(|limit| limit.saturating_sub(begun.elapsed()));
            if left == Some(Duration::ZERO) {
                return Err(V4l2Error::Timeout {
                    device: self.claim.queue.device.to_string(),
                    after: timeout.unwrap_or_default(),
                });
            }
            // Nothing will come any more, and the driver says why; or it does
            // not, and is broken.
            if !self.wait(left)? {
                let filled = self.take()?;
                return filled.ok_or_else(|| self.claim.queue.device.failed(DQBUF, Errno::IO));
            }
        }
    }

    /// Tells of a change of the source, once.
    fn look_at_source(&self) -> Result<(), V4l2Error> {
        let device = &self.claim.queue.device;
        if !self.claim.watched {
            return Ok(());
        }
        match device.source_change()? {
            None => Ok(()),
            Some(change) => Err(V4l2Error::SourceChanged {
                device: device.to_string(),
                status: device.current_input()?.status,
                resolution: change.resolution,
            }),
        }
    }

    /// A slot that the driver is done with, if there is one.
    fn take(&mut self) -> Result<Option<Filled>, V4l2Error> {
        let Queue { device, .. } = &self.claim.queue;
        let mut planes = vec![Plane::zeroed(); self.format.sizes.len()];
        let mut buffer = self.described(0);
        match retry_on_intr(|| v4l2::dequeue(device.node(), &mut buffer, &mut planes)) {
            Ok(()) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(device.failed(DQBUF, errno)),
        }
        let filled = Filled::new(&self.format.frame, &buffer, &planes);
        if let Some(slot) = self.slots.get_mut(filled.slot) {
            slot.queued = false;
        }
        Ok(Some(filled))
    }

    /// Waits until there may be one; whether there may be.
    fn wait(&self, left: Option<Duration>) -> Result<bool, V4l2Error> {
        let Queue {
            device, direction, ..
        } = &self.claim.queue;
        let events = match direction {
            // PRI for a change of the source.
            Direction::Capture if self.claim.watched => PollFlags::IN | PollFlags::PRI,
            Direction::Capture => PollFlags::IN,
            Direction::Output => PollFlags::OUT,
        };
        // What does not fit a timespec is as good as for ever.
        let wait = left.and_then(|left| left.try_into().ok());
        let node = device.node();
        let mut fds = [PollFd::from_borrowed_fd(node, events)];
        match poll(&mut fds, wait.as_ref()) {
            Ok(1..) => Ok(fds[0].revents().intersects(events)),
            Ok(0) | Err(Errno::INTR) => Ok(true),
            Err(errno) => Err(device.failed("poll", errno)),
        }
    }

    /// The slot as the kernel is told of it.
    fn described(&self, slot: usize) -> v4l2::Buffer {
        // The kernel gave the numbers, in 32 bits.
        let index = u32::try_from(slot).unwrap_or(u32::MAX);
        v4l2::Buffer::new(self.claim.queue.kind, self.memory, index)
    }

    fn plane(&self, index: usize, buffer: &Buffer) -> Result<Plane, V4l2Error> {
        match self.memory {
            Memory::Mmap => Ok(Plane::zeroed()),
            Memory::DmaBuf => {
                let fd = import::dma_buf(index, buffer)?;
                let length = u32::try_from(buffer.size()).unwrap_or(u32::MAX);
                Ok(Plane::of(fd, length))
            }
        }
    }

    fn not_queued(&self, buffers: &[&Buffer], errno: Errno) -> V4l2Error {
        let device = &self.claim.queue.device;
        match errno {
            // Its size was checked, so it is how its memory lies.
            Errno::FAULT if self.memory == Memory::DmaBuf => V4l2Error::Scattered {
                device: device.to_string(),
                name: names(buffers),
                source: io::Error::from(errno),
            },
            errno => device.failed("QBUF", errno),
        }
    }

    fn ours(&self, slot: usize) -> Result<(), V4l2Error> {
        match self.slots.get(slot) {
            None => Err(self.no_slot(slot)),
            Some(Slot { queued: true, .. }) => {
                Err(self.bad_slot(slot, "is with the driver; dequeue it first"))
            }
            Some(_) => Ok(()),
        }
    }

    fn no_slot(&self, slot: usize) -> V4l2Error {
        self.bad_slot(slot, "is not there; they count from 0")
    }

    fn bad_slot(&self, slot: usize, problem: &'static str) -> V4l2Error {
        V4l2Error::Slot {
            device: self.claim.queue.device.to_string(),
            slot,
            problem,
        }
    }
}

/// Buffers, for messages.
fn names(buffers: &[&Buffer]) -> String {
    let names = buffers.iter().map(|buffer| buffer.name());
    names.collect::<Vec<_>>().join(" and ")
}

/// To poll(2) for the next slot that is done. Where no slot is queued it gives an
/// error at once, or waits for ever: ask [`is_queued`](Stream::is_queued) before.
/// POLLPRI is a change of the source, which [`dequeue`](Stream::dequeue) reports.
impl<B: Borrow<Buffer>> AsFd for Stream<B> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.claim.queue.device.node()
    }
}

impl<B: Borrow<Buffer>> fmt::Debug for Stream<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queued = self.slots.iter().filter(|slot| slot.queued).count();
        write!(
            f,
            "Stream({}, {queued} of {} slots queued)",
            self.claim.queue,
            self.slots.len()
        )
    }
}
