//! What a run found: a record a test, and what each kernel was.

use std::collections::BTreeMap;
use std::convert::identity;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cache::{folder_of, write_with};
use crate::error::first_line;
use crate::plain;
use crate::{Error, Origin};

/// How a test ended, or what kept it from ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Passed,
    Failed,
    Skipped,
    /// By a signal: a crash, most often.
    Killed,
    /// Its guest came to a bad end before.
    NotRun,
    NotStarted,
    Oops,
    Check,
    Panic,
    OutOfMemory,
    Hang,
    NotBooted,
    QemuEnded,
    /// A program wrote to the agent's port.
    Tampered,
    Host,
}

/// The exit status of a run in which a signal killed a test program.
const KILLED: u8 = 77;

impl Verdict {
    pub(crate) fn of(error: &Error) -> Verdict {
        match error {
            Error::NotStarted { .. } => Verdict::NotStarted,
            Error::NotBooted { .. } => Verdict::NotBooted,
            Error::Panic { .. } => Verdict::Panic,
            Error::Oops { .. } => Verdict::Oops,
            Error::Check { .. } => Verdict::Check,
            Error::OutOfMemory { .. } => Verdict::OutOfMemory,
            Error::Hang { .. } => Verdict::Hang,
            Error::QemuEnded { .. } => Verdict::QemuEnded,
            Error::Tampered { .. } => Verdict::Tampered,
            _ => Verdict::Host,
        }
    }

    /// As tables and summaries have it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Verdict::Passed => "ok",
            Verdict::Failed => "FAIL",
            Verdict::Skipped => "skip",
            Verdict::Killed => "killed",
            Verdict::NotRun => "not run",
            Verdict::NotStarted => "not started",
            Verdict::Oops => "oops",
            Verdict::Check => "check",
            Verdict::Panic => "panic",
            Verdict::OutOfMemory => "out of memory",
            Verdict::Hang => "hang",
            Verdict::NotBooted => "not booted",
            Verdict::QemuEnded => "QEMU ended",
            Verdict::Tampered => "tampered",
            Verdict::Host => "host",
        }
    }

    /// Neither of those that nobody has to look at.
    pub(crate) fn is_bad(self) -> bool {
        !matches!(self, Verdict::Passed | Verdict::Skipped)
    }
}

/// What became of one test.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Test {
    /// The kernel, or `host`.
    pub(crate) kernel: String,
    pub(crate) program: String,
    /// Empty where it is the program as a whole.
    pub(crate) test: String,
    pub(crate) verdict: Verdict,
    pub(crate) seconds: f64,
    /// Why it was skipped, or what became of its program.
    pub(crate) reason: String,
    /// What it printed, or the kernel's last lines, where it did not pass.
    pub(crate) output: String,
    /// For the run as a whole.
    #[serde(skip)]
    pub(crate) status: u8,
}

impl Test {
    pub(crate) fn new(kernel: &str, program: &str, test: &str, verdict: Verdict) -> Test {
        Test {
            kernel: kernel.to_owned(),
            program: program.to_owned(),
            test: test.to_owned(),
            verdict,
            seconds: 0.0,
            reason: String::new(),
            output: String::new(),
            status: match verdict {
                Verdict::Passed | Verdict::Skipped => 0,
                Verdict::Killed => KILLED,
                _ => 1,
            },
        }
    }

    /// The verdict on what an error ended.
    pub(crate) fn broken(kernel: &str, program: &str, test: &str, error: &Error) -> Test {
        let verdict = Verdict::of(error);
        Test {
            reason: first_line(&error.to_string()).to_owned(),
            output: error.console().to_owned(),
            status: error.exit_status(),
            ..Test::new(kernel, program, test, verdict)
        }
    }

    /// The same without anything that a terminal obeys: names, reasons and output come
    /// from the program.
    pub(crate) fn plain(self) -> Test {
        Test {
            test: plain::line(&self.test),
            reason: plain::line(&self.reason),
            output: plain::text(&self.output),
            ..self
        }
    }

    /// `6.12 guest udmabuf::maps`
    pub(crate) fn name(&self) -> String {
        let name = format!("{:5} {} {}", self.kernel, self.program, self.test);
        name.trim_end().to_owned()
    }
}

/// What a kernel was, and how often it was booted.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Kernel {
    pub(crate) name: String,
    /// The name of the kernel itself, where that is an entry's.
    pub(crate) kernel: String,
    /// Words appended to its command line.
    pub(crate) append: String,
    /// As `uname -m` has it.
    pub(crate) arch: String,
    pub(crate) release: String,
    pub(crate) package_version: String,
    pub(crate) suite: String,
    pub(crate) boots: Vec<Boot>,
    /// All of its tests, boots and ends.
    pub(crate) seconds: f64,
}

/// One guest.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Boot {
    pub(crate) origin: CameUp,
    /// Who ran its instructions: `tcg` or `kvm`.
    pub(crate) accelerator: &'static str,
    /// From the start of QEMU until it took orders.
    pub(crate) seconds: f64,
    /// Where its kernel's log is.
    pub(crate) dmesg: PathBuf,
}

/// How a guest came to take orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CameUp {
    Booted,
    /// From a snapshot of one that had booted.
    Restored,
}

impl CameUp {
    pub(crate) fn of(origin: &Origin) -> CameUp {
        match origin {
            Origin::Restored => CameUp::Restored,
            Origin::Booted | Origin::Kept(_) | Origin::NotKept(_) => CameUp::Booted,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            CameUp::Booted => "booted",
            CameUp::Restored => "restored",
        }
    }
}

/// All of a run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Results {
    pub(crate) kernels: Vec<Kernel>,
    pub(crate) tests: Vec<Test>,
}

impl Results {
    /// How many there are of each verdict.
    pub(crate) fn totals(&self) -> BTreeMap<Verdict, usize> {
        let mut totals = BTreeMap::new();
        for test in &self.tests {
            *totals.entry(test.verdict).or_default() += 1;
        }
        totals
    }

    /// 0 where all passed, 1 where a test failed, and else that of the first
    /// guest or program that came to a bad end.
    pub(crate) fn status(&self) -> u8 {
        let statuses = || self.tests.iter().map(|test| test.status);
        let worse = statuses().find(|status| *status > 1);
        worse.unwrap_or_else(|| statuses().max().unwrap_or(0))
    }

    pub(crate) fn write_json(&self, file: &Path) -> Result<(), Error> {
        write(file, |to| {
            serde_json::to_writer_pretty(&mut *to, self)?;
            writeln!(to)
        })
    }
}

/// Write a results file, in a folder that may have to be made.
pub(crate) fn write(
    file: &Path,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    let attempt = || {
        std::fs::create_dir_all(folder_of(file))?;
        // Half a file would be read for a whole one.
        write_with(file, identity, |to| {
            let mut to = io::BufWriter::new(to);
            content(&mut to)?;
            to.flush()
        })
    };
    attempt().map_err(Error::io(format!("write {}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(verdicts: &[Verdict]) -> u8 {
        let tests = verdicts.iter().map(|v| Test::new("1", "p", "t", *v));
        Results {
            kernels: Vec::new(),
            tests: tests.collect(),
        }
        .status()
    }

    #[test]
    fn the_first_bad_end_gives_the_status() {
        assert_eq!(status(&[]), 0);
        assert_eq!(status(&[Verdict::Passed, Verdict::Skipped]), 0);
        assert_eq!(status(&[Verdict::Failed, Verdict::Passed]), 1);
        assert_eq!(status(&[Verdict::Failed, Verdict::Killed]), KILLED);
        let oops = Error::Oops {
            kernel: "7.2".into(),
            console: "BUG: x".into(),
        };
        let oops = Test::broken("7.2", "p", "t", &oops);
        assert_eq!((oops.status, oops.verdict), (72, Verdict::Oops));
        assert_eq!(
            (oops.reason.as_str(), oops.output.as_str()),
            ("kernel 7.2: oops; its console:", "BUG: x")
        );
    }
}
