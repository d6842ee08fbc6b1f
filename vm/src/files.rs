//! Files of the host's into the guest, and the guest's out of it.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dmashare_vm_init::{Exit, READ_FILE, SELF, WRITE_FILE};

use crate::{Command, Error, Event, Process, Vm, plain};

/// How long nothing may move.
const STALL: Duration = Duration::from_secs(60);

/// How much of its complaint is kept.
const COMPLAINT: usize = 4096;

/// The longest line that a file's permissions and size take.
const HEAD: usize = 64;

/// How much of a file is read at once.
const PART: usize = 256 << 10;

/// Bounds for [`Vm::read_file_within`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes that are taken; 1 GiB by default.
    pub bytes: u64,
    /// How long it may take in all. `None`, the default: as long as something moves
    /// once a minute.
    pub time: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            bytes: 1 << 30,
            time: None,
        }
    }
}

impl Vm {
    /// Write this into a file of the guest's, with these permissions. Its folder is
    /// made where there is none; what the file held before is gone.
    ///
    /// # Errors
    /// What the guest's file system or `content` did not allow, and whatever ended
    /// the guest.
    ///
    /// ```no_run
    /// // Not run with the crate's tests: boots a guest.
    /// # fn f(vm: &dmashare_vm::Vm) -> Result<(), dmashare_vm::Error> {
    /// vm.write_file("/tmp/hello", &b"#!/bin/sh\necho hello\n"[..], 0o755)?;
    /// assert_eq!(vm.command("/tmp/hello").output()?.stdout, b"hello\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn write_file(
        &self,
        path: impl Into<String>,
        content: impl Read + Send,
        mode: u32,
    ) -> Result<(), Error> {
        let path = path.into();
        let what = || format!("write {path} in the guest");
        let helper = self.helper([WRITE_FILE, &path, &mode.to_string()]);
        let process = helper.spawn()?;
        let mut stdin = process.stdin();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let signaller = process.signaller();
            let stopped = &stop;
            let writer = scope.spawn(move || {
                let sent = copy(content, &mut stdin, stopped);
                if sent.is_err() {
                    // Or it would end as if the file were whole.
                    let _ = signaller.send(libc::SIGKILL);
                }
                sent
            });
            let ended = finish(process, |_| Ok(()), true, &what);
            stop.store(true, Ordering::Relaxed);
            match (ended, writer.join()) {
                // What could not be read is the reason for the other.
                (_, Ok(Err(Failed::Read(source)))) => Err(Error::Io {
                    what: what(),
                    source,
                }),
                (ended, _) => ended,
            }
        })
    }

    /// Copies the content of a regular file of the guest's to `to`, and returns the
    /// file's permissions, without setuid, setgid and sticky bits. It is bounded by
    /// [`Limits::default`].
    ///
    /// # Errors
    /// What the guest's file system or `to` did not allow; a file that is too large, or
    /// no regular one (a link is followed to what it means); and whatever ended the
    /// guest.
    ///
    /// ```no_run
    /// // Not run with the crate's tests: boots a guest.
    /// # fn f(vm: &dmashare_vm::Vm) -> Result<(), dmashare_vm::Error> {
    /// let mut modules = Vec::new();
    /// vm.read_file("/proc/modules", &mut modules)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_file(&self, path: impl Into<String>, to: &mut impl Write) -> Result<u32, Error> {
        self.read_file_within(path, to, Limits::default())
    }

    /// The same within these limits.
    ///
    /// # Errors
    /// Those of [`read_file`](Vm::read_file), a file of more than `limits.bytes`, and
    /// [`Error::Hang`] where the copy takes longer than `limits.time`, after which the
    /// guest is ended, too.
    ///
    /// ```no_run
    /// // Not run with the crate's tests: boots a guest.
    /// # fn f(vm: &dmashare_vm::Vm) -> Result<(), dmashare_vm::Error> {
    /// use dmashare_vm::Limits;
    /// let mut trace = Vec::new();
    /// let limits = Limits { bytes: 1 << 20, ..Limits::default() };
    /// vm.read_file_within("/tmp/trace", &mut trace, limits)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_file_within(
        &self,
        path: impl Into<String>,
        to: &mut impl Write,
        limits: Limits,
    ) -> Result<u32, Error> {
        let path = path.into();
        let helper = self.helper([READ_FILE, &path]);
        let helper = match limits.time {
            Some(time) => helper.deadline(time),
            None => helper,
        };
        let process = helper.spawn()?;
        drop(process.stdin());
        let mut incoming = Incoming::new(limits.bytes);
        let keep = |bytes: &[u8]| incoming.push(bytes, to);
        let what = || format!("read {path} in the guest");
        finish(process, keep, limits.time.is_none(), &what)?;
        // A helper that says nothing has been tampered with.
        incoming.mode.ok_or_else(|| Error::Io {
            what: what(),
            source: io::Error::other("its permissions did not come"),
        })
    }

    fn helper<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command<'_> {
        self.command(SELF).args(arguments).deadline(STALL)
    }
}

/// Follow the helper to its end, as long as something moves.
fn finish(
    mut process: Process<'_>,
    mut keep: impl FnMut(&[u8]) -> io::Result<()>,
    renew: bool,
    what: &dyn Fn() -> String,
) -> Result<(), Error> {
    let failed = |source| Error::Io {
        what: what(),
        source,
    };
    let mut said = Vec::new();
    loop {
        match process.next_event()? {
            Event::Stdout(bytes) => {
                if let Err(source) = keep(&bytes) {
                    process.signal(libc::SIGKILL)?;
                    return Err(failed(source));
                }
                if renew {
                    process.renew();
                }
            }
            Event::Stderr(bytes) => {
                let room = COMPLAINT.saturating_sub(said.len());
                said.extend(&bytes[..bytes.len().min(room)]);
            }
            Event::Exit(Exit::Code(0)) => return Ok(()),
            Event::Exit(exit) => {
                let said = String::from_utf8_lossy(&said).trim().to_owned();
                let reason = match said.is_empty() {
                    true => format!("{exit:?}"),
                    false => plain::line(&said),
                };
                return Err(failed(io::Error::other(reason)));
            }
        }
    }
}

/// A file that comes from the guest, which may have been tampered with.
struct Incoming {
    /// The first line, as far as it has come.
    head: Vec<u8>,
    /// The permissions, once that line has come.
    mode: Option<u32>,
    /// How many bytes may follow.
    left: u64,
    limit: u64,
}

impl Incoming {
    fn new(limit: u64) -> Incoming {
        Incoming {
            head: Vec::new(),
            mode: None,
            left: limit,
            limit,
        }
    }

    fn push(&mut self, bytes: &[u8], to: &mut impl Write) -> io::Result<()> {
        if self.mode.is_some() {
            return self.content(bytes, to);
        }
        self.head.extend(bytes);
        let wrong = || io::Error::other("its permissions and size are not readable");
        let Some(end) = self.head.iter().position(|byte| *byte == b'\n') else {
            return match self.head.len() > HEAD {
                true => Err(wrong()),
                false => Ok(()),
            };
        };
        let head = std::mem::take(&mut self.head);
        let line = str::from_utf8(&head[..end]).map_err(|_| wrong())?;
        let (mode, size) = line.split_once(' ').ok_or_else(wrong)?;
        let mode = u32::from_str_radix(mode, 8).map_err(|_| wrong())?;
        let size: u64 = size.parse().map_err(|_| wrong())?;
        if size > self.limit {
            return Err(self.too_large());
        }
        self.mode = Some(mode & 0o777);
        self.content(&head[end + 1..], to)
    }

    fn content(&mut self, bytes: &[u8], to: &mut impl Write) -> io::Result<()> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| self.too_large())?;
        to.write_all(bytes)
    }

    fn too_large(&self) -> io::Error {
        io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!(
                "it has more than the {} bytes that may be taken",
                self.limit
            ),
        )
    }
}

/// Which side of a copy failed.
enum Failed {
    Read(io::Error),
    /// The guest's, which says so itself.
    Write,
}

fn copy(mut from: impl Read, to: &mut impl Write, stop: &AtomicBool) -> Result<(), Failed> {
    let mut part = vec![0; PART];
    while !stop.load(Ordering::Relaxed) {
        match from.read(&mut part) {
            Ok(0) => break,
            Ok(length) => to.write_all(&part[..length]).map_err(|_| Failed::Write)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failed::Read(error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The permissions and what was written of what came in these pieces.
    fn take(pieces: &[&str], limit: u64) -> Result<(u32, String), String> {
        let (mut incoming, mut to) = (Incoming::new(limit), Vec::new());
        for piece in pieces {
            let pushed = incoming.push(piece.as_bytes(), &mut to);
            pushed.map_err(|error| error.to_string())?;
        }
        let mode = incoming.mode.ok_or("no permissions")?;
        Ok((mode, String::from_utf8(to).unwrap()))
    }

    #[test]
    fn special_bits_do_not_come_out() {
        let took = take(&["77", "77 4\nab", "cd"], 4);
        assert_eq!(took, Ok((0o777, "abcd".to_owned())));
        let took = take(&["640 0\nof /proc"], 100);
        assert_eq!(took, Ok((0o640, "of /proc".to_owned())));
    }

    #[test]
    fn tampered_helper_is_bounded() {
        for (pieces, expected) in [
            (&["644 5\n"][..], "more than the 4 bytes"),
            (&["644 0\nabc", "de"], "more than the 4 bytes"),
            (&["644\n"], "not readable"),
            (&["rw 4\n"], "not readable"),
            (&[&"6".repeat(HEAD + 1)], "not readable"),
            (&[], "no permissions"),
        ] {
            let error = take(pieces, 4).unwrap_err();
            assert!(error.contains(expected), "{pieces:?}: {error}");
        }
    }
}
