//! What only a guest can show: dma-bufs from every exporter its kernel has, a
//! GPU that imports them, and a screen that scans them out.
//!
//! `cargo vm test` runs it there, on each kernel. Elsewhere its tests are
//! skipped.

mod borrow;
mod crtc;
mod demo;
mod egl;
mod fence;
mod flip;
mod gbm;
mod gem;
mod kms;
mod memory;
mod module;
mod negotiate;
mod sealed;
mod v4l2;
mod vgem;
mod vivid;
mod vulkan;

use std::process::ExitCode;
use std::sync::Arc;

use dmashare::alloc::{Allocate, probe};
use dmashare_tests::conformance::{self, Verdict};
use dmashare_tests::guest::{is_guest, kernel_version};
use dmashare_tests::ways::{self, skipped, test};
use dmashare_tests::{command, pairing};
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    conformance::child();
    v4l2::child();
    vulkan::child();
    egl::child();
    sealed::child();
    if let Some(ended) = command::main() {
        return ended;
    }
    let mut arguments = Arguments::from_args();
    // Some tests count the handles of this process, and all share one screen.
    arguments.test_threads = Some(1);
    let trials = match is_guest() {
        true => trials(),
        false => on_this_machine(),
    };
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The tests of a GPU that was chosen; all others need the guest.
fn on_this_machine() -> Vec<Trial> {
    let (egl, vulkan) = (egl::is_chosen(), vulkan::is_chosen());
    let of_ways = ways::trials(|way| {
        let mut trials = Vec::new();
        if way.way().for_devices() {
            trials.extend(egl.then(|| egl::trials_of(way)).into_iter().flatten());
            trials.extend(vulkan.then(|| vulkan::trials_of(way)).into_iter().flatten());
        }
        trials
    });
    let mut trials: Vec<Trial> = of_ways
        .into_iter()
        .filter(|trial| {
            ["::egl_", "::vulkan_"]
                .iter()
                .any(|api| trial.name().contains(api))
        })
        .collect();
    trials.extend(egl.then(egl::trials).into_iter().flatten());
    trials.extend(vulkan.then(vulkan::trials).into_iter().flatten());
    if !egl && !vulkan {
        trials.push(skipped(
            "guest",
            "meant for the guest; `cargo vm test` runs it there",
        ));
    }
    trials
}

fn trials() -> Vec<Trial> {
    let mut trials = vec![test("every_way_is_there", ways_are_there)];
    trials.extend(ways::trials(with_devices));
    trials.extend(egl::trials());
    trials.extend(borrow::trials());
    trials.extend(fence::trials());
    trials.extend(flip::trials());
    trials.extend(gem::trials());
    trials.extend(gbm::trials());
    trials.extend(kms::trials());
    trials.extend(memory::trials());
    trials.extend(module::trials());
    trials.extend(negotiate::trials());
    trials.extend(sealed::trials());
    trials.extend(v4l2::trials());
    trials.extend(vivid::trials());
    trials.extend(vulkan::trials());
    trials.extend(demo::trials());
    trials.extend(pairing_trials());
    trials
}

/// Independent programs at the other end.
fn pairing_trials() -> Vec<Trial> {
    let dma_heap = std::path::Path::new("/dev/dma_heap/system").exists();
    let checks = pairing::pairing(dma_heap).into_iter();
    let mut trials: Vec<Trial> = checks
        .map(|(name, check)| test(&format!("pairing::{name}"), check))
        .collect();
    let left_out = pairing::left_out(dma_heap).into_iter();
    trials.extend(left_out.map(|(name, why)| skipped(&format!("pairing::{name}"), why)));
    trials
}

/// What devices do with a way that is for them.
fn with_devices(way: &Arc<dyn Allocate>) -> Vec<Trial> {
    let mut trials = Vec::new();
    if way.way().for_devices() {
        trials.extend(egl::trials_of(way));
        trials.extend(fence::trials_of(way));
        trials.extend(gbm::trials_of(way));
        trials.extend(kms::trials_of(way));
        trials.extend(memory::trials_of(way));
        trials.extend(v4l2::trials_of(way));
        trials.extend(vivid::trials_of(way));
        trials.extend(vulkan::trials_of(way));
    }
    trials
}

/// None is skipped: what a kernel lacks, the module stands in for.
fn ways_are_there() -> Verdict {
    probe()
        .rows()
        .iter()
        .try_for_each(|row| match &row.verdict {
            Err(reason) => Err(format!("{}: {reason}", row.way)),
            Ok(_) => Ok(()),
        })
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
