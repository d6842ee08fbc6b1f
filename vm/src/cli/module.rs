//! `cargo vm module`: the project's own module, built and checked without a
//! guest.

use std::path::PathBuf;

use clap::Subcommand;

use super::Processor;
use crate::Error;
use crate::debian::{
    self, Debian, Findings, Kernel, build_module, check_module, check_module_32_bit,
    check_module_clang, check_style,
};
use crate::project::Project;

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Build it, and print the .ko's path
    Build {
        /// The kernel to build it for; default: the project's
        #[arg(long, short, value_name = "NAME")]
        kernel: Option<String>,
        #[command(flatten)]
        processor: Processor,
    },
    /// Build it with every warning (W=1) and sparse (C=2), compile it once for 32-bit Arm, and
    /// run checkpatch; status 1 where something is found
    Check {
        /// The kernels, with commas between them; default: those that the project's tests boot
        #[arg(long, short, value_delimiter = ',', value_name = "NAMES")]
        kernel: Vec<String>,
        /// Build it for a kernel that clang prepares (LLVM=1), too; fetches clang and a kernel's
        /// source, 300 MB
        #[arg(long)]
        clang: bool,
    },
}

impl Verb {
    /// What it is built for: checked it is for ours only, whose compilers and
    /// sparse warn of the same.
    pub(super) fn processor(&self) -> Processor {
        match self {
            Verb::Build { processor, .. } => *processor,
            Verb::Check { .. } => Processor::default(),
        }
    }
}

pub(super) fn run(project: &Project, debian: &Debian, verb: &Verb) -> Result<u8, Error> {
    let folder = folder(project)?;
    match verb {
        Verb::Build { kernel, .. } => {
            let name = kernel.as_ref().unwrap_or(&project.settings.kernel);
            let kernel = project.kernel(debian, name)?;
            println!("{}", build_module(debian, &kernel, &folder)?.display());
            Ok(0)
        }
        Verb::Check { kernel, clang } => {
            let defaults = project.settings.default_kernels();
            let kernels = match kernel.is_empty() {
                true => &defaults,
                false => kernel,
            };
            check(project, debian, &folder, kernels, *clang)
        }
    }
}

/// The folder of the project's module.
pub(super) fn folder(project: &Project) -> Result<PathBuf, Error> {
    let folder = project.settings.module.as_ref();
    folder
        .map(|folder| project.folder().join(folder))
        .ok_or_else(|| {
            Error::Project(
                "this project has no module; name its folder as module in [workspace.metadata.vm]"
                    .into(),
            )
        })
}

fn check(
    project: &Project,
    debian: &Debian,
    folder: &std::path::Path,
    kernels: &[String],
    clang: bool,
) -> Result<u8, Error> {
    let mut clean = report("checkpatch", &check_style(debian, folder)?);
    let mut checked = Vec::new();
    for name in kernels {
        let kernel = project.kernel(debian, name)?;
        let findings = check_module(debian, &kernel, folder)?;
        clean &= report(&format!("kernel {}", kernel.release), &findings);
        checked.push(kernel);
    }
    clean &= check_32_bit(debian, folder, &checked)?;
    if clang {
        let (release, findings) = check_module_clang(debian, folder)?;
        clean &= report(&format!("kernel {release}"), &findings);
    }
    Ok(u8::from(!clean))
}

/// Compiles for the first of the kernels that Debian has for 32-bit Arm, too;
/// whether nothing was found. That none is such a kernel is no finding.
fn check_32_bit(
    debian: &Debian,
    folder: &std::path::Path,
    kernels: &[Kernel],
) -> Result<bool, Error> {
    let compile = |kernel: &Kernel| check_module_32_bit(debian, kernel, folder);
    match first_32_bit(kernels, compile)? {
        Ok((release, findings)) => Ok(report(&format!("32-bit kernel {release}"), &findings)),
        Err(reasons) => {
            println!(
                "note  32-bit: not compiled: {reasons}; add a kernel that has one, such as \
                 --kernel 6.12"
            );
            Ok(true)
        }
    }
}

/// What `compile` gives for the first of the kernels that it can compile for, or
/// why there is no 32-bit build of any.
fn first_32_bit<K, T>(
    kernels: &[K],
    compile: impl Fn(&K) -> Result<T, debian::Error>,
) -> Result<Result<T, String>, debian::Error> {
    let mut reasons = Vec::new();
    let mut unreachable = None;
    for kernel in kernels {
        match compile(kernel) {
            Err(error @ debian::Error::No32Bit { .. }) => reasons.push(error.to_string()),
            // The next kernel's may be in the cache.
            Err(error @ debian::Error::Fetch { .. }) => unreachable = Some(error),
            other => return other.map(Ok),
        }
    }
    unreachable.map_or(Ok(Err(reasons.join("; "))), Err)
}

/// Prints what was found; whether that is nothing.
fn report(by: &str, findings: &Findings) -> bool {
    for finding in &findings.own {
        println!("{finding}\n");
    }
    let elsewhere = match findings.elsewhere {
        0 => String::new(),
        number => format!(" ({number} in the kernel's own headers not counted)"),
    };
    if findings.incomplete {
        println!("note  {by}: sparse cannot read the kernel's own headers; there may be more");
    }
    match findings.own.len() {
        0 => println!("ok    {by}{elsewhere}"),
        number => println!("FAIL  {by}: {number} found{elsewhere}"),
    }
    findings.own.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compiles for kernels whose names begin with `ok`.
    fn compile(name: &&'static str) -> Result<&'static str, debian::Error> {
        match *name {
            "none" => Err(debian::Error::No32Bit {
                release: "7.3".into(),
                problem: "no headers".into(),
            }),
            "unreachable" => Err(debian::Error::Fetch {
                what: "the lists".into(),
                said: "no route".into(),
            }),
            "broken" => Err(debian::Error::NoSource {
                version: "7".into(),
            }),
            name => Ok(name),
        }
    }

    #[test]
    fn first_kernel_with_32_bit_is_compiled() {
        let first = |kernels: &[&'static str]| first_32_bit(kernels, compile);
        for (kernels, built) in [
            (["ok 1", "ok 2"], "ok 1"),
            (["none", "ok 2"], "ok 2"),
            (["unreachable", "ok 2"], "ok 2"),
            (["ok 1", "broken"], "ok 1"),
        ] {
            assert_eq!(first(&kernels).unwrap(), Ok(built), "{kernels:?}");
        }
        assert!(first(&["broken", "ok 2"]).is_err());
        // That the mirror did not answer is no word on what it has.
        let fetch = first(&["none", "unreachable"]).unwrap_err();
        assert!(fetch.to_string().contains("no route"), "{fetch}");
    }

    #[test]
    fn kernels_without_32_bit_are_named() {
        let reasons = first_32_bit(&["none", "none"], compile);
        let reasons = reasons.unwrap().unwrap_err();
        assert_eq!(
            reasons,
            "kernel 7.3: no 32-bit build: no headers; kernel 7.3: no 32-bit build: no headers"
        );
    }
}
