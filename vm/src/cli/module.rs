//! `cargo vm module`: the project's own module, built and checked without a
//! guest.

use std::path::PathBuf;

use clap::Subcommand;

use super::Processor;
use crate::Error;
use crate::debian::{Debian, Findings, build_module, check_module, check_style};
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
    /// Build it with every warning (W=1) and sparse (C=2), and run checkpatch; status 1 where
    /// something is found
    Check {
        /// The kernels, with commas between them; default: those that the project's tests boot
        #[arg(long, short, value_delimiter = ',', value_name = "NAMES")]
        kernel: Vec<String>,
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
        Verb::Check { kernel } if kernel.is_empty() => check(
            project,
            debian,
            &folder,
            &project.settings.default_kernels(),
        ),
        Verb::Check { kernel } => check(project, debian, &folder, kernel),
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
) -> Result<u8, Error> {
    let mut clean = report("checkpatch", &check_style(debian, folder)?);
    for name in kernels {
        let kernel = project.kernel(debian, name)?;
        let findings = check_module(debian, &kernel, folder)?;
        clean &= report(&format!("kernel {}", kernel.release), &findings);
    }
    Ok(u8::from(!clean))
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
