//! Every source keeps what it says of itself: what was planned with it is
//! allocated as planned.

use dmashare::alloc::{Way, probe};
use dmashare::buffer::{Access, Kind};
use dmashare::import::drm::Card;
use dmashare::import::v4l2::Device;
use dmashare::negotiate::{Memory, Origin, Picture, Source, Taker, negotiate, sources};
use dmashare::share::Fourcc;
use dmashare_tests::command;
use dmashare_tests::conformance::Verdict;
use dmashare_tests::guest::kernel_version;
use libtest_mimic::Trial;

use crate::kms::BOCHS_IMPORTS;
use crate::{ensure, test, text};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![test(
        "negotiate::every_way_is_a_source",
        every_way_is_a_source,
    )];
    trials.push(test(
        "negotiate::devices_say_what_they_take",
        devices_say_what_they_take,
    ));
    trials.push(test("negotiate::says_who_is_at_odds", says_who_is_at_odds));
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

/// What the command says to these takers, and its exit status.
fn answer(takers: &[String]) -> Result<(serde_json::Value, Option<i32>), String> {
    let mut arguments = vec!["negotiate", "--json", "--size", "320x180"];
    arguments.extend(takers.iter().map(String::as_str));
    let output = command::dmashare(&arguments).output().map_err(text)?;
    let told = serde_json::from_slice(&output.stdout).map_err(|error| {
        let stderr = String::from_utf8_lossy(&output.stderr);
        format!("{error}: {stderr}")
    })?;
    Ok((told, output.status.code()))
}

/// The card that scans out what others made, and the camera of this place.
fn devices(camera: &str) -> Result<(String, String), String> {
    let drivers: &[&str] = match kernel_version() < BOCHS_IMPORTS {
        true => &["cirrus", "cirrus-qemu"],
        false => &["bochs-drm"],
    };
    let mut cards = drivers.iter().map(|driver| Card::find(driver));
    let card = cards.find_map(Result::ok).ok_or("no card")?;
    let camera = Device::find("vivid", camera).map_err(text)?;
    Ok((
        format!("drm:{}", card.path().display()),
        format!("v4l2:{}", camera.path().display()),
    ))
}

/// A camera, the GPU and a display, each asked; and what comes out is what they
/// take.
fn devices_say_what_they_take() -> Verdict {
    let (card, camera) = devices("platform:vivid-000")?;
    for takers in [
        vec![camera.clone(), "egl".to_owned()],
        vec!["egl-target".to_owned(), card.clone(), "cpu".to_owned()],
        vec![camera, "vulkan".to_owned()],
        vec!["vulkan-target".to_owned(), card.clone()],
        vec![card.replace("drm:", "gbm:"), "peer".to_owned()],
    ] {
        let (told, status) = answer(&takers)?;
        ensure(
            status == Some(0) && told["plan"]["layout"].is_string(),
            || format!("{takers:?}: {status:?}, {told}"),
        )?;
        let names = told["takers"].as_array().map_or(0, Vec::len);
        ensure(names == takers.len(), || told.to_string())?;
    }
    Ok(())
}

/// A camera with YUV alone and a display: the GPU between them could convert.
fn says_who_is_at_odds() -> Verdict {
    let (card, _) = devices("platform:vivid-000")?;
    let file = std::env::temp_dir().join("yuv-camera.json");
    let taker = r#"{"name": "a camera", "layouts": ["YUYV"], "memory": "dma-buf"}"#;
    std::fs::write(&file, taker).map_err(text)?;
    let camera = format!("file:{}", file.display());
    let output = command::dmashare(&[
        "negotiate",
        "--size",
        "320x180",
        "--converter",
        "egl",
        "egl-target",
        &camera,
        &card,
    ])
    .output()
    .map_err(text)?;
    let told = String::from_utf8_lossy(&output.stdout);
    ensure(output.status.code() == Some(1), || {
        format!("{}: {told}", output.status)
    })?;
    for part in ["a camera takes YUYV linear only", "nearest", "llvmpipe"] {
        ensure(told.contains(part), || format!("no {part:?} in {told}"))?;
    }
    std::fs::remove_file(&file).map_err(text)
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
