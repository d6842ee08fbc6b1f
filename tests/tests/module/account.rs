//! Whose memory it is: the cgroup's of the process that asked.

use std::ffi::CString;
use std::fs::{create_dir, read_to_string, remove_dir, write};
use std::path::{Path, PathBuf};
use std::ptr::null;

use dmashare_tests::held;
use libtest_mimic::{Completion, Trial};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::device::{Alloc, CONTIGUOUS, Device, MIB, WRITE_COMBINED};
use crate::forked::in_another_process;
use crate::{ensure, test_or_skip, text};

pub(crate) fn trials() -> Vec<Trial> {
    vec![test_or_skip(
        "module::charges_the_callers_cgroup",
        charges_the_callers_cgroup,
    )]
}

/// The hierarchy of cgroups, until this is dropped.
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

/// A cgroup with a limit on its memory, until this is dropped.
struct Group(PathBuf);

impl Group {
    fn new(hierarchy: &Hierarchy, mib: u64) -> Result<Group, String> {
        let group = Group(hierarchy.0.path().join("dmashare-test"));
        create_dir(&group.0).map_err(text)?;
        group.set("memory.max", &(mib * MIB).to_string())?;
        Ok(group)
    }

    fn set(&self, file: &str, value: &str) -> Result<(), String> {
        write(self.0.join(file), value).map_err(|error| format!("{file}: {error}"))
    }

    fn get(&self, file: &str) -> Result<String, String> {
        read_to_string(self.0.join(file)).map_err(|error| format!("{file}: {error}"))
    }

    fn used(&self) -> Result<u64, String> {
        self.get("memory.current")?.trim().parse().map_err(text)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The last process of it is gone, or a test before has failed.
        let _ = remove_dir(&self.0);
    }
}

fn charges_the_callers_cgroup() -> Result<Completion, String> {
    let hierarchy = match Hierarchy::mount() {
        Ok(hierarchy) => hierarchy,
        Err(reason) => return Ok(Completion::ignored_with(reason)),
    };
    let root = hierarchy.0.path();
    let controllers = read_to_string(root.join("cgroup.controllers")).map_err(text)?;
    if !controllers.split_whitespace().any(|name| name == "memory") {
        let reason = format!("this kernel's cgroups count {controllers:?}, and no memory");
        return Ok(Completion::ignored_with(reason));
    }
    write(root.join("cgroup.subtree_control"), "+memory").map_err(text)?;
    let group = Group::new(&hierarchy, 24)?;
    in_another_process(|| {
        group.set("cgroup.procs", "0")?;
        let device = Device::open()?;
        for (size, flags) in [
            (8 * MIB, 0),
            (8 * MIB, WRITE_COMBINED),
            (4 * MIB, CONTIGUOUS),
            (3 * MIB, CONTIGUOUS),
        ] {
            let alloc = Alloc::new(size).flags(flags);
            let before = group.used()?;
            let made = device.alloc(alloc).map_err(text)?;
            let used = group.used()?;
            // A processor may have taken a little in advance.
            let charged = used.saturating_sub(before);
            ensure(charged.abs_diff(size) <= MIB / 2, || {
                format!("{charged} bytes charged for {alloc:?}")
            })?;
            drop(made);
            held::comes_back_to(true, || Ok(group.used()?.abs_diff(before) <= MIB / 2))?;
        }
        for max_chunk in [0, crate::device::PAGE] {
            let alloc = Alloc::new(32 * MIB).max_chunk(max_chunk);
            let answer = device.alloc(alloc).map(drop);
            ensure(answer == Err(Errno::NOMEM), || {
                format!("32 MiB in a cgroup of 24, {max_chunk}: {answer:?}, expected ENOMEM")
            })?;
        }
        device.alloc(Alloc::new(MIB)).map(drop).map_err(text)
    })?;
    let events = group.get("memory.events")?;
    ensure(events.lines().any(|line| line == "oom_kill 0"), || {
        format!("a process was killed: {events}")
    })?;
    Ok(Completion::Completed)
}
