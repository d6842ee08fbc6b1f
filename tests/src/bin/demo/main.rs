//! `cargo vm demo`: the demo of `dmashare` in a guest, checked from outside on
//! what the guest's screen shows.

mod build;
mod camera;
mod displays;
mod guest;
mod output;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use dmashare_cli::demo::camera::bars::Off;
use dmashare_cli::demo::compare::{Difference, compare};
use dmashare_cli::demo::picture::{self, PictureError};
use dmashare_cli::demo::report::{Actor, Event, Report, Step};
use dmashare_cli::demo::scene;
use dmashare_vm::cli::{Sources, duration};
use dmashare_vm::project::Project;
use dmashare_vm::screen::difference_picture;
use image::RgbImage;

use output::{Output, OutputError};

/// Share a picture between two processes, a GPU and a screen in a guest, without a copy, and
/// check the screen pixel by pixel
#[derive(Parser)]
#[command(
    name = "cargo vm demo",
    bin_name = "cargo vm demo",
    after_help = "Exit status: 0 if every pixel of the screen is what it should be, 1 if one is \
        not or a step failed, 2 for bad input (a kernel \
        that does not boot included) or a problem of this host, from 71 on as `cargo vm`."
)]
struct Arguments {
    /// The picture: PNG or JPEG, at most 16384 pixels a side [default: one that comes with the project]
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Where to save what the screen shows
    #[arg(long, value_name = "FILE", default_value = "demo.png")]
    output: PathBuf,
    /// The kernel: a version (7.2), or debian:SUITE [default: the project's]
    #[arg(long, short, value_name = "NAME")]
    kernel: Option<String>,
    /// Print events as they come, a JSON object a line, instead of a table at the end
    #[arg(long)]
    json: bool,
    /// How long the demo may take in the guest [default: 2m, and what the camera's frames take]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    deadline: Option<Duration>,
    /// Frames of a virtual camera in place of a picture, in three processes
    #[arg(long, conflicts_with = "input")]
    camera: bool,
    /// How long frames are shown, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, requires = "camera",
        value_parser = clap::value_parser!(u32).range(2..=3600))]
    seconds: u32,
    /// Draw with Vulkan instead of EGL and OpenGL ES
    #[arg(long, requires = "camera")]
    vulkan: bool,
    /// Do it once more with a copy into and out of every process, to compare
    #[arg(long, requires = "camera")]
    copy: bool,
    #[command(flatten)]
    sources: Sources,
}

impl Arguments {
    fn deadline(&self) -> Duration {
        let frames = match (self.camera, self.copy) {
            (false, _) => 0,
            (true, false) => self.seconds,
            (true, true) => 2 * self.seconds,
        };
        let else_enough = Duration::from_secs(120) + Duration::from_secs(frames.into());
        self.deadline.unwrap_or(else_enough)
    }
}

/// Why there is nothing to be seen, or not the right thing.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Picture(#[from] PictureError),
    #[error("the guest cannot have {}: it needs its own; copy {name} to another folder", .folder.display())]
    Folder { folder: PathBuf, name: String },
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error(transparent)]
    Vm(#[from] dmashare_vm::Error),
    #[error("the demo failed in the guest: {0}")]
    Guest(String),
    #[error("the screen is not what the picture and the shader say: {difference}; see {}", .shown.display())]
    Differs {
        difference: Difference,
        shown: PathBuf,
    },
    #[error("the screen does not show the camera's test pattern {pattern}: {off}; see {}", .shown.display())]
    Off {
        pattern: u32,
        off: Off,
        shown: PathBuf,
    },
    #[error("the screen showed {0} of the camera's two test patterns")]
    Patterns(usize),
    #[error("standard output: {0}")]
    Stdout(#[from] std::io::Error),
}

impl Failure {
    fn exit_status(&self) -> u8 {
        match self {
            Failure::Picture(_) | Failure::Folder { .. } | Failure::Output(_) => 2,
            // What was asked to boot is part of the input here.
            Failure::Vm(dmashare_vm::Error::NotBooted { .. }) => 2,
            Failure::Vm(error) => error.exit_status(),
            Failure::Guest(_)
            | Failure::Differs { .. }
            | Failure::Off { .. }
            | Failure::Patterns(_)
            | Failure::Stdout(_) => 1,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut report = Report::new(arguments.json);
    let mut done = run(&arguments, &mut report);
    if let Err(failure) = &done {
        let told = report.tell(Event::Failed {
            message: failure.to_string(),
            bad_input: failure.exit_status() == 2,
        });
        // The first failure is the one to be told.
        let _ = told;
    }
    let printed = report.finish();
    if done.is_ok() {
        done = printed.map_err(Failure::from);
    }
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("cargo vm demo: {failure}");
            ExitCode::from(failure.exit_status())
        }
    }
}

fn run(arguments: &Arguments, report: &mut Report) -> Result<(), Failure> {
    // What can be wrong with the arguments comes before anything is fetched.
    let picture = picture::load(arguments.input.as_deref())?;
    let output = Output::check(&arguments.output)?;
    let input = arguments.input.as_deref().map(guest::Input::new);
    let input = input.transpose()?;

    let mut project = Project::load()?;
    let program = build::dmashare(&project)?;
    let kernel = arguments.kernel.as_ref();
    let kernel = kernel.unwrap_or(&project.settings.kernel).clone();
    let debian = arguments.sources.open()?;
    // The one that the guest boots: by vm.lock, or of the project's builds.
    let release = project.kernel(&debian, &kernel)?.release;
    displays::put_importing_first(&mut project.settings.devices, &release);
    let mut builder = project.guest(&debian, &kernel, false)?;
    if let Some(folder) = input
        .as_ref()
        .and_then(|input| input.folder_beyond(&project))
    {
        builder = builder.share(folder);
    }

    let started = Instant::now();
    let vm = builder.boot()?;
    let release = &vm.ready().release;
    let booted = Step::done(
        Actor::Host,
        "boot",
        format!("QEMU, Linux {release}"),
        started,
        0,
    );
    report.step(booted)?;
    let demo = guest::Demo {
        program: &program,
        input: input.as_ref(),
        deadline: arguments.deadline(),
    };
    if arguments.camera {
        camera::run(arguments, &demo, &vm, &output, report)?;
        return Ok(vm.power_off()?);
    }
    let screen = demo.run(&vm, report)?;
    vm.power_off()?;
    output.save(&screen)?;
    check(&picture, &screen, &output, report)
}

/// Compares the screen with what the input and the shader say.
fn check(
    picture: &RgbImage,
    screen: &RgbImage,
    output: &Output,
    report: &mut Report,
) -> Result<(), Failure> {
    let started = Instant::now();
    let (width, height) = screen.dimensions();
    let expected = scene::expected(picture, (width, height));
    let compared = compare(screen, &expected);
    let bytes = u64::from(width) * u64::from(height) * 3;
    report.step(Step::done(Actor::Host, "check", "CPU", started, bytes))?;
    if let Err(difference) = compared {
        let shown = output.beside("-diff");
        shown.save(&difference_picture(screen, &expected, 0))?;
        return Err(Failure::Differs {
            difference,
            shown: shown.path().to_owned(),
        });
    }
    let shown = display(output.path());
    report.tell(Event::Verdict {
        verified: format!(
            "{width}x{height} pixels are what the picture and the shader say; {shown} shows them"
        ),
    })?;
    Ok(())
}

fn display(path: &Path) -> String {
    path.display().to_string()
}
