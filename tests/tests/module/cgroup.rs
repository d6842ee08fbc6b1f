//! A cgroup of its own for a test, in a hierarchy that is mounted for it.

use std::ffi::CString;
use std::fs::{create_dir, read_to_string, remove_dir, write};
use std::path::{Path, PathBuf};
use std::ptr::null;

use dmashare_tests::conformance::Verdict;
use libtest_mimic::Completion;
use tempfile::TempDir;

use crate::{ensure, text};

/// The cgroup2 hierarchy, until this is dropped.
struct Hierarchy(TempDir);

impl Hierarchy {
    fn mount() -> Result<Hierarchy, String> {
        let folder = tempfile::tempdir().map_err(text)?;
        let target = path(folder.path());
        // SAFETY: the strings end, and last as long as the call.
        let mounted = unsafe {
            libc::mount(
                c"cgroup2".as_ptr(),
                target.as_ptr(),
                c"cgroup2".as_ptr(),
                0,
                null(),
            )
        };
        match mounted {
            0 => Ok(Hierarchy(folder)),
            _ => Err(format!("cgroup2: {}", std::io::Error::last_os_error())),
        }
    }
}

impl Drop for Hierarchy {
    fn drop(&mut self) {
        let target = path(self.0.path());
        // SAFETY: the string ends, and lasts as long as the call.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
}

fn path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_encoded_bytes()).expect("a path has no zero in it")
}

/// A cgroup, until this is dropped.
pub(crate) struct Group(PathBuf);

impl Group {
    pub(crate) fn set(&self, file: &str, value: impl ToString) -> Verdict {
        let value = value.to_string();
        write(self.0.join(file), &value).map_err(|error| format!("{file}={value}: {error}"))
    }

    pub(crate) fn get(&self, file: &str) -> Result<String, String> {
        read_to_string(self.0.join(file)).map_err(|error| format!("{file}: {error}"))
    }

    /// Moves the calling process into it.
    pub(crate) fn enter(&self) -> Verdict {
        self.set("cgroup.procs", 0)
    }

    /// That the OOM killer has not come for its limit.
    pub(crate) fn has_killed_nothing(&self) -> Verdict {
        let events = self.get("memory.events")?;
        ensure(events.lines().any(|line| line == "oom_kill 0"), || {
            format!("a process was killed: {events}")
        })
    }

    /// Bytes charged to it: `memory.current`.
    pub(crate) fn used(&self) -> Result<u64, String> {
        self.get("memory.current")?.trim().parse().map_err(text)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Fails where a test left a process in it, which has failed then.
        let _ = remove_dir(&self.0);
    }
}

/// Runs a test with an empty cgroup that has this controller. Skipped where the
/// kernel has no such cgroups.
pub(crate) fn with_group(
    controller: &str,
    body: impl FnOnce(&Group) -> Verdict,
) -> Result<Completion, String> {
    let hierarchy = match Hierarchy::mount() {
        Ok(hierarchy) => hierarchy,
        Err(reason) => return Ok(Completion::ignored_with(reason)),
    };
    let root = hierarchy.0.path();
    let controllers = read_to_string(root.join("cgroup.controllers")).map_err(text)?;
    if !controllers
        .split_whitespace()
        .any(|name| name == controller)
    {
        let reason =
            format!("no {controller} among this kernel's cgroup controllers: {controllers:?}");
        return Ok(Completion::ignored_with(reason));
    }
    write(
        root.join("cgroup.subtree_control"),
        format!("+{controller}"),
    )
    .map_err(text)?;
    let group = Group(root.join("dmashare-test"));
    create_dir(&group.0).map_err(text)?;
    body(&group)?;
    Ok(Completion::Completed)
}
