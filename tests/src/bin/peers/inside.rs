//! The tests, in the guest.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;

use libtest_mimic::Arguments;
use tempfile::TempDir;

use crate::{gstreamer, v4l2, weston};

pub(crate) fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They count the handles of this process.
    arguments.test_threads = Some(1);
    let mut trials = gstreamer::trials();
    trials.extend(v4l2::trials());
    trials.extend(weston::trials());
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A folder that is nobody else's, as a compositor wants its sockets' to be.
pub(crate) fn folder() -> Result<TempDir, String> {
    let private = Permissions::from_mode(0o700);
    let mut builder = tempfile::Builder::new();
    builder.permissions(private).tempdir().map_err(text)
}

pub(crate) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

pub(crate) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    match holds {
        true => Ok(()),
        false => Err(otherwise()),
    }
}
