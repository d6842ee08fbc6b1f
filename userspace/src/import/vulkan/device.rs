//! Picking the Vulkan device on purpose.
//!
//! The order in which the loader lists devices is nobody's promise, and a layer
//! may change it. So a device is taken by what it is.

use std::ffi::CStr;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ash::vk;

use super::error::VulkanError;

/// Which Vulkan device to open.
///
/// ```
/// use dmashare::import::vulkan::Device;
/// let device = Device::Node("/dev/dri/renderD128".into());
/// assert_eq!(device.to_string(), "device of /dev/dri/renderD128");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    /// The CPU (`VK_PHYSICAL_DEVICE_TYPE_CPU`): Mesa's lavapipe.
    ///
    /// It maps an imported dma-buf and reads and draws in place, so that it
    /// copies nothing, and imports from every exporter whose dma-bufs can be
    /// mapped. It shares only where it can open /dev/udmabuf.
    Software,
    /// The GPU behind this DRM node, primary or render, found by
    /// VK_EXT_physical_device_drm.
    Node(PathBuf),
    /// The first that can share frames: a GPU of its own before one in the
    /// processor, and both before the CPU.
    Any,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Software => f.write_str("software device (VK_PHYSICAL_DEVICE_TYPE_CPU)"),
            Device::Node(path) => write!(f, "device of {}", path.display()),
            Device::Any => f.write_str("device that can share frames"),
        }
    }
}

/// The Vulkan that is needed: the first with timeline semaphores.
///
/// What is of 1.3 comes by its extensions.
pub(super) const VERSION: u32 = vk::API_VERSION_1_2;

/// What a device must have, besides [`VERSION`].
pub(super) const NEEDED: [&CStr; 7] = [
    ash::khr::external_memory_fd::NAME,
    ash::ext::external_memory_dma_buf::NAME,
    ash::ext::image_drm_format_modifier::NAME,
    ash::ext::queue_family_foreign::NAME,
    ash::khr::dynamic_rendering::NAME,
    ash::khr::synchronization2::NAME,
    ash::ext::image_robustness::NAME,
];

/// A device that can do all that is needed.
pub(super) struct Picked {
    pub(super) raw: vk::PhysicalDevice,
    /// Name and driver, for people.
    pub(super) name: String,
    pub(super) is_lavapipe: bool,
    /// A queue family that draws.
    pub(super) family: u32,
    /// Whether it has VK_KHR_external_semaphore_fd.
    pub(super) has_semaphore_fd: bool,
    /// Whether it has VK_KHR_format_feature_flags2, and with it a second list of
    /// modifiers.
    pub(super) has_second_list: bool,
}

/// What one device says of itself.
struct Candidate {
    raw: vk::PhysicalDevice,
    name: String,
    kind: vk::PhysicalDeviceType,
    driver: vk::DriverId,
    version: u32,
    /// The device numbers of its primary and render node.
    nodes: Vec<(u64, u64)>,
    extensions: Vec<vk::ExtensionProperties>,
    family: Option<u32>,
}

/// The device that is wanted, if it has what is needed.
pub(super) fn pick(instance: &ash::Instance, wanted: &Device) -> Result<Picked, VulkanError> {
    let node = match wanted {
        Device::Node(path) => Some(node_number(path)?),
        Device::Software | Device::Any => None,
    };
    let failed = VulkanError::failed("vkEnumeratePhysicalDevices", "the Vulkan loader");
    // SAFETY: the instance is alive.
    let all = unsafe { instance.enumerate_physical_devices() }.map_err(failed)?;
    let all = all.into_iter().map(|raw| Candidate::new(instance, raw));
    let mut all = all.collect::<Result<Vec<_>, _>>()?;
    all.sort_by_key(|candidate| candidate.rank());

    let is_it = |candidate: &Candidate| match wanted {
        Device::Software => candidate.kind == vk::PhysicalDeviceType::CPU,
        Device::Node(_) => node.is_some_and(|node| candidate.nodes.contains(&node)),
        Device::Any => candidate.lacking().is_empty(),
    };
    match all.iter().find(|candidate| is_it(candidate)) {
        Some(candidate) => candidate.picked(),
        None => Err(VulkanError::NoDevice {
            wanted: wanted.clone(),
            found: all.iter().map(Candidate::words).collect(),
        }),
    }
}

/// Major and minor number of a node: the same node can have several paths.
fn node_number(path: &Path) -> Result<(u64, u64), VulkanError> {
    let number = path.metadata().map_err(|source| VulkanError::Node {
        path: path.to_owned(),
        source,
    })?;
    let number = number.rdev();
    Ok((
        rustix::fs::major(number).into(),
        rustix::fs::minor(number).into(),
    ))
}

impl Candidate {
    fn new(instance: &ash::Instance, raw: vk::PhysicalDevice) -> Result<Candidate, VulkanError> {
        // SAFETY: the instance listed this device, here and below.
        let properties = unsafe { instance.get_physical_device_properties(raw) };
        let name = text(properties.device_name_as_c_str());
        // SAFETY: see above.
        let extensions = unsafe { instance.enumerate_device_extension_properties(raw) };
        let extensions = extensions.map_err(VulkanError::failed(
            "vkEnumerateDeviceExtensionProperties",
            &name,
        ))?;
        // SAFETY: see above.
        let families = unsafe { instance.get_physical_device_queue_family_properties(raw) };
        let draws = |family: &vk::QueueFamilyProperties| {
            family.queue_flags.contains(vk::QueueFlags::GRAPHICS)
        };
        let family = families.iter().position(draws);
        let mut candidate = Candidate {
            raw,
            name,
            kind: properties.device_type,
            driver: vk::DriverId::default(),
            version: properties.api_version,
            nodes: Vec::new(),
            extensions,
            family: family.and_then(|family| u32::try_from(family).ok()),
        };
        if candidate.version >= vk::API_VERSION_1_2 {
            candidate.ask(instance);
        }
        Ok(candidate)
    }

    /// Asks what Vulkan 1.0 cannot be asked.
    fn ask(&mut self, instance: &ash::Instance) {
        let mut driver = vk::PhysicalDeviceDriverProperties::default();
        let mut drm = vk::PhysicalDeviceDrmPropertiesEXT::default();
        let has_drm = self.has(ash::ext::physical_device_drm::NAME);
        let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut driver);
        if has_drm {
            properties = properties.push_next(&mut drm);
        }
        // SAFETY: the instance listed this device, which has 1.2 and whatever
        // is in the chain.
        unsafe { instance.get_physical_device_properties2(self.raw, &mut properties) };
        self.driver = driver.driver_id;
        let driver = [driver.driver_name_as_c_str(), driver.driver_info_as_c_str()];
        let [driver, info] = driver.map(text);
        self.name = format!("{} ({driver} {info})", self.name);
        let number =
            |major: i64, minor: i64| Some((u64::try_from(major).ok()?, u64::try_from(minor).ok()?));
        if drm.has_primary == vk::TRUE {
            self.nodes
                .extend(number(drm.primary_major, drm.primary_minor));
        }
        if drm.has_render == vk::TRUE {
            self.nodes
                .extend(number(drm.render_major, drm.render_minor));
        }
    }

    fn has(&self, extension: &CStr) -> bool {
        let mut names = self.extensions.iter();
        names.any(|found| found.extension_name_as_c_str() == Ok(extension))
    }

    /// Those that are preferred first.
    fn rank(&self) -> u8 {
        match self.kind {
            vk::PhysicalDeviceType::DISCRETE_GPU => 0,
            vk::PhysicalDeviceType::INTEGRATED_GPU => 1,
            vk::PhysicalDeviceType::VIRTUAL_GPU => 2,
            vk::PhysicalDeviceType::CPU => 4,
            _ => 3,
        }
    }

    /// What it lacks.
    fn lacking(&self) -> Vec<&'static str> {
        let mut lacking = Vec::new();
        if self.version < VERSION {
            lacking.push("Vulkan 1.2");
        }
        if self.family.is_none() {
            lacking.push("a queue that draws");
        }
        let extensions = NEEDED.iter().filter(|name| !self.has(name));
        lacking.extend(extensions.filter_map(|name| name.to_str().ok()));
        lacking
    }

    fn picked(&self) -> Result<Picked, VulkanError> {
        let lacking = self.lacking();
        match self.family {
            Some(family) if lacking.is_empty() => Ok(Picked {
                raw: self.raw,
                name: self.name.clone(),
                is_lavapipe: self.is_lavapipe(),
                family,
                has_semaphore_fd: self.has(ash::khr::external_semaphore_fd::NAME),
                has_second_list: self.has(ash::khr::format_feature_flags2::NAME),
            }),
            _ => Err(VulkanError::Missing {
                on: self.name.clone(),
                names: lacking,
                advice: self.advice(),
            }),
        }
    }

    fn is_lavapipe(&self) -> bool {
        self.driver == vk::DriverId::MESA_LLVMPIPE
    }

    /// What would bring what it lacks.
    fn advice(&self) -> &'static str {
        match self.kind {
            vk::PhysicalDeviceType::CPU if self.version >= VERSION => {
                "lavapipe of Mesa 25 (Debian 13) has them where it can open /dev/udmabuf: load \
                 udmabuf, or the module dmashare with standard_nodes=1, and join the node's group \
                 or run as root"
            }
            _ => "install a newer driver, or take the software device",
        }
    }

    fn words(&self) -> String {
        match self.lacking() {
            lacking if lacking.is_empty() => self.name.clone(),
            lacking => format!("{}, which lacks {}", self.name, lacking.join(", ")),
        }
    }
}

/// A name that the driver gives.
fn text(name: Result<&CStr, std::ffi::FromBytesUntilNulError>) -> String {
    name.unwrap_or_default().to_string_lossy().into_owned()
}
