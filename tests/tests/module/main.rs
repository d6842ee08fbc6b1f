//! The kernel module: buffers of its nodes below /dev/dmashare, what they refuse,
//! limits, loading and unloading; and the standard nodes, the kernel's or the
//! module's. What its buffers share with those of other backends is in the
//! conformance suite.
//!
//! A program of its own, by raw calls: it counts all that the module has, and so
//! nothing else may run in it that makes buffers, as a graphics driver does. It
//! is the last one in a guest, since in the end it loads the module for good.

mod account;
mod cgroup;
mod complaints;
mod contiguous;
mod cpuset;
mod device;
mod forked;
mod fuzzed;
mod gem;
mod holes;
mod injected;
mod killed;
mod limits;
mod mapped;
mod memory;
mod nodes;
mod pins;
mod pointers;
mod pressure;
mod random;
mod refused;
mod reload;
mod shapes;
mod shown;
mod tables;
mod users;
mod wrapped;
mod write_combined;
mod writers;
mod zeroed;

use std::fs::read_to_string;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;

use dmashare_tests::conformance::Verdict;
use dmashare_tests::guest::{is_guest, kernel_has_nodes};
use dmashare_tests::ways::{skipped, test};
use libtest_mimic::{Arguments, Completion, Trial};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // In this thread, so that the process can be copied; and all are counted.
    arguments.test_threads = Some(1);
    let trials = match (is_guest(), Path::new(device::SYSTEM_NODE).exists()) {
        (false, _) => vec![skipped(
            "module",
            "meant for the guest; `cargo vm test` runs it there",
        )],
        (true, false) => vec![skipped("module", "the module is not loaded")],
        (true, true) => {
            leave_out_the_kernels_udmabuf();
            trials()
        }
    };
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trials() -> Vec<Trial> {
    let mut trials = nodes::trials();
    trials.extend(refused::trials());
    trials.extend(pointers::trials());
    trials.extend(shapes::trials());
    trials.extend(mapped::trials());
    trials.extend(wrapped::trials());
    trials.extend(pins::trials());
    trials.extend(holes::trials());
    trials.extend(writers::trials());
    trials.extend(write_combined::trials());
    trials.extend(limits::trials());
    trials.extend(account::trials());
    trials.extend(tables::trials());
    trials.extend(users::trials());
    trials.extend(cpuset::trials());
    trials.extend(contiguous::trials());
    trials.extend(zeroed::trials());
    trials.extend(shown::trials());
    trials.extend(killed::trials());
    trials.extend(fuzzed::trials());
    trials.extend(injected::trials());
    trials.extend(reload::trials());
    trials.extend(complaints::trials());
    trials
}

/// The kernel's own udmabuf syncs in other directions than it mapped in, which a kernel
/// with checks of DMA reports: there they are left to vivid, which maps our buffers.
fn leave_out_the_kernels_udmabuf() {
    let filter = Path::new("/sys/kernel/debug/dma-api/driver_filter");
    if filter.exists() && kernel_has_nodes() {
        std::fs::write(filter, "vivid").expect("root may filter the checks of DMA");
    }
}

/// A test that finds out by itself whether there is something to test.
fn test_or_skip(name: &str, run: fn() -> Result<Completion, String>) -> Trial {
    Trial::ignorable_test(name, move || Ok(run()?))
}

/// A memfd that can be wrapped.
fn memfd(size: u64) -> Result<OwnedFd, String> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = memfd_create("module test", flags).map_err(text)?;
    ftruncate(&memfd, size).map_err(text)?;
    fcntl_add_seals(&memfd, SealFlags::SHRINK).map_err(text)?;
    Ok(memfd)
}

/// How many keep the module from being unloaded.
fn users() -> Result<u64, String> {
    let count = read_to_string("/sys/module/dmashare/refcnt").map_err(text)?;
    count.trim().parse().map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    match holds {
        true => Ok(()),
        false => Err(otherwise()),
    }
}
