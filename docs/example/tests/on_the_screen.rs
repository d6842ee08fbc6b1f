//! The guest seen from outside: what its screen shows, and how it ends.

use std::time::Duration;

use dmashare_vm::screen::{Tolerance, compare, difference_picture, save};
use dmashare_vm::{Error, Vm};
use image::{Rgb, RgbImage};

/// The program, built for this test by cargo.
const PAINT: &str = env!("CARGO_BIN_EXE_paint");

#[test]
fn the_screen_has_the_colour() -> Result<(), Error> {
    let vm = Vm::builder()
        .kernel("7.2")
        .packages(["busybox-static", "libc6"])
        .prepare()?
        .module("bochs", "")
        .device("bochs-display")
        .share(env!("CARGO_MANIFEST_DIR"))
        .boot()?;
    let painted = vm
        .command(PAINT)
        .args(["fb0", "200", "100", "50"])
        .output()?;
    assert!(painted.success(), "{painted:?}");

    let seen = vm.screenshot()?;
    let expected = RgbImage::from_pixel(seen.width(), seen.height(), Rgb([200, 100, 50]));
    if let Err(difference) = compare(&seen, &expected, Tolerance::EXACT) {
        let file = std::env::temp_dir().join("paint-diff.png");
        save(&difference_picture(&seen, &expected, 0), &file)?;
        panic!("{difference}; see {}", file.display());
    }
    Ok(())
}

#[test]
fn a_broken_kernel_is_no_failed_test() -> Result<(), Error> {
    let vm = Vm::builder()
        .kernel("7.2")
        .packages(["busybox-static"])
        .boot()?;
    let ended = vm
        .command("busybox")
        .args(["sh", "-c", "echo c > /proc/sysrq-trigger"])
        .deadline(Duration::from_secs(30))
        .output();
    assert!(matches!(ended, Err(Error::Panic { .. })), "{ended:?}");
    Ok(())
}
