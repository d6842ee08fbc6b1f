//! Every source keeps what it says of itself: what was planned with it is
//! allocated as planned.

use dmashare::alloc::{Way, probe};
use dmashare::buffer::{Access, Kind};
use dmashare::negotiate::{Memory, Origin, Picture, Source, Taker, negotiate, sources};
use dmashare::share::Fourcc;
use dmashare_tests::conformance::Verdict;
use libtest_mimic::Trial;

use crate::{ensure, test, text};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![test(
        "negotiate::every_way_is_a_source",
        every_way_is_a_source,
    )];
    trials.extend(sources(&probe()).into_iter().map(|source| {
        let origin = source.origin.to_string().replace(' ', "_");
        let name = format!("negotiate::{origin}_gives_what_was_planned");
        test(&name, move || gives_what_was_planned(&source))
    }));
    trials
}

fn every_way_is_a_source() -> Verdict {
    let sources = sources(&probe());
    [Way::Memfd, Way::DmaHeap, Way::Udmabuf, Way::Module]
        .into_iter()
        .try_for_each(|way| {
            let is_there = sources.iter().any(|s| s.origin == Origin::Way(way));
            ensure(is_there, || format!("{way} is not among {sources:?}"))
        })?;
    let card = |source: &Source| matches!(source.origin, Origin::Dumb(_));
    ensure(sources.iter().any(card), || "no card is among them".into())
}

/// Asks of it all that it offers, for a device and for the CPU.
fn gives_what_was_planned(source: &Source) -> Verdict {
    let mut device = Taker::new("a device");
    device.memory = match (source.origin.node(), source.dma_buf) {
        (Some(node), _) => Memory::Own {
            node: node.to_owned(),
            why: "as some drivers do".into(),
        },
        (None, true) => Memory::AnyDmaBuf,
        (None, false) => Memory::Any,
    };
    (device.contiguous, device.reach) = (source.contiguous, source.reach);
    (device.stride_align, device.rows_align) = (64, 16);
    let takers = [device, Taker::cpu()];
    for (width, height) in [(1000, 470), (33, 7)] {
        for fourcc in [*b"XR24", *b"NV12", *b"YU12"].map(Fourcc::new) {
            let picture = Picture::new(width, height).prefer(fourcc);
            let plan = negotiate(&picture, &takers, std::slice::from_ref(source)).map_err(text)?;
            let buffer = plan.allocate().map_err(text)?;
            ensure(plan.dma_buf == (buffer.kind() == Kind::DmaBuf), || {
                format!("{plan} gave a {:?}", buffer.kind())
            })?;
            let frame = plan.frame.as_ref().ok_or("no frame")?;
            ensure(frame.fourcc == fourcc, || plan.to_string())?;
            for taker in &takers {
                let backing = plan.backing(buffer.size());
                taker.accepts(frame, &backing).map_err(text)?;
            }
            let mut mapping = buffer.map(Access::ReadWrite).map_err(text)?;
            let mut guard = mapping.access(Access::ReadWrite).map_err(text)?;
            for plane in 0..frame.planes.len() {
                let rows = frame.rows(plane).map_err(text)?;
                let bytes = rows.row as usize * rows.count as usize;
                let picture: Vec<u8> = (0..=250).cycle().take(bytes).collect();
                guard.write_rows(rows, &picture).map_err(text)?;
                let mut read = vec![0; bytes];
                guard.read_rows(rows, &mut read).map_err(text)?;
                ensure(read == picture, || format!("{plan}: plane {plane} differs"))?;
            }
            guard.finish().map_err(text)?;
        }
    }
    Ok(())
}
