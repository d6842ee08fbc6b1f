//! Frames as images of a GPU, through Vulkan.
//!
//! libvulkan.so.1 is loaded when a [`Gpu`] is opened, so a program built with
//! this runs where there is none, and says so. A `Gpu` is one device, picked on
//! purpose ([`Device`]), with a queue that draws. [`Gpu::import_texture`] makes
//! a frame readable by a shader, [`Gpu::import_planes`] does so for each plane
//! of a YUV frame, [`Gpu::import_target`] makes it something to draw into, and
//! [`Gpu::draw`] does the one into the other. [`Gpu::allocate`] has the device
//! make the frame itself, in the layout that it likes best.
//!
//! Row 0 of a frame is at `v = 0` of a texture and at `y = 0` of a target:
//! nothing is flipped on the way.
//!
//! # Who waits for whom
//! Vulkan looks at no fence of a dma-buf and adds none. [`Gpu::draw`] takes the
//! [`Fence`](crate::fence::Fence)s to wait for, and gives one of its own
//! ([`Drawing::fence`]): [`Fence::export`](crate::fence::Fence::export) gives
//! those of a buffer, and
//! [`Fence::import_into`](crate::fence::Fence::import_into) adds one to it, for
//! drivers that do look.
//!
//! # Whose the image is
//! A frame belongs to others (`VK_QUEUE_FAMILY_FOREIGN_EXT`) but while it is
//! drawn from or into: each draw acquires it, with its contents, and releases
//! it again. So no cache of the device holds back what others wrote, nor what
//! it drew.
//!
//! # Validation
//! [`Gpu::open_validated`] has the layer VK_LAYER_KHRONOS_validation look at
//! every call, synchronisation included, and collects what it says.
//!
//! # Sources
//! The [Vulkan specification](https://registry.khronos.org/vulkan/specs/latest/html/vkspec.html):
//! VK_EXT_image_drm_format_modifier, VK_EXT_external_memory_dma_buf,
//! VK_KHR_external_memory_fd, VK_KHR_external_semaphore_fd,
//! VK_EXT_queue_family_foreign. Of lavapipe, its source in Mesa 25.0
//! (`src/gallium/frontends/lavapipe`).
//!
//! ```no_run
//! // Not run: imports need a dma-buf exporter.
//! use dmashare::import::vulkan::{Device, Gpu};
//! use dmashare::share::Frame;
//! use dmashare::buffer::Buffer;
//!
//! /// `spirv` is compiled of this WGSL, say by naga:
//! /// ```wgsl
//! /// @group(0) @binding(0) var frame: texture_2d<f32>;
//! /// @fragment fn main(@builtin(position) at: vec4<f32>) -> @location(0) vec4<f32> {
//! ///     return vec4(1.0 - textureLoad(frame, vec2<i32>(at.xy), 0).rgb, 1.0);
//! /// }
//! /// ```
//! fn invert(
//!     from: (&Frame, &Buffer),
//!     to: (&Frame, &Buffer),
//!     spirv: &[u32],
//! ) -> Result<(), Box<dyn std::error::Error>> {
//!     let gpu = Gpu::open(&Device::Software)?;
//!     let texture = gpu.import_texture(from.0, &[from.1])?;
//!     let target = gpu.import_target(to.0, &[to.1])?;
//!     // SAFETY: naga writes valid SPIR-V.
//!     let shader = unsafe { gpu.shader(spirv) }?;
//!     gpu.draw(&[&texture], &target, &shader, &[])?.wait(None)?;
//!     Ok(())
//! }
//! ```

use std::borrow::Borrow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use ash::vk;

use crate::buffer::Buffer;
use crate::frame::Frame;
use crate::import;

mod device;
mod draw;
mod error;
mod export;
mod format;
mod image;
mod instance;
mod job;
mod layout;
mod planes;
mod spirv;
mod taker;

pub use device::Device;
pub use draw::{Shader, Target, Texture};
pub use error::{VulkanCode, VulkanError};
pub use export::Allocation;
pub use format::{Format, Modifier, Support};
pub use instance::{Message, Messages};
pub use job::Drawing;

use device::Picked;
use image::{Image, Wanted};
use instance::Instance;
use job::Job;
use layout::Layouts;

/// The most textures that one shader reads.
pub const MAX_TEXTURES: usize = spirv::MAX_TEXTURES;

/// A GPU, or the CPU in its place: a Vulkan device with a queue.
///
/// It belongs to the thread that opened it. What is made through it keeps it
/// alive.
///
/// ```no_run
/// // Not run: needs libvulkan.so.1 and a driver that imports dma-bufs.
/// use dmashare::import::vulkan::{Device, Gpu};
/// let gpu = Gpu::open(&Device::Software)?;
/// println!("{gpu}"); // llvmpipe (LLVM 19.1.7, 256 bits) (llvmpipe Mesa 25.0.7-2)
/// # Ok::<(), dmashare::import::vulkan::VulkanError>(())
/// ```
pub struct Gpu(Rc<Inner>);

/// What is made through a [`Gpu`] holds on to this. Rc, not Arc: a queue and
/// what goes to it are for one thread at a time.
struct Inner {
    device: ash::Device,
    memory_fd: ash::khr::external_memory_fd::Device,
    rendering: ash::khr::dynamic_rendering::Device,
    sync: ash::khr::synchronization2::Device,
    drm_modifier: ash::ext::image_drm_format_modifier::Device,
    /// Where semaphores become sync_files and back.
    semaphore_fd: Option<ash::khr::external_semaphore_fd::Device>,
    physical: vk::PhysicalDevice,
    family: u32,
    queue: vk::Queue,
    name: String,
    is_lavapipe: bool,
    layouts: Layouts,
    commands: vk::CommandPool,
    /// Counts the jobs that are done.
    timeline: vk::Semaphore,
    /// The job that was submitted last.
    last: Cell<u64>,
    jobs: RefCell<Vec<Job>>,
    /// Semaphores that nobody asked for, each with the job that signals it.
    unwanted: RefCell<Vec<(u64, vk::Semaphore)>>,
    // Last: it is destroyed after all that is of it.
    instance: Instance,
}

/// As what a frame is imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Texture,
    Target,
}

impl Use {
    fn flags(self) -> vk::ImageUsageFlags {
        match self {
            Use::Texture => vk::ImageUsageFlags::SAMPLED,
            Use::Target => vk::ImageUsageFlags::COLOR_ATTACHMENT,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Use::Texture => "read",
            Use::Target => "draw into",
        }
    }
}

impl Gpu {
    /// Opens this device with a queue of its own.
    ///
    /// # Errors
    /// [`VulkanError::Library`] without libvulkan.so.1,
    /// [`VulkanError::NoDevice`] and [`VulkanError::Node`] where the device is
    /// not there, [`VulkanError::Missing`] where its driver cannot share
    /// frames, and [`VulkanError::Vulkan`] where it does not start.
    ///
    /// ```no_run
    /// // Not run: needs a GPU.
    /// use dmashare::import::vulkan::{Device, Gpu};
    /// let gpu = Gpu::open(&Device::Node("/dev/dri/renderD128".into()))?;
    /// # Ok::<(), dmashare::import::vulkan::VulkanError>(())
    /// ```
    pub fn open(device: &Device) -> Result<Gpu, VulkanError> {
        Gpu::with(Instance::new(false)?, device)
    }

    /// Opens it with VK_LAYER_KHRONOS_validation looking at every call, which
    /// takes its time; see [`messages`](Gpu::messages).
    ///
    /// # Errors
    /// [`VulkanError::NoValidation`] where the layer is not there, and those of
    /// [`open`](Gpu::open).
    ///
    /// ```no_run
    /// // Not run: needs a driver and the layer.
    /// use dmashare::import::vulkan::{Device, Gpu};
    /// let gpu = Gpu::open_validated(&Device::Any)?;
    /// # Ok::<(), dmashare::import::vulkan::VulkanError>(())
    /// ```
    pub fn open_validated(device: &Device) -> Result<Gpu, VulkanError> {
        Gpu::with(Instance::new(true)?, device)
    }

    fn with(instance: Instance, device: &Device) -> Result<Gpu, VulkanError> {
        let picked = device::pick(&instance.raw, device)?;
        if picked.has_second_list && format::lists_disagree(&instance.raw, picked.raw) {
            instance.messages.lists_disagree();
        }
        let mut inner = Inner::new(instance, picked)?;
        inner.set_up()?;
        Ok(Gpu(Rc::new(inner)))
    }

    /// The device and its driver, in words.
    ///
    /// ```no_run
    /// // Not run: needs a driver that imports dma-bufs.
    /// # use dmashare::import::vulkan::{Device, Gpu};
    /// assert!(Gpu::open(&Device::Software)?.name().starts_with("llvmpipe"));
    /// # Ok::<(), dmashare::import::vulkan::VulkanError>(())
    /// ```
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether the device itself waits for a [`Fence`](crate::fence::Fence), and gives
    /// one; where it does not, [`draw`](Gpu::draw) waits before it begins, and
    /// [`Drawing::fence`] until all is drawn.
    ///
    /// ```no_run
    /// // Not run: needs a driver that imports dma-bufs.
    /// # use dmashare::import::vulkan::{Device, Gpu};
    /// if !Gpu::open(&Device::Any)?.has_native_fences() {
    ///     println!("the CPU will wait");
    /// }
    /// # Ok::<(), dmashare::import::vulkan::VulkanError>(())
    /// ```
    pub fn has_native_fences(&self) -> bool {
        self.0.semaphore_fd.is_some()
    }

    /// What the validation layer has said and will say; nothing, where the
    /// `Gpu` was not [opened with it](Gpu::open_validated).
    ///
    /// ```no_run
    /// // Not run: needs a driver and the layer.
    /// # fn f(gpu: &dmashare::import::vulkan::Gpu) {
    /// for message in gpu.messages().all() {
    ///     println!("{message}");
    /// }
    /// # }
    /// ```
    pub fn messages(&self) -> Messages {
        self.0.instance.messages.clone()
    }

    /// The formats of one plane, and the modifiers of each, in which the device
    /// shares frames. YUV formats are none of them: see
    /// [`import_planes`](Gpu::import_planes).
    ///
    /// ```no_run
    /// // Not run: needs a driver that imports dma-bufs.
    /// # use dmashare::import::vulkan::{Device, Gpu};
    /// use dmashare::frame::Fourcc;
    /// let formats = Gpu::open(&Device::Software)?.formats();
    /// assert!(formats.iter().any(|format| format.fourcc == Fourcc::XRGB8888));
    /// # Ok::<(), dmashare::import::vulkan::VulkanError>(())
    /// ```
    pub fn formats(&self) -> Vec<Format> {
        self.0.formats()
    }

    /// The frame in these dma-bufs as a texture for shaders to read.
    ///
    /// Nothing is copied: the texture is that memory, and what is written there
    /// later is what a later draw reads. The handles can be closed.
    ///
    /// Each handle may be another of the same buffer. Planes in several buffers
    /// are taken where the device has that ([`Modifier::disjoint`]).
    ///
    /// # Errors
    /// [`VulkanError::Handle`] for a frame that does not lie in its handles or
    /// handles that are no dma-bufs. Then what the device does not take:
    /// [`VulkanError::Format`], [`VulkanError::Modifier`],
    /// [`VulkanError::Implicit`], [`VulkanError::Planes`],
    /// [`VulkanError::Disjoint`], [`VulkanError::Size`], [`VulkanError::Span`],
    /// [`VulkanError::Room`], and [`VulkanError::Import`] for memory, strides
    /// and offsets.
    ///
    /// ```no_run
    /// // Not run: needs a dma-buf.
    /// # use dmashare::import::vulkan::{Gpu, Texture};
    /// # use dmashare::frame::{Fourcc, Frame};
    /// # use dmashare::buffer::Buffer;
    /// # fn f(gpu: &Gpu, dma_buf: &Buffer) -> Result<Texture, Box<dyn std::error::Error>> {
    /// let frame = Frame::packed(640, 480, Fourcc::XRGB8888)?;
    /// let texture = gpu.import_texture(&frame, &[dma_buf])?;
    /// # Ok(texture) }
    /// ```
    pub fn import_texture(
        &self,
        frame: &Frame,
        buffers: &[impl Borrow<Buffer>],
    ) -> Result<Texture, VulkanError> {
        Ok(Texture(self.import(
            frame,
            &import::resolve(buffers),
            Use::Texture,
        )?))
    }

    /// The planes of a YUV frame as textures, in the order Y, U, V, whatever
    /// order they have in memory: NV12 gives a texture with Y as its red, and
    /// one of half the size with U as red and V as green; YU12 gives three;
    /// YUYV gives one of half the width, with Y of the left pixel, U, Y of the
    /// right one, and V as red, green, blue and alpha. NV21, YV12, UYVY and the
    /// others differ in memory only.
    ///
    /// The shader does the rest, and so says which matrix and range it takes.
    ///
    /// # Errors
    /// [`VulkanError::Format`] for what is no YUV format, and those of
    /// [`import_texture`](Gpu::import_texture).
    ///
    /// ```no_run
    /// // Not run: needs a dma-buf.
    /// # use dmashare::import::vulkan::{Gpu, Texture};
    /// # use dmashare::frame::{Fourcc, Frame};
    /// # use dmashare::buffer::Buffer;
    /// # fn f(gpu: &Gpu, camera: &Buffer) -> Result<(), Box<dyn std::error::Error>> {
    /// let frame = Frame::packed(640, 480, Fourcc::new(*b"NV12"))?;
    /// let planes = gpu.import_planes(&frame, &[camera])?;
    /// assert_eq!(planes[1].size(), (320, 240));
    /// # Ok(()) }
    /// ```
    pub fn import_planes(
        &self,
        frame: &Frame,
        buffers: &[impl Borrow<Buffer>],
    ) -> Result<Vec<Texture>, VulkanError> {
        let handles = import::check(frame, &import::resolve(buffers))?;
        let planes = planes::planes(frame.fourcc)
            .ok_or_else(|| self.0.no_format(frame.fourcc, Use::Texture))?;
        let textures = planes.iter().map(|plane| {
            let wanted = Wanted {
                frame: &plane.frame(frame),
                pixel: plane.pixel,
                usage: Use::Texture,
            };
            Ok(Texture(Image::import(&self.0, &wanted, &handles)?))
        });
        textures.collect()
    }

    /// The frame in these dma-bufs as something to draw into.
    ///
    /// Nothing is copied: what is drawn is in that memory once the
    /// [`Drawing`] is done. A stride that is a multiple of 256 bytes suits
    /// every driver.
    ///
    /// lavapipe, the software device, draws in squares of 4x4 pixels. Where
    /// width or height is no multiple of 4, it reads up to three pixels beyond
    /// each row and up to three rows below the last, and writes them back as
    /// they were. They must lie in the memory, and nobody else should write
    /// them meanwhile: allocate a target with width and height rounded up to 4.
    ///
    /// # Errors
    /// Those of [`import_texture`](Gpu::import_texture),
    /// [`VulkanError::Alignment`] for rows that start where lavapipe cannot
    /// draw, and [`VulkanError::Block`] where those pixels beyond are not there.
    ///
    /// ```no_run
    /// // Not run: needs a dma-buf.
    /// # use dmashare::import::vulkan::{Gpu, Target};
    /// # use dmashare::frame::{Fourcc, Frame};
    /// # use dmashare::buffer::Buffer;
    /// # fn f(gpu: &Gpu, dma_buf: &Buffer) -> Result<Target, Box<dyn std::error::Error>> {
    /// let frame = Frame::packed(640, 480, Fourcc::XRGB8888)?;
    /// let target = gpu.import_target(&frame, &[dma_buf])?;
    /// # Ok(target) }
    /// ```
    pub fn import_target(
        &self,
        frame: &Frame,
        buffers: &[impl Borrow<Buffer>],
    ) -> Result<Target, VulkanError> {
        let buffers = import::resolve(buffers);
        import::check(frame, &buffers)?;
        self.0.can_be_drawn_into(frame, &buffers)?;
        Ok(Target(self.import(frame, &buffers, Use::Target)?))
    }

    fn import(&self, frame: &Frame, buffers: &[&Buffer], usage: Use) -> Result<Image, VulkanError> {
        let handles = import::check(frame, buffers)?;
        let pixel = format::pixel(frame.fourcc);
        let pixel = pixel.ok_or_else(|| self.0.no_format(frame.fourcc, usage))?;
        let wanted = Wanted {
            frame,
            pixel,
            usage,
        };
        Image::import(&self.0, &wanted, &handles)
    }

    /// Waits until all that was drawn is in memory.
    ///
    /// # Errors
    /// [`VulkanError::Vulkan`] where the device was lost.
    ///
    /// ```no_run
    /// // Not run: needs a driver that imports dma-bufs.
    /// # fn f(gpu: &dmashare::import::vulkan::Gpu) -> Result<(), dmashare::import::vulkan::VulkanError> {
    /// gpu.finish()
    /// # }
    /// ```
    pub fn finish(&self) -> Result<(), VulkanError> {
        self.0.wait_for(self.0.last.get(), None).map(|_| ())
    }
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu({self})")
    }
}

impl Inner {
    /// The device with nothing made on it.
    fn new(instance: Instance, picked: Picked) -> Result<Inner, VulkanError> {
        let native_fences = picked.has_semaphore_fd && has_sync_files(&instance.raw, picked.raw);
        let mut names: Vec<_> = device::NEEDED.iter().map(|name| name.as_ptr()).collect();
        if native_fences {
            names.push(ash::khr::external_semaphore_fd::NAME.as_ptr());
        }
        let queues = [vk::DeviceQueueCreateInfo::default()
            .queue_family_index(picked.family)
            .queue_priorities(&[1.0])];
        // Every device of 1.2 has the first, and of an extension each has that
        // for which it is there.
        let mut counts = vk::PhysicalDeviceVulkan12Features::default().timeline_semaphore(true);
        let mut rendering =
            vk::PhysicalDeviceDynamicRenderingFeatures::default().dynamic_rendering(true);
        let mut sync = vk::PhysicalDeviceSynchronization2Features::default().synchronization2(true);
        // It keeps a shader that reads beyond a texture from the memory there.
        let mut robust =
            vk::PhysicalDeviceImageRobustnessFeatures::default().robust_image_access(true);
        let create = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_extension_names(&names)
            .push_next(&mut counts)
            .push_next(&mut rendering)
            .push_next(&mut sync)
            .push_next(&mut robust);
        // SAFETY: the device is of this instance and has what is asked for; the
        // structs are alive for the call.
        let device = unsafe { instance.raw.create_device(picked.raw, &create, None) }
            .map_err(VulkanError::failed("vkCreateDevice", &picked.name))?;
        // SAFETY: the device was made with one queue of this family.
        let queue = unsafe { device.get_device_queue(picked.family, 0) };
        let raw = &instance.raw;
        Ok(Inner {
            memory_fd: ash::khr::external_memory_fd::Device::new(raw, &device),
            rendering: ash::khr::dynamic_rendering::Device::new(raw, &device),
            sync: ash::khr::synchronization2::Device::new(raw, &device),
            drm_modifier: ash::ext::image_drm_format_modifier::Device::new(raw, &device),
            semaphore_fd: native_fences
                .then(|| ash::khr::external_semaphore_fd::Device::new(raw, &device)),
            physical: picked.raw,
            family: picked.family,
            queue,
            name: picked.name,
            is_lavapipe: picked.is_lavapipe,
            layouts: Layouts::default(),
            commands: vk::CommandPool::null(),
            timeline: vk::Semaphore::null(),
            last: Cell::new(0),
            jobs: RefCell::default(),
            unwanted: RefCell::default(),
            device,
            instance,
        })
    }

    /// Makes what every draw needs.
    fn set_up(&mut self) -> Result<(), VulkanError> {
        let pool = vk::CommandPoolCreateInfo::default()
            .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER)
            .queue_family_index(self.family);
        // SAFETY: the device has a queue of this family.
        self.commands = unsafe { self.device.create_command_pool(&pool, None) }
            .map_err(VulkanError::failed("vkCreateCommandPool", &self.name))?;
        let mut counts =
            vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
        let timeline = vk::SemaphoreCreateInfo::default().push_next(&mut counts);
        // SAFETY: the device has timeline semaphores enabled.
        self.timeline = unsafe { self.device.create_semaphore(&timeline, None) }
            .map_err(VulkanError::failed("vkCreateSemaphore", &self.name))?;
        self.layouts.set_up(&self.device, &self.name)
    }
}

/// Whether semaphores can be made of sync_files, and the other way round.
fn has_sync_files(instance: &ash::Instance, device: vk::PhysicalDevice) -> bool {
    let asked = vk::PhysicalDeviceExternalSemaphoreInfo::default()
        .handle_type(vk::ExternalSemaphoreHandleTypeFlags::SYNC_FD);
    let mut answer = vk::ExternalSemaphoreProperties::default();
    // SAFETY: the device is of this instance.
    unsafe {
        instance.get_physical_device_external_semaphore_properties(device, &asked, &mut answer);
    };
    answer.external_semaphore_features.contains(
        vk::ExternalSemaphoreFeatureFlags::IMPORTABLE
            | vk::ExternalSemaphoreFeatureFlags::EXPORTABLE,
    )
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: everything was made on this device and is destroyed once,
        // after the device is done with it; of what was not made there is a
        // null handle. Images and shaders hold this, so there are none left.
        unsafe {
            let _ = self.device.device_wait_idle();
            for job in self.jobs.get_mut().drain(..) {
                job.destroy(&self.device);
            }
            for (_, semaphore) in self.unwanted.get_mut().drain(..) {
                self.device.destroy_semaphore(semaphore, None);
            }
            self.layouts.destroy(&self.device);
            self.device.destroy_semaphore(self.timeline, None);
            // With its command buffers.
            self.device.destroy_command_pool(self.commands, None);
            self.device.destroy_device(None);
        }
    }
}
