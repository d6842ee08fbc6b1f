//! The demo's whole way, in two real processes.

use std::io::BufReader;
use std::process::{Output, Stdio};

use dmashare::import::drm::Card;
use dmashare::import::vulkan;
use dmashare_cli::demo::report::{Event, Outcome, read};
use dmashare_tests::command;
use dmashare_tests::conformance::Verdict;
use dmashare_tests::held;
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
        test("demo::a_camera_reaches_the_screen", || camera(&[])),
        test("demo::a_camera_reaches_it_with_copies", || {
            camera(&["--copy"])
        }),
        test("demo::says_what_is_no_camera", says_what_is_no_camera),
        test("demo::killed_it_leaves_no_process", leaves_no_process),
    ];
    trials.push(match lavapipe() {
        Ok(_) => test("demo::a_camera_reaches_it_by_vulkan", || {
            camera(&["--vulkan"])
        }),
        Err(why) => test("demo::says_why_vulkan_cannot", move || {
            refused(&["--camera", "--vulkan"], &why)
        }),
    });
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

/// Frames come to the screen, hop by hop, and the last is the test pattern.
fn camera(more: &[&str]) -> Verdict {
    let begin = ["demo", "--camera", "--json", "--seconds", "6"];
    let arguments: Vec<&str> = begin.iter().chain(more).copied().collect();
    let output = dmashare(&arguments)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure(output.status.success(), || {
        format!("{}: {stderr}", output.status)
    })?;
    let mut lines = output.stdout.as_slice();
    let (mut hops, mut processes, mut verdicts) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(event) = read(&mut lines).map_err(text)? {
        match event {
            Event::Hop(hop) => hops.push(hop),
            Event::Cpu(cpu) => processes.push((cpu.of, cpu.copies)),
            Event::Verdict { verified } => verdicts.push(verified),
            _ => {}
        }
    }
    let runs: &[bool] = if more.contains(&"--copy") {
        &[false, true]
    } else {
        &[false]
    };
    for &copies in runs {
        for name in [
            "camera to A",
            "A to B",
            "draw",
            "B to C",
            "flip",
            "camera to screen",
        ] {
            let mut of_run = hops.iter().filter(|hop| hop.copies == copies);
            let hop = of_run.find(|hop| hop.hop == name);
            let hop = hop.ok_or_else(|| format!("no hop {name} among {hops:?}"))?;
            ensure(hop.frames > 0, || format!("no frame: {hop:?}"))?;
        }
        for name in ["A", "B", "C", "machine"] {
            ensure(processes.contains(&(name.to_owned(), copies)), || {
                format!("no CPU time of {name} among {processes:?}")
            })?;
        }
    }
    ensure(
        verdicts.len() == runs.len()
            && verdicts
                .iter()
                .all(|verdict| verdict.contains("the camera's test pattern")),
        || format!("{verdicts:?}"),
    )
}

/// Process C is killed while frames come: the others end, too.
fn leaves_no_process() -> Verdict {
    let arguments = ["demo", "--camera", "--json", "--seconds", "60"];
    let mut child = command::dmashare(&arguments)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(text)?;
    let mut events = BufReader::new(child.stdout.take().ok_or("no output")?);
    let first = loop {
        match read(&mut events) {
            Ok(Some(Event::Pattern { .. })) => break Ok(()),
            Ok(Some(Event::Failed { message, .. })) => break Err(message),
            Ok(Some(_)) => {}
            Ok(None) => break Err("it ended".to_owned()),
            Err(error) => break Err(error.to_string()),
        }
    };
    let running = processes()?;
    child.kill().map_err(text)?;
    child.wait().map_err(text)?;
    first?;
    ensure(running == 2, || format!("{running} processes beside it"))?;
    held::comes_back_to(0, processes)
}

/// How many processes A and B there are.
fn processes() -> Result<usize, String> {
    let mut found = 0;
    for entry in std::fs::read_dir("/proc").map_err(text)?.flatten() {
        // Some have ended since they were listed.
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        found += usize::from(
            line.split(|byte| *byte == 0)
                .any(|word| word == b"demo-camera"),
        );
    }
    Ok(found)
}

fn says_what_is_no_camera() -> Verdict {
    refused(&["--camera", "--video", "/dev/null"], "/dev/null")
}

/// One line that says why, and no verdict.
fn refused(arguments: &[&str], why: &str) -> Verdict {
    let arguments: Vec<&str> = ["demo", "--json"]
        .iter()
        .chain(arguments)
        .copied()
        .collect();
    let output = dmashare(&arguments)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure(output.status.code() == Some(1), || {
        format!("{}: {stderr}", output.status)
    })?;
    // Mesa warns of devices that it has no driver for.
    let mut ours = stderr.lines().filter(|line| line.starts_with("dmashare: "));
    let line = ours.next().unwrap_or_default();
    ensure(ours.next().is_none() && line.contains(why), || {
        format!("it does not say why: {stderr}")
    })?;
    ensure(!told(&output)?.1, || {
        "it claims to have verified".to_owned()
    })
}

/// The software device of Vulkan, or why it cannot share.
fn lavapipe() -> Result<vulkan::Gpu, String> {
    vulkan::Gpu::open(&vulkan::Device::Software).map_err(|error| {
        // As the demo tells it, in a line.
        error
            .to_string()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
    })
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
