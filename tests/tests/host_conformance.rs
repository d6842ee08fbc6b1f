//! Every way to allocate that this machine has, against the same checks; and a
//! line for each that it has not, with the reason.

use std::process::ExitCode;

use dmashare_tests::{conformance, ways};
use libtest_mimic::Arguments;

fn main() -> ExitCode {
    conformance::child();
    let mut arguments = Arguments::from_args();
    // Some of the checks count the handles of this process.
    arguments.test_threads = Some(1);
    let trials = ways::trials(|_| Vec::new());
    libtest_mimic::run(&arguments, trials).exit_code()
}
