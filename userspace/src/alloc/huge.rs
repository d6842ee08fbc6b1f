//! Huge pages: their sizes, and how many the kernel has set aside.

use std::fmt;
use std::path::PathBuf;

use super::AllocError;

/// Where the kernel tells of its huge pages (hugetlbpage.rst).
const FOLDER: &str = "/sys/kernel/mm/hugepages";

/// A size of huge pages to allocate from.
///
/// ```
/// use dmashare::alloc::HugePages;
/// assert_eq!(HugePages::Size2M.bytes(), 2 << 20);
/// match HugePages::Size2M.pool() {
///     Some(pool) => println!("{} of {} are free", pool.free, pool.total),
///     None => println!("this kernel has none of {}", HugePages::Size2M),
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HugePages {
    /// Of 2 MiB.
    Size2M,
    /// Of 1 GiB.
    Size1G,
}

/// The huge pages of one size that the kernel has set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HugePool {
    /// Their size.
    pub size: HugePages,
    /// How many there are.
    pub total: u64,
    /// How many of them nobody uses or has been promised, and how many more
    /// the kernel may make on demand (`nr_overcommit_hugepages`).
    pub free: u64,
}

impl HugePages {
    /// All sizes.
    pub const ALL: [HugePages; 2] = [HugePages::Size2M, HugePages::Size1G];

    /// The size of one page, in bytes.
    pub fn bytes(self) -> u64 {
        1 << self.log2()
    }

    /// The logarithm of that, as `SHM_HUGE_SHIFT` and `MFD_HUGE_SHIFT` want it.
    pub(super) fn log2(self) -> u32 {
        match self {
            HugePages::Size2M => 21,
            HugePages::Size1G => 30,
        }
    }

    /// Those that the kernel has set aside; `None` where it has none of this
    /// size.
    pub fn pool(self) -> Option<HugePool> {
        let count = |file| {
            let text = std::fs::read_to_string(self.folder().join(file)).ok()?;
            text.trim().parse::<u64>().ok()
        };
        let total = count("nr_hugepages")?;
        let promised = count("resv_hugepages").unwrap_or(0);
        let more = count("nr_overcommit_hugepages")
            .unwrap_or(0)
            .saturating_sub(count("surplus_hugepages").unwrap_or(0));
        Some(HugePool {
            size: self,
            total,
            free: count("free_hugepages")?.saturating_sub(promised) + more,
        })
    }

    /// Refuses what the kernel has not got. What it has, someone else may take
    /// meanwhile: it is the mapping that sets pages aside.
    pub(super) fn at_hand(self, bytes: u64) -> Result<(), AllocError> {
        let needed = bytes / self.bytes();
        match self.pool() {
            Some(pool) if pool.free >= needed => Ok(()),
            pool => Err(AllocError::NoHugePages {
                size: self,
                needed,
                free: pool.map(|pool| pool.free),
            }),
        }
    }

    fn folder(self) -> PathBuf {
        format!("{FOLDER}/hugepages-{}kB", self.bytes() / 1024).into()
    }

    /// What to do where there are too few.
    pub(super) fn advice(self, needed: u64, free: Option<u64>) -> String {
        let folder = self.folder();
        match free {
            Some(free) => format!(
                "{free} are free; as root, add {} to the number in {}/nr_hugepages",
                needed.saturating_sub(free),
                folder.display()
            ),
            None => format!(
                "this kernel has none of that size ({} is missing)",
                folder.display()
            ),
        }
    }
}

impl fmt::Display for HugePages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HugePages::Size2M => "2 MiB",
            HugePages::Size1G => "1 GiB",
        })
    }
}
