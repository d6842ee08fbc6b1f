//! What the GPU says that it takes, it takes.

use dmashare::import::egl::{EglError, Gpu, Hints};
use dmashare::negotiate::{Layout, Memory, Sync, Taker};
use dmashare::share::{Fourcc, Frame, INVALID, LINEAR};
use dmashare_tests::conformance::Verdict;
use libtest_mimic::Trial;

use super::{Shared, any_way, gpu, is_llvmpipe};
use crate::{ensure, test, text};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        test("egl::takes_what_it_says_to_read", || {
            let gpu = gpu()?;
            let taker = gpu.texture_taker().map_err(text)?;
            says_of_itself(&gpu, &taker)?;
            for code in [b"XR24", b"NV12", b"YUYV", b"R8  "] {
                has(&taker, Fourcc::new(*code), true)?;
            }
            takes_all(&taker, |shared| {
                let (frame, buffers) = (&shared.frame, [&shared.buffer]);
                let plain = gpu.import_texture(frame, &buffers);
                plain.or_else(|_| gpu.import_yuv(frame, &buffers, &Hints::default()))?;
                Ok(())
            })
        }),
        test("egl::takes_what_it_says_to_draw", || {
            let gpu = gpu()?;
            let taker = gpu.target_taker().map_err(text)?;
            says_of_itself(&gpu, &taker)?;
            has(&taker, Fourcc::XRGB8888, true)?;
            for code in [b"NV12", b"YUYV"] {
                has(&taker, Fourcc::new(*code), false)?;
            }
            if is_llvmpipe() {
                let said = (taker.stride_align, taker.offset_align, taker.rows_align);
                // Four pixels of up to eight bytes.
                ensure(said == (32, 16, 4), || format!("{said:?}"))?;
            }
            takes_all(&taker, |shared| {
                gpu.import_target(&shared.frame, &[&shared.buffer])?;
                Ok(())
            })
        }),
    ]
}

fn says_of_itself(gpu: &Gpu, taker: &Taker) -> Verdict {
    ensure(taker.name.contains(gpu.renderer()), || taker.name.clone())?;
    ensure(taker.memory == Memory::AnyDmaBuf, || {
        format!("{:?}", taker.memory)
    })?;
    ensure(
        taker.sync.contains(Sync::SYNC_FILE) == gpu.has_native_fences(),
        || format!("{:?}", taker.sync),
    )?;
    ensure(*taker.width.end() >= 2048, || format!("{:?}", taker.width))
}

fn has(taker: &Taker, fourcc: Fourcc, expected: bool) -> Verdict {
    let layouts = taker.layouts.iter().flatten();
    let has = layouts
        .copied()
        .any(|layout| layout == Layout::linear(fourcc));
    ensure(has == expected, || format!("{fourcc}: {has}"))
}

/// Every linear layout, at just the alignment that is asked for, and at the
/// largest width and height.
fn takes_all(taker: &Taker, import: impl Fn(&Shared) -> Result<(), EglError>) -> Verdict {
    let way = any_way()?;
    let mut refused = Vec::new();
    let layouts = taker.layouts.iter().flatten();
    let linear = layouts.filter(|layout| [LINEAR, INVALID].contains(&layout.modifier));
    for layout in linear {
        for (width, height) in [(37, 8), (*taker.width.end(), 4), (8, *taker.height.end())] {
            let align = taker.stride_align;
            let rows = height.next_multiple_of(taker.rows_align);
            let room = Frame::aligned(width, rows, layout.fourcc, align).map_err(text)?;
            let mut shared = Shared::new(&*way, room)?;
            shared.frame.height = height;
            if let Err(error) = import(&shared) {
                refused.push(format!("{layout}, {width}x{height}: {error}"));
            }
        }
    }
    ensure(refused.is_empty(), || refused.join("\n"))
}
