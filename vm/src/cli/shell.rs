//! `cargo vm shell`: a terminal in the guest.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::iterator::Signals;

use super::follow::status;
use super::run::working_directory;
use crate::debian::Debian;
use crate::project::Project;
use crate::{Error, Event, Signaller, WindowSize};

/// A shell is open as long as its user likes.
const DEADLINE: Duration = Duration::from_secs(7 * 24 * 3600);

#[derive(Args)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) guest: super::OneGuest,
}

pub(super) fn run(project: &Project, debian: &Debian, options: &Options) -> Result<u8, Error> {
    if !isatty(io::stdin()) || !isatty(io::stdout()) {
        return Err(Error::Project(
            "a shell needs a terminal; use `cargo vm run -- CMD` without one".into(),
        ));
    }
    let vm = options.guest.boot(project, debian)?;
    let process = vm
        .command("/bin/sh")
        .arg("-i")
        .current_dir(working_directory(project))
        .env("TERM", std::env::var("TERM").unwrap_or("linux".into()))
        .terminal(window())
        .deadline(DEADLINE)
        .spawn()?;
    let mut stdin = process.stdin();
    std::thread::spawn(move || copy_at_once(&mut stdin));
    let raw = RawMode::enter()?;
    watch(process.signaller(), raw.0.clone())?;
    let status = loop {
        match process.next_event().map_err(no_shell)? {
            Event::Stdout(bytes) | Event::Stderr(bytes) => {
                let mut out = io::stdout().lock();
                let _ = out.write_all(&bytes).and_then(|()| out.flush());
            }
            Event::Exit(exit) => break status(&exit),
        }
    };
    drop(raw);
    drop(process);
    vm.end()?;
    Ok(status)
}

/// What to do about a root without a shell.
fn no_shell(error: Error) -> Error {
    match error {
        Error::NotStarted { program, reason } => Error::NotStarted {
            program,
            reason: format!(
                "{reason}; a shell in the root is dash's or busybox-static's, or one of the root's own"
            ),
        },
        other => other,
    }
}

/// Every key as it comes: a buffer would hold it back.
fn copy_at_once(to: &mut impl Write) {
    let mut keys = [0; 1024];
    while let Ok(length @ 1..) = rustix::io::read(io::stdin(), &mut keys) {
        if to.write_all(&keys[..length]).is_err() {
            return;
        }
    }
}

/// Tells the shell of a new size of the window at once, and gives the terminal back
/// as it was where we are to end.
fn watch(shell: Signaller, before: Termios) -> Result<(), Error> {
    let mut signals = Signals::new([SIGWINCH, SIGTERM, SIGHUP, SIGINT])
        .map_err(Error::io("listen for signals"))?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if signal != SIGWINCH {
                let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
                std::process::exit(128 + signal);
            }
            // A shell that is gone needs no window.
            let _ = shell.resize(window());
        }
    });
    Ok(())
}

fn window() -> WindowSize {
    tcgetwinsize(io::stdout()).map_or(
        WindowSize {
            rows: 24,
            columns: 80,
        },
        |size| WindowSize {
            rows: size.ws_row,
            columns: size.ws_col,
        },
    )
}

/// Keys go to the guest as they are, Ctrl-C included; undone on drop.
struct RawMode(Termios);

impl RawMode {
    fn enter() -> Result<RawMode, Error> {
        let failed = |error: rustix::io::Errno| Error::Io {
            what: "set the terminal".into(),
            source: error.into(),
        };
        let before = tcgetattr(io::stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).map_err(failed)?;
        Ok(RawMode(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
