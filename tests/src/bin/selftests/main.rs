//! `cargo vm selftests`: the kernel's own tests of /dev/udmabuf and
//! /dev/dma_heap, on a kernel that has them and on one where our module stands
//! in. They are fetched and compiled when this runs; none of their code is here.

mod build;
mod tap;

use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use clap::Parser;
use dmashare_vm::cli::{Sources, duration};
use dmashare_vm::debian::Debian;
use dmashare_vm::project::Project;
use dmashare_vm::{GuestOptions, Vm, cache};

use tap::{Results, Verdict};

/// Run the kernel's own selftests of udmabuf and of dma_heaps, where the kernel has these itself
/// and where the module has them instead
#[derive(Parser)]
#[command(
    name = "cargo vm selftests",
    bin_name = "cargo vm selftests",
    after_help = "Exit status: 0 if the module passes all that the kernel itself passes, 1 if \
        not, 2 for a problem of this host, from 70 on as `cargo vm`."
)]
struct Arguments {
    /// The kernel whose own nodes are the measure
    #[arg(long, value_name = "NAME", default_value = "7.2")]
    stock: String,
    /// The kernel that has none, where the module stands in
    #[arg(long, value_name = "NAME", default_value = "6.1")]
    module: String,
    /// The kernel whose selftests are run
    #[arg(long, value_name = "VERSION", default_value = "7.2")]
    source: String,
    /// How much memory a guest has, in MiB: the last tests of udmabuf take 1024 huge pages twice
    #[arg(long, value_name = "MIB", default_value_t = 5000)]
    memory: u32,
    /// How long one program may take
    #[arg(long, value_name = "TIME", default_value = "3m", value_parser = duration)]
    deadline: Duration,
    #[command(flatten)]
    sources: Sources,
}

/// Huge pages of 2 MiB that udmabuf's last tests want: 1024, and some for those
/// that are still being given back.
const HUGE_PAGES: u32 = 1100;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Vm(#[from] dmashare_vm::Error),
    #[error(transparent)]
    Cache(#[from] cache::Error),
    #[error("{program}: {source}; install make and gcc")]
    Start {
        program: String,
        source: std::io::Error,
    },
    #[error("{program}: {status}; its own words are above")]
    Compile { program: String, status: ExitStatus },
    #[error("the guest cannot set {HUGE_PAGES} huge pages aside: {said}; give it more --memory")]
    HugePages { said: String },
}

impl Failure {
    fn exit_status(&self) -> u8 {
        match self {
            Failure::Vm(error) => error.exit_status(),
            _ => 2,
        }
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(worse) => {
            eprintln!("cargo vm selftests: {worse} that the kernel itself passes do not pass");
            ExitCode::FAILURE
        }
        Err(failure) => {
            eprintln!("cargo vm selftests: {failure}");
            ExitCode::from(failure.exit_status())
        }
    }
}

/// How many tests do not pass with the module, of those that pass without.
fn run(arguments: &Arguments) -> Result<usize, Failure> {
    let project = Project::load()?;
    let debian = arguments.sources.open()?;
    let programs = build::programs(&debian, &arguments.source)?;
    let guest = |kernel, module| in_guest(&project, &debian, arguments, kernel, module, &programs);
    let stock = guest(&arguments.stock, false)?;
    let ours = guest(&arguments.module, true)?;

    let headings = [
        arguments.stock.clone(),
        format!("{} with the module", arguments.module),
    ];
    println!("{:64} {:10} {}", "", headings[0], headings[1]);
    let mut worse = 0;
    for (((name, _), stock), ours) in programs.iter().zip(&stock).zip(&ours) {
        worse += compare(name, stock, ours);
    }
    Ok(worse)
}

/// Prints a line for each test and one for the exit status; how many are worse with the
/// module.
fn compare(program: &str, stock: &Results, ours: &Results) -> usize {
    let mut worse = 0;
    let mut row = |test: &str, stock: Verdict, ours: Verdict| {
        let is_worse = stock == Verdict::Passed && ours != Verdict::Passed;
        worse += usize::from(is_worse);
        let line = format!(
            "{:64} {:10} {:8} {}",
            format!("{program} {test}"),
            stock.word(),
            ours.word(),
            if is_worse { "FAIL" } else { "" }
        );
        println!("{}", line.trim_end());
    };
    for at in 0..stock.count().max(ours.count()) {
        let known = stock.tests.get(at).or(ours.tests.get(at));
        let name = known.map_or("", |test| &test.name);
        row(
            &format!("{} {name}", at + 1),
            stock.verdict(at),
            ours.verdict(at),
        );
    }
    row("exit status", stock.exit(), ours.exit());
    if !stock
        .tests
        .iter()
        .any(|test| test.verdict == Verdict::Passed)
    {
        println!("{program}: FAIL: nothing passes on the kernel that is the measure");
        worse += 1;
    }
    worse
}

/// What each program says on this kernel.
fn in_guest(
    project: &Project,
    debian: &Debian,
    arguments: &Arguments,
    kernel: &str,
    module: bool,
    programs: &[(&str, PathBuf)],
) -> Result<Vec<Results>, Failure> {
    let folder = programs.first().and_then(|(_, path)| path.parent());
    let options = GuestOptions {
        project_module_parameters: Some("standard_nodes=1".to_owned()),
        memory: Some(arguments.memory),
        share: folder.map(Path::to_owned).into_iter().collect(),
        ..GuestOptions::default()
    };
    let vm = project
        .guest_with(debian, kernel, module, &options)?
        .boot()?;
    eprintln!("selftests: on {} ...", vm.ready().release);
    set_huge_pages_aside(&vm)?;
    let mut results = Vec::new();
    for (_, path) in programs {
        let path = path.canonicalize().unwrap_or_else(|_| path.clone());
        let output = vm
            .command(path.to_string_lossy())
            .deadline(arguments.deadline)
            .output()?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        if !output.success() {
            // Its words, since its results alone do not say why.
            eprint!("{stdout}{}", String::from_utf8_lossy(&output.stderr));
            eprintln!("{}: {:?}", path.display(), output.exit);
        }
        results.push(Results::parse(&stdout, output.success()));
    }
    vm.power_off()?;
    Ok(results)
}

fn set_huge_pages_aside(vm: &Vm) -> Result<(), Failure> {
    let pool = "/proc/sys/vm/nr_hugepages";
    let script = format!("echo {HUGE_PAGES} > {pool} && cat {pool}");
    let output = vm.command("/bin/sh").args(["-c", &script]).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    match said.trim().parse() == Ok(HUGE_PAGES) {
        true => Ok(()),
        false => Err(Failure::HugePages {
            said: format!(
                "{} {}",
                said.trim(),
                String::from_utf8_lossy(&output.stderr)
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_the_kernel_passes_is_counted() {
        let all = Results::parse("1..3\nok 1 a\nok 2 b\nnot ok 3 c\n", true);
        assert_eq!(compare("it", &all, &all), 0);
        // It ended early, or failed, or skipped.
        let ended = Results::parse("1..3\nok 1 a\n", true);
        assert_eq!(compare("it", &all, &ended), 1);
        let worse = Results::parse("1..3\nok 1 a # SKIP\nnot ok 2 b\nok 3 c\n", true);
        assert_eq!(compare("it", &all, &worse), 2);
        // Without a measure nothing is compared.
        let nothing = Results::parse("1..3\n", true);
        assert_eq!(compare("it", &nothing, &all), 1);
    }

    #[test]
    fn failing_exit_status_counts() {
        let results = |succeeded| Results::parse("1..1\nok 1 all of it\n", succeeded);
        assert_eq!(compare("udmabuf", &results(true), &results(true)), 0);
        assert_eq!(compare("udmabuf", &results(true), &results(false)), 1);
        // Where it fails on the kernel's own nodes, too, that is not the module's fault.
        assert_eq!(compare("udmabuf", &results(false), &results(false)), 0);
    }
}
