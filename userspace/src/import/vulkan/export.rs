//! Frames that the device allocates itself.

use std::fmt;
use std::os::fd::{FromRawFd, OwnedFd};
use std::rc::Rc;

use ash::vk;

use super::draw::{Target, Turn};
use super::error::VulkanError;
use super::format::{Modifier, Pixel, codes, pixel};
use super::image::{Image, MEMORY_PLANES, create_info, external};
use super::{Gpu, Inner, Use};
use crate::buffer::Buffer;
use crate::frame::{Fourcc, Frame, LINEAR, Plane};
use crate::import::{self, words};

/// A frame in the device's own memory: something to draw into, and what others
/// need to find it.
///
/// ```no_run
/// // Not run: needs a driver that exports dma-bufs.
/// use dmashare::import::vulkan::{Allocation, Texture, VulkanError};
///
/// /// Another device, or another process, does the same.
/// fn read_back(gpu: &dmashare::import::vulkan::Gpu, drawn: &Allocation) -> Result<Texture, VulkanError> {
///     gpu.import_texture(&drawn.frame, &[&drawn.buffer])
/// }
/// ```
#[non_exhaustive]
pub struct Allocation {
    /// The image.
    pub target: Target,
    /// How it lies in its memory.
    pub frame: Frame,
    /// Its memory, as a dma-buf.
    pub buffer: Buffer,
}

impl Gpu {
    /// A frame that the device allocates to draw into, in one of these layouts:
    /// of several it takes the one that it likes best. [`formats`](Gpu::formats)
    /// has those that it exports.
    ///
    /// What is in it first is undefined.
    ///
    /// # Errors
    /// [`VulkanError::Format`], [`VulkanError::Modifier`] and
    /// [`VulkanError::Size`] for what it does not allocate,
    /// [`VulkanError::Inexpressible`] and [`VulkanError::Exported`] for what
    /// cannot be told to others, and [`VulkanError::Vulkan`].
    ///
    /// ```no_run
    /// // Not run: needs a driver that exports dma-bufs.
    /// # use dmashare::import::vulkan::{Allocation, Gpu, VulkanError};
    /// use dmashare::frame::{Fourcc, LINEAR};
    /// # fn f(gpu: &Gpu) -> Result<Allocation, VulkanError> {
    /// let drawn = gpu.allocate(640, 480, Fourcc::XRGB8888, &[LINEAR])?;
    /// assert_eq!(drawn.target.size(), (640, 480));
    /// # Ok(drawn) }
    /// ```
    pub fn allocate(
        &self,
        width: u32,
        height: u32,
        fourcc: Fourcc,
        modifiers: &[u64],
    ) -> Result<Allocation, VulkanError> {
        let usage = Use::Target;
        let pixel = pixel(fourcc).ok_or_else(|| self.0.no_format(fourcc, usage))?;
        let wanted = Frame {
            width,
            height,
            fourcc,
            modifier: modifiers.first().copied().unwrap_or(LINEAR),
            planes: Vec::new(),
        };
        let offered = self.0.offered(&wanted, modifiers)?;
        let image = self.0.create(&wanted, pixel, &offered)?;
        let frame = self.0.frame(&image, &wanted, &offered)?;
        let buffer = self.0.export(&image)?;
        import::check(&frame, &[&buffer])?;
        self.0.release(&image)?;
        Ok(Allocation {
            target: Target(image),
            frame,
            buffer,
        })
    }
}

impl Inner {
    /// Those of `modifiers` in which the device exports such a frame.
    fn offered(&self, wanted: &Frame, modifiers: &[u64]) -> Result<Vec<Modifier>, VulkanError> {
        let usage = Use::Target;
        let all = self.modifiers(wanted.fourcc);
        let exported = all.into_iter().filter(|modifier| {
            let support = modifier.support(usage);
            support.is_some_and(|s| s.export) && modifier.planes as usize <= MEMORY_PLANES.len()
        });
        let exported = exported.collect::<Vec<_>>();
        if exported.is_empty() {
            return Err(self.no_format(wanted.fourcc, usage));
        }
        let named = exported.iter().filter(|m| modifiers.contains(&m.code));
        let named = named.copied().collect::<Vec<_>>();
        if named.is_empty() {
            let named = modifiers.iter().map(|code| format!("{code:#x}"));
            return Err(VulkanError::Modifier {
                on: self.name.clone(),
                what: usage.words(),
                frame: format!(
                    "a frame of its own of {} with modifier {}",
                    wanted.fourcc,
                    named.collect::<Vec<_>>().join(" or ")
                ),
                advice: format!("it exports modifier {}", codes(&exported, usage)),
            });
        }
        let fits = |modifier: &Modifier| {
            let support = modifier.support(usage);
            support.is_some_and(|s| wanted.width <= s.max_width && wanted.height <= s.max_height)
        };
        let fitting: Vec<Modifier> = named.iter().copied().filter(fits).collect();
        if fitting.is_empty() || wanted.width == 0 || wanted.height == 0 {
            let sizes = named.iter().filter_map(|modifier| modifier.support(usage));
            let sizes = sizes.map(|support| (support.max_width, support.max_height));
            return Err(VulkanError::Size {
                on: self.name.clone(),
                frame: words(wanted),
                max: sizes.max().unwrap_or_default(),
            });
        }
        Ok(fitting)
    }

    /// The image, with memory that can be exported.
    fn create(
        self: &Rc<Inner>,
        wanted: &Frame,
        pixel: Pixel,
        offered: &[Modifier],
    ) -> Result<Image, VulkanError> {
        let failed = |operation| VulkanError::failed(operation, &self.name);
        let codes: Vec<u64> = offered.iter().map(|modifier| modifier.code).collect();
        let mut list =
            vk::ImageDrmFormatModifierListCreateInfoEXT::default().drm_format_modifiers(&codes);
        let mut external = external();
        let create = create_info(wanted, pixel, Use::Target)
            .push_next(&mut list)
            .push_next(&mut external);
        let mut image = Image::new(self, &create).map_err(failed("vkCreateImage"))?;

        let (requirements, wants_dedicated) = image.requirements(None);
        let only = offered.iter().filter_map(|m| m.support(Use::Target));
        let dedicated = wants_dedicated || only.into_iter().any(|support| support.dedicated);
        let mut export = vk::ExportMemoryAllocateInfo::default()
            .handle_types(vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT);
        let mut of = vk::MemoryDedicatedAllocateInfo::default().image(image.raw);
        let mut allocate = vk::MemoryAllocateInfo::default()
            .allocation_size(requirements.size)
            .memory_type_index(self.memory_type(requirements.memory_type_bits))
            .push_next(&mut export);
        if dedicated {
            allocate = allocate.push_next(&mut of);
        }
        // SAFETY: the structs are complete, and the type is one of those that
        // the image takes.
        let memory = unsafe { self.device.allocate_memory(&allocate, None) };
        let memory = memory.map_err(failed("vkAllocateMemory"))?;
        image.memory.push(memory);
        let bind = [vk::BindImageMemoryInfo::default()
            .image(image.raw)
            .memory(memory)];
        // SAFETY: both are alive, and of the size that is required.
        unsafe { self.device.bind_image_memory2(&bind) }.map_err(failed("vkBindImageMemory2"))?;
        image.make_view(pixel, Use::Target)?;
        Ok(image)
    }

    /// The type of memory nearest to the device, among these.
    fn memory_type(&self, allowed: u32) -> u32 {
        let instance = &self.instance.raw;
        // SAFETY: the device is of this instance.
        let all = unsafe { instance.get_physical_device_memory_properties(self.physical) };
        let near = (0..)
            .zip(all.memory_types_as_slice())
            .find(|(index, kind)| {
                let is_near = kind
                    .property_flags
                    .contains(vk::MemoryPropertyFlags::DEVICE_LOCAL);
                allowed & (1_u32 << index) != 0 && is_near
            });
        // At least one is allowed.
        near.map_or(allowed.trailing_zeros(), |(index, _)| index)
    }

    /// How the image lies in its memory.
    fn frame(
        &self,
        image: &Image,
        wanted: &Frame,
        offered: &[Modifier],
    ) -> Result<Frame, VulkanError> {
        let mut chosen = vk::ImageDrmFormatModifierPropertiesEXT::default();
        let functions = &self.drm_modifier;
        // SAFETY: the image was made with a list of modifiers.
        unsafe { functions.get_image_drm_format_modifier_properties(image.raw, &mut chosen) }
            .map_err(VulkanError::failed(
                "vkGetImageDrmFormatModifierPropertiesEXT",
                &self.name,
            ))?;
        let inexpressible = |problem: String| VulkanError::Inexpressible {
            on: self.name.clone(),
            problem,
        };
        let modifier = chosen.drm_format_modifier;
        let Some(known) = offered.iter().find(|m| m.code == modifier) else {
            let problem = format!("it took modifier {modifier:#x}, which was not asked for");
            return Err(inexpressible(problem));
        };
        let aspects = MEMORY_PLANES.iter().take(known.planes as usize);
        let planes = aspects.map(|aspect| {
            let part = vk::ImageSubresource::default().aspect_mask(*aspect);
            // SAFETY: the image is alive, and has this plane.
            let layout = unsafe { self.device.get_image_subresource_layout(image.raw, part) };
            let fits = |value: u64, what: &str| {
                u32::try_from(value).map_err(|_| inexpressible(format!("{what} of {value} bytes")))
            };
            Ok(Plane {
                buffer: 0,
                offset: fits(layout.offset, "an offset")?,
                stride: fits(layout.row_pitch, "a stride")?,
            })
        });
        Ok(Frame {
            modifier,
            planes: planes.collect::<Result<_, VulkanError>>()?,
            ..wanted.clone()
        })
    }

    /// The memory of the image, as a dma-buf.
    fn export(&self, image: &Image) -> Result<Buffer, VulkanError> {
        let get = vk::MemoryGetFdInfoKHR::default()
            .memory(image.memory[0])
            .handle_type(vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT);
        // SAFETY: the memory was allocated to be exported so.
        let fd = unsafe { self.memory_fd.get_memory_fd(&get) }
            .map_err(VulkanError::failed("vkGetMemoryFdKHR", &self.name))?;
        // SAFETY: the driver gave this handle away.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // Not every driver has it close on exec.
        let cloexec = rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC);
        let cloexec = cloexec.map_err(|source| crate::buffer::BufferError::Os {
            operation: "fcntl(F_SETFD)",
            name: "the exported handle".to_owned(),
            source,
        });
        let buffer = cloexec.and_then(|()| Buffer::from_fd(fd));
        buffer.map_err(|source| VulkanError::Exported {
            on: self.name.clone(),
            source,
        })
    }

    /// Gives a new image away, as every draw finds it and leaves it.
    fn release(self: &Rc<Inner>, image: &Image) -> Result<(), VulkanError> {
        let drawing = self.run(&[], |job| {
            let none = vk::ImageLayout::UNDEFINED;
            self.record_barriers(job, &[self.barrier(image.raw, none, Turn::First)]);
        })?;
        image.last.set(self.last.get());
        drawing.wait(None)
    }
}

impl fmt::Debug for Allocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allocation")
            .field("target", &self.target)
            .field("frame", &self.frame)
            .field("buffer", &self.buffer)
            .finish()
    }
}
