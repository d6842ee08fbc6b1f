//! What GL allocated, as a frame for others.

use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;
use std::rc::Rc;

use khronos_egl as egl;

use super::api::{self, Exports};
use super::error::EglError;
use super::image::Image;
use super::texture::{Target, Texture};
use super::{Gpu, Inner};
use crate::buffer::Buffer;
use crate::import::HandleError;
use crate::share::{Fourcc, Frame, FrameError, MAX_PLANES, Plane};

/// A frame in the driver's memory, and the handles of that.
pub(super) struct Exported {
    frame: Frame,
    buffers: Vec<Buffer>,
}

impl Gpu {
    /// Something to draw into in memory of the driver's own, 8 bits each of red,
    /// green, blue and alpha, which others can import
    /// ([`Target::exported`]): in a layout that suits the GPU, as its modifier
    /// says. What is in it at first is undefined.
    ///
    /// # Errors
    /// [`EglError::Missing`] without EGL_MESA_image_dma_buf_export,
    /// [`EglError::TooLarge`], [`EglError::Export`] where the driver has no
    /// memory for it, or none that can be shared.
    ///
    /// ```no_run
    /// // Not run: needs a driver that exports dma-bufs.
    /// # use dmashare::import::egl::{EglError, Gpu, Shader, Texture};
    /// # fn f(gpu: &Gpu, texture: &Texture, shader: &Shader) -> Result<(), EglError> {
    /// let target = gpu.new_target(640, 480)?;
    /// gpu.draw(texture, &target, shader)?;
    /// gpu.finish()?;
    /// let (frame, buffers) = target.exported().expect("made by new_target");
    /// println!("{} x {} in {}", frame.width, frame.height, buffers[0].name());
    /// # Ok(()) }
    /// ```
    pub fn new_target(&self, width: u32, height: u32) -> Result<Target, EglError> {
        let gpu = &self.0;
        let exports = gpu
            .exports
            .as_ref()
            .map_err(|lacking| EglError::missing(format!("{}", self.0.device), lacking.clone()))?;
        // What is not known yet is zero.
        let mut frame = Frame {
            width,
            height,
            fourcc: Fourcc::ABGR8888,
            modifier: 0,
            planes: Vec::new(),
        };
        if width == 0 || height == 0 {
            return Err(HandleError::from(FrameError::Empty(width, height)).into());
        }
        if width.max(height) > gpu.max_size {
            return Err(EglError::TooLarge {
                on: gpu.renderer.clone(),
                frame: format!("{width}x{height}"),
                limit: gpu.max_size,
            });
        }
        gpu.make_current()?;
        let texture = Texture::own(gpu, (width, height))?;
        // Before anything is drawn with it: llvmpipe moves the pixels to
        // memory that it can share, while its threads may still write to the
        // old, and what is bound to a sampler still reads from there.
        let image = Image::of_texture(gpu, texture.raw())?;
        let exported = gpu.export(exports, &image, &mut frame)?;
        let mut target = Target::new(texture, &exported.frame)?;
        target.exported = Some(exported);
        Ok(target)
    }
}

impl Target {
    /// The frame and its buffers, to be passed on and imported by others; only
    /// of what [`Gpu::new_target`] made, since who imported a target has both.
    ///
    /// ```no_run
    /// // Not run: needs a driver that exports dma-bufs.
    /// # fn f(gpu: &dmashare::import::egl::Gpu) -> Result<(), dmashare::import::egl::EglError> {
    /// let target = gpu.new_target(64, 64)?;
    /// assert!(target.exported().is_some());
    /// # Ok(()) }
    /// ```
    pub fn exported(&self) -> Option<(&Frame, &[Buffer])> {
        let exported = self.exported.as_ref()?;
        Some((&exported.frame, &exported.buffers))
    }
}

impl Inner {
    /// Completes a frame of a size with what the driver says of its image.
    fn export(
        self: &Rc<Inner>,
        exports: &Exports,
        image: &Image,
        frame: &mut Frame,
    ) -> Result<Exported, EglError> {
        let refused = |reason| EglError::Export {
            on: self.renderer.clone(),
            reason,
        };
        let failed = |function| {
            let code = api::last_error(exports.get_error);
            refused(format!("{function}: {code}"))
        };
        let (mut fourcc, mut count) = (0, 0);
        let display = self.display.as_ptr();
        // SAFETY: the image is alive and of this display, and modifiers are not
        // asked for yet.
        let ok = unsafe {
            (exports.query)(
                display,
                image.raw,
                &raw mut fourcc,
                &raw mut count,
                ptr::null_mut(),
            )
        };
        if ok != egl::TRUE {
            return Err(failed("eglExportDMABUFImageQueryMESA"));
        }
        let count = usize::try_from(count).unwrap_or(0);
        if count == 0 || count > MAX_PLANES {
            return Err(refused(format!("it has {count} planes")));
        }
        let mut modifiers = [0; MAX_PLANES];
        // SAFETY: as before, and there is room for the modifiers of all planes.
        let ok = unsafe {
            (exports.query)(
                display,
                image.raw,
                ptr::null_mut(),
                ptr::null_mut(),
                modifiers.as_mut_ptr(),
            )
        };
        if ok != egl::TRUE {
            return Err(failed("eglExportDMABUFImageQueryMESA"));
        }
        let mut fds = [-1; MAX_PLANES];
        let (mut strides, mut offsets) = ([0; MAX_PLANES], [0; MAX_PLANES]);
        // SAFETY: as before, and there is room for what is told of all planes.
        let ok = unsafe {
            (exports.export)(
                display,
                image.raw,
                fds.as_mut_ptr(),
                strides.as_mut_ptr(),
                offsets.as_mut_ptr(),
            )
        };
        // Owned before anything can fail, each once. A plane without a handle
        // lies in the buffer of the one before.
        let mut owned: Vec<(egl::Int, OwnedFd)> = Vec::new();
        let mut of_plane = Vec::new();
        for &fd in &fds[..count] {
            if fd >= 0 && owned.iter().all(|(known, _)| *known != fd) {
                // SAFETY: the driver gave this handle to be closed by the
                // caller, and it is taken once.
                owned.push((fd, unsafe { OwnedFd::from_raw_fd(fd) }));
            }
            let known = owned.iter().position(|(known, _)| *known == fd);
            of_plane.push(known.unwrap_or(owned.len().saturating_sub(1)));
        }
        if ok != egl::TRUE {
            return Err(failed("eglExportDMABUFImageMESA"));
        }
        if owned.is_empty() {
            return Err(refused(
                "it gave no handle, as where it has no memory".into(),
            ));
        }
        let buffers = owned.into_iter().map(|(_, fd)| Buffer::from_fd(fd));
        let buffers = buffers.collect::<Result<Vec<_>, _>>()?;

        frame.fourcc = Fourcc(fourcc.cast_unsigned());
        frame.modifier = modifiers[0];
        frame.planes.clear();
        for (plane, buffer) in of_plane.into_iter().enumerate() {
            let number = |value: egl::Int| {
                u32::try_from(value).map_err(|_| refused(format!("plane {plane}: {value}")))
            };
            frame.planes.push(Plane {
                buffer: u8::try_from(buffer).unwrap_or(u8::MAX),
                offset: number(offsets[plane])?,
                stride: number(strides[plane])?,
            });
        }
        let sizes: Vec<u64> = buffers.iter().map(Buffer::size).collect();
        frame
            .check(&sizes)
            .map_err(|error| refused(error.to_string()))?;
        Ok(Exported {
            frame: frame.clone(),
            buffers,
        })
    }
}
