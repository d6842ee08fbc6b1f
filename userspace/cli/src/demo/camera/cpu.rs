//! The time that CPUs have worked.

use std::time::Duration;

use rustix::param::clock_ticks_per_second;
use rustix::time::{ClockId, clock_gettime};

/// What this process has had of the CPUs, all its threads (clock_gettime(2),
/// `CLOCK_PROCESS_CPUTIME_ID`).
pub(super) fn of_process() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// What the whole machine has had, the kernel's own threads included: all but
/// idle times of proc_stat(5). `None` where that cannot be read.
pub(super) fn of_machine() -> Option<Duration> {
    parse(
        &std::fs::read_to_string("/proc/stat").ok()?,
        clock_ticks_per_second(),
    )
}

fn parse(stat: &str, per_second: u64) -> Option<Duration> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let mut ticks = 0_u64;
    for (at, word) in line.split_whitespace().enumerate() {
        // User and nice have what guests had; idle and iowait are no work.
        if !matches!(at, 3 | 4) && at < 8 {
            ticks += word.parse::<u64>().ok()?;
        }
    }
    Some(Duration::from_millis(ticks * 1000 / per_second.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_times_are_no_work() {
        let stat = "cpu  100 20 30 4000 500 6 7 8 90 10\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(parse(stat, 100), Some(Duration::from_millis(1710)));
        assert_eq!(parse("intr 1", 100), None);
        assert!(of_machine().unwrap() > of_process());
    }
}
