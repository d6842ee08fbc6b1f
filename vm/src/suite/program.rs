//! One test program, followed: a record for each of its tests.

use std::time::Instant;

use dmashare_vm_init::Exit;

use super::libtest::{End, Line, parse};
use super::report::{Place, Report};
use super::results::{Test, Verdict};
use crate::{Error, Event};

/// How much is kept of what it prints beside results, the end of it.
const KEEP: usize = 1 << 20;

/// The longest line that is looked at.
const LINE: usize = 64 << 10;

/// How much of its output goes with a failed test that has none of its own.
const SHOWN: usize = 16 << 10;

/// What is known of a program once it has ended.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Whether the machine that it ran on is still whole.
    pub(crate) intact: bool,
    /// The tests that came to an end.
    pub(crate) ended: Vec<String>,
    /// The one that its end took along.
    pub(crate) running: Option<String>,
    /// How many tests it said it would run, if it said so.
    pub(crate) announced: Option<usize>,
}

/// Follow it to its end.
pub(crate) fn follow<P>(
    report: &Report,
    place: &Place,
    name: &str,
    process: Result<P, Error>,
    next: impl Fn(&mut P) -> Result<Event, Error>,
) -> Outcome {
    let mut program = Program {
        report,
        place,
        name,
        line: Vec::new(),
        since: Instant::now(),
        failures: Vec::new(),
        stdout: Tail::default(),
        stderr: Tail::default(),
        outcome: Outcome::default(),
    };
    let ended = process.and_then(|mut process| {
        loop {
            match next(&mut process)? {
                Event::Stdout(bytes) => program.stdout(&bytes),
                Event::Stderr(bytes) => program.stderr.push(&bytes),
                Event::Exit(exit) => return Ok(exit),
            }
        }
    });
    match ended {
        Ok(exit) => program.ended(&exit),
        Err(error) => program.broken(&error),
    }
}

struct Program<'r> {
    report: &'r Report,
    place: &'r Place,
    name: &'r str,
    /// The last, unfinished line of its standard output.
    line: Vec<u8>,
    since: Instant,
    /// What they printed comes after all of them.
    failures: Vec<Test>,
    /// What it printed beside results.
    stdout: Tail,
    stderr: Tail,
    outcome: Outcome,
}

impl Program<'_> {
    fn stdout(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
            }
            if byte == b'\n' || self.line.len() == LINE {
                let line = std::mem::take(&mut self.line);
                self.read(&String::from_utf8_lossy(&line));
            }
        }
    }

    fn read(&mut self, line: &str) {
        match parse(line) {
            Line::Test(name, Some(end)) => self.result(name, end),
            Line::Test(name, None) => {
                self.place.running(self.name, name);
                self.outcome.running = Some(name.to_owned());
            }
            Line::End(end) if self.outcome.running.is_some() => {
                let name = self.outcome.running.take().unwrap_or_default();
                self.result(&name, end);
            }
            Line::Running(number) => *self.outcome.announced.get_or_insert(0) += number,
            Line::Frame => {}
            Line::End(_) | Line::Other => {
                self.stdout.push(line.as_bytes());
                self.stdout.push(b"\n");
            }
        }
    }

    fn result(&mut self, name: &str, end: End) {
        self.outcome.running = None;
        self.outcome.ended.push(name.to_owned());
        let (verdict, reason) = match end {
            End::Passed => (Verdict::Passed, String::new()),
            End::Failed => (Verdict::Failed, String::new()),
            End::Skipped(reason) => (Verdict::Skipped, reason),
        };
        let mut test = self.test(name, verdict);
        test.reason = reason;
        self.report.show(&test, self.place);
        match verdict {
            Verdict::Failed => self.failures.push(test),
            _ => self.report.keep(test),
        }
    }

    fn test(&mut self, name: &str, verdict: Verdict) -> Test {
        let mut test = Test::new(&self.place.name, self.name, name, verdict);
        test.seconds = self.took();
        test
    }

    fn took(&mut self) -> f64 {
        let began = std::mem::replace(&mut self.since, Instant::now());
        began.elapsed().as_secs_f64()
    }

    /// The machine under it is whole.
    fn ended(mut self, exit: &Exit) -> Outcome {
        self.flush();
        self.outcome.intact = true;
        let (announced, ended) = (self.outcome.announced, self.outcome.ended.len());
        // libtest ends with 101 when tests failed, which were counted then.
        let explained = *exit == Exit::Code(101) && !self.failures.is_empty();
        let wrong = match exit {
            Exit::Code(0) | Exit::Code(101) if *exit == Exit::Code(0) || explained => {
                match announced {
                    Some(announced) if announced != ended => Some((
                        Verdict::Failed,
                        format!("{announced} tests announced, {ended} ended"),
                    )),
                    _ => None,
                }
            }
            Exit::Code(code) => Some((Verdict::Failed, format!("ended with status {code}"))),
            Exit::Signal(signal) => Some((Verdict::Killed, format!("killed by signal {signal}"))),
            Exit::NotStarted(reason) => Some((Verdict::NotStarted, reason.clone())),
        };
        match wrong {
            Some((verdict, reason)) => {
                let running = self.outcome.running.clone().unwrap_or_default();
                let mut test = self.test(&running, verdict);
                test.reason = reason;
                self.report.show(&test, self.place);
                self.failures.push(test);
            }
            // Not a program of libtest's: its status is its verdict.
            None if announced.is_none() => {
                let test = self.test("", Verdict::Passed);
                self.report.show(&test, self.place);
                self.report.keep(test);
            }
            None => {}
        }
        self.settle()
    }

    /// The program, or the machine under it, came to a bad end.
    fn broken(mut self, error: &Error) -> Outcome {
        self.flush();
        self.outcome.intact = matches!(error, Error::NotStarted { .. });
        let running = self.outcome.running.clone().unwrap_or_default();
        let mut test = Test::broken(&self.place.name, self.name, &running, error);
        test.seconds = self.took();
        self.report.show(&test, self.place);
        self.report.say(&indent(&error.to_string()));
        self.failures.push(test);
        self.settle()
    }

    fn flush(&mut self) {
        if !self.line.is_empty() {
            self.stdout(b"\n");
        }
    }

    /// Show what it printed if it is of use now, and give each failure its own.
    fn settle(mut self) -> Outcome {
        if !self.failures.is_empty() {
            let (stdout, stderr) = (self.stdout.text(), self.stderr.text());
            let all = format!("{stdout}{stderr}");
            if !all.trim().is_empty() {
                self.report.say(&indent(&all));
            }
            for mut test in std::mem::take(&mut self.failures) {
                if test.output.is_empty() {
                    test.output = section(&stdout, &test.test)
                        .unwrap_or_else(|| last(&all, SHOWN).to_owned());
                }
                self.report.keep(test);
            }
        }
        self.outcome
    }
}

/// The end of what may have no end.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        if self.0.len() > 2 * KEEP {
            self.0.drain(..self.0.len() - KEEP);
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

fn last(text: &str, bytes: usize) -> &str {
    let from = text.len().saturating_sub(bytes);
    let from = (from..=text.len()).find(|at| text.is_char_boundary(*at));
    &text[from.unwrap_or(0)..]
}

/// What a test printed, as libtest shows it under the test's name after all of
/// them have run.
fn section(text: &str, test: &str) -> Option<String> {
    let is_head = |line: &str| line.starts_with("---- ") && line.ends_with(" ----");
    let heads = [
        format!("---- {test} stdout ----"),
        format!("---- {test} ----"),
    ];
    let mut lines = text
        .lines()
        .skip_while(|line| !heads.iter().any(|head| head == line));
    lines.next()?;
    let own = lines.take_while(|line| !is_head(line) && *line != "failures:");
    Some(own.collect::<Vec<_>>().join("\n").trim().to_owned())
}

fn indent(text: &str) -> String {
    let lines = text.trim_end().lines().map(|l| format!("      | {l}"));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_s_output_is_found_under_its_name() {
        let text = "failures:\n---- a stdout ----\nof a\n---- a::b stdout ----\nof b\n\
                    failures:\n    a\n    a::b\n";
        assert_eq!(section(text, "a").as_deref(), Some("of a"));
        assert_eq!(section(text, "a::b").as_deref(), Some("of b"));
        assert_eq!(section(text, "b"), None);
    }

    #[test]
    fn the_end_of_a_flood_is_kept() {
        let mut tail = Tail::default();
        for _ in 0..100 {
            tail.push(&[b'x'; KEEP / 10]);
        }
        tail.push(b"end");
        assert!(tail.0.len() <= 2 * KEEP);
        assert_eq!(last(&tail.text(), 3), "end");
        assert_eq!(last("ä", 1), "");
    }
}
