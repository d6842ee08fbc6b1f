//! The demo's other processes: this program again, with a socket to the one that
//! started it as its standard input.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use dmashare::share::Socket;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use super::DemoError;

/// A process that was started; killed and reaped on drop.
pub(super) struct Started(pub(super) Child);

impl Drop for Started {
    fn drop(&mut self) {
        // Errors mean that it has ended, and was waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// This program, to be one of the hidden commands.
pub(super) fn command(role: &str) -> Command {
    // By this name it is the same program even if its file was replaced.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("dmashare").arg(role);
    command
}

/// Starts it, with the other end of this socket.
pub(super) fn start(command: &mut Command, theirs: &Socket) -> io::Result<Started> {
    let stdin = theirs.as_fd().try_clone_to_owned()?;
    command.stdin(Stdio::from(stdin)).spawn().map(Started)
}

/// In the process that was started: it is to end with the one that did.
pub(super) fn end_with(parent: i32) -> Result<(), DemoError> {
    // That one ends this when it comes to its end; this is for one that is
    // killed.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)?;
    // The signal is for a death to come. Of one before, this has another parent.
    match Pid::as_raw(getppid()) == parent {
        true => Ok(()),
        false => Err(DemoError::ConsumerEnded),
    }
}

/// In the process that was started: the socket to the one that did.
pub(super) fn socket(step: &'static str) -> Result<Socket, DemoError> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    Socket::from_fd(stdin).map_err(DemoError::at(step))
}
