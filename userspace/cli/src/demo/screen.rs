//! The screen's part: scan out what the GPU drew.

use std::path::Path;
use std::time::Instant;

use dmashare::import::drm::{Card, DrmError, Framebuffer, Mode, Scanout};

use super::report::{Actor, Report, Step};
use super::target::Target;
use super::{DemoError, pixel_bytes};

/// Drivers of displays with memory of their own, into which they copy a frame
/// when it is to be shown: those with shadow planes
/// (`drm_gem_begin_shadow_fb_access`) in the kernel's drivers/gpu/drm.
const COPYING: [&str; 12] = [
    "ast",
    "bochs-drm",
    "cirrus",
    "cirrus-qemu",
    "efidrm",
    "gm12u320",
    "hyperv_drm",
    "mgag200",
    "ofdrm",
    "simpledrm",
    "udl",
    "vesadrm",
];

/// Drivers of displays without memory of their own: they give the hardware the
/// address of the frame itself (`drm_fb_dma_get_gem_addr`, or the driver's own
/// like it).
const COPYING_NOTHING: [&str; 5] = ["meson", "rockchip", "stm", "sun4i-drm", "vc4"];

/// How often this driver copies a frame to show it, and a word on that. A
/// driver says it nowhere, so of most it is not known.
pub(super) fn copies(driver: &str) -> (Option<u32>, String) {
    if COPYING.contains(&driver) {
        (
            Some(1),
            format!("{driver}'s own, into the display's memory"),
        )
    } else if COPYING_NOTHING.contains(&driver) {
        (Some(0), String::new())
    } else {
        (None, format!("{driver}'s affair"))
    }
}

/// What the import is called in reports.
const STEP: &str = "import as framebuffer";

/// A card that has imported the frame that it is to show.
pub(super) struct Screen {
    card: Card,
    framebuffer: Framebuffer,
    bytes: u64,
}

/// Finds a card that has a screen and imports, and allocates a frame of that
/// screen's size for it.
///
/// Found by importing: what a driver says of its capabilities is not to be
/// relied on.
pub(super) fn find(
    wanted: Option<&Path>,
    report: &mut Report,
) -> Result<(Screen, Target), DemoError> {
    let nodes = match wanted {
        Some(node) => vec![node.to_owned()],
        None => Card::nodes().map_err(no_screen)?,
    };
    let mut reasons = Vec::new();
    for node in nodes {
        match try_on(&node, report)? {
            Ok((screen, target, step)) => {
                for (node, reason) in reasons {
                    report.step(Step::left_out(
                        Actor::B,
                        STEP,
                        format!("KMS {node}"),
                        reason,
                    ))?;
                }
                report.step(step)?;
                return Ok((screen, target));
            }
            Err(reason) => reasons.push((node.display().to_string(), reason)),
        }
    }
    let reasons: Vec<String> = reasons
        .into_iter()
        .map(|(_, why)| why.to_string())
        .collect();
    Err(match reasons.is_empty() {
        true => no_screen("there is no card under /dev/dri; load its driver with modprobe"),
        false => no_screen(reasons.join("; ")),
    })
}

/// A frame of the size that the screen of this card likes best, imported; or
/// why this card does not do.
fn try_on(
    node: &Path,
    report: &mut Report,
) -> Result<Result<(Screen, Target, Step), DrmError>, DemoError> {
    let (card, mode) = match open(node) {
        Ok(opened) => opened,
        Err(reason) => return Ok(Err(reason)),
    };
    let target = Target::allocate((mode.width.into(), mode.height.into()), report)?;
    let started = Instant::now();
    let imported = card.import(&target.frame, &[&target.buffer]);
    Ok(imported.map(|framebuffer| {
        let bytes = pixel_bytes(&target.frame);
        let step = Step::done(Actor::B, STEP, format!("KMS {card}"), started, bytes);
        let screen = Screen {
            card,
            framebuffer,
            bytes,
        };
        (screen, target, step)
    }))
}

fn no_screen(reason: impl ToString) -> DemoError {
    DemoError::NoScreen(reason.to_string())
}

/// The card of a node, and the mode that its first connected screen likes best.
fn open(node: &Path) -> Result<(Card, Mode), DrmError> {
    let card = Card::open(node)?;
    let screens = card.screens()?;
    let connected = screens.iter().filter(|screen| screen.connected);
    let mode = connected.filter_map(|screen| screen.modes.first()).next();
    match mode {
        Some(mode) => Ok((card, *mode)),
        None => Err(DrmError::NoScreen {
            card: card.to_string(),
            connectors: screens.len(),
        }),
    }
}

impl Screen {
    /// Shows the frame, until the scan-out is dropped.
    pub(super) fn show(&self) -> Result<(Scanout, Step), DrmError> {
        let started = Instant::now();
        let scanout = self.card.show(&self.framebuffer)?;
        let backend = format!("KMS {} {scanout}", self.card);
        let step = Step::done(Actor::B, "scan out", backend, started, self.bytes);
        let (count, by) = copies(self.card.driver());
        Ok((scanout, step.copies(count, by)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_not_claimed() {
        assert_eq!(copies("bochs-drm").0, Some(1));
        assert_eq!(copies("vc4").0, Some(0));
        assert_eq!(copies("amdgpu").0, None);
    }
}
