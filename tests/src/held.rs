//! What a process holds, and who holds a dma-buf, as the kernel counts it: to
//! be compared before and after something that is to leave nothing behind.
//!
//! A process has one table of fds: tests that count run one at a time.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Display;
use std::fs::{read_dir, read_to_string};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use dmashare::buffer::Buffer;

/// How long the kernel may take to let go: it does some of it in a worker.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a process holds, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Open fds.
    pub fds: usize,
    /// Mappings of buffers: memfds, dma-bufs, files in /dev/shm, segments.
    pub mappings: usize,
    /// System V segments that it made, attached by whomever, or by none.
    pub segments: usize,
    /// Names in /dev/shm that it made while it allocated there.
    pub names: usize,
}

/// What this process holds.
///
/// # Errors
/// In words, where there is no `/proc`.
///
/// ```
/// let before = dmashare_tests::held::by_process()?;
/// let file = std::fs::File::open("/dev/null").map_err(|error| error.to_string())?;
/// assert_eq!(dmashare_tests::held::by_process()?.fds, before.fds + 1);
/// # drop(file);
/// # Ok::<(), String>(())
/// ```
pub fn by_process() -> Result<Held, String> {
    let pid = std::process::id().to_string();
    let fds = read_dir("/proc/self/fd").map_err(text)?.count();
    let maps = read_to_string("/proc/self/maps").map_err(text)?;
    let ours = |line: &&str| {
        let kinds = ["/dmabuf:", "/memfd:", "/dev/shm/", "/SYSV"];
        kinds.iter().any(|kind| line.contains(kind))
    };
    let segments = read_to_string("/proc/sysvipc/shm").map_err(text)?;
    // The fifth field is `cpid`, who made it.
    let made = |line: &&str| line.split_whitespace().nth(4) == Some(&pid);
    let shm = read_dir("/dev/shm").map_err(text)?.flatten();
    let named = shm.filter(|file| {
        let name = file.file_name();
        name.to_string_lossy().contains(&format!(".{pid}."))
    });
    Ok(Held {
        fds,
        mappings: maps.lines().filter(ours).count(),
        segments: segments.lines().filter(made).count(),
        names: named.count(),
    })
}

/// What outlives its makers, whoever they are: the ids of System V segments, and
/// the names in `/dev/shm`.
///
/// # Errors
/// In words, where there is no `/proc` or no `/dev/shm`.
///
/// ```
/// let (segments, names) = dmashare_tests::held::by_name()?;
/// println!("{} segments, {} names", segments.len(), names.len());
/// # Ok::<(), String>(())
/// ```
pub fn by_name() -> Result<(BTreeSet<String>, BTreeSet<OsString>), String> {
    let table = read_to_string("/proc/sysvipc/shm").map_err(text)?;
    let ids = table.lines().skip(1).filter_map(|line| {
        let id = line.split_whitespace().nth(1)?; // proc(5): key shmid …
        Some(id.to_owned())
    });
    let names = read_dir("/dev/shm").map_err(text)?;
    let names = names.map(|entry| entry.map(|entry| entry.file_name()));
    let names = names.collect::<Result<_, _>>().map_err(text)?;
    Ok((ids.collect(), names))
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
/// use dmashare::alloc::{Allocate, Memfd, Request};
/// let memfd = Memfd::new().allocate(&Request::new(1))?;
/// assert!(dmashare_tests::held::of_dma_buf(&memfd).is_err());
/// # Ok::<(), dmashare::alloc::AllocError>(())
/// ```
pub fn of_dma_buf(dma_buf: &Buffer) -> Result<u64, String> {
    let fd = dma_buf.fd().map_err(text)?.as_raw_fd();
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
