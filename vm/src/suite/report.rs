//! What is printed of a test run: a line a test as it ends, then a summary.

use std::time::{Duration, Instant};

use dmashare_vm_init::Exit;

use super::libtest::{Line, Verdict, parse};
use crate::{Error, Vm};

/// The tally of a whole run.
#[derive(Default)]
pub(crate) struct Report {
    passed: usize,
    failures: Vec<String>,
    skips: Vec<String>,
    /// The exit status of the first guest that came to a bad end.
    bad_end: Option<u8>,
}

impl Report {
    /// The results of one test program, to be fed with what it prints.
    pub(crate) fn program<'r>(&'r mut self, place: &str, name: &str) -> ProgramReport<'r> {
        ProgramReport {
            report: self,
            place: place.to_owned(),
            name: name.to_owned(),
            line: Vec::new(),
            running: None,
            since: Instant::now(),
            announced: None,
            tests: 0,
            failed: 0,
            other: String::new(),
            stderr: Vec::new(),
        }
    }

    pub(crate) fn booted(&mut self, kernel: &str, vm: &Vm) {
        let ready = vm.ready();
        println!(
            "      {kernel:5} booted {} in {:.1} s ({:.1} s to its first program)",
            ready.release,
            vm.boot_time().as_secs_f32(),
            ready.kernel_seconds
        );
    }

    /// A guest that came to a bad end outside a test.
    pub(crate) fn broken(&mut self, kernel: &str, when: &str, error: &Error) {
        self.fail(format!("{kernel:5} {when}: {}", error.class()));
        self.bad_end.get_or_insert(error.exit_status());
        println!("{}", indent(&error.to_string()));
    }

    /// Print the summary; the exit status for the whole run.
    pub(crate) fn finish(self) -> u8 {
        if !self.skips.is_empty() {
            println!("\nskipped:");
            self.skips.iter().for_each(|skip| println!("  {skip}"));
        }
        if !self.failures.is_empty() {
            println!("\nfailed:");
            self.failures
                .iter()
                .for_each(|failure| println!("  {failure}"));
        }
        println!(
            "\n{} passed, {} failed, {} skipped",
            self.passed,
            self.failures.len(),
            self.skips.len()
        );
        self.bad_end.unwrap_or(u8::from(!self.failures.is_empty()))
    }

    fn fail(&mut self, what: String) {
        println!("FAIL  {what}");
        self.failures.push(what);
    }
}

/// One program's results as they come.
pub(crate) struct ProgramReport<'r> {
    report: &'r mut Report,
    place: String,
    name: String,
    /// The last, unfinished line of its standard output.
    line: Vec<u8>,
    /// A test that has begun, as its name tells.
    running: Option<String>,
    since: Instant,
    /// How many tests it said it would run, if it said so.
    announced: Option<usize>,
    tests: usize,
    failed: usize,
    /// What it printed beside results.
    other: String,
    stderr: Vec<u8>,
}

impl ProgramReport<'_> {
    pub(crate) fn stdout(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.read(&String::from_utf8_lossy(&line));
            } else {
                self.line.push(byte);
            }
        }
    }

    pub(crate) fn stderr(&mut self, bytes: &[u8]) {
        self.stderr.extend(bytes);
    }

    /// The program ended; the machine under it is whole.
    pub(crate) fn ended(mut self, exit: &Exit) -> bool {
        self.flush();
        let clean = *exit == Exit::Code(0);
        // libtest ends with 101 when tests failed, which were counted then.
        let explained = clean || (*exit == Exit::Code(101) && self.failed > 0);
        if !explained {
            let what = match exit {
                Exit::Code(code) => format!("ended with status {code}"),
                Exit::Signal(signal) => format!("killed by signal {signal}"),
                Exit::NotStarted(reason) => reason.clone(),
            };
            self.fail_whole(&what);
        } else {
            match self.announced {
                // Not a program of libtest's: its status is its verdict.
                None => self.result(String::new(), Verdict::Passed),
                Some(announced) if announced != self.tests => {
                    let what = format!("{announced} tests announced, {} ended", self.tests);
                    self.fail_whole(&what);
                }
                Some(_) => {}
            }
        }
        self.show_output();
        true
    }

    /// The program, or the machine under it, came to a bad end. Whether the
    /// machine is still whole.
    pub(crate) fn broken(mut self, error: &Error) -> bool {
        self.flush();
        self.fail_whole(error.class());
        self.show_output();
        println!("{}", indent(&error.to_string()));
        self.report.bad_end.get_or_insert(error.exit_status());
        matches!(error, Error::NotStarted { .. })
    }

    fn flush(&mut self) {
        if !self.line.is_empty() {
            self.stdout(b"\n");
        }
    }

    fn read(&mut self, line: &str) {
        match parse(line) {
            Line::Test(name, Some(verdict)) => self.result(name.to_owned(), verdict),
            Line::Test(name, None) => self.running = Some(name.to_owned()),
            Line::End(verdict) if self.running.is_some() => {
                let name = self.running.take().unwrap_or_default();
                self.result(name, verdict);
            }
            Line::Running(number) => *self.announced.get_or_insert(0) += number,
            Line::Frame => {}
            Line::End(_) | Line::Other => {
                self.other.push_str(line);
                self.other.push('\n');
            }
        }
    }

    fn result(&mut self, name: String, verdict: Verdict) {
        self.tests += 1;
        self.running = None;
        let took = std::mem::replace(&mut self.since, Instant::now()).elapsed();
        let line = format!("{:5} {} {name}", self.place, self.name);
        let line = line.trim_end();
        match verdict {
            Verdict::Passed => {
                self.report.passed += 1;
                println!("ok    {line}{}", seconds(took));
            }
            Verdict::Failed => {
                self.failed += 1;
                self.report.fail(line.to_owned());
            }
            Verdict::Skipped(reason) => {
                let line = format!("{line}: {reason}");
                println!("skip  {line}");
                self.report.skips.push(line);
            }
        }
    }

    /// A failure of the test that was running, or of the program.
    fn fail_whole(&mut self, what: &str) {
        self.failed += 1;
        let test = self.running.take().unwrap_or_default();
        let line = format!("{:5} {} {test}", self.place, self.name);
        self.report.fail(format!("{}: {what}", line.trim_end()));
    }

    fn show_output(&self) {
        if self.failed > 0 {
            let stderr = String::from_utf8_lossy(&self.stderr);
            let output = format!("{}{stderr}", self.other);
            if !output.trim().is_empty() {
                println!("{}", indent(&output));
            }
        }
    }
}

/// Only what is worth a thought is worth a figure.
fn seconds(took: Duration) -> String {
    match took.as_secs_f32() {
        short if short < 0.1 => String::new(),
        long => format!(" ({long:.1} s)"),
    }
}

fn indent(text: &str) -> String {
    let lines: Vec<String> = text
        .trim_end()
        .lines()
        .map(|l| format!("      | {l}"))
        .collect();
    lines.join("\n")
}
