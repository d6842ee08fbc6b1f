//! All test programs on one kernel: in one guest, and in a new one after a bad
//! end, which goes on with the next test.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::Options;
use super::build::TestProgram;
use super::program::{Outcome, follow};
use super::report::{Place, Report};
use super::results::{self, Boot, CameUp, Test, Verdict};
use crate::console::Console;
use crate::{Builder, Command, Error, Origin, Output, Vm};

/// After so many bad ends of one program, the rest of its tests is left out.
const BAD_ENDS: usize = 5;

/// How much of a command line the names of the tests to leave out may take.
const NAMES: usize = 48 << 10;

/// Why a test was not run.
const AFTER_BAD_END: &str = "its guest came to a bad end before";

pub(crate) struct Guests<'a> {
    pub(crate) builder: &'a Builder,
    pub(crate) options: &'a Options,
    pub(crate) report: &'a Report,
    pub(crate) place: Place,
    /// Where the logs go.
    pub(crate) folder: PathBuf,
    pub(crate) running: Option<(Vm, Console)>,
    pub(crate) boots: Vec<Boot>,
}

impl Guests<'_> {
    /// Run them all.
    pub(crate) fn run(mut self, programs: &[&TestProgram]) {
        let began = Instant::now();
        remove_logs(&self.folder);
        let mut programs = programs.iter();
        for program in programs.by_ref() {
            if let Err(error) = self.run_program(program) {
                self.not_booted(&error);
                self.not_run(program, "", "its guest did not boot");
                break;
            }
        }
        for program in programs {
            self.not_run(program, "", "its guest did not boot");
        }
        if let Some((vm, log)) = self.running.take() {
            self.place.doing("switching off");
            if let Err(error) = vm.power_off() {
                let test = Test::broken(&self.place.name, "power off", "", &error);
                self.show(test);
                self.report.say(&error.to_string());
            }
            self.keep_log(self.boots.len(), &log.dmesg());
        }
        let kernel = self.builder.kernel();
        self.report.kernel(results::Kernel {
            name: self.place.name.clone(),
            kernel: kernel.name.clone(),
            append: self.builder.appended(),
            arch: kernel.debian.arch().to_string(),
            release: kernel.release.clone(),
            package_version: kernel.package_version.clone(),
            suite: kernel.suite.clone(),
            boots: std::mem::take(&mut self.boots),
            seconds: began.elapsed().as_secs_f64(),
        });
    }

    /// One program with all of its tests, in as many guests as that takes.
    fn run_program(&mut self, program: &TestProgram) -> Result<(), Error> {
        let mut done = Vec::new();
        let mut arguments: Vec<String> = self.options.filter.iter().cloned().collect();
        for bad_ends in 1.. {
            let outcome = self.run_round(program, arguments)?;
            if outcome.intact {
                return Ok(());
            }
            self.end();
            let Some(announced) = outcome.announced else {
                return Ok(());
            };
            let silent = outcome.ended.is_empty() && outcome.running.is_none();
            let left = announced.saturating_sub(outcome.ended.len());
            done.extend(outcome.ended);
            done.extend(outcome.running);
            let Some(names) = self.list(program)? else {
                self.not_run(program, "", &format!("{left} tests: {AFTER_BAD_END}"));
                return Ok(());
            };
            let wanted = |name: &&String| {
                let filter = self.options.filter.as_deref().unwrap_or_default();
                name.contains(filter) && !done.contains(name)
            };
            let mut left: Vec<String> = names.iter().filter(wanted).cloned().collect();
            if silent && !left.is_empty() {
                // It ends its guest before its own name comes out.
                let first = left.remove(0);
                self.not_run(
                    program,
                    &first,
                    "its guest ends with it, and it says nothing",
                );
                done.push(first);
            }
            let skipped = names.into_iter().filter(|name| !left.contains(name));
            arguments = skip(skipped);
            let fits = arguments.iter().map(String::len).sum::<usize>() < NAMES;
            if left.is_empty() {
                return Ok(());
            }
            if bad_ends == BAD_ENDS || !fits {
                for name in left {
                    self.not_run(program, &name, AFTER_BAD_END);
                }
                return Ok(());
            }
        }
        Ok(())
    }

    fn run_round(
        &mut self,
        program: &TestProgram,
        arguments: Vec<String>,
    ) -> Result<Outcome, Error> {
        let deadline = self.options.deadline;
        self.boot()?;
        self.place.running(&program.name, "");
        let vm = self.vm();
        let process = command(vm, program)
            .args(arguments)
            // One at a time: they share one screen, one set of limits.
            .arg("--test-threads=1")
            .deadline(deadline)
            .spawn();
        let next = |process: &mut crate::Process<'_>| process.next_event();
        Ok(follow(
            self.report,
            &self.place,
            &program.name,
            process,
            next,
        ))
    }

    /// The names of its tests, in the order in which they run; `None` where it
    /// does not tell.
    fn list(&mut self, program: &TestProgram) -> Result<Option<Vec<String>>, Error> {
        self.boot()?;
        let listed = command(self.vm(), program)
            .args(["--list", "--format", "terse"])
            .output();
        match listed {
            Ok(output) if output.success() => Ok(Some(names(&output))),
            Ok(_) => Ok(None),
            Err(_) => {
                self.end();
                Ok(None)
            }
        }
    }

    fn boot(&mut self) -> Result<(), Error> {
        if self.running.is_some() {
            return Ok(());
        }
        self.place.doing("booting");
        let vm = self.builder.clone().boot()?;
        self.report
            .say(&format!("      {:5} {}", self.place.name, came_up(&vm)));
        self.boots.push(Boot {
            origin: CameUp::of(vm.origin()),
            accelerator: vm.accelerator(),
            seconds: vm.boot_time().as_secs_f64(),
            dmesg: self.log_file(self.boots.len() + 1),
        });
        let log = vm.log();
        self.running = Some((vm, log));
        Ok(())
    }

    fn not_booted(&self, error: &Error) {
        let test = Test::broken(&self.place.name, "boot", "", error);
        self.show(test);
        self.report.say(&error.to_string());
        // It is none of those that booted, whose logs are theirs.
        self.keep_log(self.boots.len() + 1, error.console());
    }

    fn vm(&self) -> &Vm {
        let (vm, _) = self.running.as_ref().expect("it was booted above");
        vm
    }

    /// It is of no more use.
    fn end(&mut self) {
        if let Some((vm, log)) = self.running.take() {
            drop(vm);
            self.keep_log(self.boots.len(), &log.dmesg());
        }
    }

    /// The first is `dmesg.txt`, the next `dmesg-2.txt`.
    fn log_file(&self, number: usize) -> PathBuf {
        self.folder.join(match number {
            0 | 1 => "dmesg.txt".into(),
            number => format!("dmesg-{number}.txt"),
        })
    }

    /// Nothing said is nothing to keep: an error of the host's has no console.
    fn keep_log(&self, number: usize, text: &str) {
        if text.is_empty() {
            return;
        }
        let file = self.log_file(number);
        let kept = results::write(&file, |to| to.write_all(text.as_bytes()));
        if let Err(error) = kept {
            self.report.say(&format!("      no log is kept: {error}"));
        }
    }

    fn not_run(&self, program: &TestProgram, test: &str, reason: &str) {
        let mut record = Test::new(&self.place.name, &program.name, test, Verdict::NotRun);
        record.reason = reason.to_owned();
        self.show(record);
    }

    fn show(&self, test: Test) {
        self.report.show(&test, &self.place);
        self.report.keep(test);
    }
}

/// `booted 7.2.13-amd64 in 9.0 s (2.5 s to its first program)`
fn came_up(vm: &Vm) -> String {
    let (origin, ready) = (vm.origin(), vm.ready());
    let took = format!(
        "{} {} in {:.1} s",
        CameUp::of(origin).word(),
        ready.release,
        vm.boot_time().as_secs_f32()
    );
    let first = format!("{:.1} s to its first program", ready.kernel_seconds);
    match origin {
        // That was the boot of another.
        Origin::Restored => took,
        Origin::NotKept(reason) => format!("{took} ({first}; the next boots, too: {reason})"),
        Origin::Booted | Origin::Kept(_) => format!("{took} ({first})"),
    }
}

fn command<'vm>(vm: &'vm Vm, program: &TestProgram) -> Command<'vm> {
    let command = vm
        .command(program.path.as_str())
        .current_dir(program.folder.as_str())
        .env("RUST_BACKTRACE", "1");
    let env = program.env.iter().cloned();
    env.fold(command, |command, (name, value)| command.env(name, value))
}

/// As libtest lists them, and libtest-mimic, which puts a kind before.
fn names(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let tests = text.lines().filter_map(|line| {
        let name = line
            .strip_suffix(": test")
            .or(line.strip_suffix(": benchmark"))?;
        let kind = name
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("] "));
        Some(kind.map_or(name, |(_, name)| name).to_owned())
    });
    tests.collect()
}

/// Arguments to run all tests but these.
fn skip(names: impl Iterator<Item = String>) -> Vec<String> {
    let skips = names.flat_map(|name| ["--skip".into(), name]);
    std::iter::once("--exact".into()).chain(skips).collect()
}

/// Those of the run before would pass for this one's.
fn remove_logs(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("dmesg") {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Accel;
    use crate::cache::Cache;
    use crate::debian::{Debian, Kernel};
    use dmashare_vm_init::Exit;

    #[test]
    fn a_guest_that_does_not_boot_leaves_the_logs_of_others_alone() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = Kernel {
            name: "none".into(),
            release: String::new(),
            package_version: String::new(),
            suite: String::new(),
            vmlinux: folder.path().join("vmlinux"),
            modules: folder.path().into(),
            image: folder.path().join("image"),
            debug: false,
            headers: None,
            own: None,
            debian: Debian::new(Cache::at(folder.path().join("cache")).unwrap(), None),
        };
        let builder = Builder::new(kernel, folder.path().join("root")).accel(Accel::Tcg);
        let report = Report::new();
        let mut guests = Guests {
            builder: &builder,
            options: &Options::default(),
            place: report.place("none"),
            report: &report,
            folder: folder.path().join("none"),
            running: None,
            boots: Vec::new(),
        };
        let logs = || {
            let files = std::fs::read_dir(folder.path().join("none"));
            let files = files.into_iter().flatten().flatten();
            let mut logs: Vec<(String, String)> = files
                .map(|file| {
                    let name = file.file_name().to_string_lossy().into_owned();
                    (name, std::fs::read_to_string(file.path()).unwrap())
                })
                .collect();
            logs.sort();
            logs
        };
        let log = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let of_the_host = Error::Project("no QEMU".into());
        let of_the_guest = Error::NotBooted {
            kernel: "none".into(),
            reason: "no init".into(),
            console: "its last words".into(),
        };
        guests.not_booted(&of_the_host);
        assert_eq!(logs(), []);
        guests.keep_log(1, "of the first");
        guests.boots.push(Boot {
            origin: CameUp::Booted,
            accelerator: "tcg",
            seconds: 1.0,
            dmesg: guests.log_file(1),
        });
        guests.not_booted(&of_the_host);
        assert_eq!(logs(), [log("dmesg.txt", "of the first")]);
        guests.not_booted(&of_the_guest);
        let both = [
            log("dmesg-2.txt", "its last words"),
            log("dmesg.txt", "of the first"),
        ];
        assert_eq!(logs(), both);
    }

    #[test]
    fn reads_the_lists_of_both_harnesses() {
        let output = Output {
            exit: Exit::Code(0),
            stdout: b"a::b: test\nc: benchmark\n[guest] d/e: test\n\n2 tests\n".to_vec(),
            stderr: Vec::new(),
        };
        assert_eq!(names(&output), ["a::b", "c", "d/e"]);
    }
}
