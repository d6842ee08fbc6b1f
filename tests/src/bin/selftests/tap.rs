//! The lines in which the kernel's selftests tell of their results.
//!
//! See <https://docs.kernel.org/dev-tools/ktap.html>.

/// What a program said.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Results {
    /// How many results it said it would give.
    pub(crate) planned: usize,
    /// Those that it gave, in their order.
    pub(crate) tests: Vec<Test>,
    /// Whether it exited with 0: a program can fail after its last result.
    pub(crate) succeeded: bool,
}

/// One result.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Test {
    pub(crate) name: String,
    pub(crate) verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    Passed,
    Failed,
    Skipped,
    /// Planned, and not given.
    Missing,
}

impl Verdict {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Verdict::Passed => "ok",
            Verdict::Failed => "not ok",
            Verdict::Skipped => "skipped",
            Verdict::Missing => "missing",
        }
    }
}

impl Results {
    /// Results of a program by its output and by whether it exited with 0.
    pub(crate) fn parse(output: &str, succeeded: bool) -> Results {
        let mut results = Results {
            succeeded,
            ..Results::default()
        };
        for line in output.lines() {
            if let Some(planned) = line.strip_prefix("1..") {
                results.planned = planned.trim().parse().unwrap_or(0);
            } else if let Some(test) = result(line) {
                results.tests.push(test);
            }
        }
        results
    }

    /// How many there were to be.
    pub(crate) fn count(&self) -> usize {
        self.planned.max(self.tests.len())
    }

    /// Verdict on the program's exit status.
    pub(crate) fn exit(&self) -> Verdict {
        match self.succeeded {
            true => Verdict::Passed,
            false => Verdict::Failed,
        }
    }

    /// The result at this place, from 0.
    pub(crate) fn verdict(&self, at: usize) -> Verdict {
        self.tests
            .get(at)
            .map_or(Verdict::Missing, |test| test.verdict)
    }
}

/// `ok 3 NAME` or `not ok 3 NAME # SKIP WHY`.
fn result(line: &str) -> Option<Test> {
    let (rest, passed) = match line.strip_prefix("not ") {
        Some(rest) => (rest, Verdict::Failed),
        None => (line, Verdict::Passed),
    };
    let rest = rest.strip_prefix("ok ")?;
    let (number, text) = rest.split_once(' ').unwrap_or((rest, ""));
    number.parse::<usize>().ok()?;
    let (name, directive) = text.split_once('#').unwrap_or((text, ""));
    let is_skip = directive.trim_start().starts_with("SKIP");
    // Of a skipped one, all that it says comes behind the directive.
    let name = if is_skip && name.trim().is_empty() {
        directive
    } else {
        name
    };
    Some(Test {
        name: name.trim().to_owned(),
        verdict: if is_skip { Verdict::Skipped } else { passed },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_programs_print() {
        let output = "TAP version 13\n1..5\n# Testing heap: system\nok 1 Import buffer 0\n\
            not ok 2 zeroed\nok 3 # SKIP no vgem\nok 4 it # SKIP\nokay 5 no\n";
        let results = Results::parse(output, true);
        let test = |name: &str, verdict| Test {
            name: name.to_owned(),
            verdict,
        };
        assert_eq!(
            results.tests,
            [
                test("Import buffer 0", Verdict::Passed),
                test("zeroed", Verdict::Failed),
                test("SKIP no vgem", Verdict::Skipped),
                test("it", Verdict::Skipped),
            ]
        );
        assert_eq!(results.count(), 5);
        assert_eq!(results.verdict(4), Verdict::Missing);
    }
}
