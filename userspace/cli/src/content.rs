//! What is written into new memory.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use dmashare::buffer::{Access, Buffer, Kind, Mapping};

use crate::failure::Failure;

/// How much is copied at a time.
const BLOCK: usize = 1 << 20;

/// What the memory is to hold; zeros where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[group(multiple = false)]
pub(crate) struct Content {
    /// Fill it with this character, or with a byte such as 0x7f
    #[arg(long, value_name = "BYTE", value_parser = byte)]
    pub(crate) fill: Option<u8>,
    /// Put this text at its start, with a NUL behind it
    #[arg(long)]
    pub(crate) text: Option<String>,
    /// Put the bytes of this file at its start; - is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
}

fn byte(text: &str) -> Result<u8, String> {
    if let Some(hex) = text.strip_prefix("0x") {
        return u8::from_str_radix(hex, 16).map_err(|_| format!("{text} is no byte"));
    }
    match text.as_bytes() {
        [byte] => Ok(*byte),
        _ => Err(format!(
            "{text:?} is more than one byte; write 0x and two digits, or one character"
        )),
    }
}

impl Content {
    /// Whether it is there for one buffer alone.
    pub(crate) fn is_read_once(&self) -> bool {
        self.input
            .as_ref()
            .is_some_and(|path| path.as_os_str() == "-")
    }

    /// Writes it into a buffer, from its start.
    pub(crate) fn write_into(&self, buffer: &Buffer, made: Made) -> Result<(), Failure> {
        if *self == Content::default() {
            return Ok(());
        }
        let mut to = Sink::open(buffer, made)?;
        if let Some(byte) = self.fill {
            let block = vec![byte; BLOCK];
            let mut at = 0;
            while at < to.size {
                let len = (to.size - at).min(BLOCK as u64);
                to.write(at, &block[..usize::try_from(len)?])?;
                at += len;
            }
        } else if let Some(text) = &self.text {
            let bytes = [text.as_bytes(), &[0]].concat();
            to.write(0, &bytes)?;
        } else if let Some(path) = &self.input {
            copy_file(path, &mut to)?;
        }
        Ok(())
    }
}

fn copy_file(path: &Path, to: &mut Sink<'_>) -> Result<(), Failure> {
    let name = path.display().to_string();
    let failed = |error: io::Error| Failure::usage(format!("{name}: {error}"));
    let mut from: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin().lock()),
        false => Box::new(File::open(path).map_err(failed)?),
    };
    let mut block = vec![0; BLOCK];
    let mut at = 0;
    loop {
        let len = match from.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        to.write(at, &block[..len])?;
        at += len as u64;
    }
}

/// When memory was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    /// By this command, for nobody else to know of yet.
    Now,
    /// By someone before.
    Before,
}

/// Where bytes go in.
struct Sink<'b> {
    buffer: &'b Buffer,
    size: u64,
    /// `None` for a file that others could make smaller: write(2) then fails,
    /// where an access to a mapping would end this process.
    mapping: Option<Mapping>,
}

impl Sink<'_> {
    fn open(buffer: &Buffer, made: Made) -> Result<Sink<'_>, Failure> {
        let mapping = match buffer.kind() {
            // hugetlbfs has no write(2). These pages are reserved for us, and
            // nobody else knows of this memory yet.
            Kind::HugeTlb if made == Made::Now => Some(buffer.map_shrinkable(Access::Write)?),
            Kind::HugeTlb => Some(buffer.map(Access::Write)?), // says why it is refused
            kind if kind.is_fixed() => Some(buffer.map(Access::Write)?),
            _ => None,
        };
        Ok(Sink {
            buffer,
            size: buffer.size(),
            mapping,
        })
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), Failure> {
        if at + bytes.len() as u64 > self.size {
            return Err(Failure::usage(format!(
                "{}: what is to be written is longer than its {} bytes",
                self.buffer.name(),
                self.size
            )));
        }
        if let Some(mapping) = &mut self.mapping {
            let mut guard = mapping.access(Access::Write)?;
            guard.write_at(at, bytes)?;
            return Ok(guard.finish()?);
        }
        let mut done = 0;
        while done < bytes.len() {
            done += self.buffer.write_at(at + done as u64, &bytes[done..])?;
        }
        Ok(())
    }
}
