//! The camera's demo: what the host sees of it.

use std::io::Write;
use std::time::Instant;

use dmashare_cli::demo::camera::bars::{self, Pattern};
use dmashare_cli::demo::report::{Actor, Event, Report, Step};
use dmashare_cli::demo::scene;
use dmashare_vm::Vm;
use dmashare_vm::screen::difference_picture;

use crate::guest::{Demo, screendump};
use crate::output::Output;
use crate::{Arguments, Failure, display};

/// How large the camera's frames are, which vivid has on every kernel.
const CAMERA: (u32, u32) = (320, 180);

/// Runs it, and looks at the screen each time it says that the camera shows
/// another pattern: the screen stands still so long.
pub(crate) fn run(
    arguments: &Arguments,
    demo: &Demo<'_>,
    vm: &Vm,
    output: &Output,
    report: &mut Report,
) -> Result<(), Failure> {
    let seconds = arguments.seconds.to_string();
    let size = format!("{}x{}", CAMERA.0, CAMERA.1);
    let mut options = vec!["--camera", "--hold", "--seconds", &seconds, "--size", &size];
    options.extend(arguments.vulkan.then_some("--vulkan"));
    options.extend(arguments.copy.then_some("--copy"));
    let mut patterns = Vec::new();
    demo.follow(vm, &options, report, |event, stdin, report| {
        let &Event::Pattern { pattern, .. } = event else {
            return Ok(());
        };
        look(pattern, vm, output, report)?;
        patterns.push(pattern);
        // Go on.
        if let Some(stdin) = stdin {
            stdin.write_all(b"\n")?;
        }
        Ok(())
    })?;
    // With copies it is shown twice.
    patterns.sort_unstable();
    patterns.dedup();
    if patterns.len() < 2 {
        return Err(Failure::Patterns(patterns.len()));
    }
    let shown = display(output.path());
    report.tell(Event::Verdict {
        verified: format!("the screen shows both test patterns of the camera; {shown} is the last"),
    })?;
    Ok(())
}

/// Whether the screen shows this pattern.
fn look(number: u32, vm: &Vm, output: &Output, report: &mut Report) -> Result<(), Failure> {
    let Some(pattern) = Pattern::from_number(number) else {
        return Ok(());
    };
    let screen = screendump(vm, report)?;
    output.save(&screen)?;
    let started = Instant::now();
    let bars = pattern.picture(CAMERA.0, CAMERA.1);
    let expected = scene::expected(&bars, screen.dimensions());
    let compared = bars::compare(&screen, &expected);
    let bytes = u64::from(screen.width()) * u64::from(screen.height()) * 3;
    report.step(Step::done(Actor::Host, "check", "CPU", started, bytes))?;
    compared.map_err(|off| {
        let shown = output.beside("-diff");
        // The first failure is the one to be told.
        let _ = shown.save(&difference_picture(&screen, &expected, bars::TOLERANCE));
        Failure::Off {
            pattern: number,
            off,
            shown: output.path().to_owned(),
        }
    })
}
