//! The takers that can be named.

use std::path::PathBuf;

use dmashare::import::drm::{Card, PlaneKind, ScanoutPlane};
use dmashare::import::gbm::{self, Gbm};
use dmashare::import::v4l2;
use dmashare::import::{egl, vulkan};
use dmashare::negotiate::Taker;

use super::form::Form;
use crate::failure::Failure;

/// What the command says of them.
pub(super) const HELP: &str = "\
Who takes the picture: cpu; peer, a process that hands it on; file:PATH, one described in JSON; \
drm:CARD, its primary plane, or drm:CARD:PLANE by its number; egl[:NODE] and vulkan[:NODE], \
which read it, egl-target[:NODE] and vulkan-target[:NODE], which draw into it, without a node \
the CPU in place of a GPU; gbm:NODE; v4l2:NODE, which captures, or v4l2-output:NODE";

const KINDS: &str = "cpu, peer, file:PATH, drm:CARD[:PLANE], egl[:NODE], egl-target[:NODE], \
    vulkan[:NODE], vulkan-target[:NODE], gbm:NODE, v4l2:NODE or v4l2-output:NODE";

/// A taker as it is named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Cpu,
    Peer,
    File(PathBuf),
    /// A card, and which of its planes.
    Drm(PathBuf, Option<u32>),
    /// A GPU by its node, or the software device; whether it is drawn into.
    Egl(Option<PathBuf>, Role),
    Vulkan(Option<PathBuf>, Role),
    Gbm(PathBuf),
    V4l2(PathBuf, v4l2::Direction),
}

/// What a GPU does with the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Reads,
    Draws,
}

/// KIND or KIND:WHICH.
pub(super) fn parse(text: &str) -> Result<Named, String> {
    let (kind, which) = match text.split_once(':') {
        Some((kind, which)) => (kind, Some(which)),
        None => (text, None),
    };
    let wrong = || format!("{text:?} is no taker; write {KINDS}");
    let needed = || match which {
        Some(which) if !which.is_empty() => Ok(PathBuf::from(which)),
        _ => Err(wrong()),
    };
    let node = || which.map(|_| needed()).transpose();
    match kind {
        "cpu" if which.is_none() => Ok(Named::Cpu),
        "peer" if which.is_none() => Ok(Named::Peer),
        "file" => Ok(Named::File(needed()?)),
        "drm" => {
            let path = needed()?;
            // Only digits: names by path have colons in them, too.
            let plane = which.and_then(|which| which.rsplit_once(':'));
            let plane = plane.and_then(|(card, plane)| Some((card, plane.parse().ok()?)));
            match plane {
                Some((card, plane)) if !card.is_empty() => Ok(Named::Drm(card.into(), Some(plane))),
                _ => Ok(Named::Drm(path, None)),
            }
        }
        "egl" => Ok(Named::Egl(node()?, Role::Reads)),
        "egl-target" => Ok(Named::Egl(node()?, Role::Draws)),
        "vulkan" => Ok(Named::Vulkan(node()?, Role::Reads)),
        "vulkan-target" => Ok(Named::Vulkan(node()?, Role::Draws)),
        "gbm" => Ok(Named::Gbm(needed()?)),
        "v4l2" => Ok(Named::V4l2(needed()?, v4l2::Direction::Capture)),
        "v4l2-output" => Ok(Named::V4l2(needed()?, v4l2::Direction::Output)),
        _ => Err(wrong()),
    }
}

impl Named {
    /// What it can take.
    pub(super) fn open(&self) -> Result<Taker, Failure> {
        match self {
            Named::Cpu => Ok(Taker::cpu()),
            Named::Peer => Ok(Taker::peer()),
            Named::File(path) => Form::read(path),
            Named::Drm(card, number) => plane(&Card::open(card)?, *number),
            Named::Egl(node, role) => {
                let device = node.clone().map(egl::Device::Node);
                let gpu = egl::Gpu::open(&device.unwrap_or(egl::Device::Software))?;
                Ok(match role {
                    Role::Reads => gpu.texture_taker()?,
                    Role::Draws => gpu.target_taker()?,
                })
            }
            Named::Vulkan(node, role) => {
                let device = node.clone().map(vulkan::Device::Node);
                let gpu = vulkan::Gpu::open(&device.unwrap_or(vulkan::Device::Software))?;
                Ok(match role {
                    Role::Reads => gpu.texture_taker(),
                    Role::Draws => gpu.target_taker(),
                })
            }
            // What a display and a GPU of one device can both have.
            Named::Gbm(node) => Ok(Gbm::open(node)?.taker(gbm::Usage::SCANOUT)),
            Named::V4l2(node, direction) => {
                Ok(v4l2::Device::open(node)?.queue(*direction)?.taker()?)
            }
        }
    }
}

impl Named {
    /// What the GPU that this is reads and writes, where it is one.
    pub(super) fn converter(&self) -> Option<(Named, Named)> {
        match self {
            Named::Egl(node, _) => Some((
                Named::Egl(node.clone(), Role::Reads),
                Named::Egl(node.clone(), Role::Draws),
            )),
            Named::Vulkan(node, _) => Some((
                Named::Vulkan(node.clone(), Role::Reads),
                Named::Vulkan(node.clone(), Role::Draws),
            )),
            _ => None,
        }
    }
}

/// The plane of this number, or the first primary one.
fn plane(card: &Card, number: Option<u32>) -> Result<Taker, Failure> {
    let takers = card.takers()?;
    let is_it = |plane: &ScanoutPlane| match number {
        Some(number) => plane.id == number,
        None => plane.kind == PlaneKind::Primary,
    };
    if let Some((_, taker)) = takers.iter().find(|(plane, _)| is_it(plane)) {
        return Ok(taker.clone());
    }
    let all: Vec<String> = takers.iter().map(|(plane, _)| plane.to_string()).collect();
    Err(Failure::failed(format!(
        "{card} has no such plane, but: {}",
        all.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takers_are_named() {
        let card = || PathBuf::from("/dev/dri/card0");
        assert_eq!(parse("cpu"), Ok(Named::Cpu));
        assert_eq!(parse("file:a:b"), Ok(Named::File("a:b".into())));
        assert_eq!(parse("drm:/dev/dri/card0"), Ok(Named::Drm(card(), None)));
        assert_eq!(
            parse("drm:/dev/dri/card0:31"),
            Ok(Named::Drm(card(), Some(31)))
        );
        let by_path = "/dev/dri/by-path/pci-0000:00:02.0-card";
        assert_eq!(
            parse(&format!("drm:{by_path}")),
            Ok(Named::Drm(by_path.into(), None))
        );
        assert_eq!(parse("egl"), Ok(Named::Egl(None, Role::Reads)));
        assert_eq!(
            parse("vulkan-target:/dev/dri/card0"),
            Ok(Named::Vulkan(Some(card()), Role::Draws))
        );
        assert_eq!(
            parse("v4l2-output:/dev/video1"),
            Ok(Named::V4l2("/dev/video1".into(), v4l2::Direction::Output))
        );
        for text in [
            "", "cpus", "cpu:0", "file", "file:", ":cpu", "drm", "egl:", "gbm", "v4l2:",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
