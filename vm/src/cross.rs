//! Building a project's tests for another architecture than ours.
//!
//! What runs them in the guest is cargo's and the project's own: its target,
//! and a linker for it. Where one is not there, it is said how to get it.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::project::Project;
use crate::{Arch, Error, debian};

/// What cargo is to be told to build for `arch`, where that is not what it does.
///
/// # Errors
/// [`Error::Project`] where Rust's standard library for it or a linker is
/// missing.
pub(crate) fn arguments(project: &Project, arch: Arch) -> Result<Vec<String>, Error> {
    if arch == Arch::HOST {
        return Ok(Vec::new());
    }
    let target = arch.rust();
    let mut arguments = vec!["--target".to_owned(), target.to_owned()];
    let mut lacks = Vec::new();
    if !has_standard_library(project.folder(), target) {
        lacks.push(format!(
            "Rust's standard library for {target}: run `rustup target add {target}`"
        ));
    }
    let compiler = arch.compiler();
    if has_linker(project.folder(), target)? {
        // The project's own word on it.
    } else if debian::installed(compiler) {
        arguments.push("--config".to_owned());
        arguments.push(format!("target.{target}.linker=\"{compiler}\""));
    } else {
        lacks.push(format!(
            "a linker for {target}: run `apt-get install {}`, or name one as target.{target}.linker in .cargo/config.toml",
            arch.compiler_package()
        ));
    }
    match lacks.is_empty() {
        true => Ok(arguments),
        false => Err(Error::Project(format!(
            "cannot build tests for {arch}; missing on this host: {}; `cargo vm run` and `shell` need neither",
            lacks.join("; ")
        ))),
    }
}

/// Whether the Rust of this folder can build for `target`.
fn has_standard_library(folder: &Path, target: &str) -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", target])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output();
    // It says where it would be, there or not.
    output.is_ok_and(|output| {
        let path = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success() && Path::new(path.trim()).is_dir()
    })
}

/// Whether cargo's configuration or the environment names a linker.
fn has_linker(folder: &Path, target: &str) -> Result<bool, Error> {
    let linker =
        cargo_config2::Config::load_with_cwd(folder).and_then(|config| config.linker(target));
    linker
        .map(|linker| linker.is_some())
        .map_err(|error| Error::Project(format!("cargo's configuration: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_projects_own_linker_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        // Nobody's target: neither this host's configuration nor its environment
        // has a word on it.
        let target = "riscv64gc-unknown-linux-musl";
        assert!(!has_linker(folder.path(), target).unwrap());
        std::fs::create_dir(folder.path().join(".cargo")).unwrap();
        let file = folder.path().join(".cargo/config.toml");
        std::fs::write(&file, format!("[target.{target}]\nlinker = \"ours\"\n")).unwrap();
        assert!(has_linker(folder.path(), target).unwrap());
        std::fs::write(&file, "linker = \n").unwrap();
        let error = has_linker(folder.path(), target).unwrap_err();
        assert!(
            error.to_string().starts_with("cargo's configuration: "),
            "{error}"
        );
    }

    #[test]
    fn a_target_without_a_library_is_told_from_one_with() {
        let here = Path::new(".");
        assert!(has_standard_library(here, "x86_64-unknown-linux-gnu"));
        assert!(!has_standard_library(here, "no-such-target"));
    }
}
