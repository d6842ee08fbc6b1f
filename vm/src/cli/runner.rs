//! `cargo vm runner`: what cargo and nextest run a program with, so that any
//! crate's tests run in a guest.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::copy::copy_in;
use super::follow::follow;
use crate::builder::is_guests_own;
use crate::debian::Debian;
use crate::progress::note;
use crate::project::{Project, told_of};
use crate::{Error, cargo_env};

/// Variables by which the users of cargo, nextest and Rust's programs speak to them,
/// beside those that cargo and nextest set themselves; those that end with `_` are
/// beginnings of names. Not among them is what concerns the host alone, or nobody else:
/// paths, proxies, tokens.
const PASSED_ON: [&str; 22] = [
    "CARGO",
    "CARGO_BIN_",
    "CARGO_CRATE_NAME",
    "CARGO_MANIFEST_",
    "CARGO_PKG_",
    "CARGO_PRIMARY_PACKAGE",
    "CARGO_TARGET_TMPDIR",
    "CI",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "COLORTERM",
    "INSTA_",
    "LD_LIBRARY_PATH",
    "NEXTEST",
    "NEXTEST_",
    "NO_COLOR",
    "OUT_DIR",
    "PROPTEST_",
    "QUICKCHECK_",
    "RUST_",
    "TERM",
    "__RUST_TEST_INVOKE",
];

#[derive(Args)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) guest: super::OneGuest,
    /// How long the program may take
    #[arg(long, default_value = "5m", value_parser = super::duration, value_name = "TIME")]
    deadline: Duration,
    /// One more variable of its environment, beside those that cargo and nextest set and RUST_*;
    /// without a value, ours
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Keep what tests write to CARGO_TARGET_TMPDIR in the guest's memory, where files can be
    /// used after they were removed; the host does not get it
    #[arg(long)]
    tmpdir_in_memory: bool,
    /// The program and its arguments, as cargo adds them
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    command: Vec<String>,
}

/// The project of the program, whose settings count: the one it lies in, or the
/// one that cargo runs it for.
pub(super) fn project(options: &Options) -> Result<Project, Error> {
    let program = program(options)?;
    let mut above = program.ancestors().skip(1);
    match above.find(|folder| folder.join("Cargo.toml").exists()) {
        Some(folder) => Project::at(folder),
        None => match env::var_os("CARGO_MANIFEST_DIR") {
            Some(folder) => Project::at(Path::new(&folder)),
            None => Project::load(),
        },
    }
}

pub(super) fn run(project: &Project, debian: &Debian, options: &Options) -> Result<u8, Error> {
    let program = program(options)?;
    let here = env::current_dir().map_err(Error::io("the current directory"))?;
    let mut guest = options.guest.clone();
    let folder = program.parent().unwrap_or(Path::new("/"));
    let mut there = vec![
        project.folder().to_owned(),
        project.target_folder().to_owned(),
    ];
    for folder in [folder, &here] {
        if !there.iter().any(|root| folder.starts_with(root)) && !is_guests_own(folder) {
            guest.options.share.push(folder.to_owned());
            there.push(folder.to_owned());
        }
    }
    // What cargo calls CARGO_TARGET_TMPDIR: integration tests write there.
    let scratch = project.target_folder().join("tmp");
    if scratch.is_dir() && options.tmpdir_in_memory {
        guest.options.share_in_memory.push(scratch);
    } else if scratch.is_dir() {
        note(&format!(
            "{}: a file there that is removed while it is open cannot be truncated, chmodded or \
             opened again in the guest (9p); where tests do that, run them with --tmpdir-in-memory",
            scratch.display()
        ));
        guest.options.share_writable.push(scratch);
    }
    let vm = guest.boot(project, debian)?;
    let path = program.to_string_lossy();
    if is_guests_own(folder) {
        copy_in(&vm, &program, &path)?;
    }
    let mut command = vm
        .command(path)
        .args(&options.command[1..])
        .current_dir(here.to_string_lossy())
        .deadline(options.deadline);
    for (name, value) in environment(project, &here, &options.env)? {
        command = command.env(name, value);
    }
    let process = command.spawn()?;
    let status = follow(&process, || {})?;
    drop(process);
    vm.end()?;
    Ok(status)
}

/// The program's path, as the guest has it, where links are resolved.
fn program(options: &Options) -> Result<PathBuf, Error> {
    let name = &options.command[0];
    let path = Path::new(name).canonicalize().map_err(Error::io(name))?;
    let metadata = path.metadata().map_err(Error::io(name))?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return Err(Error::Project(format!("{name} is no program")));
    }
    Ok(path)
}

fn environment(
    project: &Project,
    here: &Path,
    given: &[String],
) -> Result<Vec<(String, String)>, Error> {
    let (all, before) = cargo_env::given();
    let users = all.clone().into_iter();
    let users = users.filter(|(name, _)| name.to_str().is_some_and(is_passed_on));
    let mut pairs = cargo_env::texts(users.collect());
    if let Some(before) = before {
        pairs.extend(cargo_env::texts(cargo_env::set(all, &before)));
    }
    pairs.extend(package_of(project, here));
    pairs.extend(super::run::environment(given)?);
    Ok(pairs)
}

fn is_passed_on(name: &str) -> bool {
    PASSED_ON.iter().any(|known| match known.ends_with('_') {
        true => name.starts_with(known),
        false => name == *known,
    })
}

/// What cargo said of the package that is tested, in whose folder it runs its
/// tests. Where we are ourselves run by cargo, as a project's alias has it, that
/// cargo says ours instead.
fn package_of(project: &Project, here: &Path) -> Vec<(String, String)> {
    let packages = project.metadata.workspace_packages();
    let manifest = here.join("Cargo.toml");
    let Some(package) = packages
        .into_iter()
        .find(|p| p.manifest_path.as_std_path() == manifest)
    else {
        return Vec::new();
    };
    told_of(package, &here.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_the_host_alone_stays_here() {
        for name in [
            "CARGO_PKG_VERSION_MAJOR",
            "CARGO_BIN_EXE_tool",
            "NEXTEST_RUN_ID",
            "NEXTEST",
            "RUST_LOG",
        ] {
            assert!(is_passed_on(name), "{name}");
        }
        for name in [
            "PATH",
            "HOME",
            "CARGO_HOME",
            "CARGO_REGISTRY_TOKEN",
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER",
            "RUSTFLAGS",
            "http_proxy",
        ] {
            assert!(!is_passed_on(name), "{name}");
        }
    }
}
