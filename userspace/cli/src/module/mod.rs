//! `dmashare module`: the kernel module, from its source to its end.

mod build;
mod load;
mod modinfo;
mod refusal;
mod status;
mod unload;

use std::path::{Path, PathBuf};

use clap::Subcommand;

use crate::failure::Failure;

/// What the module's life consists of.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Module {
    /// Build it for a kernel, in a copy of its source; needs make, that kernel's headers, and gcc or clang as the kernel was built with
    Build(build::Options),
    /// Load it, with parameters such as standard_nodes=1; as root
    Load(load::Options),
    /// Unload it, once nobody uses it; as root
    Unload,
    /// Show the loaded module: nodes and access to them, limits, use and parameters
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(module: &Module) -> Result<(), Failure> {
    match module {
        Module::Build(options) => build::run(options),
        Module::Load(options) => load::run(options),
        Module::Unload => unload::run(),
        Module::Status { json } => status::run(*json),
    }
}

/// Its file, as it is built.
const KO: &str = "dmashare.ko";

/// Where the kernel shows it, while it is loaded.
const SYSFS: &str = "/sys/module/dmashare";

/// Its list of buffers, for root.
const BUFFERS: &str = "/sys/kernel/debug/dmashare/buffers";

/// A line that the kernel shows of the loaded module.
fn shown(file: &str) -> Option<String> {
    let text = std::fs::read_to_string(Path::new(SYSFS).join(file)).ok()?;
    Some(text.trim().to_owned())
}

/// Of the running kernel, as `uname -r` prints it.
fn release() -> String {
    let uname = rustix::system::uname();
    uname.release().to_string_lossy().into_owned()
}

/// Where this kernel's modules are.
fn modules() -> PathBuf {
    Path::new("/lib/modules").join(release())
}
