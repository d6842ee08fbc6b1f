//! `cargo vm peers`: programs that no one here wrote at the other end, in guests
//! that have them: GStreamer, v4l2-ctl, and a Wayland compositor.
//!
//! On the host this boots the guests, and in each runs itself, which makes the
//! tests there.

mod gstreamer;
mod inside;
mod launch;
mod pool;
mod v4l2;
mod wayland;
mod weston;

use std::io::{Write, stderr, stdout};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use dmashare_tests::guest::is_guest;
use dmashare_vm::cli::{Sources, duration};
use dmashare_vm::debian::Debian;
use dmashare_vm::project::Project;
use dmashare_vm::{Command, Error, Event, Exit, GuestOptions};

/// Exchange buffers with GStreamer, v4l2-ctl and a Wayland compositor, on each kernel
#[derive(Parser)]
#[command(
    name = "cargo vm peers",
    bin_name = "cargo vm peers",
    after_help = "The first use fetches 170 MB of packages, and the guests' root takes 830 MB. \
        Exit status: 1 where something fails, 2 for a problem of this host, from 70 on as \
        `cargo vm`."
)]
struct Arguments {
    /// The kernels, with commas between them
    #[arg(
        long,
        short,
        value_delimiter = ',',
        value_name = "NAMES",
        default_value = "6.12,7.2"
    )]
    kernel: Vec<String>,
    /// How long the tests may take on one kernel
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    deadline: Duration,
    #[command(flatten)]
    sources: Sources,
    /// Only the tests whose names have this in them
    #[arg(value_name = "FILTER")]
    filter: Option<String>,
}

/// What the guests have beside the project's packages.
const PACKAGES: [&str; 5] = [
    "gstreamer1.0-plugins-bad",
    "gstreamer1.0-plugins-base",
    "gstreamer1.0-plugins-good",
    "gstreamer1.0-tools",
    "weston",
];

/// A camera with a video output beside it. There is no card: Mesa would have
/// weston draw by it, and on 6.1 and 6.12 it would end at a dma-buf that is not the
/// card's own.
const MODULE: &str = "vivid n_devs=1 node_types=0x101";

fn main() -> ExitCode {
    if is_guest() {
        return inside::main();
    }
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cargo vm peers: {error}");
            ExitCode::from(error.exit_status())
        }
    }
}

/// Whether all passed on all kernels.
fn run(arguments: &Arguments) -> Result<bool, Error> {
    let mut project = Project::load()?;
    let settings = &mut project.settings;
    settings.packages.extend(PACKAGES.map(str::to_owned));
    settings.modules = vec![MODULE.to_owned()];
    settings.devices.clear();
    let debian = arguments.sources.open()?;
    let mut all = true;
    for kernel in &arguments.kernel {
        all &= passes_on(&project, &debian, kernel, arguments)?;
    }
    Ok(all)
}

/// Whether all passes on this kernel. Its words are passed on.
fn passes_on(
    project: &Project,
    debian: &Debian,
    kernel: &str,
    arguments: &Arguments,
) -> Result<bool, Error> {
    let options = GuestOptions {
        // What 6.1 lacks, for programs that know nothing of the module.
        project_module_parameters: Some("standard_nodes=1".to_owned()),
        // A compositor and a pipeline that starts take some.
        memory: Some(2048),
        ..GuestOptions::default()
    };
    let vm = project.guest_with(debian, kernel, true, &options)?.boot()?;
    println!("on {}:", vm.ready().release);
    let program = std::env::current_exe().and_then(|path| path.canonicalize());
    let program = program.map_err(|source| Error::Io {
        what: "find this program".into(),
        source,
    })?;
    let command = vm.command(program.to_string_lossy());
    let exit = follow(command.args(&arguments.filter).deadline(arguments.deadline))?;
    vm.power_off()?;
    if exit != Exit::Code(0) {
        println!("FAIL: on {kernel} it ended with {exit:?}");
    }
    Ok(exit == Exit::Code(0))
}

/// Its end; what it says until then is said here.
fn follow(command: Command<'_>) -> Result<Exit, Error> {
    let process = command.spawn()?;
    drop(process.stdin());
    loop {
        // A reader of ours that is gone misses what comes, and no test fails.
        let _ = match process.next_event()? {
            Event::Stdout(bytes) => stdout().write_all(&bytes),
            Event::Stderr(bytes) => stderr().write_all(&bytes),
            Event::Exit(exit) => return Ok(exit),
        };
    }
}
