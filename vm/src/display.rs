//! Who sees a guest's screens while it runs: by default no one, but screendumps.

use std::process::Command;

use crate::Error;
use crate::debian::Tool;

/// What stands for whichever of a window and VNC this host has.
pub(crate) const AUTO: &str = "auto";

/// QEMU looks for a free port from 5900 on. Only this host reaches it.
const VNC: &str = "vnc=127.0.0.1:0,to=99";

/// What QEMU's `-display` is to be told, where this is wanted of a machine with
/// these devices.
///
/// # Errors
/// A device that draws by OpenGL, on a host that QEMU cannot do so on.
pub(crate) fn words(
    wanted: Option<&str>,
    devices: &[String],
    qemu: &Tool,
) -> Result<String, Error> {
    let mut names = devices.iter().filter_map(|device| device.split(',').next());
    let by_gl = names.find(|name| name.contains("-gl"));
    match (wanted, by_gl) {
        (Some(words), _) if words != AUTO => Ok(words.to_owned()),
        (None, None) => Ok("none".into()),
        (Some(_), None) => Ok(window(qemu).unwrap_or(VNC).to_owned()),
        (wanted, Some(device)) => {
            if wanted.is_none()
                && let Some(node) = render_node()
                && has(qemu, "egl-headless")
            {
                return Ok(format!("egl-headless,rendernode={node}"));
            }
            window(qemu)
                .map(|window| format!("{window},gl=on"))
                .ok_or_else(|| no_gl(device))
        }
    }
}

/// QEMU's own window, where the user has a desktop.
fn window(qemu: &Tool) -> Option<&'static str> {
    let on_screen = ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    ["gtk", "sdl"]
        .into_iter()
        .find(|window| on_screen && has(qemu, window))
}

/// Whether this QEMU has such a display; they are packages of their own.
fn has(qemu: &Tool, display: &str) -> bool {
    let said = qemu
        .command(Command::new)
        .args(["-display", "help"])
        .output();
    said.is_ok_and(|said| {
        let text = String::from_utf8_lossy(&said.stdout);
        text.lines().any(|line| line.trim() == display)
    })
}

fn render_node() -> Option<String> {
    let entries = std::fs::read_dir("/dev/dri").ok()?.flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("renderD"))
        .map(|entry| entry.path().to_string_lossy().into_owned())
        .min()
}

fn no_gl(device: &str) -> Error {
    Error::Project(format!(
        "{device} draws by OpenGL on the host. It takes a render node (/dev/dri/renderD128) and \
         QEMU's egl-headless, or an X display and QEMU's gtk or sdl: xvfb-run gives a display, \
         and what Debian calls qemu-system-modules-opengl and qemu-system-gui the rest"
    ))
}
