//! What can go wrong between a frame and the screen.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use super::Mode;
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
    #[error(
        "{card} does not take {frame}: MODE_ADDFB2 failed: {source}{}",
        advice(MODE_ADDFB2, source)
    )]
    Refused {
        /// The card.
        card: String,
        /// Size, format, modifier, stride and offset of the frame, in words.
        frame: String,
        /// What the kernel said.
        source: io::Error,
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
        "{card}: no screen shows {}x{} pixels; {screen} has {}; share a frame of such a size",
        size.0, size.1,
        modes.iter().map(Mode::to_string).collect::<Vec<_>>().join(", ")
    )]
    NoMode {
        /// The card.
        card: String,
        /// Width and height of the frame in pixels.
        size: (u32, u32),
        /// The first connected screen.
        screen: String,
        /// The modes that it has.
        modes: Vec<Mode>,
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
        (MODE_GETRESOURCES | MODE_ADDFB2, Some(Errno::NOTSUP | Errno::NOSYS)) => {
            "; this card has no screens"
        }
        (MODE_ADDFB2, Some(Errno::INVAL)) => {
            "; it does not take this layout: linear XR24 with a stride that is \
             a multiple of 64 suits most drivers"
        }
        (MODE_SETCRTC, Some(Errno::INVAL | Errno::NOSPC | Errno::RANGE)) => {
            "; it cannot show this size or format, or has no memory for it: try a smaller frame, or XR24"
        }
        (_, Some(Errno::ACCESS | Errno::PERM)) => {
            "; this needs DRM master, which one program has at a time: \
             stop the compositor, or run on a free virtual terminal"
        }
        _ => "",
    }
}

pub(super) const PRIME_FD_TO_HANDLE: &str = "PRIME_FD_TO_HANDLE";
pub(super) const PRIME_HANDLE_TO_FD: &str = "PRIME_HANDLE_TO_FD";
pub(super) const MODE_ADDFB2: &str = "MODE_ADDFB2";
pub(super) const MODE_GETRESOURCES: &str = "MODE_GETRESOURCES";
pub(super) const MODE_GETCRTC: &str = "MODE_GETCRTC";
pub(super) const MODE_SETCRTC: &str = "MODE_SETCRTC";

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
    }
}
