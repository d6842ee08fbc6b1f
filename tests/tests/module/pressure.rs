//! Memory filled up by a test: how much is free, and pages that use it up.

use std::fs::read_to_string;
use std::os::fd::OwnedFd;

use rustix::fs::{FallocateFlags, fallocate};

use crate::device::{Device, MAX_RANGES, MIB, Made, PAGE, Range};
use crate::{memfd, text};

/// Pages in a row that are kept or released together.
const GROUP: u64 = 16 * PAGE;

/// Bytes of a field of /proc/meminfo.
pub(crate) fn meminfo(field: &str) -> Result<u64, String> {
    let table = read_to_string("/proc/meminfo").map_err(text)?;
    let mut lines = table.lines().filter_map(|line| line.split_once(':'));
    let found = lines.find(|(name, _)| *name == field);
    let (_, value) = found.ok_or_else(|| format!("no {field} in /proc/meminfo"))?;
    let kib: u64 = value.trim().trim_end_matches(" kB").parse().map_err(text)?;
    Ok(kib * 1024)
}

pub(crate) fn free() -> Result<u64, String> {
    meminfo("MemFree")
}

/// Free bytes of a NUMA node that buffers can use, by /proc/zoneinfo: all but those of
/// ZONE_MOVABLE. Unlike `MemFree` of the node these include the processors' lists of
/// pages, which can be tens of MiB.
pub(crate) fn free_on_node(node: u32) -> Result<u64, String> {
    let table = read_to_string("/proc/zoneinfo").map_err(text)?;
    let (mut pages, mut found, mut there) = (0, false, false);
    for line in table.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["Node", number, "zone", zone] => {
                there = number.trim_end_matches(',') == node.to_string() && zone != "Movable";
                found |= there;
            }
            ["pages", "free", count] | ["count:", count] if there => {
                pages += count.parse::<u64>().map_err(text)?;
            }
            _ => {}
        }
    }
    match found {
        true => Ok(pages * PAGE),
        false => Err(format!("no node {node} in /proc/zoneinfo")),
    }
}

/// Bytes to leave free, or the OOM killer comes: the kernel's own reserve, which it
/// keeps twice over before it reclaims, and some for the test itself.
pub(crate) fn reserve() -> Result<u64, String> {
    let kib = read_to_string("/proc/sys/vm/min_free_kbytes").map_err(text)?;
    let kib: u64 = kib.trim().parse().map_err(text)?;
    Ok(2 * kib * 1024 + 16 * MIB)
}

/// A counter of /proc/vmstat.
pub(crate) fn vmstat(counter: &str) -> Result<u64, String> {
    let table = read_to_string("/proc/vmstat").map_err(text)?;
    let mut lines = table.lines().filter_map(|line| line.split_once(' '));
    let found = lines.find(|(name, _)| *name == counter);
    let (_, value) = found.ok_or_else(|| format!("no {counter} in /proc/vmstat"))?;
    value.parse().map_err(text)
}

/// All of the memory in movable pages, every second group of 64 KiB of it released
/// again. So half of it is free, but hardly any of that in one piece.
pub(crate) struct Scattered {
    /// Owner of the pages that are left.
    memfd: OwnedFd,
    groups: u64,
}

impl Scattered {
    pub(crate) fn new() -> Result<Scattered, String> {
        let size = free()?.saturating_sub(reserve()?) / (2 * GROUP) * (2 * GROUP);
        let memfd = memfd(size)?;
        fallocate(&memfd, FallocateFlags::empty(), 0, size).map_err(text)?;
        let scattered = Scattered {
            memfd,
            groups: size / GROUP / 2,
        };
        for group in 0..scattered.groups {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let offset = (2 * group + 1) * GROUP;
            fallocate(&scattered.memfd, hole, offset, GROUP).map_err(text)?;
        }
        Ok(scattered)
    }

    /// Pins the pages that are left, so that they cannot be moved. The limits must
    /// allow buffers of that size.
    pub(crate) fn pin(&self, device: &Device) -> Result<Vec<Made>, String> {
        let ranges =
            (0..self.groups).map(|group| Range::new(&self.memfd, 2 * group * GROUP, GROUP));
        let ranges: Vec<Range> = ranges.collect();
        let wraps = ranges.chunks(MAX_RANGES).map(|part| device.wrap(part));
        wraps.collect::<Result<_, _>>().map_err(text)
    }
}
