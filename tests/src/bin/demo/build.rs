//! The program that the guest is to run.

use std::io::BufReader;
use std::process::{Command, Stdio};

use cargo_metadata::Message;
use cargo_metadata::camino::Utf8PathBuf;
use dmashare_vm::Error;
use dmashare_vm::project::Project;

/// Builds the command `dmashare`, and says where it is; cargo tells about its
/// progress and its errors.
pub(crate) fn dmashare(project: &Project) -> Result<Utf8PathBuf, Error> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = Command::new(cargo)
        // With this package's features of what both use, so that none of it
        // is built twice.
        .args([
            "build",
            "--package",
            "dmashare-cli",
            "--package",
            "dmashare-tests",
        ])
        .args(["--bin", "dmashare"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(project.folder())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|source| Error::Start {
            program: "cargo",
            source,
        })?;
    let stdout = cargo.stdout.take().expect("its standard output is piped");
    let program = Message::parse_stream(BufReader::new(stdout))
        // What is no message ends in a build that failed, or made no program.
        .map_while(Result::ok)
        .filter_map(|message| match message {
            Message::CompilerArtifact(made) if made.target.name == "dmashare" => made.executable,
            _ => None,
        })
        .last();
    let built = cargo.wait().is_ok_and(|status| status.success());
    program
        .filter(|_| built)
        .ok_or_else(|| Error::Project("the command dmashare does not build; see above".into()))
}
