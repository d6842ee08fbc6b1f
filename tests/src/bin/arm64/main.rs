//! `cargo vm arm64`: the module and the C programs of `tests/peers/`, built for
//! arm64 and run on Debian's kernels for it. None of these has dma-heaps: where
//! a program takes a dma-buf of one, the module stands in.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use dmashare_vm::cli::{Sources, duration};
use dmashare_vm::debian::{self, Debian, Kernel, Root, build_module, build_program};
use dmashare_vm::project::Project;
use dmashare_vm::{Arch, Builder, Error, Vm};

/// Build the module and the C programs for arm64, and run them on its kernels
#[derive(Parser)]
#[command(
    name = "cargo vm arm64",
    bin_name = "cargo vm arm64",
    after_help = "The first use fetches some 250 MB of compilers, and about 100 MB for each \
        kernel. Exit status: 1 where something fails, 2 for a problem of this host, from 70 on \
        as `cargo vm`."
)]
struct Arguments {
    /// The kernels, with commas between them
    #[arg(
        long,
        short,
        value_delimiter = ',',
        value_name = "NAMES",
        default_value = "6.12"
    )]
    kernel: Vec<String>,
    /// How long one exchange may take
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    deadline: Duration,
    #[command(flatten)]
    sources: Sources,
}

/// The programs.
const PROGRAMS: [&str; 8] = [
    "dmabuf_reader",
    "dmabuf_writer",
    "memfd_reader",
    "memfd_writer",
    "posix_reader",
    "posix_writer",
    "sysv_reader",
    "sysv_writer",
];
/// A reader waits in the background until its writer, which tries until the
/// reader listens, has sent something; then it says what came.
const EXCHANGE: &str = r#"
cd /tmp
$reader > said & reader=$!
tries=0
until $writer 2> failed; do
    tries=$((tries + 1))
    if [ $tries = 50 ]; then cat failed >&2; kill $reader; exit 1; fi
    sleep 0.1
done
wait $reader && cat said
"#;

/// What a guest is to do, in its shell, and to say.
struct Check {
    name: &'static str,
    script: &'static str,
    /// The programs at the two ends of [`EXCHANGE`].
    ends: Option<(&'static str, &'static str)>,
    said: &'static str,
}

const CHECKS: [Check; 6] = [
    Check {
        name: "the processor",
        script: "uname -m",
        ends: None,
        said: "aarch64\n",
    },
    Check {
        name: "memfds from one program to another",
        script: EXCHANGE,
        ends: Some(("memfd_reader s", "memfd_writer s 3 8192 hello")),
        said: "8192 hello\n8192 hello\n8192 hello\n",
    },
    Check {
        name: "a dma-buf of the module's heap from one program to another",
        script: EXCHANGE,
        ends: Some(("dmabuf_reader s", "dmabuf_writer s 1000000 hello")),
        said: "1003520 hello\n",
    },
    Check {
        name: "POSIX shared memory",
        script: "posix_writer /x 4096 p && posix_reader /x 4",
        ends: None,
        said: "pppp",
    },
    Check {
        name: "System V shared memory",
        script: "touch /tmp/key && sysv_writer /tmp/key 4096 v && sysv_reader /tmp/key 4",
        ends: None,
        said: "vvvv",
    },
    // Also that nothing of it is held any more.
    Check {
        name: "the heap is the module's, and goes with it",
        script: "test -c /dev/dma_heap/system && rmmod dmashare && test ! -e /dev/dma_heap/system",
        ends: None,
        said: "",
    },
];

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failed) => {
            eprintln!("cargo vm arm64: {failed} failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("cargo vm arm64: {error}");
            ExitCode::from(error.exit_status())
        }
    }
}

/// How many checks failed.
fn run(arguments: &Arguments) -> Result<usize, Error> {
    let project = Project::load()?;
    let debian = arguments.sources.open_for(Arch::Aarch64)?;
    let peers = project.folder().join("tests/peers");
    // As build.rs has them compiled for the host.
    let flags: Vec<&str> = env!("PEER_FLAGS").split(' ').collect();
    let programs = PROGRAMS
        .iter()
        .map(|name| build_program(&debian, &peers, &format!("{name}.c"), &flags))
        .collect::<Result<Vec<_>, debian::Error>>()?;
    let mut failed = 0;
    for kernel in &arguments.kernel {
        let vm = guest(&debian, kernel, &project.folder().join("kmod"), &programs)?;
        for check in &CHECKS {
            failed += usize::from(!passes(&vm, check, &programs, arguments.deadline)?);
        }
        vm.power_off()?;
    }
    Ok(failed)
}

/// A guest with the module and the programs.
fn guest(debian: &Debian, kernel: &str, module: &Path, programs: &[PathBuf]) -> Result<Vm, Error> {
    let kernel = Kernel::prepare(debian, kernel)?;
    let root = Root::prepare(debian, "trixie", &["busybox-static"])?;
    let module = build_module(debian, &kernel, module)?;
    let mut builder = Builder::new(kernel, root.image).module_file(module, "standard_nodes=1");
    for folder in programs.iter().filter_map(|program| program.parent()) {
        builder = builder.share(folder);
    }
    builder.boot()
}

/// Whether it says what it should; a line that tells.
fn passes(vm: &Vm, check: &Check, programs: &[PathBuf], deadline: Duration) -> Result<bool, Error> {
    let folders: Vec<_> = programs
        .iter()
        .filter_map(|program| Some(program.parent()?.to_string_lossy()))
        .collect();
    let (reader, writer) = check.ends.unwrap_or_default();
    let output = vm
        .command("/bin/sh")
        .args(["-c", check.script])
        .env("PATH", format!("{}:/usr/sbin:/usr/bin", folders.join(":")))
        .env("reader", reader)
        .env("writer", writer)
        .deadline(deadline)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let passes = output.success() && said == check.said;
    let verdict = if passes { "ok  " } else { "FAIL" };
    println!("{verdict}  {}: {}", vm.ready().release, check.name);
    if !passes {
        println!(
            "      it ended with {:?} and said {said:?}, not {:?}; {}",
            output.exit,
            check.said,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(passes)
}
