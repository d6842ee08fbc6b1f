//! `cargo vm kernel`: a kernel's source, and kernels built from it.

use clap::Subcommand;

use crate::Error;
use crate::debian::{Debian, source};
use crate::project::Project;

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Fetch a kernel's source, and print its folder
    Source {
        /// The series, as in the name of Debian's package linux-source-7.2
        #[arg(value_name = "X.Y")]
        version: String,
    },
    /// Build a kernel that checks itself (some 12 minutes on 2 processors), and print its file
    Build {
        /// debug, or a name of [workspace.metadata.vm.builds]
        #[arg(default_value = "debug")]
        name: String,
    },
}

pub(super) fn run(project: &Project, debian: &Debian, verb: &Verb) -> Result<u8, Error> {
    let path = match verb {
        Verb::Source { version } => source(debian, version)?,
        Verb::Build { name } if project.builds(name) => project.kernel(debian, name)?.vmlinux,
        Verb::Build { name } => {
            let builds = project.settings.builds.keys();
            let known: String = builds.map(|name| format!(", {name}")).collect();
            return Err(Error::Project(format!(
                "no kernel \"{name}\" to build; there is debug{known}; others are of [workspace.metadata.vm.builds.NAME]"
            )));
        }
    };
    println!("{}", path.display());
    Ok(0)
}
