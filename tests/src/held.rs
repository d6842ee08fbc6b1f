//! What a process holds, and who holds a dma-buf, as the kernel counts it: to
//! be compared before and after something that is to leave nothing behind.
//!
//! A process has one table of fds: tests that count run one at a time.

use std::fmt::Display;
use std::fs::{read_dir, read_to_string};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// How long the kernel may take to let go: it does some of it in a worker.
const PATIENCE: Duration = Duration::from_secs(2);

/// The number of open fds of this process and of its mappings of buffers, memfd
/// or dma-buf.
///
/// # Errors
/// In words, where there is no `/proc`.
///
/// ```
/// let (before, mappings) = dmashare_tests::held::by_process()?;
/// let file = std::fs::File::open("/dev/null").map_err(|error| error.to_string())?;
/// assert_eq!(dmashare_tests::held::by_process()?, (before + 1, mappings));
/// # drop(file);
/// # Ok::<(), String>(())
/// ```
pub fn by_process() -> Result<(usize, usize), String> {
    let fds = read_dir("/proc/self/fd").map_err(text)?.count();
    let maps = read_to_string("/proc/self/maps").map_err(text)?;
    let ours = |line: &&str| line.contains("/dmabuf:") || line.contains("/memfd:");
    Ok((fds, maps.lines().filter(ours).count()))
}

/// How many hold this dma-buf: fds, mappings, messages under way, and what fds
/// do not show, the GEM handles, framebuffers and attachments of importers.
///
/// The `count` of its
/// [fdinfo](https://docs.kernel.org/filesystems/proc.html#proc-pid-fdinfo-fd-information-about-opened-file).
///
/// # Errors
/// In words, for what is no dma-buf.
///
/// ```
/// // A dma-buf takes a device; of anything else there is no count.
/// let null = std::fs::File::open("/dev/null").map_err(|error| error.to_string())?;
/// assert!(dmashare_tests::held::of_dma_buf(&null).is_err());
/// # Ok::<(), String>(())
/// ```
pub fn of_dma_buf(dma_buf: impl AsFd) -> Result<u64, String> {
    let fd = dma_buf.as_fd().as_raw_fd();
    let info = read_to_string(format!("/proc/self/fdinfo/{fd}")).map_err(text)?;
    let count = info.lines().find_map(|line| line.strip_prefix("count:"));
    let count = count.ok_or_else(|| format!("no dma-buf, there is no count in {info:?}"))?;
    count.trim().parse().map_err(text)
}

/// Whether `count` comes back to what it was before, within two seconds.
///
/// # Errors
/// In words: that it did not, or that it cannot be counted.
///
/// ```
/// use dmashare_tests::held::{by_process, comes_back_to};
/// let before = by_process()?;
/// comes_back_to(before, by_process)?;
/// # Ok::<(), String>(())
/// ```
pub fn comes_back_to<T: PartialEq + std::fmt::Debug>(
    before: T,
    count: impl Fn() -> Result<T, String>,
) -> Result<(), String> {
    let started = Instant::now();
    loop {
        let now = count()?;
        if now == before {
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            return Err(format!("held before: {before:?}, and after: {now:?}"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}
