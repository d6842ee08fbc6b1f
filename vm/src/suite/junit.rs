//! The results as JUnit's XML, which CI systems read.

use std::io;
use std::path::Path;
use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::results::{self, Boot, Kernel, Results, Test, Verdict};
use crate::Error;

/// A suite for each program on each kernel.
pub(crate) fn write(results: &Results, file: &Path) -> Result<(), Error> {
    let text = report(results).to_string().map_err(io::Error::other);
    results::write(file, |to| to.write_all(text?.as_bytes()))
}

fn report(results: &Results) -> Report {
    let mut report = Report::new("cargo vm test");
    let mut tests = results.tests.as_slice();
    while let [first, ..] = tests {
        let other = |test: &Test| (&test.kernel, &test.program) != (&first.kernel, &first.program);
        let (these, rest) = tests.split_at(tests.iter().position(other).unwrap_or(tests.len()));
        let kernel = results
            .kernels
            .iter()
            .find(|kernel| kernel.name == first.kernel);
        report.add_test_suite(suite(these, kernel));
        tests = rest;
    }
    report
}

fn suite(tests: &[Test], kernel: Option<&Kernel>) -> TestSuite {
    let name = format!("{} {}", tests[0].kernel, tests[0].program);
    let mut suite = TestSuite::new(name.clone());
    suite.set_time(Duration::from_secs_f64(
        tests.iter().map(|test| test.seconds).sum(),
    ));
    if let Some(kernel) = kernel {
        suite.add_property(("kernel", kernel.release.as_str()));
        suite.add_property(("arch", kernel.arch.as_str()));
        if !kernel.append.is_empty() {
            suite.add_property(("append", kernel.append.as_str()));
        }
        suite.add_property(("package-version", kernel.package_version.as_str()));
        suite.add_property(("suite", kernel.suite.as_str()));
        if let [first, ..] = kernel.boots.as_slice() {
            let guests: Vec<String> = kernel.boots.iter().map(guest).collect();
            suite.add_property(("guests", guests.join(", ").as_str()));
            // All were run by one.
            suite.add_property(("accelerator", first.accelerator));
        }
    }
    suite.add_test_cases(tests.iter().map(|test| case(test, &name)));
    suite
}

/// `restored in 0.4 s`
fn guest(boot: &Boot) -> String {
    format!("{} in {:.1} s", boot.origin.word(), boot.seconds)
}

fn case(test: &Test, suite: &str) -> TestCase {
    let mut status = match test.verdict {
        Verdict::Passed => TestCaseStatus::success(),
        Verdict::Skipped => TestCaseStatus::skipped(),
        Verdict::Failed => TestCaseStatus::non_success(NonSuccessKind::Failure),
        _ => TestCaseStatus::non_success(NonSuccessKind::Error),
    };
    if test.verdict != Verdict::Passed {
        let reason = match test.reason.is_empty() {
            true => test.verdict.word(),
            false => &test.reason,
        };
        status.set_message(reason);
        status.set_type(test.verdict.word());
    }
    if test.verdict.is_bad() && !test.output.is_empty() {
        status.set_description(test.output.as_str());
    }
    // JUnit's have no tests without a name.
    let name = match test.test.is_empty() {
        true => &test.program,
        false => &test.test,
    };
    let mut case = TestCase::new(name.as_str(), status);
    case.set_classname(suite);
    case.set_time(Duration::from_secs_f64(test.seconds));
    case
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::results::CameUp;

    #[test]
    fn counts_what_failed_and_what_was_in_error() {
        let verdicts = [
            Verdict::Passed,
            Verdict::Failed,
            Verdict::Skipped,
            Verdict::Hang,
        ];
        let mut tests: Vec<Test> = verdicts
            .map(|verdict| Test::new("6.12", "p", "t<1>", verdict))
            .into();
        tests[1].output = "\u{1b}[31mred\u{1b}[0m & dead\0".into();
        tests.push(Test::new("7.2", "p", "", Verdict::Passed));
        let results = Results {
            kernels: vec![Kernel {
                name: "6.12".into(),
                arch: "x86_64".into(),
                append: "swiotlb=force".into(),
                release: "6.12.107+deb13-amd64".into(),
                boots: [(CameUp::Booted, 9.01), (CameUp::Restored, 0.42)]
                    .map(|(origin, seconds)| Boot {
                        origin,
                        accelerator: "tcg",
                        seconds,
                        dmesg: "dmesg.txt".into(),
                    })
                    .into(),
                ..Kernel::default()
            }],
            tests,
        };
        let report = report(&results);
        assert_eq!((report.tests, report.failures, report.errors), (5, 1, 1));
        assert_eq!(report.test_suites.len(), 2);
        let text = report.to_string().unwrap();
        for part in [
            "name=\"6.12 p\"",
            "t&lt;1&gt;",
            "6.12.107+deb13-amd64",
            "name=\"arch\" value=\"x86_64\"",
            "name=\"append\" value=\"swiotlb=force\"",
            "name=\"accelerator\" value=\"tcg\"",
            "value=\"booted in 9.0 s, restored in 0.4 s\"",
            "red &amp; dead",
            "type=\"hang\"",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
