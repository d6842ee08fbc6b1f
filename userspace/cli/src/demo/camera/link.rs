//! What the processes say to each other, each as the payload of a message.
//!
//! The three are one program, but each believes no more of the others than of
//! strangers: a message that is not what it should be ends it.

use std::time::Duration;

use dmashare::buffer::Buffer;
use dmashare::negotiate::Taker;
use dmashare::share::{Draft, Frame, Message, Socket, SocketError};

use super::super::DemoError;
use super::bars::Pattern;

/// A message of one process to the next, or to the one before.
#[derive(Debug)]
pub(super) enum Say {
    /// Up the stream: the picture that is wanted, and who is to take it.
    Takers {
        size: (u32, u32),
        takers: Vec<Taker>,
    },
    /// Down: the buffers that frames will be in, in the order of their numbers,
    /// and how their YUV is to be read.
    Pool(Vec<(Frame, Buffer)>, Colors),
    /// Down: there is a frame in this buffer, which is the receiver's now.
    Frame(Stamp),
    /// Up: this buffer is free; whether its frame was used, or passed over.
    Free { slot: usize, used: bool },
}

/// How YUV is to be read; nothing to RGB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Colors {
    /// BT.709, and not BT.601.
    pub(super) bt709: bool,
    /// All values, and not those from black at 16 to white at 235.
    pub(super) full: bool,
}

/// What a camera shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shows {
    /// What it has before it.
    Something,
    /// One test pattern or the next: it was told just now.
    Either,
    /// This test pattern.
    Pattern(Pattern),
}

impl Shows {
    fn to_number(self) -> u32 {
        match self {
            Shows::Something => u32::MAX,
            Shows::Either => u32::MAX - 1,
            Shows::Pattern(pattern) => pattern.number(),
        }
    }

    fn from_number(number: u32) -> Option<Shows> {
        Some(match number {
            u32::MAX => Shows::Something,
            0xffff_fffe => Shows::Either,
            other => Shows::Pattern(Pattern::from_number(other)?),
        })
    }
}

/// A frame on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The buffer that it is in.
    pub(super) slot: usize,
    /// The camera's number of it.
    pub(super) sequence: u32,
    /// What the camera shows.
    pub(super) shows: Shows,
    /// When it was captured (CLOCK_MONOTONIC).
    pub(super) captured: Duration,
    /// When it was sent.
    pub(super) sent: Duration,
}

const TAKERS: u8 = 1;
const POOL: u8 = 2;
const FRAME: u8 = 3;
const FREE: u8 = 4;

/// What is wrong with a message.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("the other process said what is not to be understood")]
    Garbled,
    /// What it was that it could not go on with, between two messages.
    #[error(transparent)]
    Other(Box<DemoError>),
    #[error("the other process named buffer {0}, which there is not, or is not its own")]
    Slot(usize),
}

impl LinkError {
    fn other(error: DemoError) -> LinkError {
        LinkError::Other(Box::new(error))
    }

    /// What went wrong in one step.
    pub(super) fn at<E>(step: &'static str) -> impl FnOnce(E) -> LinkError
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        move |source| LinkError::other(DemoError::at(step)(source))
    }

    /// Whether the other one has ended.
    pub(super) fn is_end(&self) -> bool {
        matches!(self, LinkError::Socket(SocketError::Closed))
    }
}

impl From<DemoError> for LinkError {
    fn from(error: DemoError) -> LinkError {
        LinkError::other(error)
    }
}

/// Sends a message.
pub(super) fn send(socket: &Socket, say: &Say) -> Result<(), LinkError> {
    let mut payload = Vec::new();
    let mut frames = Vec::new();
    let mut buffers = Vec::new();
    match say {
        Say::Takers { size, takers } => {
            payload.push(TAKERS);
            payload.extend(size.0.to_le_bytes());
            payload.extend(size.1.to_le_bytes());
            for taker in takers {
                let bytes = taker.to_bytes().map_err(LinkError::at("tell who takes"))?;
                let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                payload.extend(length.to_le_bytes());
                payload.extend(bytes);
            }
        }
        Say::Pool(slots, colors) => {
            payload.extend([POOL, colors.bt709.into(), colors.full.into()]);
            for (number, (frame, buffer)) in (0..).zip(slots) {
                let mut frame = frame.clone();
                for plane in &mut frame.planes {
                    plane.buffer = number;
                }
                frames.push(frame);
                buffers.push(buffer);
            }
        }
        Say::Frame(stamp) => {
            payload.push(FRAME);
            payload.extend(u32::try_from(stamp.slot).unwrap_or(u32::MAX).to_le_bytes());
            payload.extend(stamp.sequence.to_le_bytes());
            payload.extend(stamp.shows.to_number().to_le_bytes());
            payload.extend(nanoseconds(stamp.captured).to_le_bytes());
            payload.extend(nanoseconds(stamp.sent).to_le_bytes());
        }
        Say::Free { slot, used } => {
            payload.extend([FREE, (*used).into()]);
            payload.extend(u32::try_from(*slot).unwrap_or(u32::MAX).to_le_bytes());
        }
    }
    let draft = Draft::new()
        .frames(&frames)
        .buffers(buffers)
        .payload(&payload);
    Ok(socket.send_message(&draft)?)
}

/// Waits for the next message.
pub(super) fn receive(socket: &Socket) -> Result<Say, LinkError> {
    read(socket.recv_message()?).ok_or(LinkError::Garbled)
}

fn read(message: Message) -> Option<Say> {
    let Message {
        frames,
        buffers,
        payload,
        ..
    } = message;
    let (kind, mut rest) = payload.split_first()?;
    let rest = &mut rest;
    let say = match *kind {
        TAKERS => {
            let size = (u32(rest)?, u32(rest)?);
            let mut takers = Vec::new();
            while !rest.is_empty() {
                let length = usize::try_from(u32(rest)?).ok()?;
                takers.push(Taker::from_bytes(take(rest, length)?).ok()?);
            }
            Say::Takers { size, takers }
        }
        POOL if frames.len() == buffers.len() => {
            let slots = (0u8..).zip(frames).zip(buffers);
            let slots = slots.map(|((number, mut frame), buffer)| {
                for plane in &mut frame.planes {
                    // Each in a buffer of its own.
                    (plane.buffer == number).then_some(())?;
                    plane.buffer = 0;
                }
                Some((frame, buffer))
            });
            let colors = Colors {
                bt709: take(rest, 1)? != [0],
                full: take(rest, 1)? != [0],
            };
            let slots = slots.collect::<Option<Vec<_>>>()?;
            // Shaders and screens are made for the first; the others are alike.
            let (first, _) = slots.first()?;
            let alike = slots.iter().all(|(frame, _)| frame == first);
            alike.then_some(Say::Pool(slots, colors))?
        }
        FRAME => Say::Frame(Stamp {
            slot: usize::try_from(u32(rest)?).ok()?,
            sequence: u32(rest)?,
            shows: Shows::from_number(u32(rest)?)?,
            captured: Duration::from_nanos(u64(rest)?),
            sent: Duration::from_nanos(u64(rest)?),
        }),
        FREE => Say::Free {
            used: take(rest, 1)? != [0],
            slot: usize::try_from(u32(rest)?).ok()?,
        },
        _ => return None,
    };
    rest.is_empty().then_some(say)
}

fn take<'b>(bytes: &mut &'b [u8], count: usize) -> Option<&'b [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn u32(bytes: &mut &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(take(bytes, 4)?.try_into().ok()?))
}

fn u64(bytes: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(take(bytes, 8)?.try_into().ok()?))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use dmashare::alloc::{Request, allocate};
    use dmashare::share::Fourcc;

    use super::*;

    fn passed(say: &Say) -> Say {
        let (ours, theirs) = Socket::pair().unwrap();
        send(&ours, say).unwrap();
        receive(&theirs).unwrap()
    }

    #[test]
    fn every_message_survives_the_way() {
        let stamp = Stamp {
            slot: 3,
            sequence: 17,
            shows: Shows::Either,
            captured: Duration::from_micros(12_345_678),
            sent: Duration::from_nanos(u64::MAX),
        };
        assert!(matches!(passed(&Say::Frame(stamp)), Say::Frame(got) if got == stamp));
        let freed = passed(&Say::Free {
            slot: 2,
            used: true,
        });
        assert!(matches!(
            freed,
            Say::Free {
                slot: 2,
                used: true
            }
        ));
        let takers = vec![Taker::cpu(), Taker::new("plane 31")];
        let said = Say::Takers {
            size: (640, 480),
            takers: takers.clone(),
        };
        match passed(&said) {
            Say::Takers {
                size: (640, 480),
                takers: got,
            } => assert_eq!(got, takers),
            other => panic!("{other:?}"),
        }
        let frame = Frame::packed(8, 8, Fourcc::XRGB8888).unwrap();
        let slots = (0..3).map(|_| {
            let buffer = allocate(&Request::new(256)).unwrap().buffer;
            (frame.clone(), buffer)
        });
        let colors = Colors {
            bt709: true,
            full: false,
        };
        match passed(&Say::Pool(slots.collect(), colors)) {
            Say::Pool(got, got_colors) => {
                assert_eq!((got.len(), got_colors), (3, colors));
                assert!(got.iter().all(|(got, _)| *got == frame));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_cut_off_or_too_long_is_not_understood() {
        let (ours, theirs) = Socket::pair().unwrap();
        for payload in [
            &[][..],
            &[9],
            &[FREE, 1, 2],
            &[FREE, 1, 0, 0, 0, 0, 0],
            &[FRAME],
            &[POOL, 0, 0],
        ] {
            ours.send_message(&Draft::new().payload(payload)).unwrap();
            assert!(
                matches!(receive(&theirs), Err(LinkError::Garbled)),
                "{payload:?}"
            );
        }
    }
}
