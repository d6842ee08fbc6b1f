//! Picking the EGL device on purpose.
//!
//! A display taken any other way (the default one, or the surfaceless
//! platform) is a device of EGL's choice. Where the machine has a DRM node
//! without a GPU behind it, Mesa chooses that node, and a foreign dma-buf
//! cannot be imported there.

use std::ffi::CStr;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::ptr;

use khronos_egl as egl;

use super::api::{self, Devices, Egl, EglDevice};
use super::error::EglError;

/// Which EGL device to open.
///
/// ```
/// use dmashare::import::egl::Device;
/// let device = Device::Node("/dev/dri/renderD128".into());
/// assert_eq!(device.to_string(), "device of /dev/dri/renderD128");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Device {
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

/// The display of the wanted device, not yet initialised.
pub(super) fn display(egl: &Egl, wanted: &Device) -> Result<egl::Display, EglError> {
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
    let node = match wanted {
        Device::Software => None,
        Device::Node(path) => Some(node_number(path)?),
    };
    let mut found = Vec::new();
    for device in functions.all()? {
        let extensions = Extensions::new(functions.string(device, egl::EXTENSIONS));
        let nodes = functions.nodes(device, &extensions);
        let is_it = match node {
            None => extensions.has("EGL_MESA_device_software"),
            Some(node) => nodes.iter().any(|path| number(path).ok() == Some(node)),
        };
        if is_it {
            return functions.display(device, wanted);
        }
        found.push(match nodes.first() {
            Some(path) => Device::Node(path.clone()).to_string(),
            None if extensions.has("EGL_MESA_device_software") => Device::Software.to_string(),
            None => "a device without a DRM node".to_owned(),
        });
    }
    Err(EglError::NoDevice {
        wanted: wanted.clone(),
        found,
    })
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
