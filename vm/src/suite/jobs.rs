//! How many guests run side by side.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Builder;

/// What QEMU itself takes beside the guest's memory, in MiB.
const QEMU: u32 = 256;

/// As many of these guests as the machine has processors and free memory for, and
/// one at least.
pub(crate) fn fitting<'a>(guests: impl Iterator<Item = &'a Builder>) -> usize {
    let sizes = guests.map(Builder::size);
    let (cpus, memory) = sizes.fold((1, 1), |(cpus, memory), (c, m)| {
        (cpus.max(c), memory.max(m))
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let by_cores = cores / cpus as usize;
    let by_memory = available_mib().map_or(by_cores, |available| {
        usize::try_from(available / u64::from(memory + QEMU)).unwrap_or(usize::MAX)
    });
    by_cores.min(by_memory).max(1)
}

/// What the kernel thinks that programs can have, in MiB.
fn available_mib() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024)
}

/// Do it to each, to this many at a time.
pub(crate) fn side_by_side<T: Sync>(jobs: usize, each: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, each.len().max(1)) {
            scope.spawn(|| {
                while let Some(one) = each.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(one);
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn each_is_done_once() {
        for jobs in [0, 1, 3, 100] {
            let done = Mutex::new(Vec::new());
            side_by_side(jobs, &[1, 2, 3, 4, 5], |n| done.lock().unwrap().push(*n));
            let mut done = done.into_inner().unwrap();
            done.sort_unstable();
            assert_eq!(done, [1, 2, 3, 4, 5]);
        }
        side_by_side(2, &[(); 0], |()| unreachable!());
    }

    #[test]
    fn the_machine_says_what_memory_it_has() {
        assert!(available_mib().is_some_and(|mib| mib > 0));
    }
}
