//! Roots with a compiler in them, to build kernels and modules in.
//!
//! What a kernel's build brings (objtool, modpost) wants the libc of its own
//! suite, and Kbuild wants the compiler of the kernel. So the suite's packages
//! are unpacked into a folder, and make runs with that folder as its root: on
//! any host, which needs no compiler and is not touched.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use super::apt::{self, Apt, Deb, Lists};
use super::kernel::depends;
use super::root::{digest, link_programs};
use super::{Debian, Error, Kernel, armhf, plan, run, unpack};
use crate::Arch;
use crate::cache::{self, Lock, SCRATCH};

/// What Kbuild's makefiles call, beside the compiler.
pub(super) const TOOLS: [&str; 8] = [
    "binutils",
    "coreutils",
    "dash",
    "findutils",
    "grep",
    "make",
    "mawk",
    "sed",
];

/// What building a kernel takes beyond [`TOOLS`].
const KERNEL_TOOLS: [&str; 9] = [
    "bc",
    "bison",
    "diffutils",
    "flex",
    "gcc",
    "gzip",
    "libc6-dev",
    "libelf-dev",
    "tar",
];

/// What building a kernel with clang takes instead of gcc.
const LLVM: [&str; 3] = ["clang", "lld", "llvm"];

/// The suite whose libc and compiler programs are built with.
const PROGRAMS_SUITE: &str = "trixie";

/// The suite whose Rust is new enough for this crate, and on which the default
/// root and the compilers beside it are based.
const RUST_SUITE: &str = "trixie-backports";

/// Rust as Debian packages it, and its standard library: that of the guest's
/// architecture comes beside ours.
const RUST: [&str; 2] = ["cargo", "rustc"];
const STANDARD_LIBRARY: &str = "libstd-rust-dev";

/// Which packages a root is of.
#[derive(Serialize, Deserialize)]
struct Plan {
    debs: Vec<Deb>,
}

impl Plan {
    /// The artefact's key, of a root that is called `name`.
    fn key(&self, name: &str) -> String {
        let files: Vec<&str> = self.debs.iter().map(|deb| deb.file.as_str()).collect();
        format!("{name}-{}", digest(&files.join(" ")))
    }
}

/// A root with programs, from the cache.
pub(super) struct Toolchain {
    pub(super) root: PathBuf,
    /// Names its packages at their versions, and so what it builds.
    pub(super) key: String,
}

impl Toolchain {
    /// The one that modules for `kernel` are built in.
    pub(super) fn of_modules(debian: &Debian, kernel: &Kernel) -> Result<Self, Error> {
        if kernel.headers.is_some() {
            return Self::of_kernels(debian, &kernel.suite);
        }
        let key = kernel.key();
        // What is asked for is part of the plan's name: to ask for more is to
        // plan anew.
        let name = format!("toolchain-{key}-{}", digest(&TOOLS.join(" ")));
        let what = format!("compiler and headers for kernel {}", kernel.release);
        Self::prepare(debian, &name, &key, &what, |lists| {
            decide_for_headers(debian, kernel, lists)
        })
    }

    /// The one that modules for 32-bit Arm are built in, for the series of
    /// `kernel`; and the release of the headers in it.
    ///
    /// # Errors
    /// [`Error::No32Bit`] where Debian has none.
    pub(super) fn of_armhf(debian: &Debian, kernel: &Kernel) -> Result<(Self, String), Error> {
        let key = format!("{}-{}", kernel.key(), armhf::ARCH);
        let name = plan_name(&key, &TOOLS);
        let what = format!("32-bit compiler and headers for kernel {}", kernel.release);
        let toolchain = Self::prepare(debian, &name, &key, &what, |lists| {
            armhf::decide(debian, kernel, lists).map(|debs| Plan { debs })
        })?;
        let folder = toolchain.root.join("usr/src");
        let release = cache::entries(&folder)?.into_iter().find_map(|(name, _)| {
            let release = name.strip_prefix("linux-headers-")?;
            release
                .ends_with(armhf::FLAVOUR)
                .then(|| release.to_owned())
        });
        let release = release.ok_or_else(|| Error::Unexpected {
            path: folder,
            problem: format!("no headers of an {} kernel", armhf::FLAVOUR),
        })?;
        Ok((toolchain, release))
    }

    /// The one that kernels are built in from the source of `suite`.
    pub(super) fn of_kernels(debian: &Debian, suite: &str) -> Result<Self, Error> {
        Self::of_packages(debian, suite, &for_kernels(), "a compiler for kernels")
    }

    /// The key of that one as it is known to be, without having it.
    pub(super) fn recorded_of_kernels(debian: &Debian, suite: &str) -> Option<String> {
        let plan: Plan = plan::recorded(debian, &plan_name(suite, &for_kernels()))?;
        Some(plan.key(suite))
    }

    /// One with clang of `suite`, and without gcc, to prepare kernels in.
    pub(super) fn of_clang(debian: &Debian, suite: &str) -> Result<Self, Error> {
        let tools = for_kernels().into_iter().filter(|tool| *tool != "gcc");
        let packages: Vec<&str> = tools.chain(LLVM).collect();
        Self::of_packages(debian, suite, &packages, "clang for kernels")
    }

    /// One with these packages of `suite` and what they depend on.
    pub(super) fn of_packages(
        debian: &Debian,
        suite: &str,
        packages: &[&str],
        what: &str,
    ) -> Result<Self, Error> {
        let name = plan_name(suite, packages);
        let packages: Vec<String> = packages.iter().map(ToString::to_string).collect();
        let what = format!("{what}, Debian {suite}");
        Self::prepare(debian, &name, suite, &what, |lists| {
            let debs = Apt::new(debian, &suites(suite), lists)?.with_dependencies(&packages)?;
            Ok(Plan { debs })
        })
    }

    /// The one that programs in C for the guest are built in.
    pub(super) fn of_programs(debian: &Debian) -> Result<Self, Error> {
        let mut packages = c_compiler(debian.arch).to_vec();
        packages.extend(["coreutils", "dash"]);
        let what = format!("a C compiler for {}", debian.arch);
        Self::of_packages(debian, PROGRAMS_SUITE, &packages, &what)
    }

    /// The one that the guest's init is built in: Rust, and its standard library
    /// for both.
    pub(super) fn of_init(debian: &Debian) -> Result<Self, Error> {
        let key = format!("{RUST_SUITE}-init{}", debian.arch.suffix());
        let name = format!("toolchain-{key}-{}", digest(&RUST.join(" ")));
        let what = format!("a Rust compiler for {}, Debian {RUST_SUITE}", debian.arch);
        Self::prepare(debian, &name, &key, &what, |lists| {
            decide_for_rust(debian, lists)
        })
    }

    fn prepare(
        debian: &Debian,
        name: &str,
        key: &str,
        what: &str,
        decide: impl Fn(Lists) -> Result<Plan, Error>,
    ) -> Result<Self, Error> {
        plan::follow(debian, name, what, decide, |plan: &Plan| {
            let key = plan.key(key);
            let bytes: u64 = plan.debs.iter().map(|deb| deb.bytes).sum();
            // Packages of programs unpack to some four times their size.
            let root = debian
                .cache
                .artefact("toolchain", &key, bytes * 5, |folder| {
                    apt::fetch(&debian.cache, what, &plan.debs)?;
                    unpack::packages(&debian.cache, &plan.debs, what, folder)?;
                    finish(folder)
                })?;
            Ok(Self { root, key })
        })
    }

    /// An empty folder in the root for work of this kind, of which there is one
    /// at a time in a root; emptied when it is dropped. A kernel takes minutes
    /// to build, and modules go on beside it.
    pub(super) fn scratch(&self, debian: &Debian, kind: &'static str) -> Result<Scratch, Error> {
        let lock = debian.cache.lock(&format!("{kind}.{}", self.key))?;
        let all = self.root.join(SCRATCH);
        let path = all.join(kind);
        cache::remove(&path)?;
        fs::create_dir_all(&path).map_err(cache::Error::io("make the folder", &path))?;
        process_files(&all)?;
        Ok(Scratch {
            path,
            kind,
            _lock: lock,
        })
    }

    /// A command that runs what it is given next with this root as its root, and
    /// leaves what passes in `scratch`. Its standard error goes where its output
    /// goes, so that errors stand where they belong.
    pub(super) fn enter(&self, scratch: &Scratch) -> Result<Command, Error> {
        let mut command = enter(&self.root, &scratch.inside(""))?;
        command.args(["sh", "-c", r#"exec "$@" 2>&1"#, "sh"]);
        Ok(command)
    }
}

/// The folder to work in, in a root.
pub(super) struct Scratch {
    /// Seen from outside.
    pub(super) path: PathBuf,
    kind: &'static str,
    _lock: Lock,
}

impl Scratch {
    /// What is called `name` in it, seen from inside of the root.
    pub(super) fn inside(&self, name: &str) -> String {
        format!("/{SCRATCH}/{}/{name}", self.kind)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is removed before the next use.
        let _ = cache::remove(&self.path);
    }
}

/// What kernels are built with.
fn for_kernels() -> Vec<&'static str> {
    TOOLS.iter().chain(&KERNEL_TOOLS).copied().collect()
}

/// What the plan of a root with these packages is called.
fn plan_name(suite: &str, packages: &[&str]) -> String {
    format!("toolchain-{suite}-{}", digest(&packages.join(" ")))
}

/// `suite`, and before it the one that it comes on top of.
pub(super) fn suites(suite: &str) -> Vec<&str> {
    let base = suite.strip_suffix("-backports");
    base.into_iter().chain([suite]).collect()
}

/// Chooses the packages: the headers, bare, since they depend on a whole system
/// with an initramfs; the compiler and the tools with what they need.
fn decide_for_headers(debian: &Debian, kernel: &Kernel, lists: Lists) -> Result<Plan, Error> {
    let apt = Apt::of_guest(debian, &suites(&kernel.suite), lists)?;
    // Of the same revision: the next one may have another configuration.
    let of_version = |package: &str| format!("{package}={}", kernel.package_version);
    let package = of_version(&format!("linux-headers-{}", kernel.release));
    let headers = apt
        .show(&package)?
        .ok_or_else(|| no_headers(debian, kernel, &package))?;
    let of_kind = |prefixes: &[&str]| -> Vec<String> {
        depends(&headers)
            .filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
            .map(str::to_owned)
            .collect()
    };
    let common = of_kind(&["linux-headers-"]);
    let mut bare: Vec<String> = common.iter().map(|name| of_version(name)).collect();
    bare.push(package);
    let mut tools = of_kind(&["linux-compiler-", "linux-kbuild-"]);
    tools.extend(of_kind(&["gcc-"]).iter().map(|gcc| compiler(debian, gcc)));
    tools.extend(TOOLS.map(str::to_owned));

    let mut debs = apt.alone(&bare)?;
    // The tools run here: the headers' own links to linux-kbuild fit either.
    let apt = Apt::new(debian, &suites(&kernel.suite), lists)?;
    debs.extend(apt.with_dependencies(&tools)?);
    Ok(Plan { debs })
}

/// The mirror has moved on since the kernel was fetched.
fn no_headers(debian: &Debian, kernel: &Kernel, package: &str) -> Error {
    let name = &kernel.name;
    let update = match kernel.debian.pins.has_kernel(name) {
        true => format!("lock --update {name}"),
        false => format!("fetch{} --update {name}", debian.arch.option()),
    };
    Error::Packages {
        suite: kernel.suite.clone(),
        said: format!(
            "the mirror has no {package} any more; `cargo vm kernel {update}` takes the kernel that it has now, and --mirror URL can name an archive that still has it"
        ),
    }
}

/// Chooses the packages: Rust and compilers that run here, and the guest's
/// standard library, bare, since it depends on what runs there.
fn decide_for_rust(debian: &Debian, lists: Lists) -> Result<Plan, Error> {
    let newer = |package: &str| format!("{package}/{RUST_SUITE}");
    let mut tools: Vec<String> = RUST.map(newer).to_vec();
    tools.push(newer(STANDARD_LIBRARY));
    // What is run while it builds is linked for here, the rest for there.
    for arch in [Arch::HOST, debian.arch] {
        tools.extend(c_compiler(arch).map(str::to_owned));
    }
    tools.extend(["coreutils", "dash"].map(str::to_owned));
    let mut debs = Apt::new(debian, &suites(RUST_SUITE), lists)?.with_dependencies(&tools)?;
    let there =
        Apt::of_guest(debian, &[RUST_SUITE], lists)?.alone(&[STANDARD_LIBRARY.to_owned()])?;
    let version = |debs: &[Deb]| {
        let found = debs.iter().find(|deb| deb.package == STANDARD_LIBRARY);
        found.map(|deb| deb.version.clone()).unwrap_or_default()
    };
    // Each architecture is built for itself: one may be some hours ahead.
    if version(&debs) != version(&there) {
        return Err(Error::Packages {
            suite: RUST_SUITE.to_owned(),
            said: format!(
                "{STANDARD_LIBRARY} is {} for {} and {} for {} at the moment; try again later",
                version(&debs),
                Arch::HOST.debian(),
                version(&there),
                debian.arch.debian()
            ),
        });
    }
    debs.extend(there);
    Ok(Plan { debs })
}

/// The packages of a C compiler that runs here and builds for `arch`, and of the
/// libc that it links with.
fn c_compiler(arch: Arch) -> [&'static str; 2] {
    match arch {
        Arch::X86_64 => [arch.compiler_package(), "libc6-dev"],
        Arch::Aarch64 => [arch.compiler_package(), "libc6-dev-arm64-cross"],
    }
}

/// The package of the compiler `gcc-16` or `gcc-16-for-host`, as headers ask for
/// it, that runs here and builds for the guest.
fn compiler(debian: &Debian, gcc: &str) -> String {
    match debian.arch {
        Arch::X86_64 => gcc.to_owned(),
        Arch::Aarch64 => format!("{}-aarch64-linux-gnu", gcc.trim_end_matches("-for-host")),
    }
}

/// Adds to the unpacked packages what programs expect of a root.
fn finish(root: &Path) -> Result<(), Error> {
    link_programs(root)?;
    for name in ["dev", SCRATCH] {
        let folder = root.join(name);
        fs::create_dir_all(&folder).map_err(cache::Error::io("make the folder", &folder))?;
    }
    // See `process_files`: it differs from run to run, so it is in the scratch.
    let proc = root.join("proc");
    cache::remove(&proc)?;
    symlink(format!("{SCRATCH}/proc"), &proc).map_err(cache::Error::io("link", &proc))?;
    if geteuid().is_root() {
        device_node(&root.join("dev/null"))?;
    }
    Ok(())
}

/// Makes a `/dev/null` where the kernel and the file system let us; elsewhere
/// there is none, and the build takes the way of an ordinary user.
fn device_node(null: &Path) -> Result<(), Error> {
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
    let made = mknodat(CWD, null, FileType::CharacterDevice, mode, makedev(1, 3));
    if made.is_ok() && fs::OpenOptions::new().write(true).open(null).is_err() {
        // A file system that is mounted nodev.
        cache::remove(null)?;
    }
    Ok(())
}

/// What there is of /proc for root, who needs no right to mount: the one file
/// that is read. objtool of 7.x looks where its stack is, to tell a stack
/// overflow of its own from other crashes, and stops without an answer. Ours is
/// near enough: a wrong one would only cost that message.
fn process_files(scratch: &Path) -> Result<(), Error> {
    let own = Path::new("/proc/self/maps");
    let text = fs::read(own).map_err(cache::Error::io("read", own))?;
    let folder = scratch.join("proc/self");
    fs::create_dir_all(&folder).map_err(cache::Error::io("make the folder", &folder))?;
    let file = folder.join("maps");
    // Another build may be reading it.
    if file.exists() {
        return Ok(());
    }
    Ok(fs::write(&file, text).map_err(cache::Error::io("write", file))?)
}

/// A command that runs what it is given next with `root` as its root.
fn enter(root: &Path, temporary: &str) -> Result<Command, Error> {
    let made_by_root = root.join("dev/null").symlink_metadata().is_ok();
    let mut command = if made_by_root && geteuid().is_root() {
        let mut command = run::program("chroot");
        command.arg(root);
        command
    } else {
        namespace(root)?
    };
    command
        .args(["env", "-i", "LC_ALL=C", "HOME=/"])
        .arg(format!("TMPDIR={temporary}"))
        .arg("PATH=/usr/sbin:/usr/bin");
    Ok(command)
}

/// The same for one who may not chroot: root of a user namespace may, and may
/// bind the host's /dev and /proc into the new root, out of sight of everyone
/// else.
fn namespace(root: &Path) -> Result<Command, Error> {
    let unshare = || {
        let mut command = run::program("unshare");
        command.args(["--user", "--map-root-user", "--mount"]);
        command
    };
    let said = run::run_with(unshare().arg("true"), |_| {})?;
    if !said.success {
        return Err(Error::Program {
            program: "unshare".to_owned(),
            said: format!(
                "{}; building a module takes root, or user namespaces allowed (sysctl kernel.unprivileged_userns_clone=1)",
                said.reason()
            ),
        });
    }
    let mut command = unshare();
    // Entering the namespace takes back the signal at our death: ask again.
    command
        .args(["setpriv", "--pdeathsig", "TERM", "sh", "-c"])
        .arg(
            r#"mount --rbind /dev "$0/dev" && mount --rbind /proc "$0/proc" && exec chroot "$0" "$@""#,
        )
        .arg(root);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use crate::debian::Pins;

    #[test]
    fn how_to_move_on_is_told_for_pinned_kernels_and_others() {
        let folder = tempfile::tempdir().unwrap();
        let debian = Debian::new(Cache::at(folder.path()).unwrap(), None);
        let lock = "[[kernel]]\nname = '7.2'\nrelease = '7.2.1-amd64'\nversion = '7.2.1-1'\nsuite = 'sid'\ndebs = []";
        fs::write(folder.path().join("vm.lock"), lock).unwrap();
        let pinned = debian.clone().pinned(Pins::read(folder.path()).unwrap());
        let said = |debian: &Debian| {
            let kernel = Kernel {
                name: "7.2".into(),
                release: "7.2.1-amd64".into(),
                package_version: "7.2.1-1".into(),
                suite: "sid".into(),
                vmlinux: PathBuf::new(),
                modules: PathBuf::new(),
                image: PathBuf::new(),
                debug: false,
                headers: None,
                own: None,
                debian: debian.clone(),
            };
            no_headers(debian, &kernel, "linux-headers").to_string()
        };
        assert!(said(&debian).contains("`cargo vm kernel fetch --update 7.2`"));
        assert!(said(&pinned).contains("`cargo vm kernel lock --update 7.2`"));
        let arm64 = debian.for_arch(Arch::Aarch64);
        assert!(said(&arm64).contains("--update 7.2`"));
        assert!(said(&arm64).contains(Arch::Aarch64.option()));
    }
}
