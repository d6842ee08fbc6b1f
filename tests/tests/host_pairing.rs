//! The command against independent C programs, on this machine.

use std::path::Path;
use std::process::ExitCode;

use dmashare_tests::ways::{skipped, test};
use dmashare_tests::{command, pairing};
use libtest_mimic::Arguments;

fn main() -> ExitCode {
    if let Some(ended) = command::main() {
        return ended;
    }
    let mut arguments = Arguments::from_args();
    // Each looks for what the others would leave behind.
    arguments.test_threads = Some(1);
    let dma_heap = Path::new("/dev/dma_heap/system").exists();
    let checks = pairing::pairing(dma_heap).into_iter();
    let mut trials: Vec<_> = checks.map(|(name, check)| test(name, check)).collect();
    let left_out = pairing::left_out(dma_heap).into_iter();
    trials.extend(left_out.map(|(name, why)| skipped(name, why)));
    libtest_mimic::run(&arguments, trials).exit_code()
}
