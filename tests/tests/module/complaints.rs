//! What the kernel itself has to say after all the tests before.

use std::fs::{read_to_string, write};
use std::path::Path;

use dmashare_tests::conformance::Verdict;
use libtest_mimic::Trial;

use crate::{ensure, skipped, test, text};

const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";
const LOCKDEP: &str = "/proc/lockdep_stats";

/// <https://docs.kernel.org/admin-guide/tainted-kernels.html>
const TAINTS: [(u32, &str); 4] = [
    (5, "a bad page"),
    (7, "an oops"),
    (9, "a warning"),
    (14, "a soft lockup"),
];

pub(crate) fn trials() -> Vec<Trial> {
    let of = |path: &str, name: &str, check: fn() -> Verdict| match Path::new(path).exists() {
        true => test(name, check),
        false => skipped(name, format!("this kernel is built without {path}")),
    };
    vec![
        test("complaints::the_kernel_warns_of_nothing", warns_of_nothing),
        of(LOCKDEP, "complaints::lockdep_is_still_on", lockdep),
        of(KMEMLEAK, "complaints::kmemleak_finds_nothing", kmemleak),
    ]
}

fn warns_of_nothing() -> Verdict {
    let tainted = read_to_string("/proc/sys/kernel/tainted").map_err(text)?;
    let tainted: u64 = tainted.trim().parse().map_err(text)?;
    let of = TAINTS.iter().filter(|(bit, _)| tainted >> bit & 1 == 1);
    let of: Vec<&str> = of.map(|(_, what)| *what).collect();
    ensure(of.is_empty(), || {
        format!(
            "its log has {}; `cargo vm shell` and dmesg show it",
            of.join(" and ")
        )
    })
}

/// It turns itself off when it has found something.
fn lockdep() -> Verdict {
    let stats = read_to_string(LOCKDEP).map_err(text)?;
    let on = stats.lines().find(|line| line.contains("debug_locks:"));
    ensure(on.is_some_and(|line| line.trim().ends_with('1')), || {
        format!("{on:?}")
    })
}

/// Of this module: others may leak as they like.
fn kmemleak() -> Verdict {
    // What is young is not reported; the second scan sees it again.
    for _ in 0..2 {
        write(KMEMLEAK, "scan").map_err(text)?;
        std::thread::sleep(std::time::Duration::from_secs(6));
    }
    let found = read_to_string(KMEMLEAK).map_err(text)?;
    let ours = found
        .split("unreferenced object")
        .filter(|report| report.contains("dmashare"));
    let ours: Vec<&str> = ours.collect();
    ensure(ours.is_empty(), || ours.join("unreferenced object"))
}
