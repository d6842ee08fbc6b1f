//! `dmashare write`: memory that another process is to find, or is sent.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use dmashare::Errno;
use dmashare::alloc::{
    self, AllocError, Allocate, DmaHeap, Dumb, HugePages, Key, Memfd, Module, Owner, Posix,
    Request, SysV, Udmabuf,
};
use dmashare::buffer::{Buffer, BufferError, Seals};
use dmashare::share::{Draft, plain};
use rustix::fs::Mode;
use serde::Serialize;

use crate::content::{Content, Made};
use crate::endpoint::Endpoint;
use crate::explain::Meminfo;
use crate::failure::Failure;
use crate::line::{Line, SEALS};
use crate::read::unsized_yet;
use crate::{size, told};

/// The ways to share, and what each has to be told.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Write {
    /// A System V segment with the key ftok(PATH, 0); it stays until `dmashare rm sysv`
    Sysv(Sysv),
    /// A POSIX shared memory object; it stays until `dmashare rm posix`
    Posix(PosixOptions),
    /// Memfds, sent over a socket
    Memfd(MemfdOptions),
    /// Dma-bufs, sent over a socket
    Dmabuf(DmabufOptions),
}

/// What every way is told.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// How many bytes: digits, with K, M or G
    #[arg(long, value_parser = size::parse)]
    pub(crate) size: u64,
    #[command(flatten)]
    pub(crate) content: Content,
    /// Show what `free` and /proc/meminfo tell of it, before and after
    #[arg(long, conflicts_with = "json")]
    pub(crate) explain: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `dmashare write sysv`
#[derive(Clone, Debug, Args)]
pub(crate) struct Sysv {
    /// An existing file, whose key ftok(PATH, 0) the segment gets
    #[arg(long)]
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) huge: Huge,
}

/// `dmashare write posix`
#[derive(Clone, Debug, Args)]
pub(crate) struct PosixOptions {
    /// Its name, as in shm_open(3): a slash, and no other
    #[arg(long)]
    pub(crate) name: String,
    /// Take pages as they are first written, where they are set aside otherwise: without room, who touches one gets SIGBUS
    #[arg(long)]
    pub(crate) unreserved: bool,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// What is told of all that is sent.
#[derive(Clone, Debug, Args)]
pub(crate) struct Sent {
    #[command(flatten)]
    pub(crate) endpoint: Endpoint,
    #[command(flatten)]
    pub(crate) common: Common,
    /// How many of them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=253))]
    pub(crate) count: u8,
    /// What /proc shows as their name
    #[arg(long, default_value = "dmashare")]
    pub(crate) name: String,
}

/// `dmashare write memfd`
#[derive(Clone, Debug, Args)]
pub(crate) struct MemfdOptions {
    #[command(flatten)]
    pub(crate) sent: Sent,
    /// Seal them so once they are written; shrink and grow are always on
    #[arg(long, value_delimiter = ',', value_name = "SEAL", value_parser = seal)]
    pub(crate) seal: Vec<(&'static str, Seals)>,
    #[command(flatten)]
    pub(crate) huge: Huge,
}

/// `dmashare write dmabuf`
#[derive(Clone, Debug, Args)]
pub(crate) struct DmabufOptions {
    #[command(flatten)]
    pub(crate) sent: Sent,
    /// Where from [default: the first of them that works]
    #[arg(long, value_enum, value_name = "EXPORTER")]
    pub(crate) from: Option<Exporter>,
    /// Which heap, with --from dma-heap
    #[arg(long, value_name = "NAME", default_value = DmaHeap::SYSTEM)]
    pub(crate) heap: String,
}

/// Who exports dma-bufs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Exporter {
    /// A heap of /dev/dma_heap
    DmaHeap,
    /// /dev/udmabuf
    Udmabuf,
    /// /dev/dmashare/system
    Module,
    /// A DRM card's dumb buffers
    Dumb,
}

/// Pages larger than usual.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Huge {
    /// Take huge pages of this size
    #[arg(long, value_enum, value_name = "SIZE")]
    pub(crate) huge: Option<HugeSize>,
}

/// The sizes of huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HugeSize {
    /// 2 MiB
    #[value(name = "2M")]
    Size2M,
    /// 1 GiB
    #[value(name = "1G")]
    Size1G,
}

fn seal(text: &str) -> Result<(&'static str, Seals), String> {
    let known = SEALS.iter().find(|(name, _)| *name == text);
    known.copied().ok_or_else(|| {
        let names: Vec<&str> = SEALS.iter().map(|(name, _)| *name).collect();
        format!("{text:?} is no seal; there are {}", names.join(", "))
    })
}

impl Huge {
    fn ask(self, request: Request) -> Request {
        match self.huge {
            None => request,
            Some(HugeSize::Size2M) => request.huge_pages(HugePages::Size2M),
            Some(HugeSize::Size1G) => request.huge_pages(HugePages::Size1G),
        }
    }
}

/// What was written, for JSON.
#[derive(Serialize)]
struct Written {
    way: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    buffers: Vec<Line>,
    /// What was made now, and would stay.
    #[serde(skip)]
    made: Option<Named>,
}

/// What outlives its makers.
#[derive(Clone, Debug)]
enum Named {
    Key(Key),
    Name(String),
}

impl Named {
    fn remove(&self) -> Result<(), AllocError> {
        match self {
            Named::Key(key) => SysV::remove(*key),
            Named::Name(name) => Posix::unlink(name),
        }
    }
}

pub(crate) fn run(write: &Write) -> Result<(), Failure> {
    let common = match write {
        Write::Sysv(options) => &options.common,
        Write::Posix(options) => &options.common,
        Write::Memfd(options) => &options.sent.common,
        Write::Dmabuf(options) => &options.sent.common,
    };
    let before = common.explain.then(Meminfo::read).transpose()?;
    // What nobody else holds would be gone before it is explained.
    let (buffers, written) = match write {
        Write::Sysv(options) => sysv(options)?,
        Write::Posix(options) => posix(options)?,
        Write::Memfd(options) => memfd(options)?,
        Write::Dmabuf(options) => dmabuf(options)?,
    };
    let shown = show(common, &written, before);
    // Nobody was told of what was made: it does not stay.
    if let (Err(failure), Some(made)) = (&shown, &written.made)
        && failure.line().is_some()
    {
        made.remove().map_err(Failure::alloc)?;
    }
    drop(buffers);
    shown
}

fn show(common: &Common, written: &Written, before: Option<Meminfo>) -> Result<(), Failure> {
    if common.json {
        return told::json(written);
    }
    told::lines(&written.buffers)?;
    match before {
        Some(before) => told::lines(&[before.explain(&Meminfo::read()?, written.way)]),
        None => Ok(()),
    }
}

fn sysv(options: &Sysv) -> Result<(Vec<Buffer>, Written), Failure> {
    let key = Key::of_path(&options.path, 0).map_err(Failure::alloc)?;
    let request = options.huge.ask(Request::new(options.common.size));
    let (buffer, line, made) = found_or_made(
        &options.common,
        || SysV::open_owned(key, Owner::this_user()),
        || SysV::create(key, &request, OWNER),
        &Named::Key(key),
        &format!("dmashare rm sysv --path {}", options.path.display()),
    )?;
    let written = Written {
        way: "sysv",
        key: Some(key.to_string()),
        buffers: vec![line],
        made,
    };
    Ok((vec![buffer], written))
}

fn posix(options: &PosixOptions) -> Result<(Vec<Buffer>, Written), Failure> {
    let request = Request::new(options.common.size);
    let request = match options.unreserved {
        true => request.unreserved(),
        false => request,
    };
    let name = &options.name;
    let (buffer, line, made) = found_or_made(
        &options.common,
        || Posix::open_owned(name, Owner::this_user()),
        || Posix::create(name, &request, OWNER),
        &Named::Name(name.clone()),
        &format!("dmashare rm posix --name {name}"),
    )?;
    let written = Written {
        way: "posix",
        key: None,
        buffers: vec![line],
        made,
    };
    Ok((vec![buffer], written))
}

/// Only its owner may use what has a name.
const OWNER: Mode = Mode::RUSR.union(Mode::WUSR);

/// What is there under a name of ours, or else is made there, with the content in
/// it, its line, and its name where it was made.
/// What was made does not stay where that fails.
fn found_or_made(
    common: &Common,
    find: impl Fn() -> Result<Buffer, AllocError>,
    make: impl Fn() -> Result<Buffer, AllocError>,
    named: &Named,
    how_to_remove: &str,
) -> Result<(Buffer, Line, Option<Named>), Failure> {
    let exists = |error: &AllocError| {
        matches!(
            error,
            AllocError::Os {
                source: Errno::EXIST,
                ..
            }
        )
    };
    match make() {
        Err(error) if exists(&error) => {
            let buffer = find().map_err(|error| match error {
                AllocError::Buffer(BufferError::Empty { .. }) => unsized_yet(&error, how_to_remove),
                error => Failure::alloc(error),
            })?;
            if buffer.size() < common.size {
                return Err(Failure::failed(format!(
                    "{} is there already, with {} bytes; remove it by `{how_to_remove}`, or ask for less",
                    buffer.name(),
                    buffer.size()
                )));
            }
            // What is ours can still be open to others, who wait for what we
            // write.
            let ownership = buffer.ownership()?;
            if !ownership.is_only(rustix::process::geteuid().as_raw()) {
                return Err(Failure::failed(format!(
                    "{} has mode {:04o}, so that other users may use it, expected 0600; remove \
                     it by `{how_to_remove}`, or choose another",
                    buffer.name(),
                    ownership.mode
                )));
            }
            common.content.write_into(&buffer, Made::Before)?;
            let line = Line::of(&buffer)?;
            Ok((buffer, line, None))
        }
        Err(error) => Err(Failure::alloc(error)),
        Ok(buffer) => match common
            .content
            .write_into(&buffer, Made::Now)
            .and_then(|()| Line::of(&buffer))
        {
            Ok(line) => Ok((buffer, line, Some(named.clone()))),
            Err(failure) => {
                named.remove().map_err(Failure::alloc)?;
                Err(failure)
            }
        },
    }
}

fn memfd(options: &MemfdOptions) -> Result<(Vec<Buffer>, Written), Failure> {
    let request = options.huge.ask(options.sent.request());
    let mut buffers = options.sent.make(|| Memfd::new().allocate(&request))?;
    let seals = options.seal.iter();
    let seals = seals.fold(Seals::empty(), |all, (_, seal)| all | *seal);
    if !seals.is_empty() {
        for buffer in &mut buffers {
            buffer.seal(seals)?;
        }
    }
    options.sent.send("memfd", buffers)
}

fn dmabuf(options: &DmabufOptions) -> Result<(Vec<Buffer>, Written), Failure> {
    let request = options.sent.request().for_device();
    let from: Option<Box<dyn Allocate>> = match options.from {
        None => None,
        Some(Exporter::DmaHeap) => Some(Box::new(DmaHeap::open(&options.heap)?)),
        Some(Exporter::Udmabuf) => Some(Box::new(Udmabuf::open()?)),
        Some(Exporter::Module) => Some(Box::new(Module::open()?)),
        Some(Exporter::Dumb) => Some(Box::new(Dumb::open_first()?)),
    };
    let buffers = options.sent.make(|| match &from {
        Some(way) => way.allocate(&request),
        None => alloc::allocate(&request).map(|made| made.buffer),
    })?;
    options.sent.send("dmabuf", buffers)
}

impl Sent {
    fn request(&self) -> Request {
        Request::new(self.common.size).named(&self.name)
    }

    /// As many as were asked for, with the content in each.
    fn make(
        &self,
        allocate: impl Fn() -> Result<Buffer, AllocError>,
    ) -> Result<Vec<Buffer>, Failure> {
        if self.count > 1 && self.common.content.is_read_once() {
            return Err(Failure::usage(
                "standard input is there for one buffer; give --input a file",
            ));
        }
        let one = |_| {
            let buffer = allocate().map_err(Failure::alloc)?;
            self.common.content.write_into(&buffer, Made::Now)?;
            Ok(buffer)
        };
        (0..self.count).map(one).collect()
    }

    fn send(
        &self,
        way: &'static str,
        buffers: Vec<Buffer>,
    ) -> Result<(Vec<Buffer>, Written), Failure> {
        let lines = buffers.iter().map(Line::of).collect::<Result<_, _>>()?;
        let socket = self.endpoint.open(false)?;
        match self.endpoint.plain {
            true => {
                let fds = buffers
                    .iter()
                    .map(Buffer::fd)
                    .collect::<Result<Vec<_>, _>>()?;
                plain::send(&socket, &fds, self.endpoint.timeout)?;
            }
            false => socket.send_message(&Draft::new().buffers(&buffers))?,
        }
        let written = Written {
            way,
            key: None,
            buffers: lines,
            made: None,
        };
        Ok((buffers, written))
    }
}
