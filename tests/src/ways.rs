//! The ways to allocate that this machine has, as tests.

use std::sync::Arc;

use dmashare::alloc::{Allocate, probe};
use libtest_mimic::{Completion, Trial};

use crate::conformance::{Verdict, conformance};

/// The conformance tests of each way that this machine has, and what `more`
/// there is to test of it; a skipped test with the reason for each way that it
/// has not.
///
/// ```
/// use dmashare_tests::ways::trials;
/// let trials = trials(|_way| Vec::new());
/// assert!(trials.iter().any(|trial| trial.name() == "memfd::size_is_fixed"));
/// ```
pub fn trials(more: impl Fn(&Arc<dyn Allocate>) -> Vec<Trial>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for row in probe().rows() {
        let way = row.way;
        match row.verdict.clone().and_then(|_| way.open()) {
            Ok(opened) => {
                let opened = Arc::from(opened);
                let checks = conformance(Arc::clone(&opened)).into_iter();
                trials.extend(checks.map(|(name, check)| test(&format!("{way}::{name}"), check)));
                trials.extend(more(&opened));
            }
            Err(reason) => trials.push(skipped(way.name(), reason)),
        }
    }
    trials
}

/// A test that fails with the reason in the verdict.
///
/// ```
/// let trial = dmashare_tests::ways::test("one_and_one", || Ok(()));
/// assert_eq!(trial.name(), "one_and_one");
/// ```
pub fn test(name: &str, run: impl FnOnce() -> Verdict + Send + 'static) -> Trial {
    Trial::test(name, move || Ok(run()?))
}

/// A test that is shown as skipped, with the reason.
///
/// ```
/// let trial = dmashare_tests::ways::skipped("gpu", "there is no GPU");
/// assert_eq!(trial.name(), "gpu");
/// ```
pub fn skipped(name: &str, reason: impl ToString) -> Trial {
    let reason = reason.to_string();
    Trial::ignorable_test(name, move || Ok(Completion::ignored_with(reason)))
}
