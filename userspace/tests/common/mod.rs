//! What several tests look at.

use std::path::PathBuf;

/// The open handles of this process by number and target, but the one that
/// reads them.
pub(crate) fn handles() -> Vec<(String, PathBuf)> {
    let mut found: Vec<_> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter_map(|entry| {
            let target = std::fs::read_link(entry.path()).ok()?;
            Some((entry.file_name().into_string().unwrap(), target))
        })
        .filter(|(_, target)| !target.ends_with("fd"))
        .collect();
    found.sort();
    found
}
