//! `dmashare module build`

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use super::KO;
use crate::failure::Failure;
use crate::told;

/// `dmashare module build`
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// The module's source [default: where DKMS has it in /usr/src, else ./kmod]
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    /// The build tree of the kernel that it is for [default: the running kernel's]. Where that was
    /// built with clang, LLVM=-19 in the environment selects clang-19, and LLVM=DIR/ one in DIR
    #[arg(long, value_name = "DIR")]
    kernel_dir: Option<PathBuf>,
    /// An existing folder for dmashare.ko [default: this one]
    #[arg(
        long,
        value_name = "DIR",
        default_value = ".",
        hide_default_value = true
    )]
    output: PathBuf,
}

/// Where DKMS keeps the source of this release.
const DKMS: &str = concat!("/usr/src/dmashare-", env!("CARGO_PKG_VERSION"));

/// Its header, which no other folder has.
const HEADER: &str = "dmashare_uapi.h";

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let source = source(options.source.as_deref())?;
    let kernel = kernel(options.kernel_dir.as_deref())?;
    if !options.output.is_dir() {
        let output = options.output.display();
        return Err(Failure::usage(format!(
            "--output {output} is no folder; make it first"
        )));
    }
    // What make leaves behind stays out of the source, which may be read-only.
    let copy = tempfile::tempdir().map_err(|error| at(&std::env::temp_dir(), &error))?;
    copy_tree(&source, copy.path())?;
    make(&kernel, copy.path())?;
    let built = options.output.join(KO);
    fs::copy(copy.path().join(KO), &built).map_err(|error| at(&built, &error))?;
    told::lines(&[built.display()])
}

fn at(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("{}: {error}", path.display()))
}

fn source(asked: Option<&Path>) -> Result<PathBuf, Failure> {
    let holds_it = |folder: &Path| folder.join(HEADER).exists();
    if let Some(folder) = asked {
        return match holds_it(folder) {
            true => Ok(folder.to_owned()),
            false => Err(Failure::usage(format!(
                "--source {} has no {HEADER}; name the folder kmod of dmashare's source",
                folder.display()
            ))),
        };
    }
    let usual = [DKMS, "kmod"].map(Path::new);
    let found = usual.into_iter().find(|folder| holds_it(folder));
    found.map(Path::to_owned).ok_or_else(|| {
        Failure::failed(format!(
            "the module's source is neither in {DKMS}, where DKMS would have it, nor in ./kmod; \
             get dmashare's source and name its folder kmod by --source"
        ))
    })
}

fn kernel(asked: Option<&Path>) -> Result<PathBuf, Failure> {
    let folder = match asked {
        Some(folder) => folder.to_owned(),
        None => super::modules().join("build"),
    };
    if folder.join("Makefile").exists() {
        // make is started elsewhere.
        return folder.canonicalize().map_err(|error| at(&folder, &error));
    }
    let shown = folder.display();
    Err(match asked {
        Some(_) => Failure::usage(format!(
            "--kernel-dir {shown} is no kernel's build tree: it has no Makefile"
        )),
        None => Failure::failed(format!(
            "{shown}: the running kernel's headers are missing; install its package \
             linux-headers-{}, or name a build tree by --kernel-dir",
            super::release()
        )),
    })
}

/// The source's files alone: what an earlier build left is another kernel's.
fn copy_tree(from: &Path, to: &Path) -> Result<(), Failure> {
    for entry in fs::read_dir(from).map_err(|error| at(from, &error))? {
        let entry = entry.map_err(|error| at(from, &error))?;
        let (path, name) = (entry.path(), entry.file_name());
        let of_a_build = name.to_string_lossy().starts_with('.')
            || ["o", "ko", "mod", "order", "symvers"]
                .iter()
                .any(|extension| path.extension().is_some_and(|have| have == *extension));
        if of_a_build {
            continue;
        }
        let target = to.join(name);
        if path.is_dir() {
            fs::create_dir(&target).map_err(|error| at(&target, &error))?;
            copy_tree(&path, &target)?;
        } else {
            fs::copy(&path, &target).map_err(|error| at(&path, &error))?;
        }
    }
    Ok(())
}

/// Runs the source's Makefile, which selects the compiler that the kernel was
/// built with, and shows what it said only where it fails.
fn make(kernel: &Path, source: &Path) -> Result<(), Failure> {
    let output = Command::new("make")
        .arg("-C")
        .arg(source)
        .arg(format!("KDIR={}", kernel.display()))
        // Type information for BPF would take a tool more, and vmlinux.
        .arg("CONFIG_DEBUG_INFO_BTF_MODULES=")
        .arg("modules")
        .output()
        .map_err(|error| {
            Failure::failed(format!("make: {error}; install make and a C compiler"))
        })?;
    if output.status.success() && source.join(KO).exists() {
        return Ok(());
    }
    eprint!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    Err(Failure::failed(format!(
        "make made no {KO}, for {}: {}; what it said is above",
        kernel.display(),
        output.status
    )))
}
