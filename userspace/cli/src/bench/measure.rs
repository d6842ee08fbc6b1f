//! Times of frames, and CPU time of processes.

use std::time::Duration;

/// What one way took for a frame.
pub(super) struct Taken {
    pub(super) us: f64,
    pub(super) us_95: f64,
    pub(super) cpu_us: f64,
}

/// Of the times of all frames, and of the CPU time that they took together.
pub(super) fn taken(mut times: Vec<Duration>, cpu: Duration) -> Taken {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e6;
    #[expect(clippy::cast_precision_loss, reason = "a number of frames")]
    let count = times.len() as f64;
    Taken {
        us: at(50),
        us_95: at(95),
        cpu_us: cpu.as_secs_f64() * 1e6 / count,
    }
}

/// The CPU time that this process has used.
pub(super) fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanoseconds)
}
