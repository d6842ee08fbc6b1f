//! What the system's own figures say of shared memory: `write … --explain`.

use std::fmt::Write as _;

use crate::failure::Failure;

const FILE: &str = "/proc/meminfo";

/// The figures of proc_meminfo(5) that shared memory moves, in KiB, in the order
/// of [`NAMES`].
#[derive(Clone, Debug)]
pub(crate) struct Meminfo([u64; NAMES.len()]);

const NAMES: [&str; 8] = [
    "MemFree",
    "MemAvailable",
    "Buffers",
    "Cached",
    "Shmem",
    "Mapped",
    "AnonPages",
    "HugePages_Free",
];

impl Meminfo {
    pub(crate) fn read() -> Result<Meminfo, Failure> {
        let text = std::fs::read_to_string(FILE)
            .map_err(|error| Failure::failed(format!("{FILE}: {error}; mount proc on /proc")))?;
        let of = |name: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|value| value.split_whitespace().next()?.parse().ok())
                .unwrap_or(0)
        };
        Ok(Meminfo(NAMES.map(of)))
    }

    /// A table of both, and what it means for memory of this way.
    pub(crate) fn explain(&self, after: &Meminfo, way: &str) -> String {
        let mut text = String::from("\n");
        let mut table = crate::table::new([FILE, "before", "after", "change"]);
        for (at, name) in NAMES.iter().enumerate() {
            let (before, after) = (self.0[at], after.0[at]);
            let unit = if name.starts_with("Huge") {
                "pages"
            } else {
                "KiB"
            };
            table.add_row([
                (*name).to_owned(),
                format!("{before} {unit}"),
                format!("{after} {unit}"),
                format!("{:+} {unit}", i128::from(after) - i128::from(before)),
            ]);
        }
        let _ = write!(text, "{table}\n\n{}", words(way));
        text
    }
}

/// Why the figures are what they are.
fn words(way: &str) -> &'static str {
    match way {
        "dmabuf" => {
            "A dma-buf of a dma_heap or of the module is no Shmem: its pages come straight from \
             the kernel's page allocator, so MemFree falls, `free` shows them as used, and no line \
             of /proc/meminfo names them; /sys/kernel/debug/dma_buf/bufinfo does. One of udmabuf \
             counts as Shmem only while its memfd is open, and ours is closed. A card's is its \
             driver's affair: some take tmpfs. MemFree can lag, since each CPU keeps some pages."
        }
        _ => {
            "Pages of tmpfs count as Shmem, and Shmem is part of Cached: `free` shows them in the \
             columns shared and buff/cache, and newer ones in used as well, which is what is not \
             available. A page counts once it was written or, of a POSIX object, set aside, and \
             once however many map it; it cannot be dropped as a cache can, only swapped, so available falls with it. Pages of \
             hugetlbfs are none of that: they come out of HugePages_Free."
        }
    }
}
