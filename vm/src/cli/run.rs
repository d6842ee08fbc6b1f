//! `cargo vm run`: a program in the guest as if it ran here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::copy::Copies;
use super::follow::follow;
use super::screen::{Expected, Screen};
use crate::debian::Debian;
use crate::project::Project;
use crate::{Error, Vm};

#[derive(Args)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) guest: super::OneGuest,
    /// How long the program may take
    #[arg(long, default_value = "60s", value_parser = super::duration, value_name = "TIME")]
    deadline: Duration,
    /// A variable of its environment; without a value, ours
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Whom it runs as; default: root
    #[arg(long, value_name = "NAME|UID[:GROUP]")]
    user: Option<String>,
    /// Its working directory in the guest; default: the current one in the project, else /
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    #[command(flatten)]
    copies: Copies,
    #[command(flatten)]
    screen: Screen,
    /// Keep the kernel's log in this file, however the run ends
    #[arg(long, value_name = "FILE")]
    dmesg: Option<PathBuf>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<String>,
}

pub(super) fn run(project: &Project, debian: &Debian, options: &Options) -> Result<u8, Error> {
    let env = environment(&options.env)?;
    let expected = options.screen.expected()?;
    let booted = options.guest.boot(project, debian);
    let (ended, dmesg) = match booted {
        Ok(vm) => {
            let log = vm.log();
            (in_guest(vm, project, options, env, &expected), log.dmesg())
        }
        Err(error) => {
            let console = error.console().to_owned();
            (Err(error), console)
        }
    };
    let kept = options
        .dmesg
        .as_ref()
        .map_or(Ok(()), |file| keep(&dmesg, file));
    // What went wrong in the guest is the news, if anything did.
    ended.and_then(|status| kept.map(|()| status))
}

fn in_guest(
    vm: Vm,
    project: &Project,
    options: &Options,
    env: Vec<(String, String)>,
    expected: &Expected,
) -> Result<u8, Error> {
    options.copies.copy_in(&vm)?;
    let mut command = vm
        .command(&options.command[0])
        .args(&options.command[1..])
        .current_dir(
            options
                .cwd
                .clone()
                .unwrap_or_else(|| working_directory(project)),
        )
        .deadline(options.deadline);
    for (name, value) in env {
        command = command.env(name, value);
    }
    if let Some(user) = &options.user {
        command = command.user(user);
    }
    let process = command.spawn()?;
    let (log, file) = (vm.log(), options.dmesg.clone());
    let status = follow(&process, move || {
        if let Some(file) = file
            && let Err(error) = keep(&log.dmesg(), &file)
        {
            eprintln!("cargo vm: {error}");
        }
    })?;
    drop(process);
    let as_expected = options.screen.check(&vm, expected)?;
    options.copies.copy_out(&vm, options.deadline)?;
    vm.end()?;
    Ok(match (status, as_expected) {
        (0, false) => 1,
        _ => status,
    })
}

fn keep(dmesg: &str, file: &Path) -> Result<(), Error> {
    std::fs::write(file, dmesg).map_err(|source| Error::Io {
        what: format!("keep the kernel's log in {}", file.display()),
        source,
    })
}

/// The current directory where the guest has it, too.
pub(super) fn working_directory(project: &Project) -> String {
    match std::env::current_dir() {
        Ok(here) if here.starts_with(project.folder()) => here.to_string_lossy().into_owned(),
        _ => "/".into(),
    }
}

/// Variables as the command line gives them; of a name alone, our value.
pub(super) fn environment(given: &[String]) -> Result<Vec<(String, String)>, Error> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => match std::env::var(text) {
            Ok(value) => Ok((text.clone(), value)),
            Err(error) => Err(Error::Project(format!("--env {text}: {error}"))),
        },
    };
    given.iter().map(pair).collect()
}
