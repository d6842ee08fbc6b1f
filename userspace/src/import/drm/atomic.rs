//! Atomic commits: one screen as a whole, and flips with fences.
//!
//! A commit of the kernel's KMS (`drm/drm_mode.h`) sets properties of several
//! objects at once, or none of them. IN_FENCE_FD of a plane is a fence that the
//! kernel waits for before it shows the frame; OUT_FENCE_PTR of a CRTC brings
//! one that is signalled when the frame is on the screen, and the one before is
//! free.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use drm::control::atomic::AtomicModeReq;
use drm::control::{
    AtomicCommitFlags, Device as _, Mode as Timings, connector, crtc, framebuffer, property,
};

use super::DrmError;
use super::card::{Inner, again};
use super::error::MODE_ATOMIC;
use super::property::Properties;

/// The objects that a screen is driven by, with the names of their properties.
#[derive(Debug)]
pub(super) struct Pipe {
    connector: Properties,
    crtc: Properties,
    plane: Properties,
    crtc_id: u32,
}

impl Pipe {
    pub(super) fn new(
        card: &Inner,
        connector: connector::Handle,
        crtc: crtc::Handle,
    ) -> Result<Pipe, DrmError> {
        Ok(Pipe {
            connector: card.properties("connector", connector)?,
            crtc: card.properties("CRTC", crtc)?,
            plane: card.properties("plane", card.primary_of(crtc)?)?,
            crtc_id: crtc.into(),
        })
    }

    /// Turns the screen on in this mode, with this frame, which is as large.
    pub(super) fn show(
        &self,
        card: &Inner,
        framebuffer: framebuffer::Handle,
        mode: Timings,
    ) -> Result<(), DrmError> {
        let (width, height) = mode.size();
        let (width, height) = (u64::from(width), u64::from(height));
        let raw: drm_ffi::drm_mode_modeinfo = mode.into();
        let blob = card
            .create_property_blob(&raw)
            .map_err(card.failed("MODE_CREATEPROPBLOB"))?;
        let blob: property::RawValue = blob.into();
        let crtc = u64::from(self.crtc_id);
        let set = || {
            let mut commit = Commit::default();
            commit.set(&self.connector, "CRTC_ID", crtc)?;
            commit.set(&self.crtc, "MODE_ID", blob)?;
            commit.set(&self.crtc, "ACTIVE", 1)?;
            commit.set(&self.plane, "FB_ID", u32::from(framebuffer).into())?;
            commit.set(&self.plane, "CRTC_ID", crtc)?;
            for (name, value) in [
                ("CRTC_X", 0),
                ("CRTC_Y", 0),
                ("CRTC_W", width),
                ("CRTC_H", height),
                // In 16.16 fixed point.
                ("SRC_X", 0),
                ("SRC_Y", 0),
                ("SRC_W", width << 16),
                ("SRC_H", height << 16),
            ] {
                commit.set(&self.plane, name, value)?;
            }
            let flags = AtomicCommitFlags::ALLOW_MODESET;
            let done = again(|| card.atomic_commit(flags, commit.0.clone()));
            done.map_err(card.failed(MODE_ATOMIC))
        };
        let done = set();
        // The CRTC keeps what it needs of it.
        let _ = card.destroy_property_blob(blob);
        done
    }

    /// Has the next frame shown once `after` is signalled, and returns at once;
    /// the fence that tells when it is on the screen.
    ///
    /// `Ok(Err(EBUSY))` while the flip before is not done.
    pub(super) fn flip(
        &self,
        card: &Inner,
        framebuffer: framebuffer::Handle,
        after: Option<BorrowedFd<'_>>,
    ) -> Result<io::Result<OwnedFd>, DrmError> {
        let mut done: RawFd = -1;
        let mut commit = Commit::default();
        commit.set(&self.plane, "FB_ID", u32::from(framebuffer).into())?;
        if let Some(fence) = after {
            let fd = u64::from(fence.as_raw_fd().cast_unsigned());
            commit.set(&self.plane, "IN_FENCE_FD", fd)?;
        }
        // The kernel writes the number there before the call returns, and reads
        // it never.
        let place = (&raw mut done).expose_provenance() as u64;
        commit.set(&self.crtc, "OUT_FENCE_PTR", place)?;
        let flags = AtomicCommitFlags::NONBLOCK;
        let committed = again(|| card.atomic_commit(flags, commit.0.clone()));
        Ok(committed.and_then(|()| match done {
            // It is there on success; a driver without it would be at fault.
            ..0 => Err(io::Error::from(io::ErrorKind::Unsupported)),
            // SAFETY: the commit succeeded, so this is a new fd, close-on-exec,
            // that no one else owns.
            fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        }))
    }
}

/// A commit being put together.
#[derive(Default)]
struct Commit(AtomicModeReq);

impl Commit {
    fn set(
        &mut self,
        object: &Properties,
        name: &'static str,
        value: property::RawValue,
    ) -> Result<(), DrmError> {
        let (object, property) = object.place(name)?;
        self.0.add_raw_property(object, property, value);
        Ok(())
    }
}
