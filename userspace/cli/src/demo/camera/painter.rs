//! What process B draws with: EGL and OpenGL ES, or Vulkan.

use dmashare::buffer::Buffer;
use dmashare::fence::Fence;
use dmashare::frame::Frame;
use dmashare::import::{Part, egl, vulkan};
use dmashare::negotiate::Taker;

use super::super::DemoError;
use super::super::scene::Scene;
use super::buffers::{Slot, each};
use super::link::Colors;
use super::process::ProcessOptions;
use super::shaders;

/// A GPU, and what was imported into it.
pub(super) trait Painter {
    /// With what it draws.
    fn name(&self) -> String;

    /// What it can read.
    fn reads(&self) -> Result<Taker, DemoError>;

    /// What it can draw into.
    fn draws(&self) -> Result<Taker, DemoError>;

    /// Imports what is to be read, and what to be drawn into.
    fn import(&mut self, from: &[Slot], colors: Colors, to: &[Slot]) -> Result<(), DemoError>;

    /// Draws one into another: the camera's picture, and what is around it where
    /// that was not drawn yet. Where there is a fence it returns before all is
    /// drawn, else after.
    fn draw(&mut self, from: usize, to: usize) -> Result<Option<Fence>, DemoError>;
}

pub(super) fn open(options: &ProcessOptions) -> Result<Box<dyn Painter>, DemoError> {
    let failed = "open GPU";
    match options.vulkan {
        true => {
            let device = match &options.device {
                Some(node) => vulkan::Device::Node(node.clone()),
                None => vulkan::Device::Any,
            };
            let gpu = vulkan::Gpu::open(&device).map_err(DemoError::at(failed))?;
            Ok(Box::new(Vulkan { gpu, ready: None }))
        }
        false => {
            let device = match &options.device {
                Some(node) => egl::Device::Node(node.clone()),
                None => egl::Device::Any,
            };
            let gpu = egl::Gpu::open(&device).map_err(DemoError::at(failed))?;
            Ok(Box::new(Egl { gpu, ready: None }))
        }
    }
}

/// Where the frames of these slots go on the screen.
fn scene(from: &[Slot], to: &[Slot]) -> Scene {
    let size = |(frame, _): &Slot| (frame.width, frame.height);
    Scene::new(size(&from[0]), size(&to[0]))
}

/// What has to be drawn into each target.
struct Parts {
    whole: Part,
    /// Where the camera's picture is.
    picture: Part,
    /// The targets that have had all of it once.
    begun: Vec<bool>,
}

impl Parts {
    fn new(scene: &Scene, targets: usize) -> Parts {
        let (width, height) = scene.fitted;
        let (x, y) = scene.origin;
        Parts {
            whole: Part::whole(scene.screen),
            picture: Part {
                x,
                y,
                width,
                height,
            },
            begun: vec![false; targets],
        }
    }

    fn of(&mut self, target: usize) -> Part {
        match std::mem::replace(&mut self.begun[target], true) {
            true => self.picture,
            false => self.whole,
        }
    }
}

struct Egl {
    gpu: egl::Gpu,
    ready: Option<EglReady>,
}

struct EglReady {
    parts: Parts,
    textures: Vec<egl::Texture>,
    targets: Vec<egl::Target>,
    shader: egl::Shader,
}

impl Painter for Egl {
    fn name(&self) -> String {
        format!("EGL {} ({})", self.gpu.renderer(), self.gpu.why())
    }

    fn reads(&self) -> Result<Taker, DemoError> {
        self.gpu
            .texture_taker()
            .map_err(DemoError::at("ask the GPU"))
    }

    fn draws(&self) -> Result<Taker, DemoError> {
        self.gpu
            .target_taker()
            .map_err(DemoError::at("ask the GPU"))
    }

    fn import(&mut self, from: &[Slot], colors: Colors, to: &[Slot]) -> Result<(), DemoError> {
        let hints = egl::Hints::new(
            match colors.bt709 {
                true => egl::ColorSpace::Bt709,
                false => egl::ColorSpace::Bt601,
            },
            match colors.full {
                true => egl::Range::Full,
                false => egl::Range::Limited,
            },
        );
        let texture = |(frame, buffer): &Slot| match shaders::is_yuv(frame.fourcc) {
            true => self.gpu.import_yuv(frame, &[buffer], &hints),
            false => self.gpu.import_texture(frame, &[buffer]),
        };
        let textures = each(from, "import as texture", texture)?;
        let targets = each(to, "import as target", |(frame, buffer)| {
            self.gpu.import_target(frame, &[buffer])
        })?;
        let scene = scene(from, to);
        let source = textures[0].prelude() + &scene.shader_of_texels();
        let shader = self.gpu.shader(&source).map_err(DemoError::at("shader"))?;
        self.ready = Some(EglReady {
            parts: Parts::new(&scene, targets.len()),
            textures,
            targets,
            shader,
        });
        Ok(())
    }

    fn draw(&mut self, from: usize, to: usize) -> Result<Option<Fence>, DemoError> {
        let ready = self.ready.as_mut().expect("imported before");
        let (texture, target) = (&ready.textures[from], &ready.targets[to]);
        self.gpu
            .draw_part(texture, target, &ready.shader, ready.parts.of(to))
            .map_err(DemoError::at("draw"))?;
        match self.gpu.has_native_fences() {
            true => self.gpu.fence().map(Some),
            false => self.gpu.finish().map(|()| None),
        }
        .map_err(DemoError::at("draw"))
    }
}

struct Vulkan {
    gpu: vulkan::Gpu,
    ready: Option<VulkanReady>,
}

struct VulkanReady {
    parts: Parts,
    /// Of each slot, a texture for each plane.
    textures: Vec<Vec<vulkan::Texture>>,
    targets: Vec<vulkan::Target>,
    shader: vulkan::Shader,
}

impl Vulkan {
    fn textures(
        &self,
        frame: &Frame,
        buffer: &Buffer,
    ) -> Result<Vec<vulkan::Texture>, vulkan::VulkanError> {
        match shaders::is_yuv(frame.fourcc) {
            true => self.gpu.import_planes(frame, &[buffer]),
            false => Ok(vec![self.gpu.import_texture(frame, &[buffer])?]),
        }
    }
}

impl Painter for Vulkan {
    fn name(&self) -> String {
        format!("Vulkan {}", self.gpu.name())
    }

    fn reads(&self) -> Result<Taker, DemoError> {
        Ok(self.gpu.texture_taker())
    }

    fn draws(&self) -> Result<Taker, DemoError> {
        Ok(self.gpu.target_taker())
    }

    fn import(&mut self, from: &[Slot], colors: Colors, to: &[Slot]) -> Result<(), DemoError> {
        let textures = each(from, "import as texture", |(frame, buffer)| {
            self.textures(frame, buffer)
        })?;
        let targets = each(to, "import as target", |(frame, buffer)| {
            self.gpu.import_target(frame, &[buffer])
        })?;
        let scene = scene(from, to);
        let words =
            shaders::spirv(&scene, from[0].0.fourcc, colors).map_err(DemoError::at("shader"))?;
        let shader = shaders::vulkan(&self.gpu, &words).map_err(DemoError::at("shader"))?;
        self.ready = Some(VulkanReady {
            parts: Parts::new(&scene, targets.len()),
            textures,
            targets,
            shader,
        });
        Ok(())
    }

    fn draw(&mut self, from: usize, to: usize) -> Result<Option<Fence>, DemoError> {
        let ready = self.ready.as_mut().expect("imported before");
        let textures: Vec<&vulkan::Texture> = ready.textures[from].iter().collect();
        let part = ready.parts.of(to);
        let drawing = self
            .gpu
            .draw_part(&textures, &ready.targets[to], &ready.shader, &[], part)
            .map_err(DemoError::at("draw"))?;
        drawing.fence().map_err(DemoError::at("draw"))
    }
}
