//! Contiguous memory: a search for it is bounded and can be killed, and the right to
//! it is a node of its own.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::thread::sleep;
use std::time::{Duration, Instant};

use dmashare_tests::conformance::Verdict;
use libtest_mimic::Trial;
use rustix::io::Errno;

use crate::device::{Alloc, CONTIGUOUS, Device, MIB, Made, Node};
use crate::forked::{Forked, in_another_process};
use crate::limits::Limit;
use crate::pressure::{Scattered, vmstat};
use crate::users::{Mode, become_user};
use crate::{ensure, test};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("contiguous::movable_pages_make_room", makes_room),
        test("contiguous::search_is_bounded", is_bounded),
        test("contiguous::search_can_be_killed", can_be_killed),
        test("contiguous::node_has_own_permissions", own_permissions),
    ]
}

/// Longer than the page allocator has on any kernel.
const RUN: u64 = 8 * MIB;

/// Ranges that the module tries in one call.
const TRIES: u64 = 16;
/// Most failures that a range counts before the kernel gives up on it. It isolates 32
/// pages at once and tries to move them a few times: 160 failures a range were counted
/// on 6.12, and 540 on 6.1.
const FAILURES: u64 = 1024;

/// Far more than a bounded search takes, under emulation and load, too.
const PATIENCE: Duration = Duration::from_secs(60);

fn run() -> Alloc {
    Alloc::new(RUN).flags(CONTIGUOUS)
}

/// Takes all runs that can be had, and the failure that follows.
fn exhaust(device: &Device) -> Result<Vec<Made>, String> {
    let mut runs = Vec::new();
    loop {
        match device.alloc(run()) {
            Ok(made) => runs.push(made),
            Err(Errno::NOMEM) => return Ok(runs),
            Err(errno) => return Err(format!("a run of {RUN} bytes: {errno}, expected ENOMEM")),
        }
    }
}

/// Shows that a run is found where half of the memory is free, none of it in one piece
/// and the rest movable. The search is bounded, but not so that it misses this.
fn makes_room() -> Verdict {
    // Memory that others free meanwhile can be in one piece: then once more.
    for _ in 0..4 {
        if moves_pages()? {
            return Ok(());
        }
    }
    Err("there were free runs each time: nothing had to be moved".to_owned())
}

/// Whether pages were moved for one of so many runs that they are more than is left
/// free in one piece.
fn moves_pages() -> Result<bool, String> {
    let device = Device::open()?;
    let _scattered = Scattered::new()?;
    let mut runs = Vec::new();
    while runs.len() < 24 {
        let moved = vmstat("pgmigrate_success")?;
        let made = device.alloc(run());
        let made = made.map_err(|errno| format!("run {}: {errno}", runs.len()))?;
        ensure(made.chunks == 1, || format!("{} chunks", made.chunks))?;
        runs.push(made);
        if vmstat("pgmigrate_success")? > moved {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Shows that a call gives up after a bounded number of ranges, by the pages that could
/// not be moved. Half of the memory is pinned, so that there is no run to be had: to try
/// every range took 40,000 failures and 18 seconds once.
fn is_bounded() -> Verdict {
    let _limits = Limit::lifted()?;
    let device = Device::open()?;
    let scattered = Scattered::new()?;
    let _pinned = scattered.pin(&device)?;
    let _runs = exhaust(&device)?;
    let (failed, begun) = (vmstat("pgmigrate_fail")?, Instant::now());
    let answer = device.alloc(run()).map(drop);
    let (failed, took) = (vmstat("pgmigrate_fail")? - failed, begun.elapsed());
    ensure(answer == Err(Errno::NOMEM), || {
        format!("{answer:?}, expected ENOMEM")
    })?;
    ensure(failed <= TRIES * FAILURES, || {
        format!(
            "{failed} pages not moved in one call, expected {TRIES} ranges of {FAILURES} at most"
        )
    })?;
    ensure(took < PATIENCE, || format!("one call took {took:?}"))
}

/// Shows that a process that searches ends soon after SIGKILL.
fn can_be_killed() -> Verdict {
    let _limits = Limit::lifted()?;
    let device = Device::open()?;
    let scattered = Scattered::new()?;
    let _pinned = scattered.pin(&device)?;
    let _runs = exhaust(&device)?;
    for round in 0..5 {
        let searcher = Forked::start(|| {
            loop {
                let answer = device.alloc(run()).map(drop);
                ensure(answer == Err(Errno::NOMEM), || format!("{answer:?}"))?;
            }
        })?;
        sleep(Duration::from_millis(100 + 30 * round));
        let begun = Instant::now();
        searcher.kill()?;
        searcher.wait()?;
        let took = begun.elapsed();
        ensure(took < Duration::from_secs(5), || {
            format!("round {round}: it ended {took:?} after SIGKILL")
        })?;
    }
    Ok(())
}

/// Shows that a user with access to one node has no access to the others: contiguous
/// memory, which is scarce, is not charged to a cgroup in long runs.
fn own_permissions() -> Verdict {
    let _mode = Mode::set(Node::System.path(), 0o666)?;
    in_another_process(|| {
        become_user(1000)?;
        Node::System.open()?;
        for node in [Node::Contiguous, Node::Memfd] {
            let file = OpenOptions::new().read(true).write(true).open(node.path());
            let answer = file.map(drop).map_err(|error| error.kind());
            ensure(answer == Err(ErrorKind::PermissionDenied), || {
                format!("{}: {answer:?}, expected EACCES", node.path())
            })?;
        }
        Ok(())
    })
}
