//! Fences from the GPU, and for it to wait for.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use glow::HasContext;
use khronos_egl as egl;

use super::api::{self, Syncs};
use super::error::EglError;
use super::{Gpu, Inner};
use crate::fence::Fence;

impl Gpu {
    /// Whether [`fence`](Gpu::fence) and [`wait_for`](Gpu::wait_for) are there:
    /// EGL_ANDROID_native_fence_sync and EGL_KHR_wait_sync.
    ///
    /// ```no_run
    /// // Not run: needs a driver that imports dma-bufs.
    /// # use dmashare::import::egl::{EglError, Gpu};
    /// # fn f(gpu: &Gpu) -> Result<(), EglError> {
    /// if !gpu.has_native_fences() {
    ///     gpu.finish()?;
    /// }
    /// # Ok(()) }
    /// ```
    pub fn has_native_fences(&self) -> bool {
        self.0.syncs.is_ok()
    }

    /// A fence that signals when all that was drawn so far is in memory, to be
    /// passed on with the frame in place of [`finish`](Gpu::finish).
    ///
    /// llvmpipe, the software device, draws first and gives a fence that has
    /// signalled.
    ///
    /// # Errors
    /// [`EglError::Missing`] where the driver has none (call
    /// [`finish`](Gpu::finish)), [`EglError::Egl`] where it fails.
    ///
    /// ```no_run
    /// // Not run: needs a driver that imports dma-bufs.
    /// # use dmashare::import::egl::{EglError, Gpu, Shader, Target, Texture};
    /// # use dmashare::fence::Fence;
    /// # fn f(gpu: &Gpu, texture: &Texture, target: &Target, shader: &Shader) -> Result<Fence, EglError> {
    /// gpu.draw(texture, target, shader)?;
    /// gpu.fence()
    /// # }
    /// ```
    pub fn fence(&self) -> Result<Fence, EglError> {
        let gpu = &self.0;
        let syncs = gpu.syncs()?;
        gpu.make_current()?;
        let sync = Sync::new(gpu, syncs, &[egl::NONE])?;
        // There is a sync_file only once the commands before it are sent.
        // SAFETY: the context is current.
        unsafe { gpu.gl.flush() };
        // SAFETY: the sync is alive and of this display.
        let fd = unsafe { (syncs.dup_fd)(gpu.display.as_ptr(), sync.raw) };
        if fd == api::NO_NATIVE_FENCE_FD {
            return Err(gpu.sync_failed(syncs, "eglDupNativeFenceFDANDROID"));
        }
        // SAFETY: the driver gave this handle to be closed by the caller.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Fence::from_fd(fd)?)
    }

    /// Lets all that is drawn from now on wait for this fence, such as one of
    /// who writes the frame.
    ///
    /// It returns at once where the GPU can wait by itself. llvmpipe, the
    /// software device, waits within this call, for ever where the fence never
    /// signals: [`Fence::wait`] before it with a limit for those of others. A
    /// fence that failed is one that has signalled.
    ///
    /// # Errors
    /// [`EglError::Missing`] where the driver has none (wait with
    /// [`Fence::wait`]), [`EglError::Egl`] where it fails.
    ///
    /// ```no_run
    /// // Not run: needs a driver that imports dma-bufs.
    /// # use dmashare::import::egl::{EglError, Gpu, Shader, Target, Texture};
    /// # use dmashare::fence::Fence;
    /// # fn f(gpu: &Gpu, written: &Fence, texture: &Texture, target: &Target, shader: &Shader) -> Result<(), EglError> {
    /// gpu.wait_for(written)?;
    /// gpu.draw(texture, target, shader)?;
    /// # Ok(()) }
    /// ```
    pub fn wait_for(&self, fence: &Fence) -> Result<(), EglError> {
        let gpu = &self.0;
        let syncs = gpu.syncs()?;
        gpu.make_current()?;
        let fd = fence.as_fd().try_clone_to_owned();
        let fd = fd.map_err(|source| EglError::Handles { source })?;
        let list = [api::SYNC_NATIVE_FENCE_FD, fd.as_raw_fd(), egl::NONE];
        let sync = Sync::new(gpu, syncs, &list)?;
        // The handle is EGL's from here on.
        let _ = fd.into_raw_fd();
        // SAFETY: the sync is alive and of this display, and a context is
        // current.
        let ok = unsafe { (syncs.wait)(gpu.display.as_ptr(), sync.raw, 0) };
        if ok.cast_unsigned() != egl::TRUE {
            return Err(gpu.sync_failed(syncs, "eglWaitSyncKHR"));
        }
        Ok(())
    }
}

/// An EGLSync, destroyed on drop.
struct Sync<'gpu> {
    gpu: &'gpu Inner,
    syncs: &'gpu Syncs,
    raw: egl::EGLSync,
}

impl<'gpu> Sync<'gpu> {
    /// A native fence, of an attribute list that ends with EGL_NONE; the
    /// context is current.
    fn new(
        gpu: &'gpu Inner,
        syncs: &'gpu Syncs,
        list: &[egl::Int],
    ) -> Result<Sync<'gpu>, EglError> {
        let display = gpu.display.as_ptr();
        // SAFETY: the list ends with EGL_NONE, a handle in it is open, and the
        // context is current.
        let raw = unsafe { (syncs.create)(display, api::SYNC_NATIVE_FENCE, list.as_ptr()) };
        if raw.is_null() {
            return Err(gpu.sync_failed(syncs, "eglCreateSyncKHR"));
        }
        Ok(Sync { gpu, syncs, raw })
    }
}

impl Drop for Sync<'_> {
    fn drop(&mut self) {
        // SAFETY: made on this display, destroyed once.
        unsafe { (self.syncs.destroy)(self.gpu.display.as_ptr(), self.raw) };
    }
}

impl Inner {
    fn syncs(&self) -> Result<&Syncs, EglError> {
        let missing =
            |lacking: &Vec<_>| EglError::missing(self.device.to_string(), lacking.clone());
        self.syncs.as_ref().map_err(missing)
    }

    fn sync_failed(&self, syncs: &Syncs, operation: &'static str) -> EglError {
        EglError::Egl {
            operation,
            on: self.renderer.clone(),
            code: api::last_error(syncs.get_error),
        }
    }
}
