//! What a queue can take, as far as it tells or can be found out.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use rustix::io::retry_on_intr;

use super::stream::Claim;
use super::{Format, Offer, PixelFormat, Queue, V4l2Error, Wanted};
use crate::import::scattered::scattered;
use crate::negotiate::{Layout, Memory, Reach, Sync, Taker};
use crate::sys::v4l2::{self, Plane};

impl Queue {
    /// Whether it takes dma-bufs of others.
    ///
    /// # Errors
    /// [`V4l2Error::Busy`] where the driver is so old that this can only be
    /// tried, and [`V4l2Error::Ioctl`].
    ///
    /// ```no_run
    /// // Not run: needs a camera.
    /// # use dmashare::import::v4l2::Device;
    /// assert!(Device::find("vivid", "")?.capture()?.takes_dma_bufs()?);
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn takes_dma_bufs(&self) -> Result<bool, V4l2Error> {
        let raw = self.raw_format()?;
        match retry_on_intr(|| v4l2::buffer_capabilities(self.device.node(), raw)) {
            Ok(can) if can & v4l2::BUF_CAP_MMAP != 0 => Ok(can & v4l2::BUF_CAP_DMABUF != 0),
            // No such call, or none of these flags.
            _ => match Claim::new(self)?.request(v4l2::Memory::DmaBuf, 1) {
                Ok(_) => Ok(true),
                Err(V4l2Error::Memory { .. }) => Ok(false),
                Err(error) => Err(error),
            },
        }
    }

    /// Whether it takes memory that does not lie in one piece, found out by
    /// giving it some, of the format that it has now, which it does not write
    /// to; `None` where that cannot be found out: neither /dev/udmabuf nor the
    /// module makes such memory, or the driver cannot try.
    ///
    /// # Errors
    /// [`V4l2Error::Busy`] while it streams, [`V4l2Error::Memory`] where it
    /// takes no dma-bufs, and those of [`format`](Self::format).
    ///
    /// ```no_run
    /// // Not run: needs a camera.
    /// # use dmashare::import::v4l2::Device;
    /// let camera = Device::open("/dev/video0")?.capture()?;
    /// if camera.takes_scattered()? == Some(false) {
    ///     println!("allocate contiguous memory for it");
    /// }
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn takes_scattered(&self) -> Result<Option<bool>, V4l2Error> {
        let mut claim = Claim::new(self)?;
        let format = self.format()?;
        let sizes = format.sizes.iter();
        let Ok(buffers) = sizes
            .map(|size| scattered(*size))
            .collect::<Result<Vec<_>, _>>()
        else {
            return Ok(None);
        };
        claim.request(v4l2::Memory::DmaBuf, 1)?;
        let mut planes = Vec::new();
        for buffer in &buffers {
            let length = u32::try_from(buffer.size()).unwrap_or(u32::MAX);
            planes.push(Plane::of(buffer.fd()?, length));
        }
        let mut described = v4l2::Buffer::new(self.kind, v4l2::Memory::DmaBuf, 0);
        // A driver of an output looks how much there is to put out.
        for (plane, size) in planes.iter_mut().zip(&format.sizes) {
            plane.bytesused = u32::try_from(*size).unwrap_or(u32::MAX);
        }
        let prepare = || v4l2::prepare(self.device.node(), &mut described, &mut planes);
        Ok(match retry_on_intr(prepare) {
            Ok(()) => Some(true),
            Err(rustix::io::Errno::FAULT) => Some(false),
            Err(_) => None,
        })
    }

    /// What it can take.
    ///
    /// - Formats are those that DRM has a name for, linear, in one buffer. Those
    ///   of three planes are left out: their strides follow from the first one's,
    ///   which a taker cannot say. Sizes are what lies
    ///   between the least and the largest of any format: a camera can have few
    ///   of them, which [`sizes`](Self::sizes) lists.
    /// - Strides are asked of the driver. One that lets nobody choose a stride
    ///   is not told from one that takes any: [`set_frame`](Self::set_frame)
    ///   says.
    /// - Whether memory must be contiguous is [tried](Self::takes_scattered)
    ///   where nothing streams. Hardware that needs it has no IOMMU, and what it
    ///   reaches is not told: below 4 GiB, to be safe.
    ///
    /// # Errors
    /// [`V4l2Error::Ioctl`].
    ///
    /// ```no_run
    /// // Not run: needs a camera.
    /// # use dmashare::import::v4l2::Device;
    /// # use dmashare::negotiate::Memory;
    /// let taker = Device::find("vivid", "platform:vivid-001")?.capture()?.taker()?;
    /// assert!(taker.contiguous);
    /// assert_eq!(taker.memory, Memory::AnyDmaBuf);
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn taker(&self) -> Result<Taker, V4l2Error> {
        let mut taker = Taker::new(self.to_string());
        let mut layouts = BTreeSet::new();
        let mut sizes: Option<(RangeInclusive<u32>, RangeInclusive<u32>)> = None;
        for Offer {
            pixel_format,
            fourcc,
            ..
        } in self.formats()?
        {
            let Some(fourcc) = fourcc else { continue };
            if pixel_format.buffers() != Some(1) || fourcc.planes() == Some(3) {
                continue;
            }
            layouts.insert(Layout::linear(fourcc));
            let bounds = self.sizes(pixel_format)?.bounds();
            let wanted = Wanted::new(*bounds.0.start(), *bounds.1.start(), fourcc);
            let align = self.stride_align(&wanted, pixel_format);
            taker.stride_align = least_common_multiple(taker.stride_align, align);
            sizes = Some(match sizes {
                None => bounds,
                Some((width, height)) => (around(&width, &bounds.0), around(&height, &bounds.1)),
            });
        }
        taker.layouts = Some(layouts);
        if let Some((width, height)) = sizes {
            (taker.width, taker.height) = (width, height);
        }
        taker.sync = Sync::CPU;
        taker.memory = match self.takes_dma_bufs()? {
            true => Memory::AnyDmaBuf,
            false => Memory::Own {
                node: self.device.path().to_owned(),
                why: "it has no DMABUF buffers".to_owned(),
            },
        };
        if taker.memory == Memory::AnyDmaBuf {
            taker.contiguous = match self.takes_scattered() {
                Ok(takes) => takes == Some(false),
                // Someone streams, or the format is none to try.
                Err(V4l2Error::Busy { .. } | V4l2Error::NoFrame { .. }) => false,
                Err(error) => return Err(error),
            };
        }
        if taker.contiguous {
            taker.reach = Reach::Below4G;
        }
        Ok(taker)
    }

    /// What strides of this format are multiples of; 1 where the driver does
    /// not let choose them.
    fn stride_align(&self, wanted: &Wanted, format: PixelFormat) -> u32 {
        let stride = |wanted: &Wanted| {
            let made: Result<Format, _> = self.try_offered(wanted, format);
            made.ok().map(|format| format.frame.planes[0].stride)
        };
        let Some(least) = stride(wanted) else {
            return 1;
        };
        align_of(least, |wider| stride(&wanted.stride(wider)))
    }
}

/// What strides are multiples of, where `least` is the first and `made` is what
/// becomes of one that is asked for: it is rounded up, or down, or not at all.
fn align_of(least: u32, made: impl Fn(u32) -> Option<u32>) -> u32 {
    for step in (0..=12).map(|power| 1 << power) {
        match least.checked_add(step).and_then(&made) {
            Some(wider) if wider > least => return wider - least,
            _ => {}
        }
    }
    1
}

fn least_common_multiple(a: u32, b: u32) -> u32 {
    let (mut divisor, mut rest) = (a, b);
    while rest != 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    (a / divisor).saturating_mul(b)
}

/// The least range that has both.
fn around(a: &RangeInclusive<u32>, b: &RangeInclusive<u32>) -> RangeInclusive<u32> {
    *a.start().min(b.start())..=*a.end().max(b.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alignment_of_strides_is_found_however_they_are_rounded() {
        for align in [1, 2, 8, 64, 256, 4096] {
            let least = 640_u32.next_multiple_of(align);
            let up = align_of(least, |asked| Some(asked.next_multiple_of(align)));
            let down = align_of(least, |asked| Some(asked / align * align));
            assert_eq!((up, down), (align, align));
        }
        // Not by powers of two, and not at all.
        assert_eq!(align_of(640, |asked| Some(asked.next_multiple_of(40))), 40);
        assert_eq!(align_of(640, |_| Some(640)), 1);
        assert_eq!(align_of(640, |_| None), 1);
        assert_eq!(align_of(u32::MAX, Some), 1);
    }

    #[test]
    fn alignments_of_all_formats_hold_for_all() {
        assert_eq!(least_common_multiple(1, 64), 64);
        assert_eq!(least_common_multiple(64, 256), 256);
        assert_eq!(least_common_multiple(40, 64), 320);
        assert_eq!(least_common_multiple(u32::MAX, u32::MAX - 1), u32::MAX);
    }

    #[test]
    fn a_range_has_all_that_it_is_around() {
        assert_eq!(around(&(2..=5), &(4..=9)), 2..=9);
        assert_eq!(around(&(2..=9), &(4..=5)), 2..=9);
    }
}
