//! `dmashare demo`: a picture goes from one process through the GPU to the
//! screen, and nobody copies it on the way.
//!
//! Process B, the consumer, is the one that was started. It starts process A,
//! the producer, which decodes the picture into a dma-buf and passes that on
//! over a UNIX socket. B imports it into the GPU, which draws a changed picture
//! into a second dma-buf, and has the screen scan that one out.
//!
//! With `--camera` it is frames of a camera, in three processes: see [`camera`].
//!
//! - [`scene`] is what is drawn, in GLSL and in Rust.
//! - [`compare`] tells whether that is what came out.
//! - [`report`] is what both processes tell about their steps.

mod allocate;
pub mod camera;
mod child;
pub mod compare;
mod consumer;
mod error;
mod gpu;
mod peer;
pub mod picture;
pub(crate) mod producer;
pub mod report;
pub mod scene;
mod screen;
mod target;

use std::path::PathBuf;

use dmashare::share::Frame;

pub use error::DemoError;
use report::{Event, Report};

/// What the demo is to do.
#[derive(Clone, Debug, Default, clap::Args)]
#[non_exhaustive]
pub struct Options {
    /// The picture: PNG or JPEG, at most 16384 pixels a side [default: one that comes with the program]
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Do what this machine can, and say what was left out and why: take its own GPU, and share
    /// through a memfd where it has no dma-buf
    #[arg(long)]
    pub on_host: bool,
    /// The card to show it on [default: the first that has a screen and imports]
    #[arg(long, value_name = "NODE")]
    pub card: Option<PathBuf>,
    /// Keep it on the screen until Enter is pressed, or standard input ends; with --camera at each
    /// test pattern
    #[arg(long)]
    pub hold: bool,
    /// Frames of a camera in place of a picture.
    #[command(flatten)]
    pub camera: camera::Options,
}

/// Runs the demo, as process B, and tells `report` about it.
///
/// # Errors
/// The first step that failed; with [`Options::on_host`] steps are left out
/// instead, where that still leaves something to verify.
///
/// ```no_run
/// // Not run: the process that it starts is this very program, as process A.
/// use dmashare_cli::demo::{self, Options, report::Report};
/// let mut report = Report::new(false);
/// demo::run(&Options::default(), &mut report)?;
/// report.finish()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn run(options: &Options, report: &mut Report) -> Result<(), DemoError> {
    let done = match options.camera.camera {
        true => camera::run(
            &options.camera,
            options.card.as_deref(),
            options.hold,
            report,
        ),
        false => consumer::run(options, report),
    };
    if let Err(error) = &done {
        report.tell(Event::Failed {
            message: error.line(),
            bad_input: error.is_bad_input(),
        })?;
    }
    done
}

/// The bytes of a frame's pixels, without what lies between its rows.
fn pixel_bytes(frame: &Frame) -> u64 {
    frame.rows(0).map_or(0, |rows| rows.bytes())
}
