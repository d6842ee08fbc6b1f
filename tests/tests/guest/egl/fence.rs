//! Fences of the GPU, and those of another driver that it waits for.

use std::thread;
use std::time::{Duration, Instant};

use dmashare::alloc::{Allocate, Way};
use dmashare::buffer::Access;
use dmashare::fence::{Fence, Status};
use dmashare_tests::conformance::Verdict;
use dmashare_tests::held;
use libtest_mimic::Trial;

use super::{SHADER, Shared, any_way, compare, drawn, frame, gpu, pixels};
use crate::vgem::{Job, Vgem};
use crate::{ensure, test, text};

const WHILE: Duration = Duration::from_millis(200);

pub(super) fn trials() -> Vec<Trial> {
    vec![
        test("egl::fence_tells_that_it_drew", fence_tells_that_it_drew),
        test("egl::waits_for_a_fence", waits_for_a_fence),
        test("egl::fences_leak_nothing", fences_leak_nothing),
    ]
}

fn fence_tells_that_it_drew() -> Verdict {
    let gpu = gpu()?;
    ensure(gpu.has_native_fences(), || "it has no fences".to_owned())?;
    let way = any_way()?;
    let (from, to) = (Shared::new(&*way, frame()?)?, Shared::new(&*way, frame()?)?);
    from.write(&pixels(8))?;
    let texture = gpu.import_texture(&from.frame, &[&from.buffer]);
    let texture = texture.map_err(text)?;
    let target = gpu.import_target(&to.frame, &[&to.buffer]).map_err(text)?;
    let shader = gpu.shader(SHADER).map_err(text)?;
    gpu.draw(&texture, &target, &shader).map_err(text)?;
    let fence = gpu.fence().map_err(text)?;
    fence.wait(Some(Duration::from_secs(10))).map_err(text)?;
    let status = fence.status().map_err(text)?;
    ensure(status == Status::Signaled, || format!("{status:?}"))?;
    // It is there, with no finish() and no other call to GL.
    compare(&to.read()?, &drawn(&pixels(8)))
}

/// The fence of a job of vgem on a buffer, as another driver would get it.
fn of_job(vgem: &Vgem, way: &dyn Allocate) -> Result<(crate::vgem::Fence, Fence), String> {
    let shared = Shared::new(way, frame()?)?;
    let job = vgem.start(Job::Writes, &shared.buffer)?;
    let fence = Fence::export(&shared.buffer, Access::Read).map_err(text)?;
    Ok((job, fence))
}

/// A way whose memory vgem imports.
fn importable() -> Result<Box<dyn Allocate>, String> {
    let ways = [Way::DmaHeap, Way::Udmabuf, Way::Module];
    let mut opened = ways.into_iter().filter_map(|way| way.open().ok());
    opened.next().ok_or_else(|| "no such way".to_owned())
}

/// Draws only once another driver has written the frame.
fn waits_for_a_fence() -> Verdict {
    let gpu = gpu()?;
    let way = importable()?;
    let (from, to) = (Shared::new(&*way, frame()?)?, Shared::new(&*way, frame()?)?);
    let texture = gpu.import_texture(&from.frame, &[&from.buffer]);
    let texture = texture.map_err(text)?;
    let target = gpu.import_target(&to.frame, &[&to.buffer]).map_err(text)?;
    let shader = gpu.shader(SHADER).map_err(text)?;
    gpu.draw(&texture, &target, &shader).map_err(text)?;
    gpu.finish().map_err(text)?;

    let vgem = Vgem::open()?;
    let (job, fence) = of_job(&vgem, &*way)?;
    let begun = Instant::now();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            thread::sleep(WHILE);
            from.write(&pixels(9))?;
            vgem.end(job)
        });
        gpu.wait_for(&fence).map_err(text)?;
        gpu.draw(&texture, &target, &shader).map_err(text)?;
        gpu.finish().map_err(text)?;
        let took = begun.elapsed();
        writer.join().map_err(|_| "panicked")??;
        ensure(took >= WHILE, || format!("drawn after {took:?}"))
    })?;
    compare(&to.read()?, &drawn(&pixels(9)))
}

fn fences_leak_nothing() -> Verdict {
    let gpu = gpu()?;
    let way = importable()?;
    let vgem = Vgem::open()?;
    let once = || {
        let (job, fence) = of_job(&vgem, &*way)?;
        vgem.end(job)?;
        gpu.wait_for(&fence).map_err(text)?;
        drop(gpu.fence().map_err(text)?);
        Ok::<(), String>(())
    };
    once()?;
    let before = held::by_process()?;
    for _ in 0..10 {
        once()?;
    }
    held::comes_back_to(before, held::by_process)
}
