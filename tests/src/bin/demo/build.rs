//! The program that the guest is to run.

use cargo_metadata::camino::Utf8PathBuf;
use dmashare_vm::Error;
use dmashare_vm::project::Project;

/// With this package's features of what both use, so that none of it is built
/// twice.
const BUILD: [&str; 7] = [
    "build",
    "--package",
    "dmashare-cli",
    "--package",
    "dmashare-tests",
    "--bin",
    "dmashare",
];

/// Builds the command `dmashare`, and says where it is.
pub(crate) fn dmashare(project: &Project) -> Result<Utf8PathBuf, Error> {
    let made = project.build("the command dmashare", &BUILD)?;
    made.into_iter()
        .filter(|artifact| artifact.target.name == "dmashare")
        .filter_map(|artifact| artifact.executable)
        .next_back()
        .ok_or_else(|| Error::Project("cargo names no program dmashare".into()))
}
