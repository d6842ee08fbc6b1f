//! v4l2-ctl: a camera's own dma-bufs shown on a video output. It takes no handle
//! of another process.

use std::path::Path;
use std::process::Command;

use dmashare::frame::Frame;
use dmashare_tests::ways::test;
use libtest_mimic::Trial;

use crate::inside::{ensure, folder, text};
use crate::launch::Launched;

pub(crate) fn trials() -> Vec<Trial> {
    vec![test("v4l2_ctl::camera_to_output", camera_to_output)]
}

/// The node of vivid that captures (`Video Capture`) or shows (`Video Output`).
fn vivid(what: &str) -> Result<String, String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/dev").map_err(text)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("video") {
            continue;
        }
        let node = format!("/dev/{name}");
        let said = Command::new("v4l2-ctl").args(["-d", &node, "-D"]).output();
        let said = said.map_err(|error| format!("v4l2-ctl: {error}"))?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        // The capabilities of the node itself come last.
        let (_, caps) = said.split_once("Device Caps").unwrap_or_default();
        if said.contains("vivid") && caps.lines().any(|line| line.trim() == what) {
            return Ok(node);
        }
        found.push(format!("{node}: {said}"));
    }
    Err(format!("no vivid with {what:?}, but {found:?}"))
}

/// The output as it has whole pictures, not fields: its HDMI connector.
pub(crate) fn progressive_output() -> Result<String, String> {
    let node = vivid("Video Output")?;
    told(&["-d", &node, "--set-output=1"])?;
    Ok(node)
}

/// The camera, with its own picture.
pub(crate) fn camera() -> Result<String, String> {
    let node = vivid("Video Capture")?;
    told(&["-d", &node, "--set-input=0"])?;
    Ok(node)
}

/// The camera, with the picture that the output shows at its HDMI connector, and
/// of this size and format.
pub(crate) fn camera_of_output(frame: &Frame) -> Result<String, String> {
    let node = vivid("Video Capture")?;
    told(&["-d", &node, "--set-input=3"])?;
    // Since 6.12, and before.
    let cables = ["hdmi_000_0_is_connected_to=2", "loop_video=1"];
    let laid = cables.map(|cable| told(&["-d", &node, "-c", cable]));
    ensure(laid.iter().any(Result::is_ok), || format!("{laid:?}"))?;
    // No text of the driver's on it.
    told(&["-d", &node, "-c", "osd_text_mode=2"])?;
    let Frame {
        width,
        height,
        fourcc,
        ..
    } = frame;
    let format = format!("--set-fmt-video=width={width},height={height},pixelformat={fourcc}");
    told(&["-d", &node, &format])?;
    Ok(node)
}

/// What this camera takes: its fourth picture.
pub(crate) fn taken(camera: &str, folder: &Path) -> Result<Vec<u8>, String> {
    let mut command = Command::new("v4l2-ctl");
    command
        .args(["-d", camera, "--stream-mmap=4", "--stream-skip=3"])
        .args(["--stream-count=1", "--stream-to=taken"]);
    Launched::start(command, folder)?.succeeds()?;
    std::fs::read(folder.join("taken")).map_err(text)
}

/// v4l2-ctl with these words, which is to succeed.
fn told(words: &[&str]) -> Result<(), String> {
    let said = Command::new("v4l2-ctl").args(words).output();
    let said = said.map_err(|error| format!("v4l2-ctl: {error}"))?;
    ensure(said.status.success(), || format!("{words:?}: {said:?}"))
}

fn camera_to_output() -> Result<(), String> {
    let folder = folder()?;
    let (camera, output) = (camera()?, progressive_output()?);
    // Alike, or a buffer of the one is too small for the other.
    let format = "width=640,height=360,pixelformat=YUYV";
    told(&["-d", &camera, &format!("--set-fmt-video={format}")])?;
    told(&["-d", &output, &format!("--set-fmt-video-out={format}")])?;
    let mut command = Command::new("v4l2-ctl");
    command
        .args(["-d", &camera, "--out-device", &output])
        .args(["--stream-mmap=4", "--stream-out-dmabuf", "--stream-count=8"]);
    let mut exchange = Launched::start(command, folder.path())?;
    exchange.succeeds()?;
    // A sign for each that came, and for each that was shown.
    let said = exchange.words();
    let signs = |sign| said.matches(sign).count();
    ensure(signs('<') >= 8 && signs('>') >= 8, || said.clone())
}
