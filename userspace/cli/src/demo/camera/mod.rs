//! `dmashare demo --camera`: frames go from a camera through the GPU to the
//! screen, in three processes, and no CPU copies one.
//!
//! ```text
//! A: camera ── frames ──▶ B: GPU ── frames ──▶ C: screen
//!           ◀── takers ──         ◀── takers ──
//! ```
//!
//! Process C is the one that was started. It starts B, and B starts A. What each
//! can take goes up the stream first, so that whoever allocates does so in a
//! layout that the next one takes as it is; the buffers go down once, by their
//! handles. From then on only numbers go by: which buffer has a frame, and which
//! is free again.
//!
//! - `link` is what they say to each other.
//! - [`bars`] is what the screen is to show.
//! - `tally` counts frames, and times.

pub mod bars;
mod buffers;
mod capture;
mod cpu;
mod draw;
mod link;
mod painter;
mod process;
mod shaders;
mod show;
mod tally;
mod wait;

use std::path::{Path, PathBuf};

use super::DemoError;
use super::report::Report;
use crate::size;

pub(crate) use process::{ProcessOptions, run as process};

/// What the camera's demo is to do.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "camera_options")]
#[non_exhaustive]
pub struct Options {
    /// Take frames from a camera, convert them in the GPU and flip the screen, in three processes
    #[arg(long)]
    pub camera: bool,
    /// How long frames are shown, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, requires = "camera",
        value_parser = clap::value_parser!(u32).range(2..=3600))]
    pub seconds: u32,
    /// Draw with Vulkan instead of EGL and OpenGL ES
    #[arg(long, requires = "camera")]
    pub vulkan: bool,
    /// Do it once more with a copy into and out of every process, to compare
    #[arg(long, requires = "camera")]
    pub copy: bool,
    /// The size of the camera's frames, in pixels
    #[arg(long, value_name = "WxH", default_value = "320x180", requires = "camera",
        value_parser = size)]
    pub size: (u32, u32),
    /// The camera [default: the first that captures]
    #[arg(long, value_name = "NODE", requires = "camera")]
    pub video: Option<PathBuf>,
    /// The GPU, by its DRM node [default: the first that imports, else the CPU in its place]
    #[arg(long, value_name = "NODE", requires = "camera")]
    pub device: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            camera: false,
            seconds: 10,
            vulkan: false,
            copy: false,
            size: (320, 180),
            video: None,
            device: None,
        }
    }
}

/// `320x180`, as frames of a camera can be.
fn size(text: &str) -> Result<(u32, u32), String> {
    let takes = |side: &u32| (8..=16384).contains(side);
    let sides = size::of_picture(text).filter(|(width, height)| takes(width) && takes(height));
    sides.ok_or_else(|| "give it as WIDTHxHEIGHT, each from 8 to 16384, such as 640x360".to_owned())
}

/// Runs the demo, as process C, and tells `report` about it; `card` is the one
/// to show it on, and with `hold` frames wait each time that the pattern has
/// changed, until a line comes on standard input.
pub(super) fn run(
    options: &Options,
    card: Option<&Path>,
    hold: bool,
    report: &mut Report,
) -> Result<(), DemoError> {
    show::run(options, card, hold, false, report)?;
    if options.copy {
        show::run(options, card, hold, true, report)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn a_size_is_two_numbers() {
        assert_eq!(size("640x360"), Ok((640, 360)));
        for wrong in [
            "",
            "640",
            "640x",
            "x360",
            "640x360x2",
            "0x9",
            "640 x 360",
            "99999x9",
        ] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
