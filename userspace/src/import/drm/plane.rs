//! The planes of a card: what its screens are put together from.

use std::collections::BTreeSet;
use std::fmt;

use drm::control::{Device as _, PlaneType, crtc, plane};

use super::card::Inner;
use super::error::{MODE_GETPLANERESOURCES, MODE_GETRESOURCES};
use super::{Card, DrmError, in_formats};
use crate::frame::Fourcc;
use crate::negotiate::Layout;

/// What a plane is meant for: its property `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PlaneKind {
    /// The picture that fills the screen.
    Primary,
    /// A picture over it, as of a video.
    Overlay,
    /// The mouse cursor.
    Cursor,
}

/// A plane of a card, and what it takes; from [`Card::planes`].
///
/// ```no_run
/// // Not run: needs a screen.
/// use dmashare::import::drm::Card;
/// for plane in Card::find("bochs-drm")?.planes()? {
///     println!("{plane}: {} layouts", plane.layouts.len()); // plane 31 (primary): 1 layouts
/// }
/// # Ok::<(), dmashare::import::drm::DrmError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScanoutPlane {
    /// Its object ID in the kernel.
    pub id: u32,
    /// What it is meant for.
    pub kind: PlaneKind,
    /// The formats that it takes, each with its modifiers: the blob IN_FORMATS,
    /// or what GETPLANE lists, linear, where the driver has no modifiers.
    pub layouts: BTreeSet<Layout>,
}

impl Card {
    /// Its planes, with the formats and modifiers that they take.
    ///
    /// # Errors
    /// [`DrmError::Ioctl`], as on a card without screens, and
    /// [`DrmError::InFormats`] for a blob that is not what it should be.
    ///
    /// ```no_run
    /// // Not run: needs a screen.
    /// # use dmashare::import::drm::{Card, PlaneKind};
    /// let planes = Card::find("bochs-drm")?.planes()?;
    /// assert!(planes.iter().any(|plane| plane.kind == PlaneKind::Primary));
    /// # Ok::<(), dmashare::import::drm::DrmError>(())
    /// ```
    pub fn planes(&self) -> Result<Vec<ScanoutPlane>, DrmError> {
        let card = &self.0;
        card.has_kms()?;
        let handles = card.plane_handles();
        let handles = handles.map_err(card.failed(MODE_GETPLANERESOURCES))?;
        handles.into_iter().map(|plane| card.plane(plane)).collect()
    }
}

impl Inner {
    fn plane(&self, handle: plane::Handle) -> Result<ScanoutPlane, DrmError> {
        let properties = self.properties("plane", handle)?;
        let kind = match properties.value("type") {
            Some(kind) if kind == PlaneType::Primary as u64 => PlaneKind::Primary,
            Some(kind) if kind == PlaneType::Cursor as u64 => PlaneKind::Cursor,
            _ => PlaneKind::Overlay,
        };
        let layouts = match properties.value("IN_FORMATS") {
            None | Some(0) => {
                let info = self
                    .get_plane(handle)
                    .map_err(self.failed("MODE_GETPLANE"))?;
                let linear = |&code: &u32| Layout::linear(Fourcc(code));
                info.formats().iter().map(linear).collect()
            }
            Some(blob) => {
                let blob = self.get_property_blob(blob);
                let blob = blob.map_err(self.failed("MODE_GETPROPBLOB"))?;
                in_formats::layouts(&blob).map_err(|problem| DrmError::InFormats {
                    card: self.to_string(),
                    plane: handle.into(),
                    problem,
                })?
            }
        };
        Ok(ScanoutPlane {
            id: handle.into(),
            kind,
            layouts,
        })
    }

    /// The primary plane of a CRTC: of those that could be it, one that is no
    /// other's.
    pub(super) fn primary_of(&self, crtc: crtc::Handle) -> Result<plane::Handle, DrmError> {
        let resources = self.resource_handles();
        let resources = resources.map_err(self.failed(MODE_GETRESOURCES))?;
        let handles = self.plane_handles();
        let mut free = None;
        for handle in handles.map_err(self.failed(MODE_GETPLANERESOURCES))? {
            let info = self
                .get_plane(handle)
                .map_err(self.failed("MODE_GETPLANE"))?;
            let possible = resources.filter_crtcs(info.possible_crtcs());
            let is_primary =
                self.properties("plane", handle)?.value("type") == Some(PlaneType::Primary as u64);
            if !is_primary || !possible.contains(&crtc) {
                continue;
            }
            match info.crtc() {
                Some(of) if of == crtc => return Ok(handle),
                Some(_) => {}
                None => free = free.or(Some(handle)),
            }
        }
        free.ok_or_else(|| DrmError::NoPlane {
            card: self.to_string(),
        })
    }
}

impl fmt::Display for PlaneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            PlaneKind::Primary => "primary",
            PlaneKind::Overlay => "overlay",
            PlaneKind::Cursor => "cursor",
        })
    }
}

impl fmt::Display for ScanoutPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plane {} ({})", self.id, self.kind)
    }
}
