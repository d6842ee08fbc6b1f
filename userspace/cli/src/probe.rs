//! `dmashare probe`: what this machine offers, found out by trying.

use std::fmt;

use dmashare::alloc;
use dmashare::import::drm::Card;
use dmashare::import::egl::{Device, Gpu};
use dmashare::import::{v4l2, vulkan};
use serde::Serialize;

/// What this machine offers to share buffers with.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Probe {
    /// The ways to allocate.
    pub ways: Vec<Offer>,
    /// The devices that EGL has for a DRM node, and the software device.
    pub gpus: Vec<Offer>,
    /// The devices that Vulkan has for a render node, and the software device.
    pub vulkan: Vec<Offer>,
    /// The DRM cards.
    pub cards: Vec<Offer>,
    /// The video devices: cameras, and what puts pictures out.
    pub video: Vec<Offer>,
}

/// One of these.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Offer {
    /// Its name.
    pub name: String,
    /// Whether it can be used.
    pub usable: bool,
    /// What it is; or why it cannot be used, and what would help.
    pub detail: String,
    /// Of a way to allocate that can be used: what it can do, for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// What a way to allocate can do; see [`dmashare::alloc::Offer`].
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Limits {
    /// Whether devices can import its buffers.
    pub devices: bool,
    /// Whether it has contiguous memory.
    pub contiguous: bool,
    /// Whether its buffers can be found by a name or a key.
    pub named: bool,
    /// Whether its buffers take seals.
    pub sealable: bool,
    /// The most bytes that a buffer can have.
    pub largest: u64,
    /// Whose limit that is.
    pub largest_of: String,
    /// The heaps there are.
    pub heaps: Vec<String>,
    /// The cards that have dumb buffers.
    pub cards: Vec<String>,
    /// The huge pages it can use.
    pub huge_pages: Vec<HugePages>,
}

/// The huge pages of one size.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct HugePages {
    /// The size of one, in bytes.
    pub size: u64,
    /// How many there are.
    pub total: u64,
    /// How many are free.
    pub free: u64,
}

impl Limits {
    fn new(offer: &alloc::Offer) -> Limits {
        let pools = offer.huge_pages.iter();
        Limits {
            devices: offer.devices,
            contiguous: offer.contiguous,
            named: offer.named,
            sealable: offer.sealable,
            largest: offer.largest.bytes,
            largest_of: offer.largest.of.to_owned(),
            heaps: offer.heaps.clone(),
            cards: offer
                .cards
                .iter()
                .map(|card| card.display().to_string())
                .collect(),
            huge_pages: pools
                .map(|pool| HugePages {
                    size: pool.size.bytes(),
                    total: pool.total,
                    free: pool.free,
                })
                .collect(),
        }
    }
}

impl Offer {
    fn new(name: impl Into<String>, tried: Result<String, impl fmt::Display>) -> Offer {
        let (usable, detail) = match tried {
            Ok(detail) => (true, detail),
            Err(reason) => (false, reason.to_string()),
        };
        Offer {
            name: name.into(),
            usable,
            detail,
            limits: None,
        }
    }
}

/// Tries everything.
///
/// ```
/// let probe = dmashare_cli::probe::probe();
/// let memfd = probe.ways.iter().find(|way| way.name == "memfd");
/// assert!(memfd.is_some_and(|way| way.usable));
/// println!("{probe}");
/// ```
pub fn probe() -> Probe {
    // No /dev/dri is no card.
    let nodes = Card::nodes().unwrap_or_default();
    let devices = nodes.iter().cloned().map(Device::Node);
    let render = Card::render_nodes().unwrap_or_default().into_iter();
    let render = render.map(vulkan::Device::Node);
    let video = v4l2::Device::nodes().unwrap_or_default();
    Probe {
        ways: ways(),
        gpus: devices.chain([Device::Software]).map(gpu).collect(),
        vulkan: render
            .chain([vulkan::Device::Software])
            .map(|device| {
                let tried = vulkan::Gpu::open(&device).map(|gpu| gpu.name().to_owned());
                Offer::new(device.to_string(), tried)
            })
            .collect(),
        cards: nodes.iter().map(card).collect(),
        video: video.iter().map(camera).collect(),
    }
}

fn ways() -> Vec<Offer> {
    let probe = alloc::probe();
    let rows = probe.rows().iter();
    rows.map(|row| {
        let tried = row.verdict.as_ref();
        Offer {
            limits: tried.ok().map(Limits::new),
            ..Offer::new(row.way.name(), tried.map(ToString::to_string))
        }
    })
    .collect()
}

fn gpu(device: Device) -> Offer {
    let tried = Gpu::open(&device).map(|gpu| gpu.renderer().to_owned());
    Offer::new(device.to_string(), tried)
}

fn card(node: &std::path::PathBuf) -> Offer {
    let tried = Card::open(node).map(|card| {
        // A card without a screen is a card, such as vgem.
        let screens = card.screens().unwrap_or_default();
        let connected = screens.iter().filter(|screen| screen.connected);
        let screens: Vec<String> = connected
            .map(|screen| match screen.modes.first() {
                Some(mode) => format!("{} likes {mode}", screen.name),
                None => format!("{} without a mode", screen.name),
            })
            .collect();
        match screens.is_empty() {
            true => format!("{}, no screen connected", card.driver()),
            false => format!("{}, {}", card.driver(), screens.join(", ")),
        }
    });
    Offer::new(node.display().to_string(), tried)
}

fn camera(node: &std::path::PathBuf) -> Offer {
    let tried = v4l2::Device::open(node).map(|device| {
        let does = [
            (device.capture().is_ok(), "captures"),
            (device.output().is_ok(), "puts out"),
        ];
        let does: Vec<&str> = does
            .iter()
            .filter(|does| does.0)
            .map(|does| does.1)
            .collect();
        match does.is_empty() {
            true => format!("{}, no frames", device.driver()),
            false => format!("{}, {}", device.driver(), does.join(" and ")),
        }
    });
    Offer::new(node.display().to_string(), tried)
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = crate::table::new(["What", "Which", "Usable", "As; or why not"]);
        for (what, offers) in [
            ("way", &self.ways),
            ("GPU", &self.gpus),
            ("Vulkan", &self.vulkan),
            ("card", &self.cards),
            ("video", &self.video),
        ] {
            for offer in offers {
                let usable = if offer.usable { "yes" } else { "no" };
                table.add_row([what, &offer.name, usable, &offer.detail]);
            }
        }
        write!(f, "{table}")
    }
}
