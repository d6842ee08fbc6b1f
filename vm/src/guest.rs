//! The guest's machine, and the verdict on how it ended.

use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::Error;
use crate::console::Console;
use crate::fault::{FAULTY, Fault};
use crate::line::Line;
use crate::qemu::{Ended, Incoming, Qemu};
use crate::qmp::Qmp;
use crate::snapshot::Image;

/// Why a guest never said that it is ready.
pub(crate) enum BootFailure {
    /// It said why.
    Reported(String),
    /// Its machine ended.
    Ended,
    /// It said nothing.
    Silent,
}

pub(crate) struct Guest {
    pub(crate) kernel: String,
    pub(crate) console: Console,
    pub(crate) qemu: Mutex<Qemu>,
    pub(crate) line: Line,
    /// Those at its lines; they end with QEMU.
    pub(crate) threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Guest {
    /// End it, and wait until everything that it said was read.
    pub(crate) fn end(&self) -> Ended {
        let mut qemu = lock(&self.qemu);
        qemu.kill();
        let ended = qemu.wait();
        self.line.close();
        for thread in lock(&self.threads).drain(..) {
            let _ = thread.join();
        }
        ended
    }

    /// Have it go on from this state.
    pub(crate) fn resume(&self, qmp: &mut Qmp, image: &Image, longest: Duration) -> io::Result<()> {
        let Some(Incoming { mut stream, uri }) = lock(&self.qemu).incoming.take() else {
            return Err(io::Error::other("it was not started for it"));
        };
        let state = image.state.clone();
        let feeder = std::thread::spawn(move || {
            // Nobody else may move in it: others go on from it, too.
            let mut at = 0;
            let mut buffer = vec![0; 256 * 1024];
            while let Ok(length @ 1..) = state.read_at(&mut buffer, at) {
                if stream.write_all(&buffer[..length]).is_err() {
                    return;
                }
                at += length as u64;
            }
        });
        lock(&self.threads).push(feeder);
        qmp.resume(&uri, image.saved(), longest)
    }

    /// It did not go on from a snapshot.
    pub(crate) fn not_resumed(&self, error: &io::Error) -> Error {
        let ended = self.end();
        Error::Qemu(match ended.stderr.is_empty() {
            true => error.to_string(),
            false => describe(&ended),
        })
    }

    /// Wait for QEMU's own end, but no longer than this.
    pub(crate) fn wait(&self, longest: Duration) -> bool {
        lock(&self.qemu).wait_timeout(longest)
    }

    /// What ended it, once its agent is gone.
    pub(crate) fn verdict(&self) -> Error {
        if let Some(reason) = self.console.tampering() {
            self.end();
            return Error::Tampered {
                kernel: self.kernel.clone(),
                reason,
                console: self.console.report(),
            };
        }
        // A panic reboots at once, and QEMU ends instead of rebooting: the
        // console is complete only then.
        let by_itself = self.wait(Duration::from_secs(5));
        let ended = self.end();
        self.fault().unwrap_or_else(|| Error::QemuEnded {
            reason: if by_itself {
                describe(&ended)
            } else {
                "its agent is gone".into()
            },
            console: self.console.report(),
        })
    }

    /// A program in it, or all of it, came to nothing within its deadline.
    pub(crate) fn hang(&self, what: &str, deadline: Duration) -> Error {
        self.end();
        self.fault().unwrap_or_else(|| Error::Hang {
            what: format!("kernel {}: {what}", self.kernel),
            deadline,
            console: self.console.report(),
        })
    }

    pub(crate) fn not_booted(&self, failure: BootFailure, deadline: Duration) -> Error {
        let by_itself = self.wait(Duration::from_millis(match failure {
            BootFailure::Ended => 5000,
            _ => 0,
        }));
        let ended = self.end();
        if by_itself && ended.status.is_some_and(|status| !status.success()) {
            return Error::Qemu(describe(&ended));
        }
        let reason = match failure {
            BootFailure::Reported(reason) => reason,
            _ if self.console.fault() == Some(Fault::OutOfMemory) => "out of memory".into(),
            _ if self.console.fault() == Some(Fault::Panic) => "its kernel panicked".into(),
            _ if self.console.fault().is_some() => FAULTY.into(),
            BootFailure::Ended => "its init ended".into(),
            BootFailure::Silent => format!(
                "nothing within {} s; a busy host may need more (--boot-deadline)",
                deadline.as_secs_f32()
            ),
        };
        Error::NotBooted {
            kernel: self.kernel.clone(),
            reason,
            console: self.console.report(),
        }
    }

    /// How it went down, once it was told to.
    pub(crate) fn switched_off(&self) -> Result<(), Error> {
        let ended = self.end();
        match (self.fault(), ended.status) {
            (Some(fault), _) => Err(fault),
            (None, Some(status)) if status.success() => Ok(()),
            (None, _) => Err(Error::QemuEnded {
                reason: describe(&ended),
                console: self.console.report(),
            }),
        }
    }

    /// The fault that its kernel found in itself, if it did; it is ended then,
    /// though it may have gone on: what runs in it is not to be believed.
    pub(crate) fn found_fault(&self) -> Option<Error> {
        self.console.fault()?;
        // The rest of its report, or its own end.
        self.wait(Duration::from_millis(500));
        self.end();
        self.fault()
    }

    /// What its kernel said about itself.
    fn fault(&self) -> Option<Error> {
        let fault = self.console.fault()?;
        let (kernel, console) = (self.kernel.clone(), self.console.report());
        Some(match fault {
            Fault::Panic => Error::Panic { kernel, console },
            Fault::Oops => Error::Oops { kernel, console },
            Fault::Check => Error::Check { kernel, console },
            Fault::OutOfMemory => Error::OutOfMemory { kernel, console },
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.end();
    }
}

fn describe(ended: &Ended) -> String {
    let status = ended
        .status
        .map_or("no status".into(), |status| status.to_string());
    if ended.stderr.is_empty() {
        status
    } else {
        format!("{status}: {}", ended.stderr.replace('\n', "; "))
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
