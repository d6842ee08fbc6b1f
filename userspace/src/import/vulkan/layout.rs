//! What shaders find where: the same for all of them.
//!
//! Set 0 has the textures, set 1 the samplers. A descriptor that a shader does
//! not use need not be there, so one layout serves every number of textures.

use ash::vk;

use super::error::VulkanError;
use super::spirv::MAX_TEXTURES;

/// The layouts, and the set with the samplers. Null until they are made.
#[derive(Default)]
pub(super) struct Layouts {
    pub(super) pipeline: vk::PipelineLayout,
    pub(super) textures: vk::DescriptorSetLayout,
    pub(super) samplers: vk::DescriptorSet,
    samplers_layout: vk::DescriptorSetLayout,
    samplers_pool: vk::DescriptorPool,
    /// The nearest texel, and a linear mix.
    two_samplers: [vk::Sampler; 2],
}

impl Layouts {
    /// Makes them; what was made is destroyed by [`Layouts::destroy`], also
    /// where this fails.
    pub(super) fn set_up(&mut self, device: &ash::Device, on: &str) -> Result<(), VulkanError> {
        let filters = [vk::Filter::NEAREST, vk::Filter::LINEAR];
        for (sampler, filter) in self.two_samplers.iter_mut().zip(filters) {
            let create = vk::SamplerCreateInfo::default()
                .mag_filter(filter)
                .min_filter(filter)
                .address_mode_u(vk::SamplerAddressMode::CLAMP_TO_EDGE)
                .address_mode_v(vk::SamplerAddressMode::CLAMP_TO_EDGE)
                .address_mode_w(vk::SamplerAddressMode::CLAMP_TO_EDGE);
            // SAFETY: the struct is complete, and wants no feature.
            *sampler = unsafe { device.create_sampler(&create, None) }
                .map_err(VulkanError::failed("vkCreateSampler", on))?;
        }

        let textures = (0..).take(MAX_TEXTURES).map(|binding| {
            descriptor(binding, vk::DescriptorType::SAMPLED_IMAGE).descriptor_count(1)
        });
        let textures = textures.collect::<Vec<_>>();
        let samplers = (0..)
            .zip(self.two_samplers.chunks(1))
            .map(|(binding, one)| {
                descriptor(binding, vk::DescriptorType::SAMPLER).immutable_samplers(one)
            });
        let samplers = samplers.collect::<Vec<_>>();
        let sets = [
            (&mut self.textures, &textures),
            (&mut self.samplers_layout, &samplers),
        ];
        for (set, bindings) in sets {
            let create = vk::DescriptorSetLayoutCreateInfo::default().bindings(bindings);
            // SAFETY: the bindings are complete, and the samplers alive.
            *set = unsafe { device.create_descriptor_set_layout(&create, None) }
                .map_err(VulkanError::failed("vkCreateDescriptorSetLayout", on))?;
        }

        let sets = [self.textures, self.samplers_layout];
        let create = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
        // SAFETY: both layouts are alive.
        self.pipeline = unsafe { device.create_pipeline_layout(&create, None) }
            .map_err(VulkanError::failed("vkCreatePipelineLayout", on))?;
        self.fill_samplers(device, on)
    }

    /// Allocates the set with the samplers, which its layout fills.
    fn fill_samplers(&mut self, device: &ash::Device, on: &str) -> Result<(), VulkanError> {
        let sizes = [vk::DescriptorPoolSize::default()
            .ty(vk::DescriptorType::SAMPLER)
            .descriptor_count(2)];
        self.samplers_pool = pool(device, &sizes, on)?;
        self.samplers = set(device, self.samplers_pool, self.samplers_layout, on)?;
        Ok(())
    }

    /// Destroys them.
    ///
    /// # Safety
    /// They are of this device, which uses none of them, and neither does
    /// anyone later.
    pub(super) unsafe fn destroy(&self, device: &ash::Device) {
        // SAFETY: the caller's promise.
        unsafe {
            device.destroy_descriptor_pool(self.samplers_pool, None);
            device.destroy_pipeline_layout(self.pipeline, None);
            device.destroy_descriptor_set_layout(self.textures, None);
            device.destroy_descriptor_set_layout(self.samplers_layout, None);
            for sampler in self.two_samplers {
                device.destroy_sampler(sampler, None);
            }
        }
    }
}

fn descriptor<'a>(binding: u32, ty: vk::DescriptorType) -> vk::DescriptorSetLayoutBinding<'a> {
    vk::DescriptorSetLayoutBinding::default()
        .binding(binding)
        .descriptor_type(ty)
        .stage_flags(vk::ShaderStageFlags::FRAGMENT)
}

/// A pool for one set.
pub(super) fn pool(
    device: &ash::Device,
    sizes: &[vk::DescriptorPoolSize],
    on: &str,
) -> Result<vk::DescriptorPool, VulkanError> {
    let create = vk::DescriptorPoolCreateInfo::default()
        .max_sets(1)
        .pool_sizes(sizes);
    // SAFETY: the struct is complete.
    unsafe { device.create_descriptor_pool(&create, None) }
        .map_err(VulkanError::failed("vkCreateDescriptorPool", on))
}

/// The one set of a pool.
pub(super) fn set(
    device: &ash::Device,
    pool: vk::DescriptorPool,
    layout: vk::DescriptorSetLayout,
    on: &str,
) -> Result<vk::DescriptorSet, VulkanError> {
    let layouts = [layout];
    let allocate = vk::DescriptorSetAllocateInfo::default()
        .descriptor_pool(pool)
        .set_layouts(&layouts);
    // SAFETY: pool and layout are alive; a pool that is full is an error.
    let sets = unsafe { device.allocate_descriptor_sets(&allocate) };
    let sets = sets.map_err(VulkanError::failed("vkAllocateDescriptorSets", on))?;
    Ok(sets[0])
}
