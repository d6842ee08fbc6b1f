//! Files of the host's into the guest, and the guest's out of it.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dmashare_vm_init::{Exit, READ_FILE, SELF, WRITE_FILE};

use crate::{Command, Error, Event, Process, Vm};

/// How long nothing may move.
const STALL: Duration = Duration::from_secs(60);

/// How much of a file is read at once.
const PART: usize = 256 << 10;

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
            let ended = finish(process, |_| Ok(()), &what);
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

    /// Copy what is in a file of the guest's to `to`; the file's permissions.
    ///
    /// # Errors
    /// What the guest's file system or `to` did not allow, and whatever ended the
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
        let path = path.into();
        let process = self.helper([READ_FILE, &path]).spawn()?;
        drop(process.stdin());
        // The first line; then everything is the file's.
        let mut mode = None;
        let mut head = Vec::new();
        let keep = |bytes: &[u8]| match mode {
            Some(_) => to.write_all(bytes),
            None => {
                head.extend(bytes);
                let Some(end) = head.iter().position(|byte| *byte == b'\n') else {
                    return Ok(());
                };
                let digits = String::from_utf8_lossy(&head[..end]);
                mode = Some(u32::from_str_radix(&digits, 8).map_err(io::Error::other)?);
                to.write_all(&head[end + 1..])
            }
        };
        finish(process, keep, &|| format!("read {path} in the guest"))?;
        Ok(mode.unwrap_or_default())
    }

    fn helper<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command<'_> {
        self.command(SELF).args(arguments).deadline(STALL)
    }
}

/// Follow the helper to its end, as long as something moves.
fn finish(
    mut process: Process<'_>,
    mut keep: impl FnMut(&[u8]) -> io::Result<()>,
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
                process.renew();
            }
            Event::Stderr(bytes) => said.extend(bytes),
            Event::Exit(Exit::Code(0)) => return Ok(()),
            Event::Exit(exit) => {
                let said = String::from_utf8_lossy(&said).trim().to_owned();
                let reason = match said.is_empty() {
                    true => format!("{exit:?}"),
                    false => said,
                };
                return Err(failed(io::Error::other(reason)));
            }
        }
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
