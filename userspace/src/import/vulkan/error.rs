//! What can go wrong between a frame and the GPU, by name.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use ash::vk;

use super::Device;
use crate::buffer::BufferError;
use crate::fence::FenceError;
use crate::frame::Fourcc;
use crate::import::HandleError;

/// Why a GPU could not be opened, or could not take or give a frame.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VulkanError {
    /// libvulkan.so.1 is not there.
    #[error(
        "cannot load libvulkan.so.1: {0}; install the loader and a driver (Debian: libvulkan1, \
         mesa-vulkan-drivers)"
    )]
    Library(Box<dyn Error + Send + Sync>),
    /// The validation layer was asked for, and is not there.
    #[error(
        "Vulkan has no layer {layer}; install it (Debian: vulkan-validationlayers), or open the \
         device without validation"
    )]
    NoValidation {
        /// The layer.
        layer: &'static str,
    },
    /// No Vulkan device is what was asked for.
    #[error(
        "Vulkan has no {wanted}; it has: {}; {}",
        list(found),
        advice_for(wanted)
    )]
    NoDevice {
        /// What was asked for.
        wanted: Device,
        /// The devices that are there, in words, with what they lack.
        found: Vec<String>,
    },
    /// The node of [`Device::Node`] cannot be looked at.
    #[error("{}: {source}; name a node under /dev/dri, such as renderD128", path.display())]
    Node {
        /// The node.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The device lacks what sharing needs.
    #[error("{on} lacks {}; {advice}", names.join(", "))]
    Missing {
        /// The device.
        on: String,
        /// The version, extensions or features, by name.
        names: Vec<&'static str>,
        /// What would bring them.
        advice: &'static str,
    },
    /// A Vulkan function failed.
    #[error("{operation} failed on {on}: {code}{}", code.advice())]
    Vulkan {
        /// The function.
        operation: &'static str,
        /// The device.
        on: String,
        /// What Vulkan said.
        code: VulkanCode,
    },
    /// The frame and its handles are no frame for any device.
    #[error("this frame cannot be imported: {0}")]
    Handle(#[from] HandleError),
    /// The format is none of Vulkan's, or the device does not have it so.
    #[error("{on} cannot {what} a frame of {fourcc}; {advice}")]
    Format {
        /// The device.
        on: String,
        /// What it was to do with the frame: `read` or `draw into`.
        what: &'static str,
        /// The format.
        fourcc: Fourcc,
        /// What it can, in words.
        advice: String,
    },
    /// The device does not have this format in this layout.
    #[error("{on} does not {what} {frame}; {advice}")]
    Modifier {
        /// The device.
        on: String,
        /// What it was to do with the frame: `read` or `draw into`.
        what: &'static str,
        /// Size, format, modifier, stride and offset of the frame, in words.
        frame: String,
        /// The modifiers that it takes, in words.
        advice: String,
    },
    /// Vulkan must be told the modifier.
    #[error(
        "{frame}: its layout is known to its driver only (DRM_FORMAT_MOD_INVALID), and Vulkan \
         imports none such; allocate it with a modifier, or linear"
    )]
    Implicit {
        /// Size, format, modifier, stride and offset of the frame, in words.
        frame: String,
    },
    /// The frame has not the planes that the layout has.
    #[error("{frame} has {found} planes; {on} has {expected} for that modifier: describe them all")]
    Planes {
        /// The device.
        on: String,
        /// Size, format, modifier, stride and offset of the frame, in words.
        frame: String,
        /// How many it has.
        found: usize,
        /// How many the device wants.
        expected: u32,
    },
    /// The planes lie in more buffers than the device takes for one image.
    #[error("{on} does not take {frame} from several buffers; put its planes into one")]
    Disjoint {
        /// The device.
        on: String,
        /// Size, format, modifier, stride and offset of the frame, in words.
        frame: String,
    },
    /// The frame is larger than the device takes.
    #[error("{on} takes {} pixels by {} rows at most, and no {frame}", max.0, max.1)]
    Size {
        /// The device.
        on: String,
        /// Size, format, modifier, stride and offset of the frame, in words.
        frame: String,
        /// The largest width and height.
        max: (u32, u32),
    },
    /// The frame's rows span more memory than the driver counts.
    #[error("{on} reaches {max} bytes from the first row to the last, and not over {frame}")]
    Span {
        /// The device.
        on: String,
        /// Size, format, modifier, stride and offset of the frame, in words.
        frame: String,
        /// How far it reaches, in bytes.
        max: u64,
    },
    /// The device reads or writes whole blocks, and so more memory than the
    /// frame has.
    #[error(
        "{on} wants {needed} bytes of memory for {frame}, and the buffer {name} has {size}; \
         allocate room for a height that is a multiple of 4, or as the device allocates itself"
    )]
    Room {
        /// The device.
        on: String,
        /// Size, format, modifier, stride and offset of the frame, in words.
        frame: String,
        /// The buffer, as the kernel names it.
        name: String,
        /// What the device wants, in bytes.
        needed: u64,
        /// What there is, in bytes.
        size: u64,
    },
    /// The device does not find the rows of a target where it wants them.
    #[error(
        "{on} draws {alignment} bytes at a time and cannot draw into {frame}; make stride and \
         offset multiples of {alignment}"
    )]
    Alignment {
        /// The device.
        on: String,
        /// Size, format, modifier, stride and offset of the frame, in words.
        frame: String,
        /// What the rows must be aligned to, in bytes.
        alignment: u32,
    },
    /// The device draws in squares of pixels, and the last of them reach beyond
    /// the frame's rows or its memory.
    #[error(
        "{on} draws squares of {block} pixels, so it would draw beyond {frame}: {reason}; \
         allocate room for width and height up to multiples of {block}"
    )]
    Block {
        /// The device.
        on: String,
        /// Size, format, modifier, stride and offset of the frame, in words.
        frame: String,
        /// The edge of the squares, in pixels.
        block: u32,
        /// What there is no room for.
        reason: HandleError,
    },
    /// The device does not take the memory, the strides or the offsets.
    #[error("{on} does not import {frame} from {name}: {operation}: {code}; {suspect}")]
    Import {
        /// The device.
        on: String,
        /// Size, format, modifier, stride and offset of the frame, in words.
        frame: String,
        /// The buffer, as the kernel names it.
        name: String,
        /// The function that failed.
        operation: &'static str,
        /// What Vulkan said.
        code: VulkanCode,
        /// What it most likely was.
        suspect: &'static str,
    },
    /// What the device allocated cannot be described as a frame.
    #[error("{on} allocated an image that no frame describes: {problem}")]
    Inexpressible {
        /// The device.
        on: String,
        /// What does not fit.
        problem: String,
    },
    /// The exported handle is not what the kernel says a buffer is.
    #[error("what {on} exported cannot be shared: {source}")]
    Exported {
        /// The device.
        on: String,
        /// What the kernel said of it.
        source: BufferError,
    },
    /// A shader is none that can be drawn with.
    #[error("this is no fragment shader to draw a frame with: {problem}")]
    Shader {
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// A shader reads more textures than it was given.
    #[error("the shader reads {wants} textures and was given {given}")]
    Textures {
        /// How many the shader declares.
        wants: usize,
        /// How many there were.
        given: usize,
    },
    /// What was to be drawn with is of another [`Gpu`](super::Gpu).
    #[error("the {what} was made by another Gpu; make it again with this one")]
    OtherGpu {
        /// `texture`, `target` or `shader`.
        what: &'static str,
    },
    /// A fence to wait for failed, or the one to give could not be made.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// The device was not done in time.
    #[error("{on} is not done after {after:?}; wait longer")]
    Timeout {
        /// The device.
        on: String,
        /// How long was waited.
        after: std::time::Duration,
    },
}

impl VulkanError {
    /// That this function failed there.
    pub(super) fn failed(operation: &'static str, on: &str) -> impl FnOnce(vk::Result) -> Self {
        move |code| VulkanError::Vulkan {
            operation,
            on: on.to_owned(),
            code: code.into(),
        }
    }
}

fn list(found: &[String]) -> String {
    if found.is_empty() {
        return "no device at all".to_owned();
    }
    found.join("; ")
}

fn advice_for(wanted: &Device) -> &'static str {
    match wanted {
        Device::Software => "install Mesa's lavapipe (Debian: mesa-vulkan-drivers)",
        Device::Node(_) => {
            "install the driver of that GPU (Debian: mesa-vulkan-drivers), or take the software \
             device"
        }
        Device::Any => "install a driver (Debian: mesa-vulkan-drivers)",
    }
}

/// A result code of Vulkan (`VkResult`), shown by its name.
///
/// ```
/// use dmashare::import::vulkan::VulkanCode;
/// assert_eq!(VulkanCode(-11).to_string(), "VK_ERROR_FORMAT_NOT_SUPPORTED");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VulkanCode(pub i32);

impl From<vk::Result> for VulkanCode {
    fn from(code: vk::Result) -> VulkanCode {
        VulkanCode(code.as_raw())
    }
}

impl VulkanCode {
    /// What to do, where the code does not say it.
    fn advice(self) -> &'static str {
        match vk::Result::from_raw(self.0) {
            // The loader says so where it finds no driver at all.
            vk::Result::ERROR_INCOMPATIBLE_DRIVER => {
                "; no driver is installed, or none loads: install one (Debian: \
                 mesa-vulkan-drivers), unset VK_DRIVER_FILES and VK_ICD_FILENAMES where they \
                 name others, and see VK_LOADER_DEBUG=error for what the loader says"
            }
            vk::Result::ERROR_INITIALIZATION_FAILED => {
                "; the driver does not start: allow this user to open the node under /dev/dri \
                 (group video or render), or take the software device"
            }
            vk::Result::ERROR_LAYER_NOT_PRESENT => {
                "; unset VK_INSTANCE_LAYERS where it names a layer that is not installed"
            }
            vk::Result::ERROR_EXTENSION_NOT_PRESENT => {
                "; update the Vulkan loader and the driver (Debian: libvulkan1, \
                 mesa-vulkan-drivers)"
            }
            vk::Result::ERROR_OUT_OF_DEVICE_MEMORY => {
                "; drop images of this device, or take smaller ones"
            }
            vk::Result::ERROR_OUT_OF_HOST_MEMORY => "; free memory of this process",
            vk::Result::ERROR_TOO_MANY_OBJECTS => "; drop what was made on this device",
            vk::Result::ERROR_DEVICE_LOST => {
                "; nothing more comes of this device: drop all that was made with it, and open it \
                 again"
            }
            _ => "",
        }
    }
}

impl fmt::Display for VulkanCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // ash knows the names, without the prefix.
        write!(f, "VK_{:?}", vk::Result::from_raw(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incompatible_driver_says_what_to_do() {
        let failed = VulkanError::failed("vkCreateInstance", "the loader");
        let error = failed(vk::Result::ERROR_INCOMPATIBLE_DRIVER).to_string();
        for part in [
            "vkCreateInstance",
            "VK_ERROR_INCOMPATIBLE_DRIVER",
            "mesa-vulkan-drivers",
            "VK_DRIVER_FILES",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }
}
