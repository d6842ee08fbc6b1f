//! What can go wrong, told apart by who is to look at it.

use std::io;
use std::time::Duration;

/// An error of the VM: the host's side, or the guest's.
///
/// [`Error::exit_status`] gives each class a status of its own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something the guest is made of could not be had.
    #[error(transparent)]
    Debian(#[from] crate::debian::Error),
    /// A program of the host did not start.
    #[error("{program} did not start: {source}; `cargo vm` sees to what is missing")]
    Start {
        /// Its name.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// QEMU did not take its orders.
    #[error("QEMU did not start a guest: {0}")]
    Qemu(String),
    /// The project's own set-up is at fault.
    #[error("{0}")]
    Project(String),
    /// A line to QEMU or to the guest broke.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A program could not be started in the guest.
    #[error("the guest could not start {program}: {reason}")]
    NotStarted {
        /// The program.
        program: String,
        /// Why.
        reason: String,
    },
    /// The guest did not come up.
    #[error("kernel {kernel} did not boot: {reason}{}", quote(.console))]
    NotBooted {
        /// The kernel, as it was asked for.
        kernel: String,
        /// How far it came.
        reason: String,
        /// The last lines of its console.
        console: String,
    },
    /// The guest's kernel panicked.
    #[error("kernel {kernel}: panic{}", quote(.console))]
    Panic {
        /// The kernel, as it was asked for.
        kernel: String,
        /// The last lines of its console.
        console: String,
    },
    /// The guest's kernel had an oops, a BUG or a WARN.
    #[error("kernel {kernel}: oops{}", quote(.console))]
    Oops {
        /// The kernel, as it was asked for.
        kernel: String,
        /// What it said, from there on.
        console: String,
    },
    /// A check of the guest's kernel reported something: KASAN, UBSAN, lockdep,
    /// kmemleak, DMA debugging, and their like.
    #[error("kernel {kernel}: a check of its own reports{}", quote(.console))]
    Check {
        /// The kernel, as it was asked for.
        kernel: String,
        /// What it said, from there on.
        console: String,
    },
    /// The guest ran out of memory, and its kernel killed a program, or panicked.
    /// (A program that meets the limit of its own cgroup is no such case.)
    #[error("kernel {kernel}: out of memory; give the guest more of it{}", quote(.console))]
    OutOfMemory {
        /// The kernel, as it was asked for.
        kernel: String,
        /// What it said, from there on.
        console: String,
    },
    /// Nothing came of it within its deadline.
    #[error("{what} did not end within {} s; it may need more time{}", .deadline.as_secs_f32(), quote(.console))]
    Hang {
        /// What hangs.
        what: String,
        /// The deadline it had.
        deadline: Duration,
        /// The last lines of the console.
        console: String,
    },
    /// A program in the guest wrote to the agent's port: whatever came over it is not to
    /// be believed.
    #[error("kernel {kernel}: a program of the guest's wrote to the agent's port ({reason}), and no result of this guest can be believed{}", quote(.console))]
    Tampered {
        /// The kernel, as it was asked for.
        kernel: String,
        /// What was found.
        reason: String,
        /// The last lines of the console.
        console: String,
    },
    /// QEMU ended under a running guest.
    #[error("QEMU ended under the guest: {reason}{}", quote(.console))]
    QemuEnded {
        /// Its status and its own words.
        reason: String,
        /// The last lines of the console.
        console: String,
    },
}

impl From<crate::cache::Error> for Error {
    fn from(error: crate::cache::Error) -> Error {
        Error::Debian(error.into())
    }
}

impl Error {
    /// Gives an [`io::Error`] what was being done, for `map_err`.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }

    /// The exit status for this class of error.
    ///
    /// ```
    /// use dmashare_vm::Error;
    /// assert_eq!(Error::Project("no Cargo.toml here".into()).exit_status(), 2);
    /// ```
    pub fn exit_status(&self) -> u8 {
        match self {
            Error::Debian(_)
            | Error::Start { .. }
            | Error::Qemu(_)
            | Error::Project(_)
            | Error::Io { .. } => 2,
            Error::NotBooted { .. } => 70,
            Error::Panic { .. } => 71,
            Error::Oops { .. } => 72,
            Error::Hang { .. } => 73,
            Error::QemuEnded { .. } => 74,
            Error::Check { .. } => 75,
            Error::OutOfMemory { .. } => 76,
            Error::Tampered { .. } => 78,
            Error::NotStarted { .. } => 127,
        }
    }

    /// A name for this class of error, as reports show it.
    pub fn class(&self) -> &'static str {
        match self {
            Error::Debian(_)
            | Error::Start { .. }
            | Error::Qemu(_)
            | Error::Project(_)
            | Error::Io { .. } => "host",
            Error::NotBooted { .. } => "not booted",
            Error::Panic { .. } => "panic",
            Error::Oops { .. } => "oops",
            Error::Check { .. } => "check",
            Error::OutOfMemory { .. } => "out of memory",
            Error::Hang { .. } => "hang",
            Error::QemuEnded { .. } => "QEMU ended",
            Error::Tampered { .. } => "tampered",
            Error::NotStarted { .. } => "not started",
        }
    }

    /// What the guest's kernel said last, or from its fault on; empty where the
    /// guest is not to blame.
    ///
    /// ```
    /// use dmashare_vm::Error;
    /// assert_eq!(Error::Project("no Cargo.toml here".into()).console(), "");
    /// ```
    pub fn console(&self) -> &str {
        match self {
            Error::NotBooted { console, .. }
            | Error::Panic { console, .. }
            | Error::Oops { console, .. }
            | Error::Check { console, .. }
            | Error::OutOfMemory { console, .. }
            | Error::Hang { console, .. }
            | Error::Tampered { console, .. }
            | Error::QemuEnded { console, .. } => console,
            _ => "",
        }
    }
}

/// Of what may be several lines, and of nothing nothing.
pub(crate) fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn quote(console: &str) -> String {
    if console.is_empty() {
        return String::new();
    }
    let lines: String = console.lines().map(|l| format!("\n  | {l}")).collect();
    format!("; its console:{lines}")
}
