//! Reading frames and drawing another.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use ash::vk;

use super::error::VulkanError;
use super::image::{COLOR, Image};
use super::job::{Drawing, Job};
use super::spirv::{self, FULL_SCREEN, Interface};
use super::{Gpu, Inner};
use crate::buffer::Buffer;
use crate::fence::Fence;
use crate::frame::Frame;
use crate::import::{self, Part, words};

/// A frame that shaders can read; made by [`Gpu::import_texture`] and
/// [`Gpu::import_planes`].
///
/// To drop it waits until the device is done with it.
pub struct Texture(pub(super) Image);

/// A frame that can be drawn into; made by [`Gpu::import_target`] and
/// [`Gpu::allocate`].
///
/// To drop it waits until the device is done with it.
pub struct Target(pub(super) Image);

/// A fragment shader that covers a whole target; made by [`Gpu::shader`].
///
/// To drop it waits until the device is done with it.
pub struct Shader {
    gpu: Rc<Inner>,
    module: vk::ShaderModule,
    interface: Interface,
    /// One for each format of target.
    pipelines: RefCell<BTreeMap<vk::Format, vk::Pipeline>>,
    /// The job that uses it last.
    last: Cell<u64>,
}

impl Texture {
    /// Width and height in texels.
    ///
    /// ```no_run
    /// // Not run: needs an imported dma-buf.
    /// # fn f(texture: &dmashare::import::vulkan::Texture) {
    /// let (width, height) = texture.size();
    /// # }
    /// ```
    pub fn size(&self) -> (u32, u32) {
        self.0.size
    }
}

impl Target {
    /// Width and height in pixels.
    ///
    /// ```no_run
    /// // Not run: needs an imported dma-buf.
    /// # fn f(target: &dmashare::import::vulkan::Target) {
    /// let (width, height) = target.size();
    /// # }
    /// ```
    pub fn size(&self) -> (u32, u32) {
        self.0.size
    }
}

impl Shader {
    /// How many textures it reads, counted to the last.
    ///
    /// ```no_run
    /// // Not run: needs a driver that imports dma-bufs.
    /// # fn f(shader: &dmashare::import::vulkan::Shader) {
    /// assert!(shader.textures() <= dmashare::import::vulkan::MAX_TEXTURES);
    /// # }
    /// ```
    pub fn textures(&self) -> usize {
        self.interface.textures
    }
}

impl Gpu {
    /// Takes a fragment shader to [`draw`](Gpu::draw) with, as the words of a
    /// SPIR-V module.
    ///
    /// Set 0 has the textures of a draw, from binding 0 on; set 1 has a sampler
    /// of the nearest texel at binding 0, and a linear one at 1, both clamped to
    /// the edge. Location 0 is the colour. `FragCoord` is the pixel of the
    /// target, counted from row 0 of its memory, plus one half. There are no
    /// buffers and no push constants, and textures and samplers are not
    /// combined. A texel beyond a texture reads as 0.
    ///
    /// # Safety
    /// The driver believes a shader. The module must be
    /// [valid](https://registry.khronos.org/vulkan/specs/latest/html/vkspec.html#spirvenv)
    /// for Vulkan 1.2, the resources of set 0 must be 2D textures of floats,
    /// and those of set 1 samplers. What it declares is checked; what its
    /// instructions do is not. A compiler such as naga writes valid modules.
    ///
    /// # Errors
    /// [`VulkanError::Shader`] for what is no fragment shader or wants what is
    /// not there, and [`VulkanError::Vulkan`].
    ///
    /// ```no_run
    /// // Not run: needs a driver that imports dma-bufs, and a compiler.
    /// # use dmashare::import::vulkan::{Gpu, VulkanError};
    /// # fn f(gpu: &Gpu, compile: impl Fn(&str) -> Vec<u32>) -> Result<(), VulkanError> {
    /// let words = compile(
    ///     "@group(0) @binding(0) var frame: texture_2d<f32>;
    ///      @fragment fn main(@builtin(position) at: vec4<f32>) -> @location(0) vec4<f32> {
    ///          return textureLoad(frame, vec2<i32>(at.xy), 0);
    ///      }",
    /// );
    /// // SAFETY: a compiler's output.
    /// let copy = unsafe { gpu.shader(&words) }?;
    /// assert_eq!(copy.textures(), 1);
    /// # Ok(()) }
    /// ```
    pub unsafe fn shader(&self, spirv: &[u32]) -> Result<Shader, VulkanError> {
        let interface =
            spirv::interface(spirv).map_err(|problem| VulkanError::Shader { problem })?;
        Ok(Shader {
            gpu: Rc::clone(&self.0),
            // SAFETY: the caller's promise.
            module: unsafe { self.0.module(spirv) }?,
            interface,
            pipelines: RefCell::default(),
            last: Cell::new(0),
        })
    }

    /// Draws the whole of `target` with `shader`, which reads `textures`, after
    /// these fences have signalled.
    ///
    /// A fence that never signals holds up all that comes after, and whoever drops
    /// what is in use: [wait](Fence::wait), with a timeout, for one that came from
    /// a peer.
    ///
    /// It returns before all is drawn; see [`Drawing`]. Where the device does
    /// not wait for fences itself ([`has_native_fences`](Gpu::has_native_fences)),
    /// this waits for them.
    ///
    /// # Errors
    /// [`VulkanError::OtherGpu`] for what was made by another `Gpu`,
    /// [`VulkanError::Textures`] for too few or too many of them,
    /// [`VulkanError::Fence`] for one that failed, where this waits, and
    /// [`VulkanError::Vulkan`].
    ///
    /// ```no_run
    /// // Not run: needs imported dma-bufs.
    /// use dmashare::buffer::{Access, Buffer};
    /// use dmashare::fence::Fence;
    /// use dmashare::import::vulkan::{Gpu, Shader, Target, Texture};
    ///
    /// /// Draws what a driver may still be writing.
    /// fn draw(
    ///     gpu: &Gpu,
    ///     (camera, texture): (&Buffer, &Texture),
    ///     target: &Target,
    ///     shader: &Shader,
    /// ) -> Result<(), Box<dyn std::error::Error>> {
    ///     let written = Fence::export(camera, Access::Read)?;
    ///     gpu.draw(&[texture], target, shader, &[&written])?.wait(None)?;
    ///     Ok(())
    /// }
    /// ```
    pub fn draw(
        &self,
        textures: &[&Texture],
        target: &Target,
        shader: &Shader,
        after: &[&Fence],
    ) -> Result<Drawing, VulkanError> {
        self.draw_part(textures, target, shader, after, Part::whole(target.size()))
    }

    /// Draws a part of `target` as [`draw`](Gpu::draw) does all of it. The rest
    /// stays as it is; what of the part lies beyond the target is left out.
    ///
    /// # Errors
    /// Those of [`draw`](Gpu::draw).
    ///
    /// ```no_run
    /// // Not run: needs imported dma-bufs.
    /// # use dmashare::import::Part;
    /// # use dmashare::import::vulkan::{Gpu, Shader, Target, Texture, VulkanError};
    /// # fn f(gpu: &Gpu, texture: &Texture, target: &Target, shader: &Shader) -> Result<(), VulkanError> {
    /// let changed = Part { x: 64, y: 0, width: 320, height: 240 };
    /// gpu.draw_part(&[texture], target, shader, &[], changed)?.wait(None)?;
    /// # Ok(()) }
    /// ```
    pub fn draw_part(
        &self,
        textures: &[&Texture],
        target: &Target,
        shader: &Shader,
        after: &[&Fence],
        part: Part,
    ) -> Result<Drawing, VulkanError> {
        let gpu = &self.0;
        let mut owners = textures.iter().map(|texture| ("texture", &texture.0.gpu));
        let others = [("target", &target.0.gpu), ("shader", &shader.gpu)];
        let of_another = owners.find(|(_, of)| !Rc::ptr_eq(of, gpu));
        let of_another = of_another.or(others.into_iter().find(|(_, of)| !Rc::ptr_eq(of, gpu)));
        if let Some((what, _)) = of_another {
            return Err(VulkanError::OtherGpu { what });
        }
        let wants = shader.interface.textures;
        if textures.len() < wants || textures.len() > spirv::MAX_TEXTURES {
            return Err(VulkanError::Textures {
                wants,
                given: textures.len(),
            });
        }
        let pipeline = shader.pipeline(target.0.format)?;
        let images: Vec<&Image> = textures.iter().map(|texture| &texture.0).collect();
        let drawing = gpu.run(after, |job| {
            gpu.write_textures(job, &images);
            gpu.record_draw(job, &images, &target.0, pipeline, part);
        })?;
        let number = gpu.last.get();
        let used = images.iter().map(|image| &image.last);
        for last in used.chain([&target.0.last, &shader.last]) {
            last.set(number);
        }
        Ok(drawing)
    }
}

/// Who has an image between two draws.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// To the device, from others.
    Acquire,
    /// To others, from the device.
    Release,
    /// To others, where nobody had it yet.
    First,
}

impl Inner {
    /// Tells a job's shader which textures there are.
    fn write_textures(&self, job: &Job, textures: &[&Image]) {
        let images = textures.iter().map(|image| {
            [vk::DescriptorImageInfo::default()
                .image_view(image.view)
                .image_layout(vk::ImageLayout::SHADER_READ_ONLY_OPTIMAL)]
        });
        let images = images.collect::<Vec<_>>();
        let writes = (0..).zip(&images).map(|(binding, image)| {
            vk::WriteDescriptorSet::default()
                .dst_set(job.textures)
                .dst_binding(binding)
                .descriptor_type(vk::DescriptorType::SAMPLED_IMAGE)
                .image_info(image)
        });
        let writes = writes.collect::<Vec<_>>();
        // SAFETY: set and views are alive, and no job that is not done uses the
        // set.
        unsafe { self.device.update_descriptor_sets(&writes, &[]) };
    }

    fn record_draw(
        &self,
        job: &Job,
        textures: &[&Image],
        target: &Image,
        pipeline: vk::Pipeline,
        part: Part,
    ) {
        // One that is given twice changes hands once.
        let mut read: Vec<vk::Image> = textures.iter().map(|image| image.raw).collect();
        read.sort();
        read.dedup();
        let turns = |turn| {
            let reads = read
                .iter()
                .map(|image| self.barrier(*image, vk::ImageLayout::SHADER_READ_ONLY_OPTIMAL, turn));
            let layout = vk::ImageLayout::COLOR_ATTACHMENT_OPTIMAL;
            let write = self.barrier(target.raw, layout, turn);
            reads.chain([write]).collect::<Vec<_>>()
        };
        let (width, height) = target.size;
        let part = part.within(target.size);
        let area = vk::Rect2D {
            // Within the target, whose sides have 31 bits.
            offset: vk::Offset2D {
                x: part.x.cast_signed(),
                y: part.y.cast_signed(),
            },
            extent: vk::Extent2D {
                width: part.width,
                height: part.height,
            },
        };
        let viewport = vk::Viewport {
            x: 0.0,
            y: 0.0,
            // A device's limit for a target is far below what a float counts.
            width: width as f32,
            height: height as f32,
            min_depth: 0.0,
            max_depth: 1.0,
        };
        let color = [vk::RenderingAttachmentInfo::default()
            .image_view(target.view)
            .image_layout(vk::ImageLayout::COLOR_ATTACHMENT_OPTIMAL)
            // What the shader discards stays as it was.
            .load_op(vk::AttachmentLoadOp::LOAD)
            .store_op(vk::AttachmentStoreOp::STORE)];
        // It may not be empty; what the scissor leaves may.
        let rendered = match part.width.min(part.height) {
            0 => vk::Rect2D::default().extent(vk::Extent2D { width, height }),
            _ => area,
        };
        let rendering = vk::RenderingInfo::default()
            .render_area(rendered)
            .layer_count(1)
            .color_attachments(&color);
        let sets = [job.textures, self.layouts.samplers];
        let (device, commands) = (&self.device, job.commands);
        let graphics = vk::PipelineBindPoint::GRAPHICS;
        self.record_barriers(job, &turns(Turn::Acquire));
        // SAFETY: the commands are being recorded, and everything that they
        // name is of this device and alive until they are done.
        unsafe {
            self.rendering.cmd_begin_rendering(commands, &rendering);
            device.cmd_bind_pipeline(commands, graphics, pipeline);
            device.cmd_bind_descriptor_sets(
                commands,
                graphics,
                self.layouts.pipeline,
                0,
                &sets,
                &[],
            );
            device.cmd_set_viewport(commands, 0, &[viewport]);
            device.cmd_set_scissor(commands, 0, &[area]);
            device.cmd_draw(commands, 3, 1, 0, 0);
            self.rendering.cmd_end_rendering(commands);
        }
        self.record_barriers(job, &turns(Turn::Release));
    }

    /// An image that is used in this layout changes hands.
    ///
    /// Others have it in the general layout, in which its contents are kept.
    pub(super) fn barrier(
        &self,
        image: vk::Image,
        layout: vk::ImageLayout,
        turn: Turn,
    ) -> vk::ImageMemoryBarrier2<'static> {
        let (stage, access) = match layout {
            vk::ImageLayout::SHADER_READ_ONLY_OPTIMAL => (
                vk::PipelineStageFlags2::FRAGMENT_SHADER,
                vk::AccessFlags2::SHADER_SAMPLED_READ,
            ),
            vk::ImageLayout::COLOR_ATTACHMENT_OPTIMAL => (
                vk::PipelineStageFlags2::COLOR_ATTACHMENT_OUTPUT,
                vk::AccessFlags2::COLOR_ATTACHMENT_READ | vk::AccessFlags2::COLOR_ATTACHMENT_WRITE,
            ),
            _ => (vk::PipelineStageFlags2::NONE, vk::AccessFlags2::NONE),
        };
        // Whatever was before, the fences included, is over before the layout
        // changes; and that is over before the job's own fence signals.
        let all = vk::PipelineStageFlags2::ALL_COMMANDS;
        let others = vk::ImageLayout::GENERAL;
        let barrier = vk::ImageMemoryBarrier2::default()
            .image(image)
            .subresource_range(COLOR);
        match turn {
            Turn::Acquire => barrier
                .src_stage_mask(all)
                .dst_stage_mask(stage)
                .dst_access_mask(access)
                .old_layout(others)
                .new_layout(layout)
                .src_queue_family_index(vk::QUEUE_FAMILY_FOREIGN_EXT)
                .dst_queue_family_index(self.family),
            Turn::Release | Turn::First => barrier
                .src_stage_mask(stage)
                .src_access_mask(access)
                .dst_stage_mask(all)
                .old_layout(match turn {
                    Turn::First => vk::ImageLayout::UNDEFINED,
                    _ => layout,
                })
                .new_layout(others)
                .src_queue_family_index(self.family)
                .dst_queue_family_index(vk::QUEUE_FAMILY_FOREIGN_EXT),
        }
    }

    pub(super) fn record_barriers(&self, job: &Job, barriers: &[vk::ImageMemoryBarrier2<'_>]) {
        let dependency = vk::DependencyInfo::default().image_memory_barriers(barriers);
        // SAFETY: the commands are being recorded, and the images alive until
        // they are done.
        unsafe { self.sync.cmd_pipeline_barrier2(job.commands, &dependency) };
    }

    /// A module of these words.
    ///
    /// # Safety
    /// They are valid SPIR-V for this device.
    unsafe fn module(&self, words: &[u32]) -> Result<vk::ShaderModule, VulkanError> {
        let create = vk::ShaderModuleCreateInfo::default().code(words);
        // SAFETY: the caller's promise.
        unsafe { self.device.create_shader_module(&create, None) }
            .map_err(VulkanError::failed("vkCreateShaderModule", &self.name))
    }

    /// Whether the device draws within the frame and its memory.
    ///
    /// lavapipe, that is llvmpipe, stores four pixels at a time with
    /// instructions that want their address aligned, and the process ends by
    /// SIGSEGV where it is not. It loads, blends and stores squares of 4 pixels
    /// whole (`LP_RASTER_BLOCK_SIZE`): it has room for them in what it
    /// allocates itself, and does not ask whether an import has it. Seen with
    /// Mesa 25.
    pub(super) fn can_be_drawn_into(
        &self,
        frame: &Frame,
        buffers: &[&Buffer],
    ) -> Result<(), VulkanError> {
        if !self.is_lavapipe {
            return Ok(());
        }
        let mut starts = frame.planes.iter().flat_map(|p| [p.stride, p.offset]);
        if !starts.all(|start| start.is_multiple_of(ALIGNMENT)) {
            return Err(VulkanError::Alignment {
                on: self.name.clone(),
                frame: words(frame),
                alignment: ALIGNMENT,
            });
        }
        import::check(&in_blocks(frame), buffers).map_err(|reason| VulkanError::Block {
            on: self.name.clone(),
            frame: words(frame),
            block: BLOCK,
            reason,
        })?;
        Ok(())
    }
}

/// What stride and offset of lavapipe's targets must be multiples of, in bytes.
const ALIGNMENT: u32 = 16;

/// The edge of the squares that lavapipe draws, in pixels.
pub(super) const BLOCK: u32 = 4;

/// The frame with its size rounded up to whole blocks.
fn in_blocks(frame: &Frame) -> Frame {
    let whole = |size: u32| size.checked_next_multiple_of(BLOCK).unwrap_or(u32::MAX);
    Frame {
        width: whole(frame.width),
        height: whole(frame.height),
        ..frame.clone()
    }
}

impl Shader {
    /// What draws into targets of this format.
    fn pipeline(&self, format: vk::Format) -> Result<vk::Pipeline, VulkanError> {
        if let Some(pipeline) = self.pipelines.borrow().get(&format) {
            return Ok(*pipeline);
        }
        // SAFETY: it was compiled of valid source, and is compared to that in
        // the tests.
        let vertex = unsafe { self.gpu.module(FULL_SCREEN) }?;
        let pipeline = self.new_pipeline(vertex, format);
        // SAFETY: a pipeline does not need its modules any more.
        unsafe { self.gpu.device.destroy_shader_module(vertex, None) };
        let pipeline = pipeline.map_err(VulkanError::failed(
            "vkCreateGraphicsPipelines",
            &self.gpu.name,
        ))?;
        self.pipelines.borrow_mut().insert(format, pipeline);
        Ok(pipeline)
    }

    fn new_pipeline(
        &self,
        vertex: vk::ShaderModule,
        format: vk::Format,
    ) -> Result<vk::Pipeline, vk::Result> {
        let stages = [
            vk::PipelineShaderStageCreateInfo::default()
                .stage(vk::ShaderStageFlags::VERTEX)
                .module(vertex)
                .name(c"main"),
            vk::PipelineShaderStageCreateInfo::default()
                .stage(vk::ShaderStageFlags::FRAGMENT)
                .module(self.module)
                .name(&self.interface.entry),
        ];
        let input = vk::PipelineVertexInputStateCreateInfo::default();
        let assembly = vk::PipelineInputAssemblyStateCreateInfo::default()
            .topology(vk::PrimitiveTopology::TRIANGLE_LIST);
        let viewport = vk::PipelineViewportStateCreateInfo::default()
            .viewport_count(1)
            .scissor_count(1);
        let raster = vk::PipelineRasterizationStateCreateInfo::default().line_width(1.0);
        let samples = vk::PipelineMultisampleStateCreateInfo::default()
            .rasterization_samples(vk::SampleCountFlags::TYPE_1);
        // Nothing between what the shader says and the memory.
        let blend = [vk::PipelineColorBlendAttachmentState::default()
            .color_write_mask(vk::ColorComponentFlags::RGBA)];
        let blend = vk::PipelineColorBlendStateCreateInfo::default().attachments(&blend);
        let dynamic = [vk::DynamicState::VIEWPORT, vk::DynamicState::SCISSOR];
        let dynamic = vk::PipelineDynamicStateCreateInfo::default().dynamic_states(&dynamic);
        let formats = [format];
        let mut rendering =
            vk::PipelineRenderingCreateInfo::default().color_attachment_formats(&formats);
        let create = [vk::GraphicsPipelineCreateInfo::default()
            .stages(&stages)
            .vertex_input_state(&input)
            .input_assembly_state(&assembly)
            .viewport_state(&viewport)
            .rasterization_state(&raster)
            .multisample_state(&samples)
            .color_blend_state(&blend)
            .dynamic_state(&dynamic)
            .layout(self.gpu.layouts.pipeline)
            .push_next(&mut rendering)];
        let cache = vk::PipelineCache::null();
        // SAFETY: the structs are complete, modules and layout alive.
        match unsafe {
            self.gpu
                .device
                .create_graphics_pipelines(cache, &create, None)
        } {
            Ok(pipelines) => Ok(pipelines[0]),
            // One was asked for, so none was made.
            Err((_, code)) => Err(code),
        }
    }
}

impl Drop for Shader {
    fn drop(&mut self) {
        // Of a device that was lost nothing is in use.
        let _ = self.gpu.wait_for(self.last.get(), None);
        // SAFETY: made on this device, not in use, destroyed once.
        unsafe {
            for pipeline in self.pipelines.get_mut().values() {
                self.gpu.device.destroy_pipeline(*pipeline, None);
            }
            self.gpu.device.destroy_shader_module(self.module, None);
        }
    }
}

impl fmt::Debug for Texture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (width, height) = self.size();
        write!(f, "Texture({width}x{height} on {})", self.0.gpu.name)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (width, height) = self.size();
        write!(f, "Target({width}x{height} on {})", self.0.gpu.name)
    }
}

impl fmt::Debug for Shader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shader(on {})", self.gpu.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Fourcc, FrameError};

    #[test]
    fn blocks_at_the_edges_are_whole() {
        let frame = Frame::packed(1024, 1, Fourcc::XRGB8888).unwrap();
        let short = FrameError::Size {
            plane: 0,
            end: 4 * 4096,
            size: 4096,
        };
        assert_eq!(in_blocks(&frame).check(&[4096]), Err(short));
        assert_eq!(in_blocks(&frame).check(&[4 * 4096]), Ok(()));
        // Nor may the next row be where the last pixels of one are written back.
        let odd = Frame::packed(1022, 4, Fourcc::XRGB8888).unwrap();
        assert!(matches!(
            in_blocks(&odd).check(&[1 << 20]),
            Err(FrameError::Stride { .. })
        ));
        let widest = Frame {
            width: u32::MAX,
            ..odd
        };
        assert!(in_blocks(&widest).check(&[u64::MAX]).is_err());
    }
}
