//! What can go wrong between a frame and the screen.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;

use super::Mode;
use crate::fence::FenceError;
use crate::import::HandleError;

/// Why a card could not be opened, or could not take or show a frame.
///
/// A card is named by its node and driver, as in `/dev/dri/card0 (bochs-drm)`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DrmError {
    /// The node does not open.
    #[error("{}: {source}{}", path.display(), open_advice(source))]
    Open {
        /// The node.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// No card has this driver.
    #[error(
        "no card has the driver {wanted}; there is: {}; load the driver with modprobe",
        if found.is_empty() { "none under /dev/dri".to_owned() } else { found.join(", ") }
    )]
    NoCard {
        /// The driver asked for.
        wanted: String,
        /// The cards that are there, and why one did not open.
        found: Vec<String>,
    },
    /// An ioctl failed.
    #[error("{card}: {operation} failed: {source}{}", advice(operation, source))]
    Ioctl {
        /// The ioctl, without its `DRM_IOCTL_`.
        operation: &'static str,
        /// The card.
        card: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The frame and its handles are no frame for any device.
    #[error("this frame cannot be imported: {0}")]
    Handle(#[from] HandleError),
    /// KMS has no name for this format, or none for this modifier.
    #[error("{card} cannot be told of {frame}: {reason}")]
    Inexpressible {
        /// The card.
        card: String,
        /// Size, format, modifier, stride and offset of the frame, in words.
        frame: String,
        /// What does not fit.
        reason: &'static str,
    },
    /// ADDFB2 did not take the frame.
    #[error("{card} does not take {frame}: MODE_ADDFB2 failed: {source}; {suspect}")]
    Refused {
        /// The card.
        card: String,
        /// Size, format, modifier, stride and offset of the frame, in words.
        frame: String,
        /// What the kernel said.
        source: io::Error,
        /// Which of them it was, as far as the card tells.
        suspect: String,
    },
    /// The framebuffer was imported into another open card.
    #[error("{card}: the framebuffer is of another card; import the frame into this one")]
    OtherCard {
        /// The card asked to show it.
        card: String,
    },
    /// The driver would copy the frame past the end of its video memory.
    #[error(
        "{card}: a frame of {bytes} bytes, padding of its rows included, may be larger than the \
             video memory ({room} bytes at least), which the driver does not check; \
             share it without padding"
    )]
    Overrun {
        /// The card.
        card: String,
        /// Stride times height.
        bytes: u64,
        /// What is known to fit.
        room: u64,
    },
    /// No screen is connected.
    #[error("{card} has no connected screen ({} connectors); connect one, or take another card", .connectors)]
    NoScreen {
        /// The card.
        card: String,
        /// How many connectors it has.
        connectors: usize,
    },
    /// No connected screen has a mode of the frame's size.
    #[error(
        "{card}: no screen shows {}x{} pixels{}; {screen} has {}; share a frame of such a size",
        size.0, size.1, refresh.map(|rate| format!(" at {rate} Hz")).unwrap_or_default(),
        modes.iter().map(Mode::to_string).collect::<Vec<_>>().join(", ")
    )]
    NoMode {
        /// The card.
        card: String,
        /// Width and height of the frame in pixels.
        size: (u32, u32),
        /// The rate asked for, in frames a second.
        refresh: Option<u32>,
        /// The first connected screen.
        screen: String,
        /// The modes that it has.
        modes: Vec<Mode>,
    },
    /// The node is one that screens are not set up through.
    #[error("{node}: a render node has no screens; open the card's other node, /dev/dri/card*")]
    RenderNode {
        /// The node.
        node: String,
    },
    /// A flip of what is no longer on the screen.
    #[error("{card}: {screen} was given another frame by a later Card::show; flip that")]
    Replaced {
        /// The card.
        card: String,
        /// The screen.
        screen: String,
    },
    /// No connector has this name.
    #[error("{card} has no screen {wanted}; it has {}", found.join(", "))]
    NoSuchScreen {
        /// The card.
        card: String,
        /// The name asked for.
        wanted: String,
        /// The names that there are, such as `Virtual-1`.
        found: Vec<String>,
    },
    /// A flip takes a frame of the size that is shown.
    #[error(
        "{card}: {screen} shows {}x{} pixels, the frame has {}x{}; show it with Card::show, \
         or draw it in the size that is shown",
        shown.0, shown.1, size.0, size.1
    )]
    FlipSize {
        /// The card.
        card: String,
        /// The screen.
        screen: String,
        /// Width and height that it shows, in pixels.
        shown: (u32, u32),
        /// Width and height of the frame in pixels.
        size: (u32, u32),
    },
    /// Atomic modesetting was asked for.
    #[error("{card}: its driver has no atomic modesetting; show the frame with Method::Legacy")]
    NotAtomic {
        /// The card.
        card: String,
    },
    /// No primary plane is free for the CRTC.
    #[error("{card}: no primary plane is free for the screen; turn another screen off")]
    NoPlane {
        /// The card.
        card: String,
    },
    /// An object lacks a property that every driver is to have.
    #[error("{card}: {object} has no property {property}; use Method::Legacy")]
    NoProperty {
        /// The card.
        card: String,
        /// The object.
        object: String,
        /// The property.
        property: &'static str,
    },
    /// The formats of a plane cannot be read.
    #[error(
        "{card}: IN_FORMATS of plane {plane} cannot be read: {problem}; report it to the driver"
    )]
    InFormats {
        /// The card.
        card: String,
        /// The object ID of the plane.
        plane: u32,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The fence that a frame was to wait for, or the one of a flip.
    #[error("{card}: {source}")]
    Fence {
        /// The card.
        card: String,
        /// Why.
        source: FenceError,
    },
    /// The driver took a flip and has not done it.
    #[error("{card}: {screen} has not flipped within {} ms; is the screen still on?", .within.as_millis())]
    Stuck {
        /// The card.
        card: String,
        /// The screen.
        screen: String,
        /// How long it was waited for.
        within: Duration,
    },
    /// All CRTCs that can drive the screen are driving others.
    #[error("{card}: no CRTC is free for {screen}; turn another screen off")]
    NoCrtc {
        /// The card.
        card: String,
        /// The screen.
        screen: String,
    },
}

fn open_advice(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) => "; load the driver of the card with modprobe",
        Some(Errno::ACCESS) => "; add yourself to group video or run as root",
        _ => "",
    }
}

fn advice(operation: &str, error: &io::Error) -> &'static str {
    match (operation, Errno::from_io_error(error)) {
        (PRIME_FD_TO_HANDLE, Some(Errno::NOSYS | Errno::INVAL | Errno::NODEV | Errno::NOTSUP)) => {
            "; this driver does not import from other devices, whatever DRM_CAP_PRIME says \
             (of QEMU's displays bochs does from Linux 7 on, cirrus always, \
             virtio-gpu without blob and qxl never)"
        }
        (PRIME_HANDLE_TO_FD, Some(Errno::NOSYS | Errno::INVAL | Errno::NOTSUP)) => {
            "; this driver does not export"
        }
        (MODE_GETRESOURCES | MODE_GETPLANERESOURCES, Some(Errno::NOTSUP | Errno::NOSYS)) => {
            "; this card has no screens"
        }
        (MODE_PAGE_FLIP | MODE_ATOMIC, Some(Errno::BUSY)) => "; another program flips this screen",
        (MODE_PAGE_FLIP, Some(Errno::INVAL)) => {
            "; a flip cannot change the format, nor turn a screen on"
        }
        (MODE_SETCRTC | MODE_ATOMIC, Some(Errno::INVAL | Errno::NOSPC | Errno::RANGE)) => {
            "; it cannot show this size or format, or has no memory for it: try a smaller frame, or XR24"
        }
        (SET_MASTER, Some(Errno::BUSY)) | (_, Some(Errno::ACCESS | Errno::PERM)) => {
            "; this needs DRM master, which one program has at a time: \
             stop the compositor, or run on a free virtual terminal"
        }
        _ => "",
    }
}

pub(super) const PRIME_FD_TO_HANDLE: &str = "PRIME_FD_TO_HANDLE";
pub(super) const PRIME_HANDLE_TO_FD: &str = "PRIME_HANDLE_TO_FD";
pub(super) const SET_MASTER: &str = "SET_MASTER";
pub(super) const MODE_GETRESOURCES: &str = "MODE_GETRESOURCES";
pub(super) const MODE_GETPLANERESOURCES: &str = "MODE_GETPLANERESOURCES";
pub(super) const MODE_GETCRTC: &str = "MODE_GETCRTC";
pub(super) const MODE_SETCRTC: &str = "MODE_SETCRTC";
pub(super) const MODE_PAGE_FLIP: &str = "MODE_PAGE_FLIP";
pub(super) const MODE_ATOMIC: &str = "MODE_ATOMIC";

#[cfg(test)]
mod tests {
    use super::*;

    fn ioctl(operation: &'static str, errno: Errno) -> String {
        let error = DrmError::Ioctl {
            operation,
            card: "/dev/dri/card0 (bochs-drm)".into(),
            source: errno.into(),
        };
        error.to_string()
    }

    #[test]
    fn an_error_names_ioctl_card_and_errno_and_says_what_to_do() {
        let import = ioctl(PRIME_FD_TO_HANDLE, Errno::INVAL);
        for part in ["PRIME_FD_TO_HANDLE", "bochs-drm", "os error 22", "cirrus"] {
            assert!(import.contains(part), "{import}");
        }
        assert!(ioctl(MODE_SETCRTC, Errno::ACCESS).contains("DRM master"));
        assert!(ioctl(SET_MASTER, Errno::BUSY).contains("stop the compositor"));
    }
}
