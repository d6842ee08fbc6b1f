//! A program in the guest as if it were here: its output becomes ours, and our
//! input and signals become its.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use dmashare_vm_init::Exit;
use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::{Error, Event, Process, Signaller};

/// Follow it to its end; its status, as a shell would tell it.
pub(super) fn follow(process: &Process<'_>) -> Result<u8, Error> {
    let mut stdin = process.stdin();
    // Not waited for: our input may have no end, and the program may not read it.
    std::thread::spawn(move || io::copy(&mut io::stdin().lock(), &mut stdin));
    let _forwarding = Forwarding::to(process.signaller())?;
    let mut stdout = Sink::onto(io::stdout());
    let mut stderr = Sink::onto(io::stderr());
    loop {
        match process.next_event()? {
            Event::Stdout(bytes) => {
                if stdout.write(&bytes)? {
                    process.close_stdout()?;
                }
            }
            Event::Stderr(bytes) => {
                if stderr.write(&bytes)? {
                    process.close_stderr()?;
                }
            }
            Event::Exit(exit) => return Ok(status(&exit)),
        }
    }
}

pub(super) fn status(exit: &Exit) -> u8 {
    let status = match exit {
        Exit::Code(code) => *code,
        Exit::Signal(signal) => 128 + signal,
        Exit::NotStarted(_) => 127,
    };
    u8::try_from(status).unwrap_or(u8::MAX)
}

/// One of our outputs, without a buffer; `None` once nobody reads it.
struct Sink(Option<File>);

impl Sink {
    fn onto(stream: impl AsFd) -> Sink {
        // One that was closed before we began has no reader either.
        Sink(stream.as_fd().try_clone_to_owned().ok().map(File::from))
    }

    /// Write it all; whether the reader was found to be gone just now.
    fn write(&mut self, mut bytes: &[u8]) -> Result<bool, Error> {
        let Some(file) = &mut self.0 else {
            return Ok(false);
        };
        while !bytes.is_empty() {
            match file.write(bytes) {
                Ok(length) => bytes = &bytes[length..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Whoever has the other end may have made it so.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let _ = poll(&mut [PollFd::new(file, PollFlags::OUT)], None);
                }
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    self.0 = None;
                    return Ok(true);
                }
                Err(source) => {
                    return Err(Error::Io {
                        what: "pass on the program's output".into(),
                        source,
                    });
                }
            }
        }
        Ok(false)
    }
}

/// Passes signals on to the program as long as it lives. The second one ends us,
/// and the guest with us: the program may be deaf.
struct Forwarding(Handle);

impl Forwarding {
    fn to(program: Signaller) -> Result<Forwarding, Error> {
        // What our parent had us ignore stays ignored.
        let wanted = [SIGINT, SIGTERM, SIGHUP]
            .into_iter()
            .filter(|s| !is_ignored(*s));
        let mut signals = Signals::new(wanted).map_err(|source| Error::Io {
            what: "listen for signals".into(),
            source,
        })?;
        let handle = signals.handle();
        std::thread::spawn(move || {
            let mut any = false;
            for signal in signals.forever() {
                if any || program.send(signal).is_err() {
                    std::process::exit(128 + signal);
                }
                any = true;
            }
        });
        Ok(Forwarding(handle))
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn is_ignored(signal: i32) -> bool {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: sigaction(2) without a new action only fills `now`, which is read
    // where it says that it did.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), now.as_mut_ptr()) == 0
            && now.assume_init().sa_sigaction == libc::SIG_IGN
    }
}
