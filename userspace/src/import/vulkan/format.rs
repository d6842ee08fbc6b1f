//! DRM's formats in Vulkan's terms, and what a device says of each.

use ash::vk;

use super::error::VulkanError;
use super::{Inner, Use};
use crate::frame::{Fourcc, LINEAR};

/// A format that a GPU imports, and in which layouts.
///
/// ```
/// use dmashare::import::vulkan::Format;
/// # fn show(formats: &[Format]) {
/// for format in formats {
///     println!("{}: {} modifiers", format.fourcc, format.modifiers.len());
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Format {
    /// The pixel format.
    pub fourcc: Fourcc,
    /// The layouts; never empty.
    pub modifiers: Vec<Modifier>,
}

/// A layout in which a GPU has a format, and what it does with it.
///
/// ```
/// use dmashare::import::vulkan::{Format, Modifier};
/// # fn to_draw_into(format: &Format) -> Vec<u64> {
/// let drawn = format.modifiers.iter().filter(|modifier| modifier.target.is_some());
/// drawn.map(|modifier| modifier.code).collect()
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Modifier {
    /// The modifier of `drm_fourcc.h`.
    pub code: u64,
    /// How many planes a frame with it has: more than the format's where it
    /// keeps data of its own.
    pub planes: u32,
    /// Whether planes may lie in buffers of their own.
    pub disjoint: bool,
    /// As a texture, where shaders can read it.
    pub texture: Option<Support>,
    /// As a target, where it can be drawn into.
    pub target: Option<Support>,
}

/// How a GPU shares frames of one format and layout, for one use.
///
/// ```
/// use dmashare::import::vulkan::Support;
/// # fn f(support: Support) {
/// println!("up to {}x{}", support.max_width, support.max_height);
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Support {
    /// Whether it takes the dma-bufs of others.
    pub import: bool,
    /// Whether it gives away its own.
    pub export: bool,
    /// The widest frame, in pixels.
    pub max_width: u32,
    /// The highest frame, in rows.
    pub max_height: u32,
    /// Whether the memory of an image must be told that it is for that image.
    pub(super) dedicated: bool,
}

/// How Vulkan sees the bytes of a pixel: a format, and which of its channels a
/// shader is to find as red, green, blue and alpha.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pixel {
    pub(super) format: vk::Format,
    pub(super) swizzle: [Channel; 4],
}

/// A channel of a format, or the constant one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    R,
    G,
    B,
    A,
    One,
}

impl Pixel {
    /// As Vulkan has it.
    const fn plain(format: vk::Format) -> Pixel {
        Pixel::swizzled(format, [Channel::R, Channel::G, Channel::B, Channel::A])
    }

    /// With an alpha that is nobody's, and so opaque.
    const fn opaque(format: vk::Format) -> Pixel {
        Pixel::swizzled(format, [Channel::R, Channel::G, Channel::B, Channel::One])
    }

    const fn swizzled(format: vk::Format, swizzle: [Channel; 4]) -> Pixel {
        Pixel { format, swizzle }
    }

    pub(super) fn components(self) -> vk::ComponentMapping {
        let [r, g, b, a] = self.swizzle.map(|channel| match channel {
            Channel::R => vk::ComponentSwizzle::R,
            Channel::G => vk::ComponentSwizzle::G,
            Channel::B => vk::ComponentSwizzle::B,
            Channel::A => vk::ComponentSwizzle::A,
            Channel::One => vk::ComponentSwizzle::ONE,
        });
        vk::ComponentMapping { r, g, b, a }
    }
}

/// The formats of one plane that Vulkan has, and how.
///
/// DRM names the channels of a little-endian word from its highest bits, and
/// Vulkan those of a `PACK` format, too; of the others it names bytes in the
/// order of memory.
const PIXELS: [(&[u8; 4], Pixel); 19] = [
    (b"XR24", Pixel::opaque(vk::Format::B8G8R8A8_UNORM)),
    (b"AR24", Pixel::plain(vk::Format::B8G8R8A8_UNORM)),
    (b"XB24", Pixel::opaque(vk::Format::R8G8B8A8_UNORM)),
    (b"AB24", Pixel::plain(vk::Format::R8G8B8A8_UNORM)),
    (b"RG24", Pixel::opaque(vk::Format::B8G8R8_UNORM)),
    (b"BG24", Pixel::opaque(vk::Format::R8G8B8_UNORM)),
    (b"XR30", Pixel::opaque(vk::Format::A2R10G10B10_UNORM_PACK32)),
    (b"AR30", Pixel::plain(vk::Format::A2R10G10B10_UNORM_PACK32)),
    (b"XB30", Pixel::opaque(vk::Format::A2B10G10R10_UNORM_PACK32)),
    (b"AB30", Pixel::plain(vk::Format::A2B10G10R10_UNORM_PACK32)),
    (b"XB4H", Pixel::opaque(vk::Format::R16G16B16A16_SFLOAT)),
    (b"AB4H", Pixel::plain(vk::Format::R16G16B16A16_SFLOAT)),
    (b"RG16", Pixel::opaque(vk::Format::R5G6B5_UNORM_PACK16)),
    (b"BG16", Pixel::opaque(vk::Format::B5G6R5_UNORM_PACK16)),
    (b"XR15", Pixel::opaque(vk::Format::A1R5G5B5_UNORM_PACK16)),
    (b"AR15", Pixel::plain(vk::Format::A1R5G5B5_UNORM_PACK16)),
    (b"R8  ", Pixel::opaque(vk::Format::R8_UNORM)),
    (b"GR88", Pixel::opaque(vk::Format::R8G8_UNORM)),
    (b"R16 ", Pixel::opaque(vk::Format::R16_UNORM)),
];

/// How Vulkan sees the pixels of this format, if it does.
pub(super) fn pixel(fourcc: Fourcc) -> Option<Pixel> {
    let code = fourcc.0.to_le_bytes();
    let found = PIXELS.iter().find(|(known, _)| **known == code);
    found.map(|(_, pixel)| *pixel)
}

impl Inner {
    /// What the device can do with frames of this format.
    pub(super) fn modifiers(&self, fourcc: Fourcc) -> Vec<Modifier> {
        match pixel(fourcc) {
            Some(pixel) => self.modifiers_of(pixel.format),
            None => Vec::new(),
        }
    }

    /// Every format that it imports or exports.
    pub(super) fn formats(&self) -> Vec<Format> {
        let all = PIXELS.iter().map(|(code, pixel)| Format {
            fourcc: Fourcc::new(**code),
            modifiers: self.modifiers_of(pixel.format),
        });
        all.filter(|format| !format.modifiers.is_empty()).collect()
    }

    pub(super) fn modifiers_of(&self, format: vk::Format) -> Vec<Modifier> {
        let all = self.properties_of(format).into_iter();
        let all = all.map(|said| {
            let has = |feature| said.drm_format_modifier_tiling_features.contains(feature);
            let code = said.drm_format_modifier;
            let support = |usage: Use, feature| match has(feature) {
                true => self.support(format, code, usage),
                false => None,
            };
            Modifier {
                code,
                planes: said.drm_format_modifier_plane_count,
                disjoint: has(vk::FormatFeatureFlags::DISJOINT),
                texture: support(Use::Texture, vk::FormatFeatureFlags::SAMPLED_IMAGE),
                target: support(Use::Target, vk::FormatFeatureFlags::COLOR_ATTACHMENT),
            }
        });
        let useful = |modifier: &Modifier| modifier.texture.is_some() || modifier.target.is_some();
        all.filter(useful).collect()
    }

    /// The layouts of a format, as the driver lists them.
    fn properties_of(&self, format: vk::Format) -> Vec<vk::DrmFormatModifierPropertiesEXT> {
        let ask = |list: &mut vk::DrmFormatModifierPropertiesListEXT<'_>| {
            let mut properties = vk::FormatProperties2::default().push_next(list);
            let instance = &self.instance.raw;
            // SAFETY: the device is of this instance and has the extension of
            // the list, which has no room or as much as it says.
            unsafe {
                instance.get_physical_device_format_properties2(
                    self.physical,
                    format,
                    &mut properties,
                );
            }
        };
        let mut count = vk::DrmFormatModifierPropertiesListEXT::default();
        ask(&mut count);
        let count = count.drm_format_modifier_count as usize;
        // A list without room is one that asks for the number.
        if count == 0 {
            return Vec::new();
        }
        let mut all = vec![vk::DrmFormatModifierPropertiesEXT::default(); count];
        let mut list = vk::DrmFormatModifierPropertiesListEXT::default()
            .drm_format_modifier_properties(&mut all);
        ask(&mut list);
        let count = list.drm_format_modifier_count as usize;
        all.truncate(count);
        all
    }

    /// How images of this kind are shared as dma-bufs, if they are.
    fn support(&self, format: vk::Format, modifier: u64, usage: Use) -> Option<Support> {
        let mut layout = vk::PhysicalDeviceImageDrmFormatModifierInfoEXT::default()
            .drm_format_modifier(modifier)
            .sharing_mode(vk::SharingMode::EXCLUSIVE);
        let mut external = vk::PhysicalDeviceExternalImageFormatInfo::default()
            .handle_type(vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT);
        let asked = vk::PhysicalDeviceImageFormatInfo2::default()
            .format(format)
            .ty(vk::ImageType::TYPE_2D)
            .tiling(vk::ImageTiling::DRM_FORMAT_MODIFIER_EXT)
            .usage(usage.flags())
            .push_next(&mut layout)
            .push_next(&mut external);
        let mut shared = vk::ExternalImageFormatProperties::default();
        let mut answer = vk::ImageFormatProperties2::default().push_next(&mut shared);
        // SAFETY: the structs are complete, and of extensions of this device.
        let can = unsafe {
            let instance = &self.instance.raw;
            instance.get_physical_device_image_format_properties2(
                self.physical,
                &asked,
                &mut answer,
            )
        };
        can.ok()?;
        let extent = answer.image_format_properties.max_extent;
        let features = shared.external_memory_properties.external_memory_features;
        let can = |feature| features.contains(feature);
        let support = Support {
            import: can(vk::ExternalMemoryFeatureFlags::IMPORTABLE),
            export: can(vk::ExternalMemoryFeatureFlags::EXPORTABLE),
            max_width: extent.width,
            max_height: extent.height,
            dedicated: can(vk::ExternalMemoryFeatureFlags::DEDICATED_ONLY),
        };
        (support.import || support.export).then_some(support)
    }

    /// The error for a format that there is no way to use so.
    pub(super) fn no_format(&self, fourcc: Fourcc, usage: Use) -> VulkanError {
        let planes = super::planes::planes(fourcc).is_some();
        let advice = if planes && usage == Use::Texture {
            "it has planes: import them one by one (`import_planes`)".to_owned()
        } else {
            let formats = self.formats();
            let can = formats.iter().filter(|format| {
                let mut modifiers = format.modifiers.iter();
                modifiers.any(|modifier| modifier.support(usage).is_some())
            });
            let can = can.map(|format| format.fourcc.to_string());
            format!("it can with {}", can.collect::<Vec<_>>().join(" "))
        };
        VulkanError::Format {
            on: self.name.clone(),
            what: usage.words(),
            fourcc,
            advice,
        }
    }
}

/// Whether this device has layouts of a format that all have, and leaves the
/// second list of them empty.
pub(super) fn lists_disagree(instance: &ash::Instance, device: vk::PhysicalDevice) -> bool {
    let mut one = vk::DrmFormatModifierPropertiesListEXT::default();
    let mut two = vk::DrmFormatModifierPropertiesList2EXT::default();
    let mut properties = vk::FormatProperties2::default()
        .push_next(&mut one)
        .push_next(&mut two);
    let format = vk::Format::B8G8R8A8_UNORM;
    // SAFETY: the device is of this instance and has the extensions of both
    // lists, which have no room.
    unsafe { instance.get_physical_device_format_properties2(device, format, &mut properties) };
    one.drm_format_modifier_count > 0 && two.drm_format_modifier_count == 0
}

impl Modifier {
    /// As what it is to be used.
    pub(super) fn support(&self, usage: Use) -> Option<Support> {
        match usage {
            Use::Texture => self.texture,
            Use::Target => self.target,
        }
    }

    pub(super) fn is_linear(&self) -> bool {
        self.code == LINEAR
    }
}

/// The modifiers of this use in words, for errors.
pub(super) fn codes(modifiers: &[Modifier], usage: Use) -> String {
    let useful = modifiers.iter().filter(|m| m.support(usage).is_some());
    let codes = useful.map(|modifier| format!("{:#x}", modifier.code));
    codes.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever is imported was measured before: this crate knows how long its
    /// rows are.
    #[test]
    fn formats_are_known_to_the_crate() {
        for (code, _) in PIXELS {
            assert_eq!(Fourcc::new(*code).planes(), Some(1));
        }
    }

    #[test]
    fn a_format_is_listed_once() {
        for (at, (code, _)) in PIXELS.iter().enumerate() {
            assert!(PIXELS[..at].iter().all(|(other, _)| other != code));
        }
    }

    /// Little-endian `x:R:G:B 8:8:8:8` is `B G R x` in memory.
    #[test]
    fn bytes_are_in_the_order_of_memory() {
        let pixel = |code| pixel(Fourcc::new(code)).unwrap();
        assert_eq!(pixel(*b"XR24").format, vk::Format::B8G8R8A8_UNORM);
        assert_eq!(pixel(*b"AB24").format, vk::Format::R8G8B8A8_UNORM);
        assert_eq!(pixel(*b"XR24").swizzle[3], Channel::One);
        assert_eq!(pixel(*b"AR24").swizzle[3], Channel::A);
        assert_eq!(super::pixel(Fourcc::new(*b"NV12")), None);
    }
}
