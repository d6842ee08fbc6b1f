//! This process: makes a frame, hands it over, and waits for the word that the
//! other has it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum as _;
use dmashare::alloc::{Allocate, Memfd, Request};
use dmashare::buffer::{Access, Buffer, Mapping};
use dmashare::frame::{Fourcc, Frame};
use dmashare::share::Socket;

use super::measure::{Taken, cpu_time, taken};
use super::{Size, Way};
use crate::failure::Failure;

/// Frames that are handed over before the clock runs.
const WARM: u32 = 8;

pub(super) fn measure(way: Way, size: Size, frames: u32) -> Result<Taken, Failure> {
    let mut consumer = None;
    let mut giver = Giver::new(way, size, |data| {
        let (child, said) = start(way, size, frames + WARM, data)?;
        consumer = Some(child);
        Ok(said)
    })?;
    let mut times = Vec::new();
    let mut begun = Duration::ZERO;
    for frame in 0..frames + WARM {
        if frame == WARM {
            begun = cpu_time();
        }
        let started = Instant::now();
        giver.give()?;
        if frame >= WARM {
            times.push(started.elapsed());
        }
    }
    let ours = cpu_time().saturating_sub(begun);
    // It counts the warm frames too: a share of them goes off again.
    let theirs = giver.cpu_time_of_consumer()? * frames / (frames + WARM);
    drop(giver);
    if let Some(mut child) = consumer {
        child.0.wait()?;
    }
    Ok(taken(times, ours + theirs))
}

/// A child that does not outlive a failed measurement.
struct Consumer(Child);

impl Drop for Consumer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(
    way: Way,
    size: Size,
    frames: u32,
    data: OwnedFd,
) -> Result<(Consumer, ChildStdout), Failure> {
    let name = way
        .to_possible_value()
        .map(|value| value.get_name().to_owned());
    let mut child = Command::new("/proc/self/exe")
        .arg("bench-consumer")
        .arg(name.unwrap_or_default())
        .arg(size.bytes().to_string())
        .arg(frames.to_string())
        .stdin(Stdio::from(data))
        .stdout(Stdio::piped())
        .spawn()?;
    let said = child.stdout.take();
    let said = said.ok_or_else(|| Failure::failed("the consumer has no standard output"))?;
    Ok((Consumer(child), said))
}

/// What a frame is handed over by, and what the consumer says of it.
struct Giver {
    how: How,
    said: ChildStdout,
}

enum How {
    Fd {
        socket: Socket,
        frame: Frame,
        buffer: Buffer,
    },
    Shared {
        mapping: Mapping,
        tick: OwnedFd,
        frame: Vec<u8>,
    },
    Stream {
        to: File,
        frame: Vec<u8>,
    },
}

impl Giver {
    fn new(
        way: Way,
        size: Size,
        start: impl FnOnce(OwnedFd) -> Result<ChildStdout, Failure>,
    ) -> Result<Giver, Failure> {
        let pixels = vec![0x5a; usize::try_from(size.bytes())?];
        let frame = Frame::packed(size.width, size.height, Fourcc::XRGB8888)?;
        let (how, said) = match way {
            Way::Fd | Way::FdRead | Way::FdMap | Way::Memcpy => {
                let (ours, theirs) = Socket::pair()?;
                let said = start(theirs.into_fd())?;
                let buffer = Memfd::new().allocate(&Request::new(size.bytes()))?;
                let mut mapping = buffer.map(Access::Write)?;
                mapping.access(Access::Write)?.write_at(0, &pixels)?;
                let how = match way {
                    Way::Memcpy => {
                        ours.send(&frame, &[&buffer])?;
                        How::Shared {
                            mapping,
                            tick: ours.into_fd(),
                            frame: pixels,
                        }
                    }
                    _ => How::Fd {
                        socket: ours,
                        frame,
                        buffer,
                    },
                };
                (how, said)
            }
            Way::Socket => {
                let (ours, theirs) = UnixStream::pair()?;
                let to = OwnedFd::from(ours).into();
                (How::Stream { to, frame: pixels }, start(theirs.into())?)
            }
            Way::Pipe => {
                let (theirs, ours) = std::io::pipe()?;
                // What an unprivileged process may have at most.
                let _ = rustix::pipe::fcntl_setpipe_size(&ours, 1 << 20);
                let to = OwnedFd::from(ours).into();
                (How::Stream { to, frame: pixels }, start(theirs.into())?)
            }
        };
        let mut giver = Giver { how, said };
        giver.wait()?;
        Ok(giver)
    }

    /// Hands over a frame, until the consumer has it.
    fn give(&mut self) -> Result<(), Failure> {
        match &mut self.how {
            How::Fd {
                socket,
                frame,
                buffer,
            } => socket.send(frame, &[&*buffer])?,
            How::Shared {
                mapping,
                tick,
                frame,
            } => {
                let mut guard = mapping.access(Access::Write)?;
                guard.write_at(0, frame)?;
                guard.finish()?;
                rustix::io::write(&*tick, &[0])?;
            }
            How::Stream { to, frame } => to.write_all(frame)?,
        }
        self.wait()
    }

    fn wait(&mut self) -> Result<(), Failure> {
        Ok(self.said.read_exact(&mut [0])?)
    }

    fn cpu_time_of_consumer(&mut self) -> Result<Duration, Failure> {
        let mut nanoseconds = [0; 8];
        self.said.read_exact(&mut nanoseconds)?;
        Ok(Duration::from_nanos(u64::from_le_bytes(nanoseconds)))
    }
}
