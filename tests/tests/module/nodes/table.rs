//! Rows of answers, the same for the kernel's own nodes and for the module's.

use std::fmt::{Debug, Display};

use dmashare_tests::conformance::Verdict;
use dmashare_tests::guest::{kernel_has_nodes, kernel_version};
use rustix::io::Errno;

use crate::device::last_errno;
use crate::ensure;

/// Result of a call whose value does not matter.
pub(super) type Answer = Result<(), Errno>;

/// The answer of the system call that was just made.
pub(super) fn answer(succeeded: bool) -> Answer {
    match succeeded {
        true => Ok(()),
        false => Err(last_errno()),
    }
}

/// The answer since this release of the kernel, which the module's nodes give on
/// any kernel, and that of the kernel's own nodes before it.
pub(super) fn newest<T>(since: (u32, u32), newest: T, before: T) -> T {
    match kernel_has_nodes() && kernel_version() < since {
        true => before,
        false => newest,
    }
}

/// The answer that depends on the kernel's memory management alone.
pub(super) fn of_kernel<T>(since: (u32, u32), newest: T, before: T) -> T {
    match kernel_version() < since {
        true => before,
        false => newest,
    }
}

/// No dma-buf can be mapped as executable on 7.2 and 7.3, and any can on 6.12.
pub(super) const NO_EXEC: (u32, u32) = (7, 0);

/// Rows, of which all that fail are reported.
pub(super) struct Table {
    wrong: Vec<String>,
}

impl Table {
    pub(super) fn new() -> Table {
        Table { wrong: Vec::new() }
    }

    /// A row: a call, its answer, and the kernel's.
    pub(super) fn row<T: PartialEq + Debug>(&mut self, what: impl Display, found: T, expected: T) {
        if found != expected {
            let wrong = format!("{what}: {found:?}, expected {expected:?}");
            self.wrong.push(wrong);
        }
    }

    pub(super) fn verdict(self) -> Verdict {
        ensure(self.wrong.is_empty(), || self.wrong.join("\n"))
    }
}
