//! Calls at random, on our nodes, the standard ones and the dma-bufs that come of
//! them: many of them good, many nearly so. Whatever is made goes again.
//!
//! `DMASHARE_CALLS` says how many, and `DMASHARE_SEED`, which a run prints, makes
//! the same ones again.

mod arguments;
mod fuzzer;
mod makes;
mod uses;

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use dmashare_tests::conformance::Verdict;
use dmashare_tests::held;
use libtest_mimic::Trial;
use rustix::io::Errno;

use fuzzer::Fuzzer;

use crate::random::Random;
use crate::shown::totals;
use crate::users;
use crate::{ensure, test, text};

/// What runs at once, on as many processors as there are or fewer.
const THREADS: u64 = 3;

pub(crate) fn trials() -> Vec<Trial> {
    vec![test("fuzzed::leaves_nothing", leaves_nothing)]
}

fn number(variable: &str, default: u64) -> Result<u64, String> {
    match std::env::var(variable) {
        Ok(value) => value
            .parse()
            .map_err(|error| format!("{variable}={value}: {error}")),
        Err(_) => Ok(default),
    }
}

fn leaves_nothing() -> Verdict {
    held::comes_back_to(0, users)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(text)?;
    let seed = number("DMASHARE_SEED", now.as_secs())?;
    let calls = number("DMASHARE_CALLS", 20_000)?;
    eprintln!("{calls} calls, DMASHARE_SEED={seed}");
    let before = held::by_process()?;
    let mut answers = Answers::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || fuzz(Random::new(seed + thread), calls / THREADS)))
            .collect();
        for thread in threads {
            let found = thread.join().map_err(|_| "a thread panicked")??;
            for (call, said) in found {
                let all = answers.entry(call).or_default();
                said.iter().for_each(|(answer, count)| {
                    *all.entry(*answer).or_default() += count;
                });
            }
        }
        Ok::<(), String>(())
    })?;
    for (call, said) in &answers {
        eprintln!("{call}: {said:?}");
    }
    held::comes_back_to((0, 0), totals)?;
    held::comes_back_to(0, users)?;
    held::comes_back_to(before, held::by_process)?;
    // All that are good only by chance did not make it a test of nothing.
    let never = answers
        .iter()
        .find(|(call, said)| !said.contains_key(&0) && **call != "any ioctl" && calls >= 10_000);
    ensure(never.is_none(), || format!("never a good call: {never:?}"))
}

/// How often a call gave which errno; 0 where it was good.
type Answers = BTreeMap<&'static str, BTreeMap<i32, u64>>;

type Call = fn(&mut Fuzzer) -> Result<(), Errno>;

/// Each by its name, and how often of a hundred.
const CALLS: [(&str, u64, Call); 18] = [
    ("ALLOC", 14, Fuzzer::alloc),
    ("WRAP", 10, Fuzzer::wrap),
    ("INFO", 2, Fuzzer::info),
    ("QUERY", 3, Fuzzer::query),
    ("UDMABUF_CREATE", 6, Fuzzer::udmabuf),
    ("UDMABUF_CREATE_LIST", 4, Fuzzer::udmabuf_list),
    ("DMA_HEAP_IOCTL_ALLOC", 6, Fuzzer::heap),
    ("any ioctl", 4, Fuzzer::any_ioctl),
    ("DMA_BUF_IOCTL_SYNC", 8, Fuzzer::sync),
    ("DMA_BUF_SET_NAME", 4, Fuzzer::set_name),
    ("EXPORT_SYNC_FILE", 4, Fuzzer::export_sync_file),
    ("IMPORT_SYNC_FILE", 4, Fuzzer::import_sync_file),
    ("mmap", 10, Fuzzer::mmap),
    ("munmap", 6, Fuzzer::munmap),
    ("dup", 3, Fuzzer::dup),
    ("close", 12, Fuzzer::close),
    ("the memfd", 2, Fuzzer::memfd),
    ("debugfs", 1, Fuzzer::debugfs),
];

fn fuzz(random: Random, calls: u64) -> Result<Answers, String> {
    let mut fuzzer = Fuzzer::new(random)?;
    let mut answers = Answers::new();
    let all: u64 = CALLS.iter().map(|(_, weight, _)| weight).sum();
    for _ in 0..calls {
        let mut at = fuzzer.random.below(all);
        let chosen = CALLS.iter().find(|(_, weight, _)| {
            let chosen = at < *weight;
            at = at.wrapping_sub(*weight);
            chosen
        });
        let (name, _, call) = chosen.expect("below the sum of all");
        let answer = match call(&mut fuzzer) {
            Ok(()) => 0,
            Err(errno) => errno.raw_os_error(),
        };
        *answers.entry(name).or_default().entry(answer).or_default() += 1;
    }
    Ok(answers)
}
