//! Which mode a frame is shown in.

use std::fmt;

use drm::control::Mode as Timings;

/// A size and rate that a screen can show.
///
/// ```
/// use dmashare::import::drm::Mode;
/// let mode = Mode { width: 1024, height: 768, refresh: 60 };
/// assert_eq!(mode.to_string(), "1024x768@60");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mode {
    /// Width in pixels.
    pub width: u16,
    /// Height in rows.
    pub height: u16,
    /// Frames a second, rounded.
    pub refresh: u32,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}@{}", self.width, self.height, self.refresh)
    }
}

impl From<&Timings> for Mode {
    fn from(timings: &Timings) -> Mode {
        let (width, height) = timings.size();
        Mode {
            width,
            height,
            refresh: timings.vrefresh(),
        }
    }
}

/// The first of these modes that has exactly this size, and this rate if one
/// is given: a screen lists the one it likes best first.
pub(super) fn of_size(
    modes: &[Timings],
    size: (u32, u32),
    refresh: Option<u32>,
) -> Option<Timings> {
    let is_it = |mode: &&Timings| {
        let (width, height) = mode.size();
        (u32::from(width), u32::from(height)) == size
            && refresh.is_none_or(|refresh| refresh == mode.vrefresh())
    };
    modes.iter().find(is_it).copied()
}

/// A mode of this size with made-up timings, for a screen that has no timing:
/// 60 Hz if nothing else is asked, and short blanking in the manner of CVT's
/// reduced one.
///
/// `None` where they do not fit a mode (`drm_mode_modeinfo` has 16 bits for the
/// size).
pub(super) fn made_up((width, height): (u32, u32), refresh: Option<u32>) -> Option<Timings> {
    let refresh = refresh.unwrap_or(60);
    let across = |pixels: u32| u16::try_from(width.checked_add(pixels)?).ok();
    let down = |rows: u32| u16::try_from(height.checked_add(rows)?).ok();
    let (htotal, vtotal) = (across(160)?, down(40)?);
    Some(Timings::from(drm_ffi::drm_mode_modeinfo {
        clock: u32::try_from(u64::from(htotal) * u64::from(vtotal) * u64::from(refresh) / 1000)
            .ok()?,
        hdisplay: across(0)?,
        hsync_start: across(48)?,
        hsync_end: across(80)?,
        htotal,
        vdisplay: down(0)?,
        vsync_start: down(3)?,
        vsync_end: down(9)?,
        vtotal,
        vrefresh: refresh,
        type_: drm_ffi::DRM_MODE_TYPE_USERDEF,
        ..Default::default()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_size_will_do() {
        let modes = [(640, 480), (800, 600)].map(|size| made_up(size, None).unwrap());
        assert_eq!(of_size(&modes, (800, 600), None), Some(modes[1]));
        assert_eq!(of_size(&modes, (800, 600), Some(60)), Some(modes[1]));
        assert_eq!(of_size(&modes, (800, 600), Some(50)), None);
        assert_eq!(of_size(&modes, (800, 599), None), None);
    }

    #[test]
    fn made_up_timings_are_in_order() {
        let mode = made_up((1000, 750), None).unwrap();
        assert_eq!(Mode::from(&mode).to_string(), "1000x750@60");
        let (start, end, total) = mode.hsync();
        assert!(1000 < start && start < end && end < total);
        let (start, end, total) = mode.vsync();
        assert!(750 < start && start < end && end < total);
        let clock = u64::from(mode.clock()) * 1000;
        let rate = clock / (u64::from(mode.hsync().2) * u64::from(mode.vsync().2));
        assert!((59..=60).contains(&rate));
    }

    #[test]
    fn a_size_beyond_16_bits_has_no_mode() {
        assert_eq!(made_up((65_500, 10), None), None);
        assert_eq!(made_up((u32::MAX, 10), None), None);
    }
}
