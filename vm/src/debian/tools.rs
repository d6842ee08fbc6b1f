//! The programs that pack and boot a guest: the host's own, or a copy in the
//! cache where it lacks them and they cannot be installed.
//!
//! A copy is packages unpacked into a folder, as a guest's root is. A program of
//! it runs through the dynamic loader of that folder, with its libraries: nothing
//! is installed, and no right is needed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::PoisonError;

use serde::{Deserialize, Serialize};

use super::apt::{self, Apt, Deb};
use super::root::digest;
use super::{Debian, Error, plan, run};
use crate::Arch;
use crate::cache;

/// Programs that a VM takes, and the Debian package of each.
const NEEDED: [(&str, &str); 6] = [
    (Arch::X86_64.qemu(), "qemu-system-x86"),
    (Arch::Aarch64.qemu(), "qemu-system-arm"),
    ("mkfs.erofs", "erofs-utils"),
    ("depmod", "kmod"),
    // Part of every Debian; asked for so that another host gets a clear word.
    ("apt-get", "apt"),
    ("dpkg-deb", "dpkg"),
];

/// What the name of each QEMU begins with.
const QEMU: &str = "qemu-system-";

/// The suite that copies are from: new enough for every guest, and the one that
/// a guest's root is from by default, so that its lists are there.
const SUITE: &str = "trixie";

/// Where the packages are, in the artefact.
const TREE: &str = "tree";
/// Links to the loader, by the name of the program that it is to load: what a
/// process is called (`ps`, `pgrep`) is the name of the file that was started.
const PROGRAMS: &str = "programs";

const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// Modules of QEMU's, such as virtio-gpu: it looks for them beside /proc/self/exe,
/// which is the loader.
const QEMU_MODULES: &str = "usr/lib/x86_64-linux-gnu/qemu";
/// What QEMU loads into a guest: the PVH loader, the BIOS, the ROMs of devices.
const QEMU_FIRMWARE: [&str; 3] = ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"];

/// Which packages a copy is of.
#[derive(Serialize, Deserialize)]
struct Plan {
    debs: Vec<Deb>,
}

/// Every program that a VM of this architecture takes.
fn programs(arch: Arch) -> impl Iterator<Item = &'static str> {
    NEEDED
        .iter()
        .map(|(program, _)| *program)
        .filter(move |program| !program.starts_with(QEMU) || *program == arch.qemu())
}

/// The programs that the host lacks.
pub(super) fn missing(arch: Arch) -> Vec<&'static str> {
    programs(arch)
        .filter(|program| !installed(program))
        .collect()
}

/// The packages of `programs`.
pub(super) fn packages(programs: &[&str]) -> Vec<&'static str> {
    NEEDED
        .iter()
        .filter(|(program, _)| programs.contains(program))
        .map(|(_, package)| *package)
        .collect()
}

/// Whether the host has `program`.
pub(crate) fn installed(program: &str) -> bool {
    find(program).is_some()
}

/// The host's file of `program`.
fn find(program: &str) -> Option<PathBuf> {
    run::path()
        .split(':')
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.is_file())
}

/// How a program is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tool {
    /// What to start: the program, or its loader.
    start: String,
    /// What stands before the caller's arguments.
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

impl Tool {
    fn of_host(program: &str) -> Self {
        Self {
            start: program.to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// `program`, which is at `path` in the tree of the copy in `folder`.
    fn of_copy(folder: &Path, program: &str, path: &str) -> Self {
        // A cache has only names that are UTF-8.
        let inside = |path: &str| folder.join(TREE).join(path).display().to_string();
        let mut tool = Self {
            start: folder.join(PROGRAMS).join(program).display().to_string(),
            arguments: vec![
                // The host's libraries are of another version.
                "--inhibit-cache".to_owned(),
                "--library-path".to_owned(),
                inside(LIBRARIES),
                inside(path),
            ],
            environment: Vec::new(),
        };
        if program.starts_with(QEMU) {
            for firmware in QEMU_FIRMWARE {
                tool.arguments.extend(["-L".to_owned(), inside(firmware)]);
            }
            tool.environment
                .push(("QEMU_MODULE_DIR", inside(QEMU_MODULES)));
        }
        tool
    }

    /// Its file, where it is there.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        match self.arguments.get(3) {
            Some(program) => Some(program.into()),
            None => find(&self.start),
        }
    }

    /// The command for it, made by `new` (such as [`Command::new`]) of the name
    /// of the file to start.
    pub(crate) fn command<'a>(&'a self, new: impl FnOnce(&'a str) -> Command) -> Command {
        let mut command = new(&self.start);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        if !self.arguments.is_empty() {
            // A library of the host's would want the host's libc.
            command.env_remove("LD_PRELOAD");
        }
        command
    }
}

impl Debian {
    /// How `program` is called here: the host's, or the copy that
    /// [`ensure`](super::host::ensure) brought.
    pub(crate) fn tool(&self, program: &str) -> Result<Tool, Error> {
        if installed(program) {
            return Ok(Tool::of_host(program));
        }
        let no_program = || Error::NoProgram {
            program: program.to_owned(),
        };
        let packages = packages(&missing(self.arch));
        let plan: Plan = plan::recorded(self, &plan_name(&packages)).ok_or_else(no_program)?;
        let folder = make(self, &packages, &plan)?;
        let path = place(&folder.join(TREE), program).ok_or_else(no_program)?;
        Ok(Tool::of_copy(&folder, program, &path))
    }
}

/// Whether a copy of `packages` was brought before.
pub(super) fn there(debian: &Debian, packages: &[&str]) -> bool {
    plan::recorded::<Plan>(debian, &plan_name(packages)).is_some()
}

/// Sees to it that the cache has a copy of `packages`, whole.
pub(super) fn bring(debian: &Debian, packages: &[&str]) -> Result<(), Error> {
    let names: Vec<String> = packages.iter().map(ToString::to_string).collect();
    plan::follow(
        debian,
        &plan_name(packages),
        &packages.join(", "),
        |lists| {
            let debs = Apt::new(debian, &[SUITE], lists)?.with_dependencies(&names)?;
            Ok(Plan { debs })
        },
        |plan| make(debian, packages, plan).map(drop),
    )
}

fn plan_name(packages: &[&str]) -> String {
    format!("tools-{SUITE}-{}", digest(&packages.join(" ")))
}

/// The folder of the copy; looked at once.
fn make(debian: &Debian, packages: &[&str], plan: &Plan) -> Result<PathBuf, Error> {
    let mut copies = debian.copies.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(folder) = copies.get(&plan_name(packages)) {
        return Ok(folder.clone());
    }
    let folder = unpack(debian, packages, plan)?;
    copies.insert(plan_name(packages), folder.clone());
    Ok(folder)
}

fn unpack(debian: &Debian, packages: &[&str], plan: &Plan) -> Result<PathBuf, Error> {
    let files: Vec<&str> = plan.debs.iter().map(|deb| deb.file.as_str()).collect();
    let key = format!("{SUITE}-{}", digest(&files.join(" ")));
    let bytes: u64 = plan.debs.iter().map(|deb| deb.bytes).sum();
    // Unpacked some four times the packages, beside them.
    debian.cache.artefact("tools", &key, bytes * 5, |folder| {
        let what = packages.join(", ");
        apt::fetch(&debian.cache, &what, &plan.debs)?;
        let tree = folder.join(TREE);
        super::unpack::packages(&debian.cache, &plan.debs, &what, &tree)?;
        let links = folder.join(PROGRAMS);
        fs::create_dir(&links).map_err(cache::Error::io("make the folder", &links))?;
        for program in programs(debian.arch).filter(|program| place(&tree, program).is_some()) {
            let link = links.join(program);
            symlink(Path::new("..").join(TREE).join(LOADER), &link)
                .map_err(cache::Error::io("link", &link))?;
        }
        Ok(())
    })
}

/// Where `program` is in `tree`.
fn place(tree: &Path, program: &str) -> Option<String> {
    ["usr/bin", "usr/sbin"]
        .map(|folder| format!("{folder}/{program}"))
        .into_iter()
        .find(|path| tree.join(path).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &Command) -> Vec<String> {
        std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| word.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn a_program_of_the_host_is_called_by_its_name() {
        let command = Tool::of_host("depmod").command(Command::new);
        assert_eq!(words(&command), ["depmod"]);
        assert_eq!(command.get_envs().count(), 0);
    }

    #[test]
    fn a_copy_is_called_through_its_own_loader() {
        let tool = Tool::of_copy(Path::new("/c"), "mkfs.erofs", "usr/bin/mkfs.erofs");
        let mut command = tool.command(Command::new);
        command.arg("--quiet");
        assert_eq!(
            words(&command),
            [
                "/c/programs/mkfs.erofs",
                "--inhibit-cache",
                "--library-path",
                "/c/tree/usr/lib/x86_64-linux-gnu",
                "/c/tree/usr/bin/mkfs.erofs",
                "--quiet",
            ]
        );
    }

    #[test]
    fn a_copy_of_qemu_finds_its_firmware_and_modules() {
        let program = "qemu-system-x86_64";
        let tool = Tool::of_copy(Path::new("/c"), program, "usr/bin/qemu-system-x86_64");
        let command = tool.command(Command::new);
        let words = words(&command).join(" ");
        assert!(
            words.ends_with(
                "/c/tree/usr/bin/qemu-system-x86_64 -L /c/tree/usr/share/qemu \
                 -L /c/tree/usr/share/seabios -L /c/tree/usr/lib/ipxe/qemu"
            ),
            "{words}"
        );
        let set = |name: &str| {
            let mut all = command.get_envs();
            all.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let modules = "/c/tree/usr/lib/x86_64-linux-gnu/qemu";
        assert_eq!(set("QEMU_MODULE_DIR"), Some(Some(modules.as_ref())));
        // Taken away, not only left alone.
        assert_eq!(set("LD_PRELOAD"), Some(None));
    }
}
