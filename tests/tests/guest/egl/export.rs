//! What GL allocated, read by the CPU and imported again.

use dmashare::buffer::Access;
use dmashare::import::HandleError;
use dmashare::import::egl::{EglError, Gpu, Target};
use dmashare::share::{Fourcc, LINEAR};
use dmashare_tests::conformance::Verdict;
use dmashare_tests::held;
use libtest_mimic::Trial;

use super::{SHADER, Shared, any_way, compare, drawn, frame, gpu, is_llvmpipe, pixels};
use crate::{ensure, test, text};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        test("egl::exports_what_it_drew", exports_what_it_drew),
        test("egl::imports_its_export", imports_its_export),
        test("egl::exports_leak_nothing", exports_leak_nothing),
        test("egl::exports_no_nothing", || {
            let gpu = gpu()?;
            match gpu.new_target(0, 5) {
                Err(EglError::Handle(HandleError::Frame(_))) => {}
                other => return Err(format!("{other:?}")),
            }
            match gpu.new_target(1 << 20, 5) {
                Err(EglError::TooLarge { .. }) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        }),
    ]
}

/// The picture of `seed`, drawn into memory of GL's own.
fn drawn_target(gpu: &Gpu, seed: u8) -> Result<Target, String> {
    let from = Shared::new(&*any_way()?, frame()?)?;
    from.write(&pixels(seed))?;
    let draw = || {
        let target = gpu.new_target(64, 48)?;
        let texture = gpu.import_texture(&from.frame, &[&from.buffer])?;
        gpu.draw(&texture, &target, &gpu.shader(SHADER)?)?;
        gpu.finish()?;
        Ok(target)
    };
    draw().map_err(|error: EglError| error.to_string())
}

fn exports_what_it_drew() -> Verdict {
    let gpu = gpu()?;
    let target = drawn_target(&gpu, 6)?;
    let (frame, buffers) = target.exported().ok_or("not exported")?;
    ensure(
        (frame.width, frame.height, frame.fourcc) == (64, 48, Fourcc::ABGR8888),
        || format!("{frame:?}"),
    )?;
    if frame.modifier != LINEAR && !is_llvmpipe() {
        // A GPU's own layout; what is in it is read by importing it again.
        return Ok(());
    }
    let rows = frame.rows(0).map_err(text)?;
    let mut seen = vec![0; usize::try_from(rows.bytes()).map_err(text)?];
    let mut mapping = buffers[0].map(Access::Read).map_err(text)?;
    let guard = mapping.access(Access::Read).map_err(text)?;
    guard.read_rows(rows, &mut seen).map_err(text)?;
    guard.finish().map_err(text)?;
    // Red comes first there.
    let swapped = seen.chunks_exact(4).flat_map(|p| [p[2], p[1], p[0], p[3]]);
    compare(&swapped.collect::<Vec<_>>(), &drawn(&pixels(6)))
}

fn imports_its_export() -> Verdict {
    let gpu = gpu()?;
    let target = drawn_target(&gpu, 7)?;
    let (frame, buffers) = target.exported().ok_or("not exported")?;
    let to = Shared::new(&*any_way()?, super::frame()?)?;
    let draw = || {
        let texture = gpu.import_texture(frame, buffers)?;
        let into = gpu.import_target(&to.frame, &[&to.buffer])?;
        gpu.draw(&texture, &into, &gpu.shader(SHADER)?)?;
        gpu.finish()
    };
    draw().map_err(text)?;
    compare(&to.read()?, &drawn(&drawn(&pixels(7))))
}

fn exports_leak_nothing() -> Verdict {
    let gpu = gpu()?;
    drop(drawn_target(&gpu, 0)?);
    let before = held::by_process()?;
    for _ in 0..10 {
        drop(drawn_target(&gpu, 0)?);
    }
    held::comes_back_to(before, held::by_process)
}
