//! A DRM node as GBM has it.

use std::ffi::CStr;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::api::{self, Api, api};
use super::error::GbmError;
use crate::frame::{Fourcc, INVALID, LINEAR};
use crate::negotiate::Layout;
use crate::sys::drm_version;

bitflags::bitflags! {
    /// What a buffer is for (`enum gbm_bo_flags` of `gbm.h`).
    ///
    /// ```
    /// use dmashare::import::gbm::Usage;
    /// assert_eq!(Usage::SCANOUT | Usage::LINEAR, Usage::from_bits_truncate(0b1_0001));
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Usage: u32 {
        /// To be shown on a screen of this device.
        const SCANOUT = 1 << 0;
        /// To be shown as its cursor.
        const CURSOR = 1 << 1;
        /// To be drawn into by its GPU.
        const RENDERING = 1 << 2;
        /// To be linear.
        const LINEAR = 1 << 4;
    }
}

/// A DRM node, primary or render, opened by GBM.
///
/// It belongs to the thread that opened it. What is made through it keeps it
/// alive. The node is opened anew, so that handles of others stay theirs; as the
/// first to open a primary node it would be DRM master, and gives that up.
///
/// ```no_run
/// // Not run: needs a DRM device.
/// use dmashare::import::gbm::Gbm;
/// println!("{}", Gbm::open("/dev/dri/card0")?); // /dev/dri/card0 (vgem, GBM's backend drm)
/// # Ok::<(), dmashare::import::gbm::GbmError>(())
/// ```
pub struct Gbm(pub(super) Rc<Inner>);

/// What buffers hold on to. Rc, not Arc: GBM locks nothing.
pub(super) struct Inner {
    pub(super) api: &'static Api,
    pub(super) raw: api::Device,
    pub(super) path: PathBuf,
    driver: String,
    backend: String,
    /// The device's, and closed after it.
    pub(super) file: File,
}

impl Gbm {
    /// Opens a node.
    ///
    /// # Errors
    /// [`GbmError::Library`] without libgbm.so.1, [`GbmError::Open`], and
    /// [`GbmError::Device`] where GBM has no driver for it, or it is no DRM node.
    ///
    /// ```no_run
    /// // Not run: needs libgbm.so.1.
    /// use dmashare::import::gbm::{Gbm, GbmError};
    /// let error = Gbm::open("/dev/dri/card999").unwrap_err();
    /// assert!(matches!(error, GbmError::Open { .. }));
    /// ```
    pub fn open(node: impl AsRef<Path>) -> Result<Gbm, GbmError> {
        let api = api()?;
        let path = node.as_ref().to_owned();
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let file = file.map_err(|source| GbmError::Open {
            path: path.clone(),
            source,
        })?;
        // What is no DRM node is not shown to GBM, which loads drivers for it.
        let driver = drm_version::driver(file.as_fd());
        let driver = driver.map_err(|errno| GbmError::Device {
            node: path.display().to_string(),
            source: errno.into(),
        })?;
        // It fails where it is not, as on a render node.
        let _ = crate::sys::drm::drop_master(file.as_fd());
        // SAFETY: the node stays open for as long as the device.
        let raw = ask(|| unsafe { (api.create_device)(file.as_raw_fd()) });
        let raw = raw.map_err(|source| GbmError::Device {
            node: format!("{} ({driver})", path.display()),
            source,
        })?;
        // SAFETY: the device is alive.
        let backend = unsafe { (api.backend_name)(raw) };
        let backend = match backend.is_null() {
            true => String::new(),
            // SAFETY: the name is static, and ends with NUL.
            false => unsafe { CStr::from_ptr(backend) }
                .to_string_lossy()
                .into_owned(),
        };
        Ok(Gbm(Rc::new(Inner {
            api,
            raw,
            path,
            driver,
            backend,
            file,
        })))
    }

    /// The node.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The driver in the kernel, such as `amdgpu` or `vgem`.
    pub fn driver(&self) -> &str {
        &self.0.driver
    }

    /// The backend of GBM: `drm` for Mesa.
    pub fn backend(&self) -> &str {
        &self.0.backend
    }

    /// Whether the driver says that it has buffers of this layout for this. It
    /// may find a size too large all the same.
    ///
    /// ```no_run
    /// // Not run: needs a DRM device.
    /// # use dmashare::{frame::Fourcc, import::gbm::{Gbm, Usage}, negotiate::Layout};
    /// # fn f(gbm: &Gbm) {
    /// let can_show = gbm.is_supported(Layout::linear(Fourcc::XRGB8888), Usage::SCANOUT);
    /// # }
    /// ```
    pub fn is_supported(&self, layout: Layout, usage: Usage) -> bool {
        self.0.is_supported(layout, usage)
    }
}

impl Inner {
    pub(super) fn is_supported(&self, layout: Layout, usage: Usage) -> bool {
        let Layout { fourcc, modifier } = layout;
        match modifier {
            INVALID => self.takes(fourcc, usage),
            LINEAR => self.takes(fourcc, usage | Usage::LINEAR),
            modifier => {
                // SAFETY: the device is alive.
                let planes = unsafe { (self.api.plane_count_of)(self.raw, fourcc.0, modifier) };
                planes > 0 && self.takes(fourcc, usage)
            }
        }
    }

    fn takes(&self, fourcc: Fourcc, usage: Usage) -> bool {
        // SAFETY: the device is alive.
        unsafe { (self.api.is_supported)(self.raw, fourcc.0, usage.bits()) != 0 }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: made by `open`, destroyed once, after all of its buffers,
        // which hold on to this.
        unsafe { (self.api.destroy_device)(self.raw) };
    }
}

/// What a function gives that says why it gives nothing in errno, if it does.
pub(super) fn ask<T>(function: impl FnOnce() -> *mut T) -> io::Result<*mut T> {
    clear_errno();
    let given = function();
    match given.is_null() {
        false => Ok(given),
        true => Err(said()),
    }
}

/// Not every failure sets it.
pub(super) fn clear_errno() {
    // SAFETY: the address is that of this thread's errno.
    unsafe { *libc::__errno_location() = 0 };
}

/// What errno says.
pub(super) fn said() -> io::Error {
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(0) | None => io::Error::other("no reason given"),
        Some(_) => error,
    }
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, driver) = (self.path.display(), &self.driver);
        write!(f, "{path} ({driver}, GBM's backend {})", self.backend)
    }
}

impl fmt::Display for Gbm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Gbm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gbm({self})")
    }
}
