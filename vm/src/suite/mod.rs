//! `cargo vm test`: a project's tests on the host, then those marked for the
//! guest on each kernel.

mod build;
mod host;
mod libtest;
mod report;

use std::time::Duration;

use crate::debian::Debian;
use crate::project::Project;
use crate::{Builder, Error, Event, GuestOptions, Vm};

use build::TestProgram;
use host::HostProcess;
use report::Report;

/// What to run, and for how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// The kernels to boot; none: those of the project's settings.
    pub kernels: Vec<String>,
    /// Leave out the tests of the host.
    pub guest_only: bool,
    /// Run only tests whose name contains this.
    pub filter: Option<String>,
    /// How long one test program may take.
    pub deadline: Duration,
    /// What the guests are to have beside what the settings say.
    pub guest: GuestOptions,
}

/// Run them, and print a line a test as they end, then a summary. Without
/// `debian` there are no guests, and only the host's tests run.
///
/// Returns the exit status: 0 where all passed, 1 where a test failed, and
/// that of [`Error::exit_status`] where a guest came to a bad end.
///
/// # Errors
/// What kept the tests from being built or a guest from being made.
pub fn run(project: &Project, debian: Option<&Debian>, options: &Options) -> Result<u8, Error> {
    let kernels = match options.kernels.is_empty() {
        true => &project.settings.kernels,
        false => &options.kernels,
    };
    // What cannot be had is known before anything runs, and what is fetched does
    // not count against a test's deadline.
    let mut guests = Vec::new();
    if let Some(debian) = debian {
        for kernel in kernels {
            let guest = project.guest_with(debian, kernel, true, &options.guest)?;
            guests.push((kernel.as_str(), guest));
        }
    }
    let programs = build::test_programs(project)?;
    let mut report = Report::default();
    if !options.guest_only {
        for program in programs.iter().filter(|p| !p.guest) {
            let run = HostProcess::start(program, options);
            run_one(
                &mut report,
                "host",
                &program.name,
                run,
                HostProcess::next_event,
            );
        }
        let documented = HostProcess::doc_tests(project, options);
        run_one(
            &mut report,
            "host",
            "doc",
            documented,
            HostProcess::next_event,
        );
    }
    let guest: Vec<&TestProgram> = programs.iter().filter(|p| p.guest).collect();
    for (kernel, builder) in &guests {
        run_in_guest(builder, options, kernel, &guest, &mut report);
    }
    Ok(report.finish())
}

/// All programs in one guest, and in a new one after a bad end.
fn run_in_guest(
    builder: &Builder,
    options: &Options,
    kernel: &str,
    programs: &[&TestProgram],
    report: &mut Report,
) {
    let mut vm: Option<Vm> = None;
    for program in programs {
        let booted = match vm.take() {
            Some(vm) => vm,
            None => match builder.clone().boot() {
                Ok(vm) => {
                    report.booted(kernel, &vm);
                    vm
                }
                Err(error) => {
                    report.broken(kernel, "boot", &error);
                    return;
                }
            },
        };
        let process = booted
            .command(program.path.as_str())
            .args(options.filter.clone())
            // One at a time: they share one screen, one set of limits.
            .arg("--test-threads=1")
            .current_dir(program.folder.as_str())
            .env("CARGO_MANIFEST_DIR", program.folder.as_str())
            .env("RUST_BACKTRACE", "1")
            .deadline(options.deadline)
            .spawn();
        let intact = run_one(report, kernel, &program.name, process, |p| p.next_event());
        vm = intact.then_some(booted);
    }
    if let Some(Err(error)) = vm.map(Vm::power_off) {
        report.broken(kernel, "power off", &error);
    }
}

/// Follow one program to its end; whether the machine it ran on is still whole.
fn run_one<P>(
    report: &mut Report,
    place: &str,
    name: &str,
    process: Result<P, Error>,
    next: impl Fn(&mut P) -> Result<Event, Error>,
) -> bool {
    let mut program = report.program(place, name);
    let ended = process.and_then(|mut process| {
        loop {
            match next(&mut process)? {
                Event::Stdout(bytes) => program.stdout(&bytes),
                Event::Stderr(bytes) => program.stderr(&bytes),
                Event::Exit(exit) => return Ok(exit),
            }
        }
    });
    match ended {
        Ok(exit) => program.ended(&exit),
        Err(error) => program.broken(&error),
    }
}
