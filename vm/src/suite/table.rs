//! Tests by kernel.

use std::collections::BTreeMap;

use comfy_table::{ContentArrangement, LineStyle, Table, TableStyle};

use super::results::{Results, Test, Verdict};

/// A line below the header and no other: rows are short, and logs narrow.
const STYLE: TableStyle =
    TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// A row for each test that did not pass on all of them (or for every one), and
/// the totals of each program.
pub(crate) fn table(results: &Results, kernels: &[&str], every: bool) -> String {
    let mut table = Table::new();
    table
        .load_style(STYLE)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(std::iter::once("").chain(kernels.iter().copied()));
    let in_guests = |test: &&Test| kernels.contains(&test.kernel.as_str());
    let mut rows: BTreeMap<(&str, &str), Vec<Option<Verdict>>> = BTreeMap::new();
    let mut totals: BTreeMap<&str, Vec<BTreeMap<Verdict, usize>>> = BTreeMap::new();
    for test in results.tests.iter().filter(in_guests) {
        let at = kernels.iter().position(|name| *name == test.kernel);
        let at = at.expect("the others were left out");
        let none = || vec![None; kernels.len()];
        let cell = &mut rows.entry((&test.program, &test.test)).or_insert_with(none)[at];
        // Of two verdicts on one test, the worse.
        *cell = (*cell).max(Some(test.verdict));
        let none = || vec![BTreeMap::new(); kernels.len()];
        let total = &mut totals.entry(&test.program).or_insert_with(none)[at];
        *total.entry(test.verdict).or_default() += 1;
    }
    for ((program, test), verdicts) in rows {
        // A guest that runs other programs says nothing of this one.
        let ran = totals[program].iter().map(|total| !total.is_empty());
        let passed = verdicts
            .iter()
            .zip(ran)
            .all(|(verdict, ran)| *verdict == Some(Verdict::Passed) || !ran);
        if every || !passed {
            let name = format!("{program} {test}");
            let words = verdicts
                .iter()
                .map(|verdict| verdict.map_or("", Verdict::word));
            let words = words.map(str::to_owned);
            table.add_row(std::iter::once(name.trim_end().to_owned()).chain(words));
        }
    }
    for (program, totals) in totals {
        let name = format!("{program}: total");
        table.add_row(std::iter::once(name).chain(totals.iter().map(total)));
    }
    table.to_string()
}

/// `63 ok, 1 FAIL`
fn total(counts: &BTreeMap<Verdict, usize>) -> String {
    let parts = counts
        .iter()
        .map(|(verdict, number)| format!("{number} {}", verdict.word()));
    parts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Results {
        let tests = [
            ("1", "same", Verdict::Passed),
            ("2", "same", Verdict::Passed),
            ("1", "differs", Verdict::Passed),
            ("2", "differs", Verdict::Oops),
            ("host", "elsewhere", Verdict::Failed),
        ];
        Results {
            kernels: Vec::new(),
            tests: tests
                .map(|(kernel, test, verdict)| Test::new(kernel, "p", test, verdict))
                .into(),
        }
    }

    #[test]
    fn shows_where_kernels_differ() {
        let short = table(&results(), &["1", "2"], false);
        let row = short.lines().find(|line| line.contains("differs")).unwrap();
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(words, ["p", "differs", "ok", "oops"]);
        let total = short
            .lines()
            .find(|line| line.contains("p: total"))
            .unwrap();
        assert!(
            total.contains("2 ok") && total.contains("1 ok, 1 oops"),
            "{total}"
        );
        assert!(!short.contains("same") && !short.contains("elsewhere"));
        assert!(table(&results(), &["1", "2"], true).contains("p same"));
    }

    #[test]
    fn unselected_program_is_no_difference() {
        let mut results = results();
        let short = |results: &Results| table(results, &["1", "2", "3"], false);
        assert!(!short(&results).contains("same"));
        // One of its tests, but not the other.
        let other = Test::new("3", "p", "differs", Verdict::Passed);
        results.tests.push(other);
        assert!(short(&results).contains("same"));
    }
}
