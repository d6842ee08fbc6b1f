//! `cargo vm`: the command line over this crate.

mod bench;
mod cache;
mod copy;
mod follow;
mod kernel;
mod module;
mod run;
mod runner;
mod screen;
mod shell;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::cache::Cache;
use crate::debian::host::Consent;
use crate::debian::{self, Debian};
use crate::progress::{Progress, note};
use crate::project::{Project, cargo};
use crate::{Arch, Error, GuestOptions, plain, suite};

/// Boot real kernels in QEMU and run programs and tests there; no KVM and no
/// GPU needed.
#[derive(Parser)]
#[command(name = "cargo vm", bin_name = "cargo vm", version, after_help = STATUSES)]
struct Cli {
    #[command(flatten)]
    sources: Sources,
    #[command(subcommand)]
    command: Verb,
}

const STATUSES: &str = "Exit status: that of the program in the guest (128 + N where signal N \
ended it), or 2 for bad input or a problem of the host, 70 where the guest did not boot, 71 for a \
kernel panic, 72 for an oops, a BUG or a WARN, 73 for a deadline passed, 74 where QEMU ended, 75 for \
a report of KASAN, lockdep or another check of the kernel's, 76 where the guest ran out of memory, \
127 where the program did not start. `cargo vm run` ends with 1 where the program succeeded and the \
screen is not as --expect-screen has it, and `cargo vm module check` where there is something to \
report. `cargo vm test` ends with 1 where tests failed, and 77 where a signal killed a test program. 78: a program in the guest \
wrote to the agent's port, so that no result can be believed.";

/// Where what a guest is made of comes from.
#[derive(Args, Clone, Debug, Default)]
pub struct Sources {
    /// Install missing packages on the host without asking (as root, or with sudo)
    #[arg(long, short, global = true)]
    pub yes: bool,
    /// Fetch from this Debian mirror instead of the one that the host's apt names
    #[arg(long, global = true, value_name = "URL")]
    pub mirror: Option<String>,
}

impl Sources {
    /// Open the cache, and see that what is needed is on the host or in it.
    ///
    /// # Errors
    /// What is missing, and how to get it.
    pub fn open(&self) -> Result<Debian, Error> {
        self.open_for(Arch::default())
    }

    /// The same for guests of this architecture.
    ///
    /// # Errors
    /// What is missing, and how to get it.
    pub fn open_for(&self, arch: Arch) -> Result<Debian, Error> {
        let consent = Consent::from_environment(self.yes);
        Ok(Debian::open(self.mirror.clone(), arch, consent)?)
    }

    /// Open the cache, for what needs nothing else.
    fn cache_only(&self) -> Result<Debian, Error> {
        let cache = Cache::open().map_err(debian::Error::from)?;
        Ok(Debian::new(cache, self.mirror.clone()))
    }
}

#[derive(Subcommand)]
enum Verb {
    /// Run a program in a guest; its output and its status are those of this command
    Run(run::Options),
    /// Open a shell in a guest, on a terminal
    Shell(shell::Options),
    /// Run a test program of any crate's in a guest, for cargo and nextest:
    /// CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER='cargo vm runner'
    Runner(runner::Options),
    /// Run the project's tests: on the host, then those marked for it in the guest
    Test(TestOptions),
    /// Measure how long a guest takes here, restored and cold
    Bench(bench::Options),
    /// The kernels that there are: list, fetch, pin, build, remove
    #[command(subcommand)]
    Kernel(kernel::Verb),
    /// What the cache holds; `clean` makes room
    Cache(cache::Options),
    /// The project's own module, built and checked without a guest
    #[command(subcommand)]
    Module(module::Verb),
    #[command(external_subcommand)]
    Project(Vec<OsString>),
}

/// What guests run on.
#[derive(Args, Clone, Copy, Default)]
struct Processor {
    /// The guest's architecture; vm.lock, kernels built from source and those of a path are
    /// for x86_64 only
    #[arg(long, value_enum, default_value_t, value_name = "ARCH")]
    arch: Arch,
}

/// The one guest to boot.
#[derive(Args, Clone)]
struct OneGuest {
    /// The kernel: a version (6.12), debian:SUITE, debug, a name of the project's builds or
    /// kernels, or a path with a slash (../linux, ./arch/x86/boot/bzImage); default: the project's
    #[arg(long, short, value_name = "NAME")]
    kernel: Option<String>,
    #[command(flatten)]
    processor: Processor,
    /// Build the project's own module for this kernel, and load it; its parameters ask for
    /// it, too
    #[arg(long)]
    project_module: bool,
    #[command(flatten)]
    options: GuestOptions,
}

impl OneGuest {
    fn boot(&self, project: &Project, debian: &Debian) -> Result<crate::Vm, Error> {
        let kernel = self.kernel.as_ref().unwrap_or(&project.settings.kernel);
        let module = self.project_module || self.options.project_module_parameters.is_some();
        if module {
            module::folder(project)?;
        }
        let builder = project.guest_with(debian, kernel, module, &self.options)?;
        let progress = Progress::spinner(&format!("booting kernel {kernel}"));
        let vm = builder.boot()?;
        drop(progress);
        if self.options.display.is_some()
            && let Some(place) = vm.vnc()?
        {
            note(&format!("its screens: `vncviewer {place}`"));
        }
        Ok(vm)
    }
}

#[derive(Args)]
struct TestOptions {
    /// The kernels to boot, or names of the project's kernels, with commas between them; default:
    /// all of the project's but those with `default = false`
    #[arg(long, short, value_delimiter = ',', value_name = "NAMES")]
    kernel: Vec<String>,
    #[command(flatten)]
    processor: Processor,
    /// Only the tests marked for the guest
    #[arg(long, conflicts_with = "host_only")]
    guest_only: bool,
    /// Only the tests of the host
    #[arg(long)]
    host_only: bool,
    /// How long one test program may take
    #[arg(long, default_value = suite::DEADLINE, value_parser = duration, value_name = "TIME")]
    deadline: Duration,
    /// How many kernels run side by side; default: as many as there are processors and memory for
    #[arg(long, short, value_name = "N")]
    jobs: Option<usize>,
    /// Write the results as JUnit's XML here; default: vm/junit.xml in the target folder
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write the results as JSON here; default: vm/results.json in the target folder
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A row for every test in the table at the end
    #[arg(long)]
    table: bool,
    #[command(flatten)]
    options: GuestOptions,
    /// Only tests whose name contains this
    filter: Option<String>,
}

/// The whole of `cargo vm`.
pub fn main() -> ExitCode {
    // As `cargo-vm` found by cargo, the first argument is the subcommand's name.
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|word| word == "vm") {
        arguments.remove(1);
    }
    let cli = match parse(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()) * 2);
        }
    };
    match dispatch(cli) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("cargo vm: {}", plain::text(&error.to_string()));
            ExitCode::from(error.exit_status())
        }
    }
}

/// Only help needs the project to be read, and there is help without one, too.
fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let parse = |command: clap::Command| {
        let mut matches = command.try_get_matches_from(arguments)?;
        Cli::from_arg_matches_mut(&mut matches)
    };
    parse(Cli::command()).or_else(|error| match Project::load() {
        Ok(project) => parse(with_commands(Cli::command(), &project)),
        Err(_) => Err(error),
    })
}

fn dispatch(cli: Cli) -> Result<u8, Error> {
    let open = |processor: Processor| cli.sources.open_for(processor.arch);
    // The program's project, which need not be that of the current folder.
    if let Verb::Runner(options) = cli.command {
        let project = runner::project(&options)?;
        return runner::run(&project, &open(options.guest.processor)?, &options);
    }
    let project = &Project::load()?;
    match cli.command {
        Verb::Runner(_) => unreachable!("it has returned"),
        Verb::Run(options) => run::run(project, &open(options.guest.processor)?, &options),
        Verb::Shell(options) => shell::run(project, &open(options.guest.processor)?, &options),
        Verb::Test(options) => {
            let debian = match options.host_only {
                true => None,
                false => Some(open(options.processor)?),
            };
            let options = suite::Options {
                kernels: options.kernel,
                guest_only: options.guest_only,
                filter: options.filter,
                deadline: options.deadline,
                jobs: options.jobs,
                junit: options.junit,
                json: options.json,
                table: options.table,
                guest: options.options,
            };
            suite::run(project, debian.as_ref(), &options)
        }
        Verb::Bench(options) => bench::run(project, &open(options.processor)?, &options),
        Verb::Kernel(verb) => kernel::run(project, &cli.sources, &verb),
        Verb::Cache(options) => {
            let debian = cli.sources.cache_only()?;
            cache::run(project, &debian, cli.sources.yes, &options)
        }
        Verb::Module(verb) => module::run(project, &open(verb.processor())?, &verb),
        Verb::Project(words) => project_command(project, &words, &cli.sources),
    }
}

/// Show the project's own commands in the help.
fn with_commands(command: clap::Command, project: &Project) -> clap::Command {
    let commands = &project.settings.commands;
    if commands.is_empty() {
        return command;
    }
    let names: Vec<&str> = commands.keys().map(String::as_str).collect();
    command.before_help(format!("Commands of this project: {}", names.join(", ")))
}

/// A command of `[workspace.metadata.vm.commands]`: cargo with its words and ours.
fn project_command(project: &Project, words: &[OsString], sources: &Sources) -> Result<u8, Error> {
    if sources.yes || sources.mirror.is_some() {
        return Err(Error::Project(
            "--yes and --mirror stand behind the name of a project's own command".into(),
        ));
    }
    let (name, rest) = words.split_first().expect("clap gives at least the name");
    let name = name.to_string_lossy();
    let known = &project.settings.commands;
    let Some(first) = known.get(name.as_ref()) else {
        let known: Vec<&str> = known.keys().map(String::as_str).collect();
        return Err(Error::Project(format!(
            "no command \"{name}\"; there are run, runner, shell, test, bench, kernel, cache, module{}{}",
            if known.is_empty() {
                ""
            } else {
                ", and of this project "
            },
            known.join(", ")
        )));
    };
    // In our place, so that signals and the status are its own.
    use std::os::unix::process::CommandExt;
    let source = cargo().args(first).args(rest).exec();
    Err(Error::Start {
        program: "cargo",
        source,
    })
}

/// Says it, unless nobody reads on (`| head`).
fn show(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Rows with their columns below each other.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths);
        let line: String = cells
            .map(|(cell, width)| format!("{cell:width$}  "))
            .collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Shows what programs read.
fn show_json(value: &impl serde::Serialize) {
    let text = serde_json::to_string_pretty(value).expect("names and numbers have a JSON form");
    show(&format!("{text}\n"));
}

/// A time as the command line gives it: `90s`, `5m`, `2h`, or plain seconds.
///
/// # Errors
/// Anything else, 0, and more than a year.
///
/// ```
/// use std::time::Duration;
/// assert_eq!(dmashare_vm::cli::duration("5m"), Ok(Duration::from_secs(300)));
/// ```
pub fn duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("a time is a number with s, m or h, as in 90s".into()),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "a time starts with a number, as in 90s")?;
    // More than a year is a slip, and would not fit every clock.
    number
        .checked_mul(seconds)
        .filter(|seconds| (1..=366 * 24 * 3600).contains(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| "a time is above 0, and a year at most".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [["a", "b", "c"], ["long", "", "d"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "a     b  c\nlong     d\n");
    }

    #[test]
    fn reads_times() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for wrong in ["", "s", "5d", "0s", "-1s", "99999999999999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
