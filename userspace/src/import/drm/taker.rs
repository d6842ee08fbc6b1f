//! What a card's planes take, for negotiation.

use drm::control::Device as _;
use drm::{Device as _, DriverCapability};
use std::ops::{Bound, RangeBounds, RangeInclusive};

use super::error::MODE_GETRESOURCES;
use super::{Card, DrmError, PlaneKind, ScanoutPlane};
use crate::alloc::{Request, allocate};
use crate::buffer::Buffer;
use crate::import::scattered::scattered;
use crate::negotiate::{Memory, Sync, Taker};

/// What a linear stride is to be a multiple of, in bytes. Drivers do not say
/// theirs: this suits those that were tried, and some hardware wants 256.
const STRIDE_ALIGN: u32 = 64;

/// Two pages suffice to lie apart.
const SCATTERED: u64 = 1 << 16;

impl Card {
    /// What each of its planes takes, to negotiate with.
    ///
    /// Whether the driver imports from others is found out by importing: from
    /// the first way to allocate for devices that there is.
    ///
    /// # Errors
    /// [`DrmError::Ioctl`], as on a card without screens, and those of
    /// [`planes`](Card::planes).
    ///
    /// ```no_run
    /// // Not run: needs a screen.
    /// # use dmashare::import::drm::Card;
    /// for (plane, taker) in Card::find("bochs-drm")?.takers()? {
    ///     println!("{}: {}", plane.kind, taker.name); // primary: plane 31 (primary) of …
    /// }
    /// # Ok::<(), dmashare::import::drm::DrmError>(())
    /// ```
    pub fn takers(&self) -> Result<Vec<(ScanoutPlane, Taker)>, DrmError> {
        let planes = self.planes()?.into_iter();
        let [width, height] = self.sizes()?;
        let (memory, contiguous) = self.memory();
        let sync = match self.0.is_atomic() {
            true => Sync::CPU | Sync::IMPLICIT | Sync::SYNC_FILE,
            // The legacy calls of old drivers need not wait for anyone.
            false => Sync::CPU,
        };
        let takers = planes.map(|plane| {
            let mut taker = Taker::new(format!("{plane} of {self}"));
            taker.layouts = Some(plane.layouts.clone());
            (taker.width, taker.height) = match plane.kind {
                PlaneKind::Cursor => self.cursor_sizes(),
                _ => (width.clone(), height.clone()),
            };
            taker.stride_align = STRIDE_ALIGN;
            taker.memory = memory.clone();
            taker.contiguous = contiguous;
            taker.sync = sync;
            (plane, taker)
        });
        Ok(takers.collect())
    }

    /// The widths and heights that a cursor can have: up to 64 pixels where the
    /// driver does not say.
    fn cursor_sizes(&self) -> (RangeInclusive<u32>, RangeInclusive<u32>) {
        let largest = |capability| {
            let value = self.0.get_driver_capability(capability);
            let value = value.ok().and_then(|value| u32::try_from(value).ok());
            1..=value.filter(|value| *value > 0).unwrap_or(64)
        };
        (
            largest(DriverCapability::CursorWidth),
            largest(DriverCapability::CursorHeight),
        )
    }

    /// The widths and heights that its framebuffers can have.
    pub(super) fn sizes(&self) -> Result<[RangeInclusive<u32>; 2], DrmError> {
        let resources = self.0.resource_handles();
        let resources = resources.map_err(self.0.failed(MODE_GETRESOURCES))?;
        Ok([
            inclusive(resources.supported_fb_width()),
            inclusive(resources.supported_fb_height()),
        ])
    }

    /// Whose memory it takes, and whether that must be in one piece: hardware
    /// without an IOMMU scans out nothing else.
    fn memory(&self) -> (Memory, bool) {
        let own = |why: String| Memory::Own {
            node: self.path().to_owned(),
            why,
        };
        let takes = |buffer: &Buffer| self.open_handle(buffer).map(drop);
        let scattered = scattered(SCATTERED).ok();
        if scattered
            .as_ref()
            .is_some_and(|buffer| takes(buffer).is_ok())
        {
            return (Memory::AnyDmaBuf, false);
        }
        // A page is in one piece.
        let request = Request::new(1).named("dmashare probe").for_device();
        let made = allocate(&request).map_err(|nothing| {
            let why = format!("nothing to try an import with: {nothing}");
            own(why)
        });
        let taken = made.and_then(|made| takes(&made.buffer).map_err(|why| own(why.to_string())));
        match taken {
            Ok(()) => (Memory::AnyDmaBuf, scattered.is_some()),
            Err(own) => (own, false),
        }
    }
}

/// The sizes that a framebuffer can have. A driver that says nothing says 0.
fn inclusive(range: impl RangeBounds<u32>) -> RangeInclusive<u32> {
    let first = match range.start_bound() {
        Bound::Included(&first) => first,
        Bound::Excluded(&before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let last = match range.end_bound() {
        Bound::Included(&last) => last,
        Bound::Excluded(&behind) => behind.saturating_sub(1),
        Bound::Unbounded => u32::MAX,
    };
    let last = if last == 0 { u32::MAX } else { last };
    first.max(1)..=last
}

#[cfg(test)]
mod tests {
    use super::inclusive;

    #[test]
    fn a_driver_that_names_no_sizes_takes_all() {
        assert_eq!(inclusive(0..=0), 1..=u32::MAX);
        assert_eq!(inclusive(0..=4096), 1..=4096);
        assert_eq!(inclusive(16..4097), 16..=4096);
    }
}
