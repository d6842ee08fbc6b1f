//! `dmashare read`: memory that another process made.

use clap::{Args, Subcommand};
use dmashare::alloc::{AllocError, Owner, Posix};
use dmashare::buffer::{Buffer, BufferError};
use dmashare::share::plain;

use crate::endpoint::Endpoint;
use crate::failure::Failure;
use crate::line::Line;
use crate::segment::Segment;
use crate::{bytes, size, told};

/// The ways to share, and what each has to be told.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Read {
    /// A System V segment
    Sysv {
        #[command(flatten)]
        segment: Segment,
        #[command(flatten)]
        from: From,
        #[command(flatten)]
        common: Common,
    },
    /// A POSIX shared memory object
    Posix {
        /// Its name, as in shm_open(3)
        #[arg(long)]
        name: String,
        #[command(flatten)]
        from: From,
        #[command(flatten)]
        common: Common,
    },
    /// Whatever comes over a socket: memfds, dma-bufs, other fds
    #[command(visible_aliases = ["memfd", "dmabuf"])]
    Fd {
        #[command(flatten)]
        endpoint: Endpoint,
        #[command(flatten)]
        common: Common,
    },
}

/// The owners of what has a name that any user can be the first to use.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct From {
    /// Read what belongs to any user: not only to this one or root
    #[arg(long)]
    anyone: bool,
}

impl From {
    fn owner(self) -> Owner {
        match self.anyone {
            true => Owner::Anyone,
            false => Owner::Trusted,
        }
    }
}

/// A maker makes a name first, and sets the size in a second call.
pub(crate) fn unsized_yet(error: &AllocError, how_to_remove: &str) -> Failure {
    let name = match error {
        AllocError::Buffer(BufferError::Empty { name }) => name.clone(),
        other => other.to_string(),
    };
    Failure::failed(format!(
        "{name} has no size: its maker may be about to set one, so try again; where it was left \
         behind, remove it by `{how_to_remove}`"
    ))
}

fn failed(error: AllocError) -> Failure {
    match error {
        AllocError::Owner { .. } | AllocError::Linked { .. } => {
            Failure::failed(format!("{error}; --anyone reads it all the same"))
        }
        error => Failure::alloc(error),
    }
}

/// What is shown of it: a line that says what it is, or its bytes.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Common {
    /// Write so many bytes to standard output as they are, and nothing else
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub(crate) bytes: Option<u64>,
    /// Begin with this byte
    #[arg(long, value_name = "SIZE", value_parser = size::parse, default_value = "0", requires = "bytes")]
    pub(crate) offset: u64,
    /// Show the bytes for people
    #[arg(long, requires = "bytes")]
    pub(crate) hex: bool,
    /// Print JSON
    #[arg(long, conflicts_with_all = ["bytes", "hex"])]
    pub(crate) json: bool,
}

pub(crate) fn run(read: &Read) -> Result<(), Failure> {
    match read {
        Read::Sysv {
            segment,
            from,
            common,
        } => {
            let buffer = segment.open(from.owner())?.map_err(failed)?;
            show_one(common, buffer)
        }
        Read::Posix { name, from, common } => {
            let buffer = Posix::open_owned(name, from.owner()).map_err(|error| match error {
                AllocError::Buffer(BufferError::Empty { .. }) => {
                    unsized_yet(&error, &format!("dmashare rm posix --name {name}"))
                }
                error => failed(error),
            })?;
            show_one(common, buffer)
        }
        Read::Fd { endpoint, common } => {
            let socket = endpoint.open(true)?;
            let came = match endpoint.plain {
                true => {
                    let fds = plain::recv(&socket, endpoint.timeout)?;
                    let came = fds.into_iter().map(Line::of_any);
                    came.collect::<Result<Vec<_>, _>>()?
                }
                false => {
                    let buffers = socket.recv_message()?.buffers;
                    let came = buffers.into_iter();
                    let came = came.map(|buffer| Ok((Line::of(&buffer)?, Some(buffer))));
                    came.collect::<Result<Vec<_>, Failure>>()?
                }
            };
            let numbered = came
                .into_iter()
                .enumerate()
                .map(|(fd, (mut line, buffer))| {
                    line.fd = Some(fd);
                    (line, buffer)
                });
            show(common, &numbered.collect::<Vec<_>>())
        }
    }
}

fn show_one(common: &Common, buffer: Buffer) -> Result<(), Failure> {
    show(common, &[(Line::of(&buffer)?, Some(buffer))])
}

/// The lines, or the bytes of all that is memory.
fn show(common: &Common, came: &[(Line, Option<Buffer>)]) -> Result<(), Failure> {
    let Some(len) = common.bytes else {
        let lines: Vec<&Line> = came.iter().map(|(line, _)| line).collect();
        return match common.json {
            true => told::json(&lines),
            false => told::lines(&lines),
        };
    };
    for (line, buffer) in came {
        let buffer = buffer.as_ref();
        let buffer = buffer.ok_or_else(|| Failure::failed(format!("{line} has no bytes")))?;
        match common.hex {
            true => bytes::hex(buffer, common.offset, len)?,
            false => bytes::raw(buffer, common.offset, len)?,
        }
    }
    Ok(())
}
