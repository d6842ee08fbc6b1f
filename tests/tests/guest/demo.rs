//! The demo's whole way, in two real processes.

use std::process::Output;

use dmashare::import::drm::Card;
use dmashare_cli::demo::report::{Event, Outcome, read};
use dmashare_tests::command;
use dmashare_tests::conformance::Verdict;
use libtest_mimic::Trial;

use crate::kms::BOCHS_IMPORTS;
use crate::{ensure, kernel_version, test, text};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        test("demo::reaches_the_screen", reaches_the_screen),
        test("demo::on_host_does_what_it_can", on_host_does_what_it_can),
        test(
            "demo::without_a_gpu_leaves_out_the_screen",
            without_a_gpu_leaves_out_the_screen,
        ),
    ];
    if kernel_version() < BOCHS_IMPORTS {
        trials.push(test(
            "demo::says_why_there_is_no_screen",
            says_why_there_is_no_screen,
        ));
    }
    trials
}

fn dmashare(arguments: &[&str]) -> Result<Output, String> {
    command::dmashare(arguments).output().map_err(text)
}

/// The steps that were done, in order, and whether the result was verified.
fn told(output: &Output) -> Result<(Vec<String>, bool), String> {
    let mut lines = output.stdout.as_slice();
    let (mut steps, mut verified) = (Vec::new(), false);
    while let Some(event) = read(&mut lines).map_err(text)? {
        match event {
            Event::Step(step) if matches!(step.outcome, Outcome::Done { .. }) => {
                steps.push(format!("{}: {}", step.process, step.step));
            }
            Event::Verdict { .. } => verified = true,
            _ => {}
        }
    }
    Ok((steps, verified))
}

fn reaches_the_screen() -> Verdict {
    let output = dmashare(&["demo", "--json"])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure(output.status.success(), || {
        format!("{}: {stderr}", output.status)
    })?;
    let (steps, verified) = told(&output)?;
    let mut expected = vec![
        "A: decode",
        "A: allocate",
        "A: write",
        "A: pass on",
        "B: receive",
        "B: allocate",
        "B: import as framebuffer",
        "B: open GPU",
        "B: import as texture",
        "B: import as target",
        "B: draw",
        "B: scan out",
        "B: check",
    ];
    if kernel_version() < BOCHS_IMPORTS {
        // A frame of the size that bochs likes, before cirrus is asked.
        expected.insert(5, "B: allocate");
    }
    ensure(steps == expected, || format!("{steps:?}"))?;
    ensure(verified, || "nothing was verified".to_owned())
}

fn says_why_there_is_no_screen() -> Verdict {
    let bochs = Card::find("bochs-drm").map_err(text)?;
    let node = bochs.path().display().to_string();
    drop(bochs);
    let output = dmashare(&["demo", "--json", "--card", &node])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure(output.status.code() == Some(1), || {
        format!("{}: {stderr}", output.status)
    })?;
    ensure(
        stderr.lines().count() == 1
            && stderr.contains("PRIME_FD_TO_HANDLE")
            && stderr.contains("does not import"),
        || format!("it does not say why: {stderr}"),
    )?;
    ensure(!told(&output)?.1, || {
        "it claims to have verified".to_owned()
    })
}

fn on_host_does_what_it_can() -> Verdict {
    let output = dmashare(&["demo", "--on-host", "--json"])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure(output.status.success(), || {
        format!("{}: {stderr}", output.status)
    })?;
    let (steps, verified) = told(&output)?;
    ensure(verified, || "nothing was verified".to_owned())?;
    ensure(steps.iter().any(|step| step == "B: draw"), || {
        format!("no GPU drew: {steps:?}")
    })
}

/// Every step has its word, also where a screen is there and nothing to show.
fn without_a_gpu_leaves_out_the_screen() -> Verdict {
    let mut command = command::dmashare(&["demo", "--on-host", "--json"]);
    // An EGL without a driver.
    command.env("__EGL_VENDOR_LIBRARY_FILENAMES", "/no/such.json");
    let output = command.output().map_err(text)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure(output.status.success(), || {
        format!("{}: {stderr}", output.status)
    })?;
    let mut lines = output.stdout.as_slice();
    let mut left_out = Vec::new();
    while let Some(event) = read(&mut lines).map_err(text)? {
        if let Event::Step(step) = event
            && matches!(step.outcome, Outcome::LeftOut { .. })
        {
            left_out.push(step.step);
        }
    }
    for step in ["draw", "scan out"] {
        ensure(left_out.iter().any(|left_out| left_out == step), || {
            format!("no word on {step:?}, only on {left_out:?}")
        })?;
    }
    ensure(told(&output)?.1, || "nothing was verified".to_owned())
}
