//! Which device is opened, and why.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use dmashare::import::drm::Card;
use dmashare::import::egl::{Device, EglError, Gpu, devices};
use dmashare_tests::conformance::Verdict;
use libtest_mimic::Trial;

use crate::{ensure, test, text};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        test("egl::lists_devices", lists_devices),
        test("egl::picks_with_the_reason", picks_with_the_reason),
        test("egl::opens_no_card_without_gpu", opens_no_card_without_gpu),
        test("egl::opens_no_node_that_is_not_there", || {
            match Gpu::open(&Device::Node("/dev/dri/renderD999".into())) {
                Err(EglError::Node { .. }) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        }),
        test("egl::tells_what_a_user_lacks", tells_what_a_user_lacks),
    ]
}

fn lists_devices() -> Verdict {
    let found = devices().map_err(text)?;
    let software: Vec<_> = found.iter().filter(|each| each.is_software()).collect();
    ensure(
        matches!(software[..], [one] if one.nodes.is_empty() && one.driver.is_none()),
        || format!("{found:?}"),
    )?;
    // What has a node has a driver in the kernel, which tells its name.
    let mut others = found.iter().filter(|each| !each.is_software());
    ensure(
        others.all(|each| {
            let node = each.nodes.first().cloned().map(Device::Node);
            each.driver.is_some() && node.as_ref() == Some(&each.device)
        }),
        || format!("{found:?}"),
    )
}

/// None of the guest's cards has a GPU, though EGL may list one.
fn picks_with_the_reason() -> Verdict {
    let gpu = Gpu::open(&Device::Any).map_err(text)?;
    let nodes: Vec<PathBuf> = devices()
        .map_err(text)?
        .into_iter()
        .filter_map(|found| found.nodes.into_iter().next())
        .collect();
    let why = gpu.why();
    match gpu.device() {
        Device::Software => ensure(
            !why.is_empty()
                && nodes
                    .iter()
                    .all(|node| why.contains(&*node.to_string_lossy())),
            || format!("{nodes:?}: {why}"),
        ),
        Device::Node(_) => ensure(!gpu.renderer().starts_with("llvmpipe"), || gpu.to_string()),
        other => Err(format!("{other:?}: {why}")),
    }
}

/// The nodes of vgem, and of cards that only have screens: Mesa would draw for
/// them with the CPU, and crash at the first import.
fn opens_no_card_without_gpu() -> Verdict {
    let mut nodes = Card::nodes().map_err(text)?;
    let render = std::fs::read_dir("/dev/dri").map_err(text)?.flatten();
    let render = render.map(|entry| entry.path());
    nodes.extend(render.filter(|path| path.to_string_lossy().contains("renderD")));
    ensure(nodes.len() >= 3, || format!("only {nodes:?}"))?;
    for node in nodes {
        let name = node.to_string_lossy().into_owned();
        match Gpu::open(&Device::Node(node)) {
            Err(error @ (EglError::NoGpu { .. } | EglError::NoDevice { .. })) => {
                let says = error.to_string();
                ensure(
                    says.contains(&name) && says.contains("software device"),
                    || says,
                )?;
            }
            other => return Err(format!("{name}: {other:?}")),
        }
    }
    Ok(())
}

/// The word by which this program starts itself as [`child`].
const CHILD: &str = "egl-child";

/// Who may not open /dev/udmabuf has no fences and no export of Mesa's software
/// device, and is told what to do without.
pub(crate) fn child() {
    if std::env::args().nth(1).as_deref() != Some(CHILD) {
        return;
    }
    let done = without_udmabuf();
    if let Err(error) = &done {
        eprintln!("{error}");
    }
    std::process::exit(done.is_err().into());
}

fn tells_what_a_user_lacks() -> Verdict {
    const NOBODY: u32 = 65534;
    let program = std::env::current_exe().map_err(text)?;
    let mut child = Command::new(program);
    child.arg(CHILD).uid(NOBODY).gid(NOBODY).env("HOME", "/tmp");
    let output = child.output().map_err(text)?;
    ensure(output.status.success(), || {
        String::from_utf8_lossy(&output.stderr).into_owned()
    })
}

fn without_udmabuf() -> Verdict {
    let gpu = Gpu::open(&Device::Software).map_err(text)?;
    ensure(!gpu.has_native_fences(), || "it has fences".to_owned())?;
    let missing = |error: EglError, advice: &str| match &error {
        EglError::Missing { .. } if error.to_string().contains(advice) => Ok(()),
        _ => Err(error.to_string()),
    };
    match gpu.fence() {
        Err(error) => missing(error, "finish()")?,
        Ok(fence) => return Err(format!("{fence:?}")),
    }
    match gpu.new_target(64, 64) {
        Err(error) => missing(error, "import that as the target"),
        Ok(target) => Err(format!("{target:?}")),
    }
}
