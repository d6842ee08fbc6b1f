//! `--screenshot` and `--expect-screen`: what the guest's screen shows in the end.

use std::path::PathBuf;

use clap::Args;
use image::RgbImage;

use crate::screen::{Tolerance, compare, difference_picture, load, save};
use crate::{Error, Vm};

#[derive(Args, Clone)]
pub(super) struct Screen {
    /// Keep what the first screen shows when the program has ended, as a PNG file
    #[arg(long, value_name = "FILE")]
    screenshot: Option<PathBuf>,
    /// The PNG file that it should look like then. Where it does not, the status is 1, and
    /// FILE-diff.png shows the differences (of the screenshot's name, if there is one)
    #[arg(long, value_name = "FILE")]
    expect_screen: Option<PathBuf>,
    /// How far each channel of a pixel may be off, of 255
    #[arg(
        long,
        value_name = "STEPS",
        default_value_t = 0,
        requires = "expect_screen"
    )]
    screen_tolerance: u8,
    /// How many pixels may be further off than that
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 0,
        requires = "expect_screen"
    )]
    screen_pixels: u64,
}

/// What it should look like, read before the guest boots.
pub(super) struct Expected(Option<RgbImage>);

impl Screen {
    pub(super) fn expected(&self) -> Result<Expected, Error> {
        let picture = self.expect_screen.as_ref().map(load);
        picture.transpose().map(Expected)
    }

    /// Takes the picture; whether it is as it should be.
    pub(super) fn check(&self, vm: &Vm, expected: &Expected) -> Result<bool, Error> {
        if self.screenshot.is_none() && expected.0.is_none() {
            return Ok(true);
        }
        let seen = vm.screenshot()?;
        if let Some(file) = &self.screenshot {
            save(&seen, file)?;
        }
        let (Some(expected), Some(file)) = (&expected.0, &self.expect_screen) else {
            return Ok(true);
        };
        let tolerance = Tolerance {
            channel: self.screen_tolerance,
            pixels: self.screen_pixels,
        };
        let Err(difference) = compare(&seen, expected, tolerance) else {
            return Ok(true);
        };
        // Beside a device or a FIFO is no place for it.
        let screenshot = self.screenshot.as_ref().filter(|file| file.is_file());
        let beside = screenshot.unwrap_or(file);
        let mut name = beside.file_stem().unwrap_or_default().to_owned();
        name.push("-diff.png");
        let shown = beside.with_file_name(name);
        save(
            &difference_picture(&seen, expected, tolerance.channel),
            &shown,
        )?;
        eprintln!(
            "cargo vm: the screen is not as {}: {difference}; see {}",
            file.display(),
            shown.display()
        );
        Ok(false)
    }
}
