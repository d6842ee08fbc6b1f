//! One image over the dma-bufs of a frame.

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use ash::vk;
use rustix::io::fcntl_dupfd_cloexec;

use super::error::VulkanError;
use super::format::{Modifier, Pixel, Support, codes};
use super::{Inner, Use};
use crate::buffer::{BufferError, describe};
use crate::frame::{Frame, INVALID, Plane};
use crate::import::{HandleError, words};

/// An image with its memory and a view of it, destroyed on drop; that waits
/// until the device is done with it.
pub(super) struct Image {
    pub(super) gpu: Rc<Inner>,
    pub(super) raw: vk::Image,
    pub(super) memory: Vec<vk::DeviceMemory>,
    pub(super) view: vk::ImageView,
    pub(super) format: vk::Format,
    pub(super) size: (u32, u32),
    /// The job that uses it last.
    pub(super) last: Cell<u64>,
}

/// What an image is to be.
pub(super) struct Wanted<'a> {
    pub(super) frame: &'a Frame,
    pub(super) pixel: Pixel,
    pub(super) usage: Use,
}

impl Drop for Image {
    fn drop(&mut self) {
        // Of a device that was lost nothing is in use.
        let _ = self.gpu.wait_for(self.last.get(), None);
        // SAFETY: made on this device, not in use, destroyed once; of what was
        // not made yet there is a null handle.
        unsafe {
            self.gpu.device.destroy_image_view(self.view, None);
            self.gpu.device.destroy_image(self.raw, None);
            for memory in &self.memory {
                self.gpu.device.free_memory(*memory, None);
            }
        }
    }
}

impl Image {
    /// The image of a frame that was checked against its handles.
    pub(super) fn import(
        gpu: &Rc<Inner>,
        wanted: &Wanted<'_>,
        handles: &[BorrowedFd<'_>],
    ) -> Result<Image, VulkanError> {
        let import = Import {
            gpu,
            wanted,
            handles,
        };
        let (modifier, support) = import.modifier()?;
        let one = import.one_buffer()?;
        if one.is_none() && !modifier.disjoint {
            return Err(VulkanError::Disjoint {
                on: gpu.name.clone(),
                frame: words(wanted.frame),
            });
        }
        let mut image = import.create(one.is_none())?;
        match one {
            Some(handle) => import.bind_whole(&mut image, handle, support)?,
            None => import.bind_planes(&mut image)?,
        }
        image.make_view(wanted.pixel, wanted.usage)?;
        Ok(image)
    }

    /// An image without memory and view.
    pub(super) fn new(
        gpu: &Rc<Inner>,
        create: &vk::ImageCreateInfo<'_>,
    ) -> Result<Image, vk::Result> {
        // SAFETY: the structs are complete, and their extensions enabled.
        let raw = unsafe { gpu.device.create_image(create, None) }?;
        Ok(Image {
            gpu: Rc::clone(gpu),
            raw,
            memory: Vec::new(),
            view: vk::ImageView::null(),
            format: create.format,
            size: (create.extent.width, create.extent.height),
            last: Cell::new(0),
        })
    }

    /// What the device wants for it, or for one of its planes, and whether it
    /// wants memory of its own.
    pub(super) fn requirements(
        &self,
        plane: Option<vk::ImageAspectFlags>,
    ) -> (vk::MemoryRequirements, bool) {
        let mut aspect = vk::ImagePlaneMemoryRequirementsInfo::default();
        let mut asked = vk::ImageMemoryRequirementsInfo2::default().image(self.raw);
        if let Some(plane) = plane {
            aspect = aspect.plane_aspect(plane);
            asked = asked.push_next(&mut aspect);
        }
        let mut dedicated = vk::MemoryDedicatedRequirements::default();
        let mut answer = vk::MemoryRequirements2::default().push_next(&mut dedicated);
        let device = &self.gpu.device;
        // SAFETY: the image is alive, and has that plane.
        unsafe { device.get_image_memory_requirements2(&asked, &mut answer) };
        let requirements = answer.memory_requirements;
        let wants = dedicated.requires_dedicated_allocation == vk::TRUE
            || dedicated.prefers_dedicated_allocation == vk::TRUE;
        (requirements, wants)
    }

    /// The view that shaders read through, or that is drawn into.
    pub(super) fn make_view(&mut self, pixel: Pixel, usage: Use) -> Result<(), VulkanError> {
        let components = match usage {
            Use::Texture => pixel.components(),
            // What is drawn goes where the format has it.
            Use::Target => vk::ComponentMapping::default(),
        };
        let create = vk::ImageViewCreateInfo::default()
            .image(self.raw)
            .view_type(vk::ImageViewType::TYPE_2D)
            .format(self.format)
            .components(components)
            .subresource_range(COLOR);
        // SAFETY: the image is alive and bound, and the view of its format.
        self.view = unsafe { self.gpu.device.create_image_view(&create, None) }
            .map_err(VulkanError::failed("vkCreateImageView", &self.gpu.name))?;
        Ok(())
    }
}

/// The whole of an image.
pub(super) const COLOR: vk::ImageSubresourceRange = vk::ImageSubresourceRange {
    aspect_mask: vk::ImageAspectFlags::COLOR,
    base_mip_level: 0,
    level_count: 1,
    base_array_layer: 0,
    layer_count: 1,
};

/// The aspects by which the planes of a modifier are named.
pub(super) const MEMORY_PLANES: [vk::ImageAspectFlags; 4] = [
    vk::ImageAspectFlags::MEMORY_PLANE_0_EXT,
    vk::ImageAspectFlags::MEMORY_PLANE_1_EXT,
    vk::ImageAspectFlags::MEMORY_PLANE_2_EXT,
    vk::ImageAspectFlags::MEMORY_PLANE_3_EXT,
];

/// How far lavapipe reaches from the start of an image, in bytes: it multiplies
/// strides and rows in 32 bits with a sign, and does not look whether they fit
/// (llvmpipe_resource_from_handle, Mesa 25).
const LAVAPIPE_SPAN: u64 = i32::MAX as u64;

/// An import under way.
struct Import<'a> {
    gpu: &'a Rc<Inner>,
    wanted: &'a Wanted<'a>,
    handles: &'a [BorrowedFd<'a>],
}

impl<'a> Import<'a> {
    /// What the device says of the frame's layout, if it takes it.
    fn modifier(&self) -> Result<(Modifier, Support), VulkanError> {
        let Wanted {
            frame,
            pixel,
            usage,
        } = *self.wanted;
        let on = || self.gpu.name.clone();
        if frame.modifier == INVALID {
            return Err(VulkanError::Implicit {
                frame: words(frame),
            });
        }
        let modifiers = self.gpu.modifiers_of(pixel.format);
        let mut useful = modifiers.iter().filter(|m| m.support(usage).is_some());
        if useful.clone().next().is_none() {
            return Err(self.gpu.no_format(frame.fourcc, usage));
        }
        let found = useful.find(|modifier| modifier.code == frame.modifier);
        let support = found.and_then(|m| Some((m, m.support(usage)?)));
        let refused = |advice: String| VulkanError::Modifier {
            on: on(),
            what: usage.words(),
            frame: words(frame),
            advice,
        };
        let Some((modifier, support)) = support else {
            let codes = codes(&modifiers, usage);
            return Err(refused(format!("it does with modifier {codes}")));
        };
        if !support.import {
            return Err(refused(
                "it exports such frames and imports none".to_owned(),
            ));
        }
        if frame.width > support.max_width || frame.height > support.max_height {
            return Err(VulkanError::Size {
                on: on(),
                frame: words(frame),
                max: (support.max_width, support.max_height),
            });
        }
        let span = |plane: &Plane| u64::from(plane.stride) * (u64::from(frame.height) + 3);
        if self.gpu.is_lavapipe && frame.planes.iter().any(|plane| span(plane) > LAVAPIPE_SPAN) {
            return Err(VulkanError::Span {
                on: on(),
                frame: words(frame),
                max: LAVAPIPE_SPAN,
            });
        }
        if frame.planes.len() != modifier.planes as usize {
            return Err(VulkanError::Planes {
                on: on(),
                frame: words(frame),
                found: frame.planes.len(),
                expected: modifier.planes,
            });
        }
        Ok((*modifier, support))
    }

    /// The one buffer that all planes lie in, if it is one: peers pass a handle
    /// a plane, which may all be the same buffer's.
    fn one_buffer(&self) -> Result<Option<BorrowedFd<'a>>, VulkanError> {
        let handle = |plane: usize| {
            let plane = self.wanted.frame.planes[plane];
            self.handles[usize::from(plane.buffer)]
        };
        let first = handle(0);
        let number = inode(first).map_err(HandleError::from)?;
        for plane in 1..self.wanted.frame.planes.len() {
            if inode(handle(plane)).map_err(HandleError::from)? != number {
                return Ok(None);
            }
        }
        Ok(Some(first))
    }

    fn create(&self, disjoint: bool) -> Result<Image, VulkanError> {
        let frame = self.wanted.frame;
        let layouts = frame.planes.iter().map(|plane| vk::SubresourceLayout {
            offset: plane.offset.into(),
            row_pitch: plane.stride.into(),
            // The size is the driver's to know, the other pitches are those of
            // layers and of depth.
            ..vk::SubresourceLayout::default()
        });
        let layouts = layouts.collect::<Vec<_>>();
        let mut layout = vk::ImageDrmFormatModifierExplicitCreateInfoEXT::default()
            .drm_format_modifier(frame.modifier)
            .plane_layouts(&layouts);
        let mut external = external();
        let create = create_info(frame, self.wanted.pixel, self.wanted.usage)
            .flags(match disjoint {
                true => vk::ImageCreateFlags::DISJOINT,
                false => vk::ImageCreateFlags::empty(),
            })
            .push_next(&mut layout)
            .push_next(&mut external);
        let failed = self.failed("vkCreateImage", self.handles[0]);
        Image::new(self.gpu, &create).map_err(failed)
    }

    fn bind_whole(
        &self,
        image: &mut Image,
        handle: BorrowedFd<'_>,
        support: Support,
    ) -> Result<(), VulkanError> {
        let (requirements, wants_dedicated) = image.requirements(None);
        let of = (support.dedicated || wants_dedicated).then_some(image.raw);
        let memory = self.memory(&requirements, handle, of)?;
        image.memory.push(memory);
        let bind = [vk::BindImageMemoryInfo::default()
            .image(image.raw)
            .memory(memory)];
        // SAFETY: both are alive and of this device, and the memory has as many
        // bytes as the image requires.
        unsafe { self.gpu.device.bind_image_memory2(&bind) }
            .map_err(self.failed("vkBindImageMemory2", handle))
    }

    fn bind_planes(&self, image: &mut Image) -> Result<(), VulkanError> {
        let planes = self.wanted.frame.planes.iter().zip(MEMORY_PLANES);
        for (plane, aspect) in planes.clone() {
            let (requirements, _) = image.requirements(Some(aspect));
            let handle = self.handles[usize::from(plane.buffer)];
            let memory = self.memory(&requirements, handle, None)?;
            image.memory.push(memory);
        }
        let mut aspects = planes
            .map(|(_, aspect)| vk::BindImagePlaneMemoryInfo::default().plane_aspect(aspect))
            .collect::<Vec<_>>();
        let binds = aspects.iter_mut().zip(&image.memory);
        let binds = binds.map(|(aspect, memory)| {
            vk::BindImageMemoryInfo::default()
                .image(image.raw)
                .memory(*memory)
                .push_next(aspect)
        });
        let binds = binds.collect::<Vec<_>>();
        // SAFETY: all are alive and of this device, every plane is bound, and
        // its memory has as many bytes as it requires.
        unsafe { self.gpu.device.bind_image_memory2(&binds) }
            .map_err(self.failed("vkBindImageMemory2", self.handles[0]))
    }

    /// The memory of a dma-buf, for an image that requires this.
    fn memory(
        &self,
        requirements: &vk::MemoryRequirements,
        handle: BorrowedFd<'_>,
        dedicated: Option<vk::Image>,
    ) -> Result<vk::DeviceMemory, VulkanError> {
        let gpu = self.gpu;
        // Whether they look at the end of the memory is up to drivers; lavapipe
        // requires whole blocks of four rows.
        let size = size(handle).map_err(HandleError::from)?;
        if requirements.size > size {
            return Err(VulkanError::Room {
                on: gpu.name.clone(),
                frame: words(self.wanted.frame),
                name: describe(handle),
                needed: requirements.size,
                size,
            });
        }
        let mut properties = vk::MemoryFdPropertiesKHR::default();
        // SAFETY: the handle is an open dma-buf, which is only looked at.
        unsafe {
            gpu.memory_fd.get_memory_fd_properties(
                vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT,
                handle.as_raw_fd(),
                &mut properties,
            )
        }
        .map_err(self.failed("vkGetMemoryFdPropertiesKHR", handle))?;
        let types = properties.memory_type_bits & requirements.memory_type_bits;
        if types == 0 {
            let failed = self.failed("vkGetMemoryFdPropertiesKHR", handle);
            return Err(failed(vk::Result::ERROR_INVALID_EXTERNAL_HANDLE));
        }

        let copy = fcntl_dupfd_cloexec(handle, 0).map_err(|source| {
            HandleError::from(BufferError::Os {
                operation: "fcntl(F_DUPFD_CLOEXEC)",
                name: describe(handle),
                source,
            })
        })?;
        let mut import = vk::ImportMemoryFdInfoKHR::default()
            .handle_type(vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT)
            .fd(copy.as_raw_fd());
        let mut of = vk::MemoryDedicatedAllocateInfo::default();
        let mut allocate = vk::MemoryAllocateInfo::default()
            .allocation_size(requirements.size)
            .memory_type_index(types.trailing_zeros())
            .push_next(&mut import);
        if let Some(image) = dedicated {
            of = of.image(image);
            allocate = allocate.push_next(&mut of);
        }
        // SAFETY: the structs are complete, the handle is an open dma-buf of at
        // least this size, and the memory type is one that takes it.
        match unsafe { gpu.device.allocate_memory(&allocate, None) } {
            Ok(memory) => {
                // It is the driver's now, which closes it.
                std::mem::forget(copy);
                Ok(memory)
            }
            Err(code) => {
                close_unless_closed(copy, handle);
                Err(self.failed("vkAllocateMemory", handle)(code))
            }
        }
    }

    fn failed(
        &self,
        operation: &'static str,
        handle: BorrowedFd<'_>,
    ) -> impl FnOnce(vk::Result) -> VulkanError {
        let on = self.gpu.name.clone();
        let frame = words(self.wanted.frame);
        let name = describe(handle);
        move |code| VulkanError::Import {
            on,
            frame,
            name,
            operation,
            code: code.into(),
            suspect: suspect(operation, code),
        }
    }
}

/// What every image that is shared is created with, but for its layout.
pub(super) fn create_info<'a>(frame: &Frame, pixel: Pixel, usage: Use) -> vk::ImageCreateInfo<'a> {
    vk::ImageCreateInfo::default()
        .image_type(vk::ImageType::TYPE_2D)
        .format(pixel.format)
        .extent(vk::Extent3D {
            width: frame.width,
            height: frame.height,
            depth: 1,
        })
        .mip_levels(1)
        .array_layers(1)
        .samples(vk::SampleCountFlags::TYPE_1)
        .tiling(vk::ImageTiling::DRM_FORMAT_MODIFIER_EXT)
        .usage(usage.flags())
        .sharing_mode(vk::SharingMode::EXCLUSIVE)
        .initial_layout(vk::ImageLayout::UNDEFINED)
}

/// That the memory of an image is a dma-buf.
pub(super) fn external<'a>() -> vk::ExternalMemoryImageCreateInfo<'a> {
    vk::ExternalMemoryImageCreateInfo::default()
        .handle_types(vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT)
}

/// What a driver most likely did not like, where it gives a code only.
fn suspect(operation: &str, code: vk::Result) -> &'static str {
    match (operation, code) {
        (_, vk::Result::ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT) => {
            "it is a stride or an offset; many drivers want multiples of 64 or 256"
        }
        ("vkGetMemoryFdPropertiesKHR", _) => {
            "it has no type of memory for such a buffer; allocate it from another exporter"
        }
        ("vkAllocateMemory", vk::Result::ERROR_INVALID_EXTERNAL_HANDLE) => {
            "it could not take hold of the memory; the software device can, wherever the CPU can \
             map it for reading and writing"
        }
        (_, vk::Result::ERROR_OUT_OF_DEVICE_MEMORY) => "it is likely the size",
        _ => "format, modifier and size are among those it takes",
    }
}

fn inode(handle: BorrowedFd<'_>) -> Result<u64, BufferError> {
    Ok(stat(handle)?.st_ino)
}

fn size(handle: BorrowedFd<'_>) -> Result<u64, BufferError> {
    // Nothing has a negative size; of what has none, nothing fits into it.
    Ok(u64::try_from(stat(handle)?.st_size).unwrap_or(0))
}

fn stat(handle: BorrowedFd<'_>) -> Result<rustix::fs::Stat, BufferError> {
    rustix::fs::fstat(handle).map_err(|source| BufferError::Os {
        operation: "fstat",
        name: describe(handle),
        source,
    })
}

/// Closes a handle that a driver was to take and did not, unless it has closed
/// it all the same.
///
/// A failed import leaves the handle to whom it is (vkAllocateMemory), but
/// lavapipe closes it before it fails (lvp_AllocateMemory, Mesa 25). To close
/// it again could close what another thread has opened in between, so the
/// number is asked whether it is still that dma-buf, which has an inode of its
/// own.
fn close_unless_closed(copy: OwnedFd, of: BorrowedFd<'_>) {
    let number = |fd: BorrowedFd<'_>| stat(fd).ok().map(|stat| (stat.st_dev, stat.st_ino));
    if number(copy.as_fd()) != number(of) {
        std::mem::forget(copy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::FromRawFd;

    /// A driver that closed it leaves nothing to close, and one that did not
    /// leaves it.
    #[test]
    fn a_handle_is_closed_once() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let is_open = |fd: i32| std::fs::exists(format!("/proc/self/fd/{fd}")).unwrap();
        let left = fcntl_dupfd_cloexec(&file, 500).unwrap();
        let number = left.as_raw_fd();
        close_unless_closed(left, file.as_fd());
        assert!(!is_open(number));

        // Closed, and the number taken by another file meanwhile.
        let other = tempfile::tempfile().unwrap();
        let taken = fcntl_dupfd_cloexec(&other, 600).unwrap();
        // SAFETY: the first owner gives it up when it finds another file there.
        let closed = unsafe { OwnedFd::from_raw_fd(taken.as_raw_fd()) };
        close_unless_closed(closed, file.as_fd());
        assert!(is_open(taken.as_raw_fd()));
    }
}
