//! What a GPU can take, for who chooses a layout for several.

use super::error::EglError;
use super::format::Format;
use super::yuv;
use super::{Gpu, Inner};
use crate::negotiate::{Layout, Memory, Sync, Taker};
use crate::share::{Fourcc, LINEAR};

/// What rows of a linear frame start at, that suits all GPUs known here: a
/// driver cannot be asked.
const ALIGN: u32 = 256;

/// Formats that OpenGL ES samples, but has no framebuffer of.
const NO_TARGETS: [Fourcc; 2] = [Fourcc::new(*b"XR30"), Fourcc::new(*b"XB30")];

impl Gpu {
    /// What can be read here: with [`import_texture`](Gpu::import_texture),
    /// and YUV with [`import_yuv`](Gpu::import_yuv).
    ///
    /// EGL cannot be asked how rows must be aligned. The software device takes
    /// any; of a GPU 256 bytes is said, which is more than some want.
    ///
    /// # Errors
    /// [`EglError::Egl`] where the driver fails to tell its formats.
    ///
    /// ```no_run
    /// // Not run: needs a driver that imports dma-bufs.
    /// # use dmashare::import::egl::{EglError, Gpu};
    /// # use dmashare::negotiate::Memory;
    /// # fn f(gpu: &Gpu) -> Result<(), EglError> {
    /// assert_eq!(gpu.texture_taker()?.memory, Memory::AnyDmaBuf);
    /// # Ok(()) }
    /// ```
    pub fn texture_taker(&self) -> Result<Taker, EglError> {
        let formats = self.formats()?;
        let mut taker = self.0.taker(format!("{self}, reading"));
        let has = |&(part, ..): &(Fourcc, u32, u32)| lists(&formats, part);
        let by_planes = yuv::PLANAR.into_iter().filter(|&fourcc| {
            yuv::planar(fourcc).is_some_and(|planar| planar.planes.iter().all(has))
        });
        let whole =
            layouts(&formats).filter(|(layout, external_only)| match yuv::planar(layout.fourcc) {
                Some(planar) => planar.planes.len() == 1 || !self.0.is_llvmpipe(),
                None => !external_only,
            });
        let whole = whole.map(|(layout, _)| layout);
        taker.layouts = Some(whole.chain(by_planes.map(Layout::linear)).collect());
        if !self.0.is_llvmpipe() {
            (taker.stride_align, taker.offset_align) = (ALIGN, ALIGN);
        }
        Ok(taker)
    }

    /// What can be drawn into here, with [`import_target`](Gpu::import_target).
    ///
    /// # Errors
    /// [`EglError::Egl`] where the driver fails to tell its formats.
    ///
    /// ```no_run
    /// // Not run: needs a driver that imports dma-bufs.
    /// # use dmashare::import::egl::{Device, EglError, Gpu};
    /// let taker = Gpu::open(&Device::Software)?.target_taker()?;
    /// assert_eq!((taker.offset_align, taker.rows_align), (16, 4)); // llvmpipe
    /// # Ok::<(), EglError>(())
    /// ```
    pub fn target_taker(&self) -> Result<Taker, EglError> {
        let formats = self.formats()?;
        let mut taker = self.0.taker(format!("{self}, drawing"));
        let drawn = layouts(&formats).filter(|(layout, external_only)| {
            let is_drawn = !NO_TARGETS.contains(&layout.fourcc);
            is_drawn && !external_only && yuv::planar(layout.fourcc).is_none()
        });
        taker.layouts = Some(drawn.map(|(layout, _)| layout).collect());
        let align = match self.0.is_llvmpipe() {
            true => self.0.target_alignment(),
            false => ALIGN,
        };
        taker.offset_align = align;
        // A row has room for whole squares of the largest pixels.
        let row = layouts(&formats).filter_map(|(layout, _)| layout.fourcc.bytes_per_pixel());
        taker.stride_align = align.max(self.0.target_block() * row.max().unwrap_or(1));
        taker.rows_align = self.0.target_block();
        Ok(taker)
    }
}

impl Inner {
    fn taker(&self, name: String) -> Taker {
        let mut taker = Taker::new(name);
        taker.width = 1..=self.max_size;
        taker.height = 1..=self.max_size;
        taker.memory = Memory::AnyDmaBuf;
        if self.syncs.is_ok() {
            taker.sync |= Sync::SYNC_FILE;
        }
        taker
    }
}

/// Whether the driver lists a format, linear.
fn lists(formats: &[Format], fourcc: Fourcc) -> bool {
    layouts(formats).any(|(layout, _)| layout == Layout::linear(fourcc))
}

/// The layouts of a driver that can be checked here, and whether each can only
/// be read as GL_TEXTURE_EXTERNAL_OES.
fn layouts(formats: &[Format]) -> impl Iterator<Item = (Layout, bool)> {
    // What a driver takes that cannot list any.
    let plain = [Fourcc::XRGB8888, Fourcc::ARGB8888].map(|fourcc| (Layout::linear(fourcc), false));
    let plain = plain.into_iter().filter(|_| formats.is_empty());
    let known = formats.iter().filter(|f| f.fourcc.planes().is_some());
    let listed = known.flat_map(|format| {
        let named = format.modifiers.iter();
        let named = named.map(|modifier| (modifier.code, modifier.external_only));
        // One that names no modifier takes what is linear.
        let linear = format.modifiers.is_empty().then_some((LINEAR, false));
        named.chain(linear).map(|(modifier, external_only)| {
            let fourcc = format.fourcc;
            (Layout { fourcc, modifier }, external_only)
        })
    });
    plain.chain(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_cannot_tell_takes_plain_rgb() {
        let layouts: Vec<_> = layouts(&[]).collect();
        assert!(layouts.contains(&(Layout::linear(Fourcc::XRGB8888), false)));
        let unknown = Format::new(Fourcc::new(*b"????"), vec![]);
        let xrgb = Format::new(Fourcc::XRGB8888, vec![]);
        let formats = [unknown, xrgb];
        assert!(!lists(&formats, Fourcc::new(*b"????")));
        assert!(lists(&formats, Fourcc::XRGB8888));
    }
}
