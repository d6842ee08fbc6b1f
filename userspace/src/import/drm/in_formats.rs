//! The blob of a plane's property IN_FORMATS: `struct
//! drm_format_modifier_blob` of `drm/drm_mode.h`.
//!
//! It comes from the kernel, but its counts and offsets are a driver's: nothing
//! of it is believed that does not lie within the blob.

use std::collections::BTreeSet;

use crate::frame::Fourcc;
use crate::negotiate::Layout;

/// `FORMAT_BLOB_CURRENT`.
const VERSION: u32 = 1;

/// The bytes of a `struct drm_format_modifier`.
const MODIFIER: usize = 24;

/// The layouts in this blob, or what is wrong with it.
pub(super) fn layouts(blob: &[u8]) -> Result<BTreeSet<Layout>, &'static str> {
    const SHORT: &str = "its header is cut off";
    let version = u32_at(blob, 0).ok_or(SHORT)?;
    if version != VERSION {
        return Err("it is of a version that is not known here");
    }
    let [formats, formats_at, modifiers, modifiers_at] =
        [8, 12, 16, 20].map(|at| u32_at(blob, at).and_then(|value| usize::try_from(value).ok()));
    let formats = array(blob, formats_at.ok_or(SHORT)?, formats.ok_or(SHORT)?, 4)
        .ok_or("its formats reach beyond its end")?;
    let modifiers = array(
        blob,
        modifiers_at.ok_or(SHORT)?,
        modifiers.ok_or(SHORT)?,
        MODIFIER,
    )
    .ok_or("its modifiers reach beyond its end")?;

    let mut layouts = BTreeSet::new();
    for entry in modifiers.chunks_exact(MODIFIER) {
        // A window of 64 formats, which begins at `offset`.
        let (Some(window), Some(offset), Some(modifier)) =
            (u64_at(entry, 0), u32_at(entry, 8), u64_at(entry, 16))
        else {
            return Err("a modifier is cut off");
        };
        for bit in (0..64).filter(|bit| window & (1 << bit) != 0) {
            let index = u64::from(offset) + bit;
            let at = usize::try_from(index).ok().and_then(|at| at.checked_mul(4));
            let fourcc = at
                .and_then(|at| u32_at(formats, at))
                .ok_or("a modifier is of a format that is not there")?;
            layouts.insert(Layout {
                fourcc: Fourcc(fourcc),
                modifier,
            });
        }
    }
    Ok(layouts)
}

/// `count` items of `size` bytes from byte `at` on, if they lie within.
fn array(blob: &[u8], at: usize, count: usize, size: usize) -> Option<&[u8]> {
    let end = count.checked_mul(size)?.checked_add(at)?;
    blob.get(at..end)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::LINEAR;
    use proptest::prelude::*;

    const X_TILED: u64 = 0x0100_0000_0000_0001;

    /// A blob of these formats and modifiers: window, offset, code.
    fn blob(formats: &[Fourcc], modifiers: &[(u64, u32, u64)]) -> Vec<u8> {
        let length = |count: usize| u32::try_from(count).unwrap();
        let modifiers_at = 24 + 4 * length(formats.len());
        let header = [
            VERSION,
            0,
            length(formats.len()),
            24,
            length(modifiers.len()),
            modifiers_at,
        ];
        let mut blob: Vec<u8> = header.iter().flat_map(|word| word.to_ne_bytes()).collect();
        blob.extend(formats.iter().flat_map(|format| format.0.to_ne_bytes()));
        for (window, offset, code) in modifiers {
            blob.extend(window.to_ne_bytes());
            blob.extend(offset.to_ne_bytes());
            blob.extend([0; 4]);
            blob.extend(code.to_ne_bytes());
        }
        blob
    }

    fn put(blob: &mut [u8], at: usize, value: u32) {
        blob[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }

    #[test]
    fn each_modifier_is_of_the_formats_in_its_window() {
        let two = [Fourcc::XRGB8888, Fourcc::new(*b"NV12")];
        let layouts = layouts(&blob(&two, &[(0b11, 0, LINEAR), (0b1, 1, X_TILED)])).unwrap();
        let tiled = Layout {
            fourcc: two[1],
            modifier: X_TILED,
        };
        let expected = [Layout::linear(two[0]), Layout::linear(two[1]), tiled];
        assert_eq!(layouts, BTreeSet::from(expected));
    }

    #[test]
    fn what_lies_beyond_the_blob_is_refused() {
        let good = blob(&[Fourcc::XRGB8888], &[(0b1, 0, LINEAR)]);
        assert!(layouts(&good).is_ok());
        for length in 0..good.len() {
            assert!(layouts(&good[..length]).is_err(), "{length}");
        }
        // Counts and offsets, and the format that a modifier is of.
        for at in [8, 12, 16, 20, 24 + 4 + 8] {
            for value in [1 << 30, u32::MAX] {
                let mut bad = good.clone();
                put(&mut bad, at, value);
                assert!(layouts(&bad).is_err(), "{value} at {at}");
            }
        }
        let mut other = good;
        put(&mut other, 0, 2);
        assert!(layouts(&other).is_err());
    }

    proptest! {
        #[test]
        fn no_blob_is_read_beyond(mut blob in prop::collection::vec(any::<u8>(), 0..200)) {
            if blob.len() >= 4 {
                put(&mut blob, 0, VERSION);
            }
            let _ = layouts(&blob);
        }
    }
}
