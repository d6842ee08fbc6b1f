//! `cargo vm run`: a program in the guest as if it ran here.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use dmashare_vm_init::Exit;

use crate::debian::Debian;
use crate::project::Project;
use crate::{Error, Event, Process};

#[derive(Args)]
pub(super) struct Options {
    #[command(flatten)]
    guest: super::OneGuest,
    /// How long the program may take
    #[arg(long, default_value = "60s", value_parser = super::duration, value_name = "TIME")]
    deadline: Duration,
    /// A variable of its environment
    #[arg(long, short, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<String>,
}

pub(super) fn run(project: &Project, debian: &Debian, options: &Options) -> Result<u8, Error> {
    let env = environment(&options.env)?;
    let vm = options.guest.boot(project, debian)?;
    let mut command = vm
        .command(&options.command[0])
        .args(&options.command[1..])
        .current_dir(working_directory(project))
        .deadline(options.deadline);
    for (name, value) in env {
        command = command.env(name, value);
    }
    let process = command.spawn()?;
    let mut stdin = process.stdin();
    // Not waited for: our input may have no end, and the program may not read it.
    std::thread::spawn(move || io::copy(&mut io::stdin().lock(), &mut stdin));
    let status = follow(&process)?;
    drop(process);
    vm.power_off()?;
    Ok(status)
}

/// The current directory where the guest has it, too.
pub(super) fn working_directory(project: &Project) -> String {
    match std::env::current_dir() {
        Ok(here) if here.starts_with(project.folder()) => here.to_string_lossy().into_owned(),
        _ => "/".into(),
    }
}

/// Show what it says until it ends; its status, as a shell would tell it.
fn follow(process: &Process<'_>) -> Result<u8, Error> {
    let write = |mut to: Box<dyn Write>, bytes: &[u8]| {
        to.write_all(bytes)
            .and_then(|()| to.flush())
            .map_err(|source| Error::Io {
                what: "pass on its output".into(),
                source,
            })
    };
    loop {
        match process.next_event()? {
            Event::Stdout(bytes) => write(Box::new(io::stdout()), &bytes)?,
            Event::Stderr(bytes) => write(Box::new(io::stderr()), &bytes)?,
            Event::Exit(exit) => return Ok(status(&exit)),
        }
    }
}

pub(super) fn status(exit: &Exit) -> u8 {
    let status = match exit {
        Exit::Code(code) => *code,
        Exit::Signal(signal) => 128 + signal,
        Exit::NotStarted(_) => 127,
    };
    u8::try_from(status).unwrap_or(u8::MAX)
}

fn environment(given: &[String]) -> Result<Vec<(String, String)>, Error> {
    let pair = |text: &String| {
        text.split_once('=')
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .ok_or_else(|| Error::Project(format!("--env {text}: give it as NAME=VALUE")))
    };
    given.iter().map(pair).collect()
}
