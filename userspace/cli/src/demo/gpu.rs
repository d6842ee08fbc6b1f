//! The GPU's part: read one dma-buf, draw another.

use std::time::Instant;

use dmashare::import::drm::Card;
use dmashare::import::egl::{Device, EglError, Gpu};

use super::peer::Received;
use super::report::{Actor, Report, Step};
use super::scene::Scene;
use super::target::Target;
use super::{DemoError, pixel_bytes};

/// Draws the received picture into `target`; whether any GPU did.
///
/// That is the software device; on a host its own GPUs are asked first, and
/// those that cannot are left out.
pub(super) fn render(
    on_host: bool,
    from: &Received,
    to: &Target,
    report: &mut Report,
) -> Result<bool, DemoError> {
    for device in devices(on_host) {
        match render_on(&device, from, to) {
            Ok(steps) => {
                for step in steps {
                    report.step(step)?;
                }
                return Ok(true);
            }
            Err(reason) if on_host => {
                let backend = format!("EGL {device}");
                report.step(Step::left_out(Actor::B, "draw", backend, reason))?;
            }
            Err(reason) => return Err(DemoError::at("draw")(reason)),
        }
    }
    Ok(false)
}

fn devices(on_host: bool) -> Vec<Device> {
    let nodes = match on_host {
        // No /dev/dri is no card.
        true => Card::nodes().unwrap_or_default(),
        false => Vec::new(),
    };
    let nodes = nodes.into_iter().map(Device::Node);
    nodes.chain([Device::Software]).collect()
}

fn render_on(device: &Device, from: &Received, to: &Target) -> Result<Vec<Step>, EglError> {
    let mut steps = Vec::new();
    let mut done = |step, backend: &str, started, bytes| {
        steps.push(Step::done(Actor::B, step, backend, started, bytes));
    };
    let started = Instant::now();
    let gpu = Gpu::open(device)?;
    let backend = format!("EGL {}", gpu.renderer());
    done("open GPU", &backend, started, 0);

    let started = Instant::now();
    let texture = gpu.import_texture(&from.frame, &[&from.buffer])?;
    done(
        "import as texture",
        &backend,
        started,
        pixel_bytes(&from.frame),
    );

    let started = Instant::now();
    let target = gpu.import_target(&to.frame, &[&to.buffer])?;
    done(
        "import as target",
        &backend,
        started,
        pixel_bytes(&to.frame),
    );

    let started = Instant::now();
    let scene = Scene::new((from.frame.width, from.frame.height), to.size());
    let shader = gpu.shader(&scene.shader())?;
    gpu.draw(&texture, &target, &shader)?;
    gpu.finish()?;
    done("draw", &backend, started, pixel_bytes(&to.frame));
    Ok(steps)
}
