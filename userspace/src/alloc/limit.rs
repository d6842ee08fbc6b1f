//! How large a buffer can be, and who says so.

use super::AllocError;

/// The most that a buffer can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limit {
    /// How many bytes.
    pub bytes: u64,
    /// Whose limit it is.
    pub of: &'static str,
}

impl Limit {
    pub(super) fn admits(self, size: u64) -> Result<(), AllocError> {
        match size > self.bytes {
            true => Err(AllocError::TooLarge {
                size,
                limit: self.bytes,
                of: self.of,
            }),
            false => Ok(()),
        }
    }

    /// The narrower of both.
    pub(super) fn or(self, other: Option<Limit>) -> Limit {
        match other {
            Some(other) if other.bytes < self.bytes => other,
            _ => self,
        }
    }
}

/// A limit in MiB that is a parameter of a kernel module; `None` where the
/// module is not there to ask.
pub(super) fn of_module(parameter: &str, of: &'static str) -> Option<Limit> {
    let mib = std::fs::read_to_string(parameter).ok()?;
    let mib = mib.trim().parse::<u64>().ok()?;
    Some(Limit {
        bytes: mib.saturating_mul(1 << 20),
        of,
    })
}
