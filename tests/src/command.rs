//! The command `dmashare`, as another process.

use std::process::{Command, ExitCode};

/// Set for a copy of this program that is to be the command; what it starts
/// inherits it.
const AS_COMMAND: &str = "DMASHARE_TESTS_AS_COMMAND";

/// The command with these arguments: a copy of this test program, which then
/// does what [`main`] does. So a guest gets one program.
pub fn dmashare(arguments: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(arguments).env(AS_COMMAND, "");
    command
}

/// Is the command, where this process was started to be it. To be called first
/// in a test program's `main`.
///
/// ```
/// assert!(dmashare_tests::command::main().is_none());
/// ```
pub fn main() -> Option<ExitCode> {
    std::env::var_os(AS_COMMAND).map(|_| dmashare_cli::main())
}
