//! What is shown of a run while it goes on, and kept for its end: a line a test,
//! and on a terminal a line a kernel below them.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::results::{Kernel, Results, Test, Verdict};
use crate::guest::lock;
use crate::plain;

/// The run as a whole; all kernels report to it.
pub(crate) struct Report {
    results: Mutex<Results>,
    /// Where there is a terminal.
    bars: Option<MultiProgress>,
}

/// A kernel, or the host, whose tests run.
pub(crate) struct Place {
    pub(crate) name: String,
    bar: Option<ProgressBar>,
    tally: Mutex<(usize, usize)>,
}

impl Report {
    pub(crate) fn new() -> Report {
        Report {
            results: Mutex::default(),
            bars: io::stderr().is_terminal().then(MultiProgress::new),
        }
    }

    /// A kernel whose tests begin; its line goes with it.
    pub(crate) fn place(&self, name: &str) -> Place {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new_spinner());
            // A fixed text; were it wrong, the crate's own would do.
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix:8} {msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Place {
            name: name.to_owned(),
            bar,
            tally: Mutex::default(),
        }
    }

    /// A line, or several, that stay.
    pub(crate) fn say(&self, text: &str) {
        let text = plain::text(text);
        // A reader that is gone does not keep the tests from running.
        let write = || drop(writeln!(io::stdout().lock(), "{text}"));
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }

    /// A test has ended.
    pub(crate) fn show(&self, test: &Test, place: &Place) {
        place.count(test.verdict);
        let test = &test.clone().plain();
        let name = test.name();
        self.say(&match (test.verdict, test.reason.is_empty()) {
            (Verdict::Passed, _) => format!("ok    {name}{}", seconds(test.seconds)),
            (Verdict::Skipped, _) => format!("skip  {name}: {}", test.reason),
            (Verdict::NotRun, _) => format!("----  {name}: not run: {}", test.reason),
            (Verdict::Failed, true) => format!("FAIL  {name}{}", seconds(test.seconds)),
            (Verdict::Failed | Verdict::Killed | Verdict::NotStarted, false) => {
                format!("FAIL  {name}: {}", test.reason)
            }
            (verdict, _) => format!("FAIL  {name}: {}", verdict.word()),
        });
    }

    pub(crate) fn keep(&self, test: Test) {
        lock(&self.results).tests.push(test.plain());
    }

    pub(crate) fn kernel(&self, kernel: Kernel) {
        lock(&self.results).kernels.push(kernel);
    }

    /// All of it, each kernel's in one piece and in this order.
    pub(crate) fn finish(self, order: &[&str]) -> Results {
        let mut results = self.results.into_inner().unwrap_or_else(|e| e.into_inner());
        let place = |name: &str| order.iter().position(|other| *other == name);
        // Those of the host come first: it is none of them.
        results.tests.sort_by_key(|test| place(&test.kernel));
        results.kernels.sort_by_key(|kernel| place(&kernel.name));
        results
    }
}

impl Place {
    /// What it does now.
    pub(crate) fn doing(&self, what: &str) {
        if let Some(bar) = &self.bar {
            let (passed, bad) = *lock(&self.tally);
            bar.set_message(format!("{passed} passed, {bad} failed  {what}"));
        }
    }

    pub(crate) fn running(&self, program: &str, test: &str) {
        self.doing(&plain::line(&format!("{program} {test}")));
    }

    fn count(&self, verdict: Verdict) {
        let mut tally = lock(&self.tally);
        tally.0 += usize::from(verdict == Verdict::Passed);
        tally.1 += usize::from(verdict.is_bad());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The last lines of a run.
pub(crate) fn summary(results: &Results) -> String {
    let mut text = String::new();
    let with_reason = |test: &Test| match test.reason.is_empty() {
        true => test.name(),
        false => format!("{}: {}", test.name(), test.reason),
    };
    let listed = [("skipped", Verdict::Skipped), ("not run", Verdict::NotRun)];
    for (title, verdict) in listed {
        let tests = results.tests.iter().filter(|test| test.verdict == verdict);
        list(&mut text, title, tests.map(with_reason));
    }
    let failed = |test: &&Test| test.verdict.is_bad() && test.verdict != Verdict::NotRun;
    let failures = results.tests.iter().filter(failed);
    let line = |test: &Test| match test.verdict {
        Verdict::Failed | Verdict::Killed | Verdict::NotStarted => with_reason(test),
        verdict => format!("{}: {}", test.name(), verdict.word()),
    };
    list(&mut text, "failed", failures.map(line));
    let totals = results.totals();
    let count = |verdict| totals.get(&verdict).copied().unwrap_or(0);
    let bad: usize = totals
        .iter()
        .filter(|(v, _)| v.is_bad())
        .map(|(_, n)| n)
        .sum();
    let not_run = count(Verdict::NotRun);
    text.push_str(&format!(
        "\n{} passed, {} failed, {} skipped",
        count(Verdict::Passed),
        bad - not_run,
        count(Verdict::Skipped),
    ));
    if not_run > 0 {
        text.push_str(&format!(", {not_run} not run"));
    }
    text
}

fn list(text: &mut String, title: &str, lines: impl Iterator<Item = String>) {
    let mut lines = lines.peekable();
    if lines.peek().is_some() {
        text.push_str(&format!("\n{title}:\n"));
        lines.for_each(|line| text.push_str(&format!("  {line}\n")));
    }
}

/// Only what is worth a thought is worth a figure.
fn seconds(took: f64) -> String {
    match took {
        short if short < 0.1 => String::new(),
        long => format!(" ({long:.1} s)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_output_are_kept_without_escapes() {
        let report = Report::new();
        let mut test = Test::new("7.2", "p", "a\u{1b}[2J\u{202e}", Verdict::Failed);
        test.reason = "b\u{1b}]0;x\u{7}\nc".into();
        test.output = "\u{1b}[31mred\u{1b}[0m\n\u{9b}2J".into();
        report.keep(test);
        let results = report.finish(&["7.2"]);
        let kept = &results.tests[0];
        assert_eq!(kept.test, "a\\x1b[2J\\u{202e}");
        assert_eq!(kept.reason, "b\\x1b]0;x\\x07\\x0ac");
        assert_eq!(kept.output, "red\n\\x9b2J");
        let table = super::super::table::table(&results, &["7.2"], true);
        assert!(table.contains("a\\x1b[2J"), "{table}");
        for text in [
            table,
            summary(&results),
            serde_json::to_string(&results).unwrap(),
        ] {
            assert!(!text.contains(['\u{1b}', '\u{202e}', '\u{9b}']), "{text:?}");
        }
    }
}
