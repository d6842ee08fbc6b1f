//! A program in the guest as if it were here: its output becomes ours, and our
//! input and signals become its.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dmashare_vm_init::Exit;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::{Error, Event, Process, Signaller};

/// How long at most our output is waited for without a look at the program.
const LOOK: Duration = Duration::from_millis(200);

/// Follow it to its end; its status, as a shell would tell it. Where our user has
/// no patience with it, this is done last.
pub(super) fn follow(
    process: &Process<'_>,
    last: impl FnOnce() + Send + 'static,
) -> Result<u8, Error> {
    let mut stdin = process.stdin();
    // Not waited for: our input may have no end, and the program may not read it.
    std::thread::spawn(move || io::copy(&mut io::stdin().lock(), &mut stdin));
    let _forwarding = Forwarding::to(process.signaller(), last)?;
    let mut stdout = Sink::onto(io::stdout());
    let mut stderr = Sink::onto(io::stderr());
    loop {
        match process.next_event()? {
            Event::Stdout(bytes) => {
                if stdout.write(&bytes, process)? {
                    process.close_stdout()?;
                }
            }
            Event::Stderr(bytes) => {
                if stderr.write(&bytes, process)? {
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

    /// Write it all; whether the reader was found to be gone just now. One that
    /// keeps the program waiting does so in the program's time.
    fn write(&mut self, mut bytes: &[u8], process: &Process<'_>) -> Result<bool, Error> {
        let Some(file) = &mut self.0 else {
            return Ok(false);
        };
        while !bytes.is_empty() {
            let left = process.left();
            if left == Some(Duration::ZERO) {
                return Err(process.overdue());
            }
            // Looked at now and then: it may have ended meanwhile.
            let timeout = Timespec::try_from(left.map_or(LOOK, |left| left.min(LOOK))).ok();
            match poll(&mut [PollFd::new(file, PollFlags::OUT)], timeout.as_ref()) {
                Ok(0) | Err(Errno::INTR) => continue,
                // What is wrong with it, writing tells.
                Ok(_) | Err(_) => {}
            }
            // A pipe that is ready takes this much at once.
            let part = bytes.len().min(libc::PIPE_BUF);
            match file.write(&bytes[..part]) {
                Ok(length) => bytes = &bytes[length..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Whoever has the other end may have made it so.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
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
/// and the guest with us: the program may be deaf. So does one after its end.
struct Forwarding(Arc<AtomicBool>);

impl Forwarding {
    fn to(program: Signaller, last: impl FnOnce() + Send + 'static) -> Result<Forwarding, Error> {
        // What our parent had us ignore stays ignored.
        let wanted = [SIGINT, SIGTERM, SIGHUP]
            .into_iter()
            .filter(|s| !is_ignored(*s));
        let mut signals = Signals::new(wanted).map_err(Error::io("listen for signals"))?;
        let over = Arc::new(AtomicBool::new(false));
        let is_over = over.clone();
        // It listens to our end: no signal has its old meaning back.
        std::thread::spawn(move || {
            for signal in signals.forever() {
                if is_over.swap(true, Ordering::Relaxed) || program.send(signal).is_err() {
                    last();
                    std::process::exit(128 + signal);
                }
            }
        });
        Ok(Forwarding(over))
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
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
