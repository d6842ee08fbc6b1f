//! One line about a buffer.

use std::fmt;
use std::os::fd::OwnedFd;

use dmashare::buffer::{Buffer, BufferError, Kind, Seals};
use serde::Serialize;

use crate::bytes;
use crate::failure::Failure;

/// What a buffer is, as the kernel says, and the text it starts with.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    /// Which of the handles that came, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fd: Option<usize>,
    kind: &'static str,
    name: String,
    /// In bytes; none for what is no memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seals: Option<Vec<&'static str>>,
    /// The text at its start, up to the first NUL.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

impl Line {
    pub(crate) fn of(buffer: &Buffer) -> Result<Line, Failure> {
        let (kind, seals) = match buffer.kind() {
            Kind::DmaBuf => ("dma-buf", None),
            Kind::Memfd(seals) => ("memfd", Some(names(seals))),
            Kind::Shm => ("shared memory object", None),
            Kind::HugeTlb => ("huge pages", None),
            Kind::SysV => ("System V segment", None),
            _ => ("shared memory", None),
        };
        Ok(Line {
            fd: None,
            kind,
            name: match buffer.segment() {
                Some(id) => id.to_string(),
                None => buffer.name(),
            },
            size: Some(buffer.size()),
            seals,
            text: bytes::text(buffer)?,
        })
    }

    /// Of whatever came; the buffer too, where it is one.
    pub(crate) fn of_any(fd: OwnedFd) -> Result<(Line, Option<Buffer>), Failure> {
        match Buffer::from_fd(fd) {
            Ok(buffer) => Ok((Line::of(&buffer)?, Some(buffer))),
            Err(BufferError::NotABuffer { name, what }) => Ok((Line::no_memory(what, name), None)),
            Err(BufferError::Empty { name }) => Ok((Line::no_memory("empty memory", name), None)),
            Err(error) => Err(error.into()),
        }
    }

    fn no_memory(kind: &'static str, name: String) -> Line {
        Line {
            fd: None,
            kind,
            name,
            size: None,
            seals: None,
            text: None,
        }
    }
}

/// How many characters of a text a line shows.
const SHOWN: usize = 60;

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(fd) = self.fd {
            write!(f, "fd {fd}: ")?;
        }
        write!(f, "{} {}", self.kind, self.name)?;
        if let Some(size) = self.size {
            write!(f, ", {size} bytes")?;
        }
        match self.seals.as_deref() {
            None => {}
            Some([]) => f.write_str(", no seals")?,
            Some(seals) => write!(f, ", seals {}", seals.join(" "))?,
        }
        let Some(text) = &self.text else {
            return Ok(());
        };
        match text.char_indices().nth(SHOWN) {
            Some((end, _)) => write!(f, ", text {:?}…", &text[..end]),
            None => write!(f, ", text {text:?}"),
        }
    }
}

/// The seals by the names that `--seal` takes.
pub(crate) const SEALS: [(&str, Seals); 6] = [
    ("seal", Seals::SEAL),
    ("shrink", Seals::SHRINK),
    ("grow", Seals::GROW),
    ("write", Seals::WRITE),
    ("future-write", Seals::FUTURE_WRITE),
    ("exec", Seals::from_bits_retain(0x20)), // F_SEAL_EXEC of linux/fcntl.h
];

fn names(seals: Seals) -> Vec<&'static str> {
    let there = SEALS.iter().filter(|(_, seal)| seals.contains(*seal));
    there.map(|(name, _)| *name).collect()
}
