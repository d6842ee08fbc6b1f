//! Work that was given to the device, and when it is done.
//!
//! Every job raises one timeline semaphore by one, so a number tells which are
//! done. What a job needs is kept and used again once it is.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use ash::vk;
use rustix::io::fcntl_dupfd_cloexec;

use super::Inner;
use super::error::VulkanError;
use super::layout;
use super::spirv::TEXTURE_COUNT;
use crate::fence::{Fence, FenceError};

/// What a job is made of.
pub(super) struct Job {
    pub(super) commands: vk::CommandBuffer,
    /// The textures that its shader reads.
    pub(super) textures: vk::DescriptorSet,
    pool: vk::DescriptorPool,
    /// What it waits for.
    waits: Vec<vk::Semaphore>,
    /// Its number, if it was submitted.
    number: u64,
}

impl Job {
    /// Destroys what is not of the pool of commands.
    ///
    /// # Safety
    /// It is of this device, which does not use it any more.
    pub(super) unsafe fn destroy(self, device: &ash::Device) {
        // SAFETY: the caller's promise.
        unsafe {
            device.destroy_descriptor_pool(self.pool, None);
            for semaphore in self.waits {
                device.destroy_semaphore(semaphore, None);
            }
        }
    }
}

impl Inner {
    /// Has the device do what `record` records, after these fences.
    pub(super) fn run(
        self: &Rc<Inner>,
        waits: &[&Fence],
        record: impl FnOnce(&Job),
    ) -> Result<Drawing, VulkanError> {
        let mut job = self.idle_job()?;
        let result = self.submit(&mut job, waits, record);
        // In both cases: what failed was not submitted, and is cleared before
        // it is used again.
        self.jobs.borrow_mut().push(job);
        result
    }

    fn submit(
        self: &Rc<Inner>,
        job: &mut Job,
        waits: &[&Fence],
        record: impl FnOnce(&Job),
    ) -> Result<Drawing, VulkanError> {
        for fence in waits {
            match &self.semaphore_fd {
                Some(functions) => job.waits.push(self.wait_semaphore(functions, fence)?),
                None => fence.wait(None)?,
            }
        }
        self.record(job, record)?;

        let number = self.last.get() + 1;
        let mut drawing = Drawing {
            gpu: Rc::clone(self),
            number: 0,
            semaphore: self.signal_semaphore()?,
        };
        let all = vk::PipelineStageFlags2::ALL_COMMANDS;
        let of = |semaphore| {
            vk::SemaphoreSubmitInfo::default()
                .semaphore(semaphore)
                .stage_mask(all)
        };
        let waits: Vec<_> = job.waits.iter().map(|semaphore| of(*semaphore)).collect();
        let mut signals = vec![of(self.timeline).value(number)];
        signals.extend(drawing.semaphore.map(of));
        let commands = [vk::CommandBufferSubmitInfo::default().command_buffer(job.commands)];
        let submit = [vk::SubmitInfo2::default()
            .wait_semaphore_infos(&waits)
            .command_buffer_infos(&commands)
            .signal_semaphore_infos(&signals)];
        // SAFETY: the commands are recorded, all that they use is alive and is
        // kept so until they are done, and the queue is of this thread.
        unsafe {
            self.sync
                .queue_submit2(self.queue, &submit, vk::Fence::null())
        }
        .map_err(VulkanError::failed("vkQueueSubmit2KHR", &self.name))?;
        self.last.set(number);
        job.number = number;
        drawing.number = number;
        Ok(drawing)
    }

    fn record(&self, job: &Job, record: impl FnOnce(&Job)) -> Result<(), VulkanError> {
        let begin = vk::CommandBufferBeginInfo::default()
            .flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // SAFETY: the device does not use these commands; to begin resets them.
        unsafe { self.device.begin_command_buffer(job.commands, &begin) }
            .map_err(VulkanError::failed("vkBeginCommandBuffer", &self.name))?;
        record(job);
        // SAFETY: they were begun above.
        unsafe { self.device.end_command_buffer(job.commands) }
            .map_err(VulkanError::failed("vkEndCommandBuffer", &self.name))
    }

    /// A job that was done, or a new one.
    fn idle_job(&self) -> Result<Job, VulkanError> {
        let done = self.done()?;
        self.clear_unwanted(done);
        let mut jobs = self.jobs.borrow_mut();
        let Some(idle) = jobs.iter().position(|job| job.number <= done) else {
            return self.new_job();
        };
        let mut job = jobs.swap_remove(idle);
        job.number = 0;
        for semaphore in job.waits.drain(..) {
            // SAFETY: of this device, which is done with it.
            unsafe { self.device.destroy_semaphore(semaphore, None) };
        }
        Ok(job)
    }

    fn new_job(&self) -> Result<Job, VulkanError> {
        let allocate = vk::CommandBufferAllocateInfo::default()
            .command_pool(self.commands)
            .level(vk::CommandBufferLevel::PRIMARY)
            .command_buffer_count(1);
        let sizes = [vk::DescriptorPoolSize::default()
            .ty(vk::DescriptorType::SAMPLED_IMAGE)
            .descriptor_count(TEXTURE_COUNT)];
        let pool = layout::pool(&self.device, &sizes, &self.name)?;
        let mut job = Job {
            commands: vk::CommandBuffer::null(),
            textures: vk::DescriptorSet::null(),
            pool,
            waits: Vec::new(),
            number: 0,
        };
        let textures = layout::set(&self.device, pool, self.layouts.textures, &self.name);
        // SAFETY: the pool is alive.
        let commands = unsafe { self.device.allocate_command_buffers(&allocate) };
        let commands =
            commands.map_err(VulkanError::failed("vkAllocateCommandBuffers", &self.name));
        match (textures, commands) {
            (Ok(textures), Ok(commands)) => {
                (job.textures, job.commands) = (textures, commands[0]);
                Ok(job)
            }
            (Err(error), _) | (_, Err(error)) => {
                // SAFETY: the device never used it.
                unsafe { job.destroy(&self.device) };
                Err(error)
            }
        }
    }

    /// Destroys those that nobody will ask for, once they are signalled.
    fn clear_unwanted(&self, done: u64) {
        self.unwanted.borrow_mut().retain(|(number, semaphore)| {
            if *number > done {
                return true;
            }
            // SAFETY: of this device, which is done with it.
            unsafe { self.device.destroy_semaphore(*semaphore, None) };
            false
        });
    }

    /// A semaphore that is signalled when this fence is.
    fn wait_semaphore(
        &self,
        functions: &ash::khr::external_semaphore_fd::Device,
        fence: &Fence,
    ) -> Result<vk::Semaphore, VulkanError> {
        let copy = fcntl_dupfd_cloexec(fence.as_fd(), 0).map_err(|source| FenceError::Os {
            operation: "fcntl(F_DUPFD_CLOEXEC)",
            name: "fence".to_owned(),
            source,
        })?;
        let create = vk::SemaphoreCreateInfo::default();
        // SAFETY: the struct is complete.
        let semaphore = unsafe { self.device.create_semaphore(&create, None) }
            .map_err(VulkanError::failed("vkCreateSemaphore", &self.name))?;
        let import = vk::ImportSemaphoreFdInfoKHR::default()
            .semaphore(semaphore)
            // A sync_file signals once, so this is the only kind there is.
            .flags(vk::SemaphoreImportFlags::TEMPORARY)
            .handle_type(vk::ExternalSemaphoreHandleTypeFlags::SYNC_FD)
            .fd(copy.as_raw_fd());
        // SAFETY: the semaphore is new, and the handle an open sync_file.
        match unsafe { functions.import_semaphore_fd(&import) } {
            Ok(()) => {
                // It is the driver's now, which closes it.
                std::mem::forget(copy);
                Ok(semaphore)
            }
            Err(code) => {
                // SAFETY: nothing uses it.
                unsafe { self.device.destroy_semaphore(semaphore, None) };
                Err(VulkanError::failed("vkImportSemaphoreFdKHR", &self.name)(
                    code,
                ))
            }
        }
    }

    /// A semaphore that can become a fence, where the device has such.
    fn signal_semaphore(&self) -> Result<Option<vk::Semaphore>, VulkanError> {
        if self.semaphore_fd.is_none() {
            return Ok(None);
        }
        let mut export = vk::ExportSemaphoreCreateInfo::default()
            .handle_types(vk::ExternalSemaphoreHandleTypeFlags::SYNC_FD);
        let create = vk::SemaphoreCreateInfo::default().push_next(&mut export);
        // SAFETY: the structs are complete, and the extension enabled.
        unsafe { self.device.create_semaphore(&create, None) }
            .map(Some)
            .map_err(VulkanError::failed("vkCreateSemaphore", &self.name))
    }

    /// The last job that is done, with all before it.
    fn done(&self) -> Result<u64, VulkanError> {
        // SAFETY: it is a timeline semaphore of this device.
        unsafe { self.device.get_semaphore_counter_value(self.timeline) }.map_err(
            VulkanError::failed("vkGetSemaphoreCounterValue", &self.name),
        )
    }

    /// Whether this job is done in time; 0 always is.
    pub(super) fn wait_for(
        &self,
        number: u64,
        timeout: Option<Duration>,
    ) -> Result<bool, VulkanError> {
        if number == 0 {
            return Ok(true);
        }
        let (semaphores, values) = ([self.timeline], [number]);
        let wait = vk::SemaphoreWaitInfo::default()
            .semaphores(&semaphores)
            .values(&values);
        let nanoseconds = timeout.and_then(|timeout| u64::try_from(timeout.as_nanos()).ok());
        // SAFETY: it is a timeline semaphore of this device.
        let waited = unsafe {
            let nanoseconds = nanoseconds.unwrap_or(u64::MAX);
            self.device.wait_semaphores(&wait, nanoseconds)
        };
        match waited {
            Ok(()) => Ok(true),
            Err(vk::Result::TIMEOUT) => Ok(false),
            Err(code) => Err(VulkanError::failed("vkWaitSemaphores", &self.name)(code)),
        }
    }
}

/// Something that the device is drawing; made by [`Gpu::draw`](super::Gpu::draw).
///
/// To drop it waits for nothing.
#[must_use = "the target is not drawn before it is done"]
pub struct Drawing {
    gpu: Rc<Inner>,
    /// 0 until it is submitted.
    number: u64,
    semaphore: Option<vk::Semaphore>,
}

impl Drawing {
    /// Whether it is drawn, and in memory.
    ///
    /// # Errors
    /// [`VulkanError::Vulkan`] where the device was lost.
    ///
    /// ```no_run
    /// // Not run: needs something drawn.
    /// # fn f(drawing: dmashare::import::vulkan::Drawing) -> Result<(), dmashare::import::vulkan::VulkanError> {
    /// if drawing.is_done()? {
    ///     println!("drawn");
    /// }
    /// # Ok(()) }
    /// ```
    pub fn is_done(&self) -> Result<bool, VulkanError> {
        Ok(self.gpu.done()? >= self.number)
    }

    /// Waits until it is, at most so long where there is a `timeout`.
    ///
    /// # Errors
    /// [`VulkanError::Timeout`], and [`VulkanError::Vulkan`] where the device
    /// was lost.
    ///
    /// ```no_run
    /// // Not run: needs something drawn.
    /// # fn f(drawing: dmashare::import::vulkan::Drawing) -> Result<(), dmashare::import::vulkan::VulkanError> {
    /// drawing.wait(Some(std::time::Duration::from_secs(1)))
    /// # }
    /// ```
    pub fn wait(&self, timeout: Option<Duration>) -> Result<(), VulkanError> {
        match (self.gpu.wait_for(self.number, timeout)?, timeout) {
            (false, Some(after)) => Err(VulkanError::Timeout {
                on: self.gpu.name.clone(),
                after,
            }),
            _ => Ok(()),
        }
    }

    /// The fence that signals when it is drawn; `None` where it is already, so
    /// that there is nothing to wait for.
    ///
    /// Without [native fences](super::Gpu::has_native_fences) this waits, and
    /// gives none. lavapipe has them, but makes a fence only once it has drawn:
    /// there, too, this waits, also for what the draw itself waits for.
    ///
    /// # Errors
    /// [`VulkanError::Vulkan`] and [`VulkanError::Fence`].
    ///
    /// ```no_run
    /// // Not run: needs something drawn.
    /// use dmashare::buffer::{Access, Buffer};
    /// use dmashare::import::vulkan::{Drawing, VulkanError};
    ///
    /// /// Who reads the picture through a driver will wait for it.
    /// fn hand_over(drawing: Drawing, picture: &Buffer) -> Result<(), VulkanError> {
    ///     if let Some(fence) = drawing.fence()? {
    ///         fence.import_into(picture, Access::Write)?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn fence(self) -> Result<Option<Fence>, VulkanError> {
        let (Some(functions), Some(semaphore)) = (&self.gpu.semaphore_fd, self.semaphore) else {
            self.wait(None)?;
            return Ok(None);
        };
        let get = vk::SemaphoreGetFdInfoKHR::default()
            .semaphore(semaphore)
            .handle_type(vk::ExternalSemaphoreHandleTypeFlags::SYNC_FD);
        // SAFETY: the semaphore can be exported so, a submitted job signals it,
        // and nobody waits for it.
        let fd = unsafe { functions.get_semaphore_fd(&get) }
            .map_err(VulkanError::failed("vkGetSemaphoreFdKHR", &self.gpu.name))?;
        if fd < 0 {
            // What has signalled needs no sync_file.
            return Ok(None);
        }
        // SAFETY: the driver gave this handle away.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Some(Fence::from_fd(fd)?))
    }
}

impl Drop for Drawing {
    fn drop(&mut self) {
        if let Some(semaphore) = self.semaphore.take() {
            // The device is to be done with it first.
            let unwanted = (self.number, semaphore);
            self.gpu.unwanted.borrow_mut().push(unwanted);
        }
    }
}

impl fmt::Debug for Drawing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Drawing(job {} on {})", self.number, self.gpu.name)
    }
}
