//! Picking the EGL device on purpose.
//!
//! A display taken any other way (the default one, or the surfaceless
//! platform) is a device of EGL's choice. Where the machine has a DRM node
//! without a GPU behind it, Mesa chooses that node, and a foreign dma-buf
//! cannot be imported there.

use std::ffi::CStr;
use std::fmt;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::ptr;

use khronos_egl as egl;

use super::api::{self, Devices, Egl, EglDevice};
use super::error::EglError;
use crate::sys::drm_version;

/// Which EGL device to open: one that is named, or any that can import.
///
/// ```
/// use dmashare::import::egl::Device;
/// let device = Device::Node("/dev/dri/renderD128".into());
/// assert_eq!(device.to_string(), "device of /dev/dri/renderD128");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Device {
    /// The first GPU whose driver imports dma-bufs, and the software device
    /// where there is none; [`Gpu::why`](super::Gpu::why) tells which, and why.
    Any,
    /// The CPU, found by EGL_MESA_device_software: Mesa's llvmpipe.
    ///
    /// It maps an imported dma-buf and reads and draws in place, so that it
    /// copies nothing, and imports from udmabuf and dma_heap alike.
    Software,
    /// The GPU behind this DRM node, primary or render, found by
    /// EGL_EXT_device_drm.
    Node(PathBuf),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Any => f.write_str("device that imports dma-bufs"),
            Device::Software => f.write_str("software device (EGL_MESA_device_software)"),
            Device::Node(path) => write!(f, "device of {}", path.display()),
        }
    }
}

/// The names in one extension string.
#[derive(Default)]
pub(super) struct Extensions(String);

impl Extensions {
    pub(super) fn new(names: impl Into<String>) -> Extensions {
        Extensions(names.into())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.split_ascii_whitespace().any(|each| each == name)
    }

    /// Those of `names` that are not there.
    pub(super) fn lacking(&self, names: &[&'static str]) -> Vec<&'static str> {
        let lacking = names.iter().copied().filter(|name| !self.has(name));
        lacking.collect()
    }
}

/// An EGL device, as [`devices`] finds it.
///
/// ```no_run
/// // Not run: needs libEGL.so.1.
/// for found in dmashare::import::egl::devices()? {
///     println!("{found}"); // device of /dev/dri/renderD128 (amdgpu)
/// }
/// # Ok::<(), dmashare::import::egl::EglError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// What [`Gpu::open`](super::Gpu::open) takes.
    pub device: Device,
    /// Its DRM nodes, the render node first; none for the software device.
    pub nodes: Vec<PathBuf>,
    /// The driver in the kernel, where the node opens and tells.
    pub driver: Option<String>,
}

impl DeviceInfo {
    /// Whether the CPU draws: of a node this is known only once it is opened,
    /// which refuses it then ([`EglError::NoGpu`]).
    ///
    /// ```no_run
    /// // Not run: needs libEGL.so.1.
    /// let devices = dmashare::import::egl::devices()?;
    /// let gpus = devices.iter().filter(|found| !found.is_software());
    /// # Ok::<(), dmashare::import::egl::EglError>(())
    /// ```
    pub fn is_software(&self) -> bool {
        self.device == Device::Software
    }
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.driver {
            Some(driver) => write!(f, "{} ({driver})", self.device),
            None => write!(f, "{}", self.device),
        }
    }
}

/// The devices that EGL has here: GPUs by their DRM nodes, and the software
/// device. One that has no node and is no software cannot be named, and is left
/// out.
///
/// A card that only has screens is not among them, nor one whose driver EGL
/// does not have.
///
/// # Errors
/// [`EglError::Library`] without libEGL.so.1, [`EglError::Missing`] where it
/// cannot tell.
///
/// ```no_run
/// // Not run: needs libEGL.so.1.
/// use dmashare::import::egl::devices;
/// assert!(devices()?.iter().any(|found| found.is_software())); // with Mesa
/// # Ok::<(), dmashare::import::egl::EglError>(())
/// ```
pub fn devices() -> Result<Vec<DeviceInfo>, EglError> {
    let found = Found::all(&load()?)?;
    Ok(found.devices.into_iter().map(|(_, info)| info).collect())
}

pub(super) fn load() -> Result<Egl, EglError> {
    // SAFETY: libEGL.so.1 is the ABI name of EGL; loading it runs only its own
    // constructors. khronos-egl keeps it loaded.
    unsafe { Egl::load_required_from_filename("libEGL.so.1") }
        .map_err(|error| EglError::Library(error.to_string().into()))
}

/// The display of the wanted device, not yet initialised.
pub(super) fn display(egl: &Egl, wanted: &Device) -> Result<egl::Display, EglError> {
    let found = Found::all(egl)?;
    let node = match wanted {
        Device::Node(path) => Some(node_number(path)?),
        Device::Any | Device::Software => None,
    };
    let is_it = |info: &DeviceInfo| match node {
        None => info.is_software(),
        Some(node) => info
            .nodes
            .iter()
            .any(|path| number(path).ok() == Some(node)),
    };
    match found.devices.iter().find(|(_, info)| is_it(info)) {
        Some((device, _)) => found.functions.display(*device, wanted),
        None => Err(EglError::NoDevice {
            wanted: wanted.clone(),
            found: found
                .devices
                .iter()
                .map(|(_, info)| info.to_string())
                .collect(),
        }),
    }
}

/// What EGL lists, and what it lists it with.
struct Found {
    functions: Devices,
    devices: Vec<(EglDevice, DeviceInfo)>,
}

impl Found {
    fn all(egl: &Egl) -> Result<Found, EglError> {
        let client = egl.query_string(None, egl::EXTENSIONS);
        let client = client.map(|names| names.to_string_lossy());
        let client = Extensions::new(client.unwrap_or_default());
        let mut lacking = client.lacking(&["EGL_EXT_platform_base", "EGL_EXT_platform_device"]);
        // EGL_EXT_device_base is the older name of the other two together.
        if !client.has("EGL_EXT_device_base") {
            let two = ["EGL_EXT_device_enumeration", "EGL_EXT_device_query"];
            lacking.extend(client.lacking(&two));
        }
        if !lacking.is_empty() {
            return Err(EglError::missing("EGL client library", lacking));
        }
        let functions = Devices::load(egl)?;
        let all = functions.all()?.into_iter();
        let devices = all.filter_map(|device| {
            let extensions = Extensions::new(functions.string(device, egl::EXTENSIONS));
            let nodes = functions.nodes(device, &extensions);
            let named = match nodes.first() {
                _ if extensions.has("EGL_MESA_device_software") => Device::Software,
                Some(path) => Device::Node(path.clone()),
                None => return None,
            };
            let driver = nodes.first().and_then(|node| kernel_driver(node));
            let info = DeviceInfo {
                device: named,
                nodes,
                driver,
            };
            Some((device, info))
        });
        Ok(Found {
            devices: devices.collect(),
            functions,
        })
    }
}

/// The driver in the kernel that a node belongs to, if it opens and tells.
pub(super) fn kernel_driver(node: &Path) -> Option<String> {
    let file = File::open(node).ok()?;
    drm_version::driver(file.as_fd()).ok()
}

/// The device number of a node: the same node can have several paths.
fn number(path: &Path) -> std::io::Result<u64> {
    Ok(path.metadata()?.rdev())
}

fn node_number(path: &Path) -> Result<u64, EglError> {
    number(path).map_err(|source| EglError::Node {
        path: path.to_owned(),
        source,
    })
}

impl Devices {
    fn all(&self) -> Result<Vec<EglDevice>, EglError> {
        let mut count = 0;
        // SAFETY: with no room for devices, only the count is written.
        self.check("eglQueryDevicesEXT", unsafe {
            (self.query_devices)(0, ptr::null_mut(), &raw mut count)
        })?;
        // None is no error, but to ask for none is.
        if count <= 0 {
            return Ok(Vec::new());
        }
        let mut devices = vec![ptr::null_mut(); usize::try_from(count).unwrap_or(0)];
        // SAFETY: there is room for `count` devices.
        self.check("eglQueryDevicesEXT", unsafe {
            (self.query_devices)(count, devices.as_mut_ptr(), &raw mut count)
        })?;
        devices.truncate(usize::try_from(count).unwrap_or(0));
        Ok(devices)
    }

    /// A string of the device; empty where it has none.
    fn string(&self, device: EglDevice, name: egl::Int) -> String {
        // SAFETY: EGL listed this device; devices live as long as the process.
        let string = unsafe { (self.query_device_string)(device, name) };
        if string.is_null() {
            return String::new();
        }
        // SAFETY: EGL's strings are static and end with NUL.
        let string = unsafe { CStr::from_ptr(string) };
        string.to_string_lossy().into_owned()
    }

    /// The DRM nodes of the device.
    fn nodes(&self, device: EglDevice, extensions: &Extensions) -> Vec<PathBuf> {
        let names = [
            ("EGL_EXT_device_drm_render_node", api::DRM_RENDER_NODE_FILE),
            ("EGL_EXT_device_drm", api::DRM_DEVICE_FILE),
        ];
        let offered = names.iter().filter(|(name, _)| extensions.has(name));
        let nodes = offered.map(|&(_, name)| PathBuf::from(self.string(device, name)));
        nodes.filter(|node| node != Path::new("")).collect()
    }

    fn display(&self, device: EglDevice, wanted: &Device) -> Result<egl::Display, EglError> {
        // SAFETY: the device platform takes an EGLDeviceEXT and no attributes.
        let display =
            unsafe { (self.get_platform_display)(api::PLATFORM_DEVICE, device, ptr::null()) };
        if display == egl::NO_DISPLAY {
            return Err(EglError::Egl {
                operation: "eglGetPlatformDisplayEXT",
                on: wanted.to_string(),
                code: api::last_error(self.get_error),
            });
        }
        // SAFETY: EGL made this display.
        Ok(unsafe { egl::Display::from_ptr(display) })
    }

    fn check(&self, operation: &'static str, result: egl::Boolean) -> Result<(), EglError> {
        if result == egl::TRUE {
            return Ok(());
        }
        Err(EglError::Egl {
            operation,
            on: "the EGL client library".to_owned(),
            code: api::last_error(self.get_error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Extensions;

    #[test]
    fn a_name_is_not_found_inside_a_longer_one() {
        let extensions = Extensions::new("EGL_EXT_device_drm_render_node EGL_KHR_image");
        assert!(!extensions.has("EGL_EXT_device_drm"));
        assert!(extensions.has("EGL_KHR_image"));
        assert_eq!(
            extensions.lacking(&["EGL_KHR_image", "EGL_KHR_image_base"]),
            ["EGL_KHR_image_base"]
        );
    }
}
