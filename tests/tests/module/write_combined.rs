//! Write-combined memory costs the system no more than cached memory: the kernel's
//! direct map keeps its large entries, and is as before afterwards.

use std::fs::read_to_string;

use dmashare_tests::conformance::Verdict;
use libtest_mimic::Trial;

use crate::device::{Alloc, CONTIGUOUS, Device, MIB, PAGE, WRITE_COMBINED};
use crate::{ensure, test, text};

pub(crate) fn trials() -> Vec<Trial> {
    vec![test(
        "write_combined::direct_map_stays_large",
        direct_map_stays_large,
    )]
}

/// Bytes of the direct map in entries of 4 KiB: x86 counts them.
fn split() -> Result<u64, String> {
    let info = read_to_string("/proc/meminfo").map_err(text)?;
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("DirectMap4k:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    let kib: u64 = kib
        .ok_or_else(|| format!("no DirectMap4k in {info}"))?
        .parse()
        .map_err(text)?;
    Ok(kib << 10)
}

/// Of 64 MiB, one entry a page, which is the shape that would split most: at
/// most what lies at the edges of large blocks.
fn direct_map_stays_large() -> Verdict {
    let device = Device::open()?;
    for (size, max_chunk, flags) in [
        (64 * MIB, PAGE, 0),
        (64 * MIB, 0, 0),
        (8 * MIB, 0, CONTIGUOUS),
    ] {
        let before = split()?;
        let alloc = Alloc::new(size)
            .max_chunk(max_chunk)
            .flags(flags | WRITE_COMBINED);
        let made = device.alloc(alloc).map_err(text)?;
        let during = split()?;
        drop(made);
        let after = split()?;
        for (when, now) in [("in", during), ("after", after)] {
            ensure(now.saturating_sub(before) <= size / 4, || {
                format!(
                    "{before} bytes of the direct map were split before, {now} {when} {alloc:?}"
                )
            })?;
        }
    }
    Ok(())
}
