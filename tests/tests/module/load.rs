//! Loads that fail while another process opens the nodes: nothing that it opened
//! outlives the module.
//!
//! A node is visible as soon as it is registered, and a later step can still fail.
//! Then the kernel frees the module, whoever uses it. On a kernel with fault
//! injection each step fails once, and KASAN sees a use of what was freed.

use std::path::Path;

use dmashare_tests::conformance::Verdict;
use dmashare_tests::held;
use libtest_mimic::Trial;
use rustix::fs::{Mode, OFlags, open};

use crate::device::{Alloc, Device, Node, PAGE};
use crate::forked::Forked;
use crate::injected::{FAIL_NTH, Injector, MOST};
use crate::{ensure, reload, skipped, test, text, users};

pub(crate) fn trials() -> Vec<Trial> {
    let name = "load::failing_keeps_no_opener";
    vec![match Path::new(FAIL_NTH).exists() {
        true => test(name, failing_keeps_no_opener),
        false => skipped(name, "this kernel is built without fault injection"),
    }]
}

/// The nodes that a load can add, the standard ones included.
const NODES: [&str; 3] = [
    "/dev/udmabuf",
    "/dev/dma_heap/system",
    "/dev/dma_heap/dmashare",
];

/// Opens all nodes, again and again, and keeps what it gets for a while: one that was
/// opened too early would be closed after its module is gone.
fn opens() -> Verdict {
    let paths = Node::ALL.map(Node::path).into_iter().chain(NODES);
    let paths: Vec<&str> = paths.collect();
    let mut kept = Vec::new();
    loop {
        for path in &paths {
            kept.extend(open(*path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()));
        }
        // Some outlive a load that fails; a load that succeeds is unloaded later.
        if kept.len() > 32 {
            kept.clear();
        }
    }
}

fn failing_keeps_no_opener() -> Verdict {
    let injector = Injector::new()?;
    let loaded = reload::Loaded::set_aside()?;
    let mut refused = 0;
    for nth in 1..MOST {
        let opener = Forked::start(opens)?;
        let (answer, injected) = injector.fail(nth, || reload::load(&loaded.parameters))?;
        opener.kill()?;
        opener.wait()?;
        match answer {
            Ok(()) => {
                let device = Device::open()?;
                device.alloc(Alloc::new(PAGE)).map_err(text)?;
                drop(device);
                held::comes_back_to(0, users)?;
                reload::unload().map_err(|errno| format!("unloading it: {errno}"))?;
            }
            Err(errno) => {
                refused += 1;
                ensure(injected, || format!("{errno} without a failure"))?;
                reload::is_gone().map_err(|error| format!("failure {nth}: {error}"))?;
            }
        }
        if !injected {
            return ensure(refused > 0, || "no failure was an error".to_owned());
        }
    }
    Err(format!("more than {MOST} allocations"))
}
