//! NUMA nodes of a buffer's memory: those that the caller's cpuset allows, and no
//! other, also when the allowed ones are full.
//!
//! These need a guest with two nodes: `cargo vm run --append numa=fake=2`.

use std::path::Path;

use dmashare_tests::conformance::Verdict;
use libtest_mimic::{Completion, Trial};
use rustix::io::Errno;

use crate::cgroup::{Group, with_group};
use crate::device::{Alloc, BELOW_4G, CONTIGUOUS, Device, MIB, PAGE, WRITE_COMBINED};
use crate::forked::in_another_process;
use crate::limits::Limit;
use crate::pressure::free_on_node as free;
use crate::{ensure, test_or_skip, text};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test_or_skip("cpuset::memory_comes_from_allowed_node", allowed_node),
        test_or_skip("cpuset::full_node_gives_enomem", full_node),
    ]
}

/// Most that other processes and the kernel itself take meanwhile.
const NOISE: u64 = 4 * MIB;

/// Buffers of each kind: its name, how many, and one of them.
fn kinds() -> [(&'static str, u64, Alloc); 6] {
    let system = Alloc::new(32 * MIB);
    [
        ("blocks of pages", 1, system),
        ("single pages", 1, system.max_chunk(PAGE)),
        ("below 4 GiB", 1, system.flags(BELOW_4G)),
        ("write-combined", 1, system.flags(WRITE_COMBINED)),
        // From the page allocator, the rest of the block given back.
        (
            "contiguous blocks",
            11,
            Alloc::new(3 * MIB).flags(CONTIGUOUS),
        ),
        // Longer than the page allocator has.
        (
            "a contiguous range",
            2,
            Alloc::new(16 * MIB).flags(CONTIGUOUS),
        ),
    ]
}

/// The same, more than a node that is nearly full has left.
fn kinds_for_full_node() -> [(&'static str, u64, Alloc); 6] {
    let system = Alloc::new(128 * MIB);
    [
        ("blocks of pages", 1, system),
        ("single pages", 1, system.max_chunk(PAGE)),
        ("below 4 GiB", 1, system.flags(BELOW_4G)),
        ("write-combined", 1, system.flags(WRITE_COMBINED)),
        (
            "contiguous blocks",
            64,
            Alloc::new(3 * MIB).flags(CONTIGUOUS),
        ),
        ("a contiguous range", 1, system.flags(CONTIGUOUS)),
    ]
}

/// Runs it in a process that may use one node only, once for each of the two.
fn on_each_node(body: fn(allowed: u32, forbidden: u32) -> Verdict) -> Result<Completion, String> {
    if !Path::new("/sys/devices/system/node/node1").exists() {
        let reason = "this guest has one NUMA node; boot it with --append numa=fake=2";
        return Ok(Completion::ignored_with(reason));
    }
    // Whichever node the kernel prefers by itself, it is forbidden in one of them.
    with_group("cpuset", |group: &Group| {
        for (allowed, forbidden) in [(1, 0), (0, 1)] {
            group.set("cpuset.mems", allowed)?;
            let body = || {
                group.enter()?;
                body(allowed, forbidden)
            };
            in_another_process(body).map_err(|error| format!("cpuset.mems={allowed}: {error}"))?;
        }
        Ok(())
    })
}

/// Shows that a buffer's pages are of the allowed node: there is less free memory on
/// that one, and not on the other.
fn allowed_node() -> Result<Completion, String> {
    on_each_node(|allowed, forbidden| {
        let device = Device::open()?;
        for (kind, count, alloc) in kinds() {
            let before = (free(allowed)?, free(forbidden)?);
            let made = (0..count).map(|_| device.alloc(alloc));
            let made: Vec<_> = made
                .collect::<Result<_, _>>()
                .map_err(|errno| format!("{kind}: {errno}"))?;
            let size: u64 = made
                .iter()
                .map(|made| rustix::fs::fstat(&made.fd).map(|stat| stat.st_size.cast_unsigned()))
                .sum::<Result<_, _>>()
                .map_err(text)?;
            let taken = (
                before.0.saturating_sub(free(allowed)?),
                before.1.saturating_sub(free(forbidden)?),
            );
            ensure(taken.0 + NOISE >= size && taken.1 <= NOISE, || {
                format!(
                    "{kind}, {size} bytes: {} of the allowed node {allowed}, {} of node {forbidden}",
                    taken.0, taken.1
                )
            })?;
        }
        Ok(())
    })
}

/// Shows that a full node is ENOMEM, though the other node has room for all of it.
fn full_node() -> Result<Completion, String> {
    on_each_node(|allowed, forbidden| {
        let _limits = Limit::lifted()?;
        let device = Device::open()?;
        let mut held = Vec::new();
        // With less, the OOM killer would come for this very process.
        while free(allowed)? > 96 * MIB {
            held.push(device.alloc(Alloc::new(8 * MIB)).map_err(text)?);
        }
        for (kind, count, alloc) in kinds_for_full_node() {
            let before = free(forbidden)?;
            ensure(before > 192 * MIB, || {
                format!("{before} bytes free on node {forbidden}, too few to tell")
            })?;
            let mut made = Vec::new();
            let answer = (0..count).try_for_each(|_| {
                made.push(device.alloc(alloc)?);
                Ok(())
            });
            let taken = before.saturating_sub(free(forbidden)?);
            ensure(answer == Err(Errno::NOMEM) && taken <= NOISE, || {
                format!(
                    "{kind}, node {allowed} full: {answer:?}, expected ENOMEM; {taken} bytes of node {forbidden}"
                )
            })?;
        }
        Ok(())
    })
}
