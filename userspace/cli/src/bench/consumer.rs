//! The other process: takes what comes by standard input, and says a byte for
//! each frame on standard output; at the end, its CPU time.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use clap::Args;
use dmashare::buffer::{Access, Buffer, Mapping};
use dmashare::share::Socket;

use super::Way;
use super::measure::cpu_time;
use crate::failure::Failure;

/// What the producer will do.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    #[arg(value_enum)]
    way: Way,
    bytes: u64,
    frames: u32,
}

/// As much as a first-level cache holds besides other things.
const BLOCK: usize = 16 << 10;

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let mut said = io::stdout().lock();
    let data: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    let mut taker = Taker::new(options, data)?;
    // The first byte says that we are here.
    said.write_all(&[0])?;
    said.flush()?;
    let begun = cpu_time();
    for _ in 0..options.frames {
        taker.take()?;
        said.write_all(&[1])?;
        said.flush()?;
    }
    let taken = cpu_time().saturating_sub(begun);
    Ok(said.write_all(&nanoseconds(taken).to_le_bytes())?)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What a frame is taken from.
enum Taker {
    Fd { socket: Socket, read: Reading },
    Shared { mapping: Mapping, tick: File },
    Stream { from: File, frame: Vec<u8> },
}

impl Taker {
    fn new(options: &Options, data: OwnedFd) -> Result<Taker, Failure> {
        Ok(match options.way {
            Way::Fd | Way::FdRead | Way::FdMap => Taker::Fd {
                socket: Socket::from_fd(data)?,
                read: match options.way {
                    Way::FdRead => Reading::Kept(None),
                    Way::FdMap => Reading::Anew,
                    _ => Reading::None,
                },
            },
            Way::Memcpy => {
                let socket = Socket::from_fd(data.try_clone()?)?;
                let (_, buffers) = socket.recv()?;
                Taker::Shared {
                    mapping: buffers[0].map(Access::Read)?,
                    tick: data.into(),
                }
            }
            Way::Socket | Way::Pipe => Taker::Stream {
                from: data.into(),
                frame: vec![0; usize::try_from(options.bytes)?],
            },
        })
    }

    fn take(&mut self) -> Result<(), Failure> {
        match self {
            Taker::Fd { socket, read } => {
                let (_, buffers) = socket.recv()?;
                match read {
                    Reading::None => {}
                    Reading::Anew => read_every_byte(&mut buffers[0].map(Access::Read)?)?,
                    Reading::Kept(kept) => read_every_byte(kept_mapping(kept, &buffers[0])?)?,
                }
            }
            Taker::Shared { mapping, tick } => {
                tick.read_exact(&mut [0])?;
                read_every_byte(mapping)?;
            }
            Taker::Stream { from, frame } => {
                from.read_exact(frame)?;
                for block in frame.chunks(BLOCK) {
                    look_at(block);
                }
            }
        }
        Ok(())
    }
}

/// What a consumer does with a buffer that came.
enum Reading {
    None,
    /// By a mapping of the memory with this inode.
    Kept(Option<(u64, Mapping)>),
    Anew,
}

/// The mapping of this buffer's memory: a producer has a few buffers, and sends
/// them again and again.
fn kept_mapping<'k>(
    kept: &'k mut Option<(u64, Mapping)>,
    buffer: &Buffer,
) -> Result<&'k mut Mapping, Failure> {
    let inode = rustix::fs::fstat(buffer.fd()?)?.st_ino;
    let same = kept.take().filter(|(of, _)| *of == inode);
    let mapping = match same {
        Some((_, mapping)) => mapping,
        None => buffer.map(Access::Read)?,
    };
    Ok(&mut kept.insert((inode, mapping)).1)
}

fn read_every_byte(mapping: &mut Mapping) -> Result<(), Failure> {
    let size = mapping.size();
    let guard = mapping.access(Access::Read)?;
    let mut block = [0; BLOCK];
    let mut at = 0;
    while at < size {
        let part = &mut block[..usize::try_from((size - at).min(BLOCK as u64))?];
        guard.read_at(at, part)?;
        look_at(part);
        at += part.len() as u64;
    }
    Ok(guard.finish()?)
}

/// Something that no compiler leaves out.
fn look_at(bytes: &[u8]) {
    let (words, _) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(0u64, |sum, word| {
        sum.wrapping_add(u64::from_ne_bytes(*word))
    });
    black_box(sum);
}
