//! `dmashare probe`: what this machine offers, found out by trying.

use std::fmt;

use dmashare::alloc;
use dmashare::import::drm::Card;
use dmashare::import::egl::{Device, Gpu};
use serde::Serialize;

/// What this machine offers to share buffers with.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Probe {
    /// The ways to allocate.
    pub ways: Vec<Offer>,
    /// The devices that EGL has for a DRM node, and the software device.
    pub gpus: Vec<Offer>,
    /// The DRM cards.
    pub cards: Vec<Offer>,
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
    Probe {
        ways: ways(),
        gpus: devices.chain([Device::Software]).map(gpu).collect(),
        cards: nodes.iter().map(card).collect(),
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

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = crate::table::new(["What", "Which", "Usable", "As; or why not"]);
        for (what, offers) in [
            ("way", &self.ways),
            ("GPU", &self.gpus),
            ("card", &self.cards),
        ] {
            for offer in offers {
                let usable = if offer.usable { "yes" } else { "no" };
                table.add_row([what, &offer.name, usable, &offer.detail]);
            }
        }
        write!(f, "{table}")
    }
}
