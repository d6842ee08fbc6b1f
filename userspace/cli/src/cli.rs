//! The command line.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::demo::report::Report;
use crate::demo::{self, camera, producer};
use crate::failure::Failure;
use crate::module::{self, Module};
use crate::read::{self, Read};
use crate::rm::{self, Rm};
use crate::write::{self, Write};
use crate::{bench, negotiate, probe, told};

/// Share buffers by their handle, not by copying them: between processes, and
/// between processes and devices
#[derive(Debug, Parser)]
#[command(
    name = "dmashare",
    version,
    after_help = "Exit status: 0 if all was done, 1 if something failed, 2 for wrong usage or bad input."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show which ways to allocate, GPUs and cards work here, and what would help the others
    Probe {
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Find one layout and one way to allocate that suit all takers of a picture, or say who is at odds
    Negotiate(negotiate::Options),
    /// Make memory of one of the four ways, for another process to find or to be sent
    #[command(subcommand)]
    Write(Write),
    /// Show memory that another process made: what it is, or its bytes
    #[command(subcommand)]
    Read(Read),
    /// Remove a key or a name, which would outlive its makers
    #[command(subcommand)]
    Rm(Rm),
    /// Build, load and unload our kernel module, and show what it does
    #[command(subcommand)]
    Module(Module),
    /// Measure what it costs to hand a frame to another process, by its handle and by copies
    Bench(bench::Options),
    /// The other process of the benchmark
    #[command(hide = true)]
    BenchConsumer(bench::ConsumerOptions),
    /// Pass a picture from one process through the GPU to the screen, without a copy
    Demo {
        #[command(flatten)]
        options: demo::Options,
        /// Print events as they come, a JSON object a line, instead of a table at the end
        #[arg(long)]
        json: bool,
    },
    /// Process A of the demo
    #[command(hide = true)]
    DemoProducer(producer::Options),
    /// Process A or B of the camera's demo
    #[command(hide = true)]
    DemoCamera(camera::ProcessOptions),
    /// Print this command's manual page, or write those of all its commands into a folder
    #[command(hide = true)]
    Man {
        /// An existing folder, such as ~/.local/share/man/man1
        folder: Option<PathBuf>,
    },
}

/// The command `dmashare`, with this process's arguments.
///
/// ```no_run
/// // Not run: it is the whole program.
/// fn main() -> std::process::ExitCode {
///     dmashare_cli::main()
/// }
/// ```
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Probe { json } => probe_command(json),
        Command::Negotiate(options) => ended(negotiate::run(&options)),
        Command::Write(write) => ended(write::run(&write)),
        Command::Read(read) => ended(read::run(&read)),
        Command::Rm(rm) => ended(rm::run(&rm)),
        Command::Module(module) => ended(module::run(&module)),
        Command::Bench(options) => ended(bench::run(&options)),
        Command::BenchConsumer(options) => ended(bench::consume(&options)),
        Command::Demo { options, json } => demo_command(&options, json),
        // The last process says what these told it: one line for all.
        Command::DemoProducer(options) => status(&producer::run(&options)),
        Command::DemoCamera(options) => status(&camera::process(&options)),
        Command::Man { folder } => told(manual_pages(folder.as_deref())),
    }
}

fn ended(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(line) = failure.line() {
                complain(line);
            }
            failure.status()
        }
    }
}

fn probe_command(json: bool) -> ExitCode {
    let probe = probe::probe();
    ended(match json {
        true => told::json(&probe),
        false => told::lines(&[probe]),
    })
}

fn demo_command(options: &demo::Options, json: bool) -> ExitCode {
    let mut report = Report::new(json);
    let done = demo::run(options, &mut report);
    let told = told(report.finish());
    match done {
        Ok(()) => told,
        Err(error) => {
            complain(&error.line());
            status_of(&error)
        }
    }
}

fn status(done: &Result<(), demo::DemoError>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => status_of(error),
    }
}

fn status_of(error: &demo::DemoError) -> ExitCode {
    match error.is_bad_input() {
        true => ExitCode::from(2),
        false => ExitCode::FAILURE,
    }
}

fn manual_pages(folder: Option<&Path>) -> io::Result<()> {
    if let Some(folder) = folder {
        return clap_mangen::generate_to(Cli::command(), folder);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page)?;
    io::stdout().write_all(&page)
}

/// The end of a command that could do all but print.
fn told(result: io::Result<()>) -> ExitCode {
    ended(result.map_err(Failure::output))
}

/// One line on standard error.
fn complain(message: &str) {
    eprintln!("dmashare: {message}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_manual_page_names_what_users_can_call() {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command())
            .render(&mut page)
            .unwrap();
        let page = String::from_utf8(page).unwrap();
        assert!(page.contains("probe") && page.contains("demo"));
        assert!(!page.contains("producer"), "{page}");
    }
}
