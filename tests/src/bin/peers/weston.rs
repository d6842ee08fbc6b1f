//! weston, a Wayland compositor: it shows our dma-bufs by
//! `zwp_linux_dmabuf_v1`, and what it shows is looked at.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dmashare::alloc::{Allocate, Request, Way, probe};
use dmashare::buffer::{Access, Buffer};
use dmashare::frame::{Fourcc, Frame};
use dmashare_tests::held;
use dmashare_tests::ways::{skipped, test};
use libtest_mimic::Trial;

use crate::inside::{ensure, folder, text};
use crate::launch::{LONG, Launched};
use crate::wayland::Client;

const WIDTH: u32 = 640;
const HEIGHT: u32 = 360;
const SOCKET: &str = "wayland-peers";

pub(crate) fn trials() -> Vec<Trial> {
    [Way::Udmabuf, Way::DmaHeap, Way::Module]
        .into_iter()
        .map(|way| {
            let name = format!("weston::{way}::is_shown");
            match probe().row(way).verdict.clone().and_then(|_| way.open()) {
                Err(reason) => skipped(&name, reason),
                Ok(opened) => {
                    let opened: Arc<dyn Allocate> = Arc::from(opened);
                    test(&name, move || {
                        let before = held::by_process()?;
                        is_shown(&*opened)?;
                        held::comes_back_to(before, held::by_process)
                    })
                }
            }
        })
        .collect()
}

/// A weston without a screen, which draws by GL in memory.
fn weston(folder: &Path) -> Result<(Launched, UnixStream), String> {
    let mut command = Command::new("weston");
    command
        .args(["--backend=headless", "--renderer=gl", "--shell=kiosk"])
        .arg(format!("--width={WIDTH}"))
        .arg(format!("--height={HEIGHT}"))
        .arg(format!("--socket={SOCKET}"))
        // With --debug anyone may take a picture of the screen.
        .args(["--no-config", "--idle-time=0", "--debug"]);
    let mut weston = Launched::start(command, folder)?;
    let begun = Instant::now();
    loop {
        match UnixStream::connect(folder.join(SOCKET)) {
            Ok(stream) => return Ok((weston, stream)),
            Err(_) if begun.elapsed() < LONG && weston.is_running()? => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(format!("{error}; {}", weston.words())),
        }
    }
}

/// Pixel for pixel, and it lets go of the one that it shows no more.
fn is_shown(way: &dyn Allocate) -> Result<(), String> {
    let folder = folder()?;
    let (mut weston, stream) = weston(folder.path())?;
    let shown = show(way, stream, folder.path());
    shown.map_err(|error| format!("{error}; {}", weston.words()))?;
    weston.kill()
}

fn show(way: &dyn Allocate, stream: UnixStream, folder: &Path) -> Result<(), String> {
    let frame = Frame::packed(WIDTH, HEIGHT, Fourcc::XRGB8888).map_err(text)?;
    let mut client = Client::connect(stream)?;
    let wanted = (frame.fourcc.0, frame.modifier);
    ensure(client.formats().contains(&wanted), || {
        format!("XR24 linear is not among {:x?}", client.formats())
    })?;
    let buffers = [picture(way, &frame, 1)?, picture(way, &frame, 2)?];
    let [first, second] = &buffers;
    let one = client.import(&frame, first.fd().map_err(text)?)?;
    let two = client.import(&frame, second.fd().map_err(text)?)?;
    for (buffer, number) in [(&one, 1), (&two, 2)] {
        client.show(buffer, &frame)?;
        looks_like(number, &frame, folder)?;
    }
    client.released(&one)?;
    one.destroy();
    two.destroy();
    Ok(())
}

/// The bytes of a pixel, `B G R x`.
fn pixel(number: u8, x: u32, y: u32) -> [u8; 4] {
    let [low, high, ..] = (x + y * WIDTH).to_le_bytes();
    let [.., row, _] = (y << 8).to_be_bytes();
    [low, high ^ number, row.wrapping_mul(number), 0]
}

fn picture(way: &dyn Allocate, frame: &Frame, number: u8) -> Result<Buffer, String> {
    let rows = frame.rows(0).map_err(text)?;
    let request = Request::new(frame.size_of_buffer(0).map_err(text)?).for_device();
    let buffer = way.allocate(&request).map_err(text)?;
    let pixels: Vec<u8> = (0..HEIGHT)
        .flat_map(|y| (0..WIDTH).flat_map(move |x| pixel(number, x, y)))
        .collect();
    let mut mapping = buffer.map(Access::Write).map_err(text)?;
    let mut guard = mapping.access(Access::Write).map_err(text)?;
    guard.write_rows(rows, &pixels).map_err(text)?;
    guard.finish().map_err(text)?;
    Ok(buffer)
}

/// What weston's own program for that takes a picture of.
fn looks_like(number: u8, frame: &Frame, folder: &Path) -> Result<(), String> {
    let taken = tempfile::tempdir_in(folder).map_err(text)?;
    let mut command = Command::new("weston-screenshooter");
    command.env("WAYLAND_DISPLAY", folder.join(SOCKET));
    Launched::start(command, taken.path())?.succeeds()?;
    let mut files = std::fs::read_dir(taken.path()).map_err(text)?.flatten();
    let png = files.find(|file| file.path().extension().is_some_and(|e| e == "png"));
    let png = png.ok_or("no picture was taken")?.path();
    let screen = image::open(png).map_err(text)?.to_rgb8();
    ensure(screen.dimensions() == (frame.width, frame.height), || {
        format!("a screen of {:?}", screen.dimensions())
    })?;
    let other = screen.enumerate_pixels().find(|(x, y, shown)| {
        let [b, g, r, _] = pixel(number, *x, *y);
        shown.0 != [r, g, b]
    });
    ensure(other.is_none(), || {
        format!("picture {number} is shown with another pixel: {other:?}")
    })
}
