//! The lines that Rust's test programs print: those of libtest, which
//! libtest-mimic keeps to.

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Passed,
    Failed,
    Skipped(String),
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// A test's name, and its end unless its output stands between them.
    Test(&'a str, Option<End>),
    /// The end of the test that was named before.
    End(End),
    /// How many tests are to come.
    Running(usize),
    /// The program's own summary and its frame.
    Frame,
    /// Anything else.
    Other,
}

pub(crate) fn parse(line: &str) -> Line<'_> {
    let line = line.trim_end();
    if let Some((name, end)) = line
        .strip_prefix("test ")
        .and_then(|rest| rest.split_once(" ... "))
    {
        return Line::Test(without_kind(name), how(end));
    }
    if let Some(name) = line
        .strip_prefix("test ")
        .and_then(|rest| rest.strip_suffix(" ..."))
    {
        return Line::Test(without_kind(name), None);
    }
    let running = line.strip_prefix("running ").and_then(|rest| {
        let (number, unit) = rest.split_once(' ')?;
        let number = number.parse().ok()?;
        matches!(unit, "test" | "tests").then_some(number)
    });
    if let Some(number) = running {
        return Line::Running(number);
    }
    if line.is_empty() || line.starts_with("test result: ") {
        return Line::Frame;
    }
    match how(line) {
        Some(end) => Line::End(end),
        None => Line::Other,
    }
}

/// libtest adds "- should panic" and "- compile fail" to a name.
fn without_kind(name: &str) -> &str {
    ["should panic", "compile fail", "compile"]
        .iter()
        .find_map(|kind| name.strip_suffix(kind)?.strip_suffix(" - "))
        .unwrap_or(name)
        .trim_end()
}

fn how(end: &str) -> Option<End> {
    if end == "ok" {
        Some(End::Passed)
    } else if end == "FAILED" {
        Some(End::Failed)
    } else {
        let reason = end.strip_prefix("ignored")?;
        if reason.is_empty() {
            return Some(End::Skipped("no reason given".into()));
        }
        // As libtest, and as libtest-mimic write it.
        let reason = reason
            .strip_prefix(", ")
            .or_else(|| reason.strip_prefix(" (")?.strip_suffix(')'))?;
        Some(End::Skipped(reason.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_libtest_prints() {
        let passed = Some(End::Passed);
        assert_eq!(
            parse("test a::b ... ok"),
            Line::Test("a::b", passed.clone())
        );
        assert_eq!(
            parse("test a::b ... FAILED"),
            Line::Test("a::b", Some(End::Failed))
        );
        assert_eq!(
            parse("test later ... ignored, takes hours"),
            Line::Test("later", Some(End::Skipped("takes hours".into())))
        );
        assert_eq!(
            parse("test udmabuf/map ... ignored (/dev/udmabuf: no such node)"),
            Line::Test(
                "udmabuf/map",
                Some(End::Skipped("/dev/udmabuf: no such node".into()))
            )
        );
        assert_eq!(
            parse("test a ... ignored"),
            Line::Test("a", Some(End::Skipped("no reason given".into())))
        );
        assert_eq!(
            parse("test a - should panic ... ok"),
            Line::Test("a", passed.clone())
        );
        assert_eq!(
            parse("test src/lib.rs - (line 9) - compile ... ok"),
            Line::Test("src/lib.rs - (line 9)", passed)
        );
        assert_eq!(parse("test result: ok. 3 passed; 0 failed;"), Line::Frame);
        assert_eq!(parse("running 1 test"), Line::Running(1));
        assert_eq!(parse("running late"), Line::Other);
    }

    #[test]
    fn a_test_that_prints_ends_on_a_line_of_its_own() {
        assert_eq!(parse("test a ... "), Line::Test("a", None));
        assert_eq!(parse("test a ... hello"), Line::Test("a", None));
        assert_eq!(parse("ok"), Line::End(End::Passed));
        assert_eq!(parse("hello"), Line::Other);
    }
}
