//! Building an out-of-tree module with what its kernel was built with.
//!
//! The kernel's headers bring programs (objtool, modpost) that want the libc of
//! their own suite, and Kbuild wants the compiler of the kernel. So the suite's
//! packages are unpacked into a folder, and make runs with that folder as its
//! root: on any host, which needs no compiler and is not touched.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::apt::{self, Apt, Deb, Lists};
use super::kernel::depends;
use super::root::{digest, hex, link_programs};
use super::{Debian, Error, Kernel, plan, run, unpack};
use crate::cache::{self, SCRATCH};
use crate::progress::{Progress, note};

/// What Kbuild's makefiles call, beside the compiler.
const TOOLS: [&str; 8] = [
    "binutils",
    "coreutils",
    "dash",
    "findutils",
    "grep",
    "make",
    "mawk",
    "sed",
];

/// Where the module's source is, seen from the new root.
const SOURCE: &str = "source";

/// What an earlier build may have left beside the sources.
const PRODUCTS: [&str; 6] = ["o", "ko", "mod", "cmd", "order", "symvers"];

/// Which packages a module is built with.
#[derive(Serialize, Deserialize)]
struct Plan {
    debs: Vec<Deb>,
}

/// Builds the module in `source_dir` (a `Kbuild` or `Makefile` with one `obj-m`
/// target, and all it includes but for the kernel's headers) for `kernel`, with
/// the compiler and libc of the kernel's own suite. Gives the `.ko`, named by
/// its target; the same source for the same kernel is built once.
///
/// As root it needs the right to chroot, else the right to make a user
/// namespace. `source_dir` is only read.
///
/// # Errors
/// [`Error::Build`] with all that the compiler said; else [`Error`].
///
/// ```no_run
/// // Not run with the crate's tests: fetches a compiler of some 90 MB.
/// use dmashare_vm::{cache::Cache, debian::{Debian, Kernel, build_module}};
///
/// let debian = Debian::new(Cache::open()?, None);
/// let kernel = Kernel::prepare(&debian, "6.12")?;
/// let module = build_module(&debian, &kernel, "kmod".as_ref())?;
/// println!("insmod {}", module.display());
/// # Ok::<(), dmashare_vm::debian::Error>(())
/// ```
pub fn build_module(debian: &Debian, kernel: &Kernel, source_dir: &Path) -> Result<PathBuf, Error> {
    let sources = sources(source_dir)?;
    let key = format!("{}_{}", kernel.release, fingerprint(kernel, &sources));
    let folder = debian
        .cache
        .artefact("module", &key, 100_000_000, |folder| {
            let toolchain = toolchain(debian, kernel)?;
            // One build at a time in one root: the scratch folder is ours.
            let _lock = debian.cache.lock(&toolchain.lock)?;
            build(&toolchain.root, kernel, source_dir, &sources, folder)
        })?;
    the_module(&folder).ok_or_else(|| Error::Unexpected {
        path: folder,
        problem: "the module is gone".to_owned(),
    })
}

/// A file of the module's source: its path below the folder, and its content.
struct Source {
    path: PathBuf,
    content: Vec<u8>,
}

/// The files of `folder`, in order of their paths, without what is hidden or
/// was built.
fn sources(folder: &Path) -> Result<Vec<Source>, Error> {
    let mut sources = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        // The components, or the folder itself would end in a slash.
        let list: PathBuf = folder.components().chain(below.components()).collect();
        for entry in fs::read_dir(&list).map_err(cache::Error::io("read", &list))? {
            let entry = entry.map_err(cache::Error::io("read", &list))?;
            let (name, path) = (entry.file_name(), below.join(entry.file_name()));
            if is_aside(&name) {
                continue;
            }
            let file = folder.join(&path);
            // Links are followed: the copy has what they lead to.
            let stat = fs::metadata(&file).map_err(cache::Error::io("look at", &file))?;
            if stat.is_dir() {
                open.push(path);
            } else {
                let content = fs::read(&file).map_err(cache::Error::io("read", &file))?;
                sources.push(Source { path, content });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

fn is_aside(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with('.')
        || name.ends_with(".mod.c")
        || name
            .rsplit_once('.')
            .is_some_and(|(_, extension)| PRODUCTS.contains(&extension))
}

/// A hash of all that decides what the module is.
fn fingerprint(kernel: &Kernel, sources: &[Source]) -> String {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        // With its length, so that no two lists of parts read the same.
        hash.update(bytes.len().to_le_bytes());
        hash.update(bytes);
    };
    add(kernel.release.as_bytes());
    add(kernel.package_version.as_bytes());
    for source in sources {
        add(source.path.as_os_str().as_encoded_bytes());
        add(&source.content);
    }
    hex(&hash.finalize())
}

struct Toolchain {
    root: PathBuf,
    lock: String,
}

/// The root that modules for `kernel` are built in, from the cache or made now.
fn toolchain(debian: &Debian, kernel: &Kernel) -> Result<Toolchain, Error> {
    let kernel_key = format!("{}_{}", kernel.release, kernel.package_version);
    // What is asked for is part of the plan's name: to ask for more is to plan
    // anew.
    let name = format!("toolchain-{kernel_key}-{}", digest(&TOOLS.join(" ")));
    plan::follow(
        debian,
        &name,
        &format!("a compiler for kernel {}", kernel.release),
        |lists| decide(debian, kernel, lists),
        |plan: &Plan| {
            let files: Vec<&str> = plan.debs.iter().map(|deb| deb.file.as_str()).collect();
            let key = format!("{kernel_key}-{}", digest(&files.join(" ")));
            let bytes: u64 = plan.debs.iter().map(|deb| deb.bytes).sum();
            // Packages of programs unpack to some four times their size.
            let root = debian
                .cache
                .artefact("toolchain", &key, bytes * 5, |folder| {
                    let what = format!("compiler and headers for kernel {}", kernel.release);
                    let debs = apt::fetch(&debian.cache, &what, &plan.debs)?;
                    unpack::packages(&debs, &what, folder)?;
                    finish(folder)
                })?;
            Ok(Toolchain {
                root,
                lock: format!("toolchain.{key}"),
            })
        },
    )
}

/// Chooses the packages: the headers, bare, since they depend on a whole system
/// with an initramfs; the compiler and the tools with what they need.
fn decide(debian: &Debian, kernel: &Kernel, lists: Lists) -> Result<Plan, Error> {
    // Backports come on top of the suite that they are for.
    let base = kernel.suite.strip_suffix("-backports");
    let suites: Vec<&str> = base.into_iter().chain([kernel.suite.as_str()]).collect();
    let apt = Apt::new(debian, &suites, lists)?;
    let package = format!("linux-headers-{}", kernel.release);
    let headers = apt.show(&package)?.ok_or_else(|| Error::Packages {
        suite: kernel.suite.clone(),
        said: format!(
            "the mirror has no {package} any more; remove {}, and the next run takes the kernel that it has now",
            plan::file(debian, &Kernel::plan_name(&kernel.name)).display()
        ),
    })?;
    let of_kind = |prefixes: &[&str]| -> Vec<String> {
        depends(&headers)
            .filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
            .map(str::to_owned)
            .collect()
    };
    let mut bare = of_kind(&["linux-headers-"]);
    bare.push(package);
    let mut tools = of_kind(&["gcc-", "linux-compiler-", "linux-kbuild-"]);
    tools.extend(TOOLS.map(str::to_owned));

    let mut debs = apt.alone(&bare)?;
    debs.extend(apt.with_dependencies(&tools)?);
    Ok(Plan { debs })
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

/// Builds in `root` and moves the module into `folder`.
fn build(
    root: &Path,
    kernel: &Kernel,
    source_dir: &Path,
    sources: &[Source],
    folder: &Path,
) -> Result<(), Error> {
    let scratch = root.join(SCRATCH);
    cache::remove(&scratch)?;
    let work = scratch.join(SOURCE);
    for source in sources {
        let file = work.join(&source.path);
        let parent = file.parent().unwrap_or(&work);
        fs::create_dir_all(parent).map_err(cache::Error::io("make the folder", parent))?;
        fs::write(&file, &source.content).map_err(cache::Error::io("write", &file))?;
    }
    process_files(&scratch)?;

    let inside = format!("/{SCRATCH}/{SOURCE}");
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut make = enter(root)?;
    // One stream, so that errors stand where they belong.
    make.args(["sh", "-c", r#"exec "$@" 2>&1"#, "sh", "make", "modules"])
        .args(["--no-print-directory", "-C"])
        .arg(format!("/usr/src/linux-headers-{}", kernel.release))
        .arg(format!("M={inside}"))
        .arg(format!("-j{jobs}"))
        // Or it asks for the kernel's type information to take the module's
        // from: the stock packages do not all have it.
        .arg("CONFIG_DEBUG_INFO_BTF_MODULES=");
    let what = format!("building {} for {}", source_dir.display(), kernel.release);
    let mut progress = Progress::spinner(&what);
    let said = run::run_with(&mut make, |_| progress.set(0))?;
    drop(progress);

    // The compiler names files where it sees them: say where they really are.
    let log = format!("{}{}", said.out, said.err).replace(&inside, &source_dir.to_string_lossy());
    let failed = |log: String| Error::Build {
        source_dir: source_dir.to_path_buf(),
        release: kernel.release.clone(),
        log,
    };
    if !said.success {
        cache::remove(&scratch)?;
        return Err(failed(log));
    }
    if log.contains("warning:") {
        note(log.trim_end());
    }
    let module = the_module(&work).ok_or_else(|| {
        failed(format!(
            "{log}it should make one .ko at the top, and did not"
        ))
    })?;
    let target = folder.join(module.file_name().unwrap_or_default());
    fs::rename(&module, &target).map_err(cache::Error::io("rename", &module))?;
    Ok(cache::remove(&scratch)?)
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
    Ok(fs::write(&file, text).map_err(cache::Error::io("write", file))?)
}

/// A command that runs what it is given next with `root` as its root.
fn enter(root: &Path) -> Result<Command, Error> {
    let made_by_root = root.join("dev/null").symlink_metadata().is_ok();
    let mut command = if made_by_root && rustix::process::geteuid().is_root() {
        let mut command = run::program("chroot");
        command.arg(root);
        command
    } else {
        namespace(root)?
    };
    command
        .args(["env", "-i", "LC_ALL=C", "HOME=/"])
        .arg(format!("TMPDIR=/{SCRATCH}"))
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

/// The one `.ko` in a folder.
fn the_module(folder: &Path) -> Option<PathBuf> {
    let mut modules = fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ext| ext == "ko"));
    let module = modules.next()?;
    modules.next().is_none().then_some(module)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_built_is_no_source() {
        for name in [
            ".main.o.cmd",
            "main.o",
            "x.ko",
            "x.mod",
            "x.mod.c",
            "modules.order",
            "Module.symvers",
            ".git",
        ] {
            assert!(is_aside(OsStr::new(name)), "{name}");
        }
        for name in ["Kbuild", "Makefile", "main.c", "uapi.h", "mod", "modern.c"] {
            assert!(!is_aside(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn sources_are_had_in_order_with_folders_below() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::create_dir(path.join("sub")).unwrap();
        fs::write(path.join("sub/b.c"), "b").unwrap();
        fs::write(path.join("a.c"), "a").unwrap();
        fs::write(path.join("a.o"), "built").unwrap();
        let sources = sources(path).unwrap();
        let names: Vec<_> = sources
            .iter()
            .map(|source| source.path.to_str().unwrap())
            .collect();
        assert_eq!(names, ["a.c", "sub/b.c"]);
    }

    #[test]
    fn only_a_single_module_is_the_module() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(the_module(folder.path()), None);
        fs::write(folder.path().join("a.ko"), "").unwrap();
        assert_eq!(the_module(folder.path()), Some(folder.path().join("a.ko")));
        fs::write(folder.path().join("b.ko"), "").unwrap();
        assert_eq!(the_module(folder.path()), None);
    }
}
