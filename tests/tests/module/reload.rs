//! Loading and unloading: with which parameters, and when it is refused.
//!
//! These come last: the heap that the module can add is there, and the module
//! with it, as long as the kernel runs.

use std::ffi::{CString, c_long};
use std::fs::{File, read_dir, read_to_string};
use std::os::fd::AsRawFd;
use std::path::Path;

use dmashare::alloc::{Allocate, DmaHeap, Request};
use dmashare::buffer::Access;
use dmashare_tests::conformance::Verdict;
use dmashare_tests::guest::{kernel_has_nodes, kernel_version};
use dmashare_tests::held;
use drm::control::Device as _;
use libtest_mimic::Trial;
use rustix::io::Errno;

use crate::device::{Alloc, Device, MIB, NODE_HEAP, Node, PAGE, SYSTEM_NODE, last_errno};
use crate::gem::Vgem;
use crate::{ensure, skipped, test, text};
use crate::{injected, users};

/// Where `cargo vm` puts it.
const FILE: &str = "/run/vm/dmashare.ko";
const DEBUGFS: &str = "/sys/kernel/debug/dmashare";
const UDMABUF: &str = "/dev/udmabuf";
const SYSTEM: &str = "/dev/dma_heap/system";
pub(crate) const HEAP: &str = "/dev/dma_heap/dmashare";

/// The first kernel that takes a heap of a module.
const TAKES_HEAPS: (u32, u32) = (7, 2);

pub(crate) fn trials() -> Vec<Trial> {
    if !Path::new(FILE).exists() || !Path::new(SYSTEM_NODE).exists() {
        let reason = format!("it is not loaded from {FILE}");
        return vec![skipped("reload::module", reason)];
    }
    let mut trials = vec![
        test("reload::comes_and_goes", comes_and_goes),
        test("reload::stays_while_it_is_used", stays_while_used),
        test("reload::refuses_bad_parameters", bad_parameters),
    ];
    trials.extend(injected::trials_of_loading());
    // The last ones of all.
    match kernel_has_nodes() && kernel_version() >= TAKES_HEAPS {
        true => trials.extend([
            test("reload::a_heap_stays", a_heap_stays),
            test("users::heap_counts_for_user", crate::users::heap),
        ]),
        false => trials.push(test("reload::says_that_it_can_add_no_heap", no_heap)),
    }
    trials
}

/// What the module was loaded with, and will be again.
pub(crate) struct Loaded {
    pub(crate) parameters: String,
}

impl Loaded {
    /// Unloads it until this is dropped.
    pub(crate) fn set_aside() -> Result<Loaded, String> {
        held::comes_back_to(0, users)?;
        let mut parameters = String::new();
        for entry in read_dir("/sys/module/dmashare/parameters").map_err(text)? {
            let path = entry.map_err(text)?.path();
            let value = read_to_string(&path).map_err(text)?;
            let name = path.file_name().unwrap_or_default().display();
            parameters += &format!("{name}={} ", value.trim());
        }
        unload().map_err(|errno| format!("unloading it: {errno}"))?;
        Ok(Loaded { parameters })
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if Path::new("/sys/module/dmashare").exists() {
            // What a test that failed left may keep it.
            let _ = unload();
        }
        let _ = load(&self.parameters);
    }
}

pub(crate) fn load(parameters: &str) -> Result<(), Errno> {
    let file =
        File::open(FILE).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let parameters = CString::new(parameters).expect("a test has no zero in them");
    // SAFETY: the string ends, and both last as long as the call.
    returned(unsafe {
        libc::syscall(
            libc::SYS_finit_module,
            file.as_raw_fd(),
            parameters.as_ptr(),
            0,
        )
    })
}

pub(crate) fn unload() -> Result<(), Errno> {
    let (name, flags) = (c"dmashare", libc::O_NONBLOCK);
    // SAFETY: the string ends, and lasts as long as the call.
    returned(unsafe { libc::syscall(libc::SYS_delete_module, name.as_ptr(), flags) })
}

fn returned(value: c_long) -> Result<(), Errno> {
    match value {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

pub(crate) fn is_gone() -> Verdict {
    let nodes = Node::ALL.map(Node::path);
    for path in ["/sys/module/dmashare", "/dev/dmashare", DEBUGFS]
        .into_iter()
        .chain(nodes)
    {
        ensure(!Path::new(path).exists(), || format!("{path} is left"))?;
    }
    // What is there now is the kernel's own.
    let has_own = kernel_has_nodes();
    for path in [UDMABUF, SYSTEM] {
        let exists = Path::new(path).exists();
        ensure(exists == has_own, || format!("{path}: exists: {exists}"))?;
    }
    Ok(())
}

fn comes_and_goes() -> Verdict {
    let _loaded = Loaded::set_aside()?;
    let parameters = [
        "",
        "standard_nodes=1",
        "max_buffer_mb=2",
        "max_file_mb=3 max_total_mb=4",
        "max_user_mb=2 max_total_mb=5",
        "standard_nodes=0 max_total_mb=1",
        "standard_nodes=1 max_buffer_mb=4294967295",
        "no_such_parameter=1",
    ];
    for (round, parameters) in parameters.iter().cycle().take(100).enumerate() {
        let wrong = |errno| format!("round {round}, {parameters:?}: {errno}");
        is_gone().map_err(wrong)?;
        load(parameters).map_err(text).map_err(wrong)?;
        let device = Device::open().map_err(wrong)?;
        let info = device.info().map_err(text)?;
        for (name, told) in [
            ("max_buffer_mb=", info.buffer_max),
            ("max_file_mb=", info.file_max),
            ("max_user_mb=", info.user_max),
            ("max_total_mb=", info.total_max),
        ] {
            let mut given = parameters.split(' ').filter_map(|p| p.strip_prefix(name));
            if let Some(mib) = given.next() {
                let mib: u64 = mib.parse().map_err(text)?;
                ensure(told == mib * MIB, || wrong(format!("{name}{told}")))?;
            }
        }
        let nodes = !kernel_has_nodes() && parameters.contains("standard_nodes=1");
        ensure((info.nodes != 0) == nodes, || wrong(format!("{info:?}")))?;
        device.alloc(Alloc::new(MIB)).map_err(text).map_err(wrong)?;
        ensure(Path::new(DEBUGFS).join("buffers").exists(), || {
            wrong(format!("no {DEBUGFS}"))
        })?;
        let again = load("");
        ensure(again == Err(Errno::EXIST), || wrong(format!("{again:?}")))?;
        drop(device);
        unload().map_err(text).map_err(wrong)?;
    }
    is_gone()
}

/// That it is not unloaded as long as this is there, and is afterwards.
fn keeps<T>(what: &str, used: T) -> Verdict {
    let answer = unload();
    ensure(answer == Err(Errno::WOULDBLOCK), || {
        format!("unloading it with {what}: {answer:?}, expected EWOULDBLOCK")
    })?;
    drop(used);
    held::comes_back_to(0, users).map_err(|error| format!("after {what}: {error}"))?;
    unload().map_err(|errno| format!("unloading it after {what}: {errno}"))?;
    load("").map_err(text)
}

fn stays_while_used() -> Verdict {
    let _loaded = Loaded::set_aside()?;
    load("").map_err(text)?;
    for node in Node::ALL {
        keeps(node.path(), node.open()?)?;
    }
    let alloc = || {
        let made = Device::open()?.alloc(Alloc::new(PAGE));
        made.map_err(text)?.buffer()
    };
    keeps("a buffer", alloc()?)?;
    let mapping = alloc()?.map(Access::Read).map_err(text)?;
    keeps("a mapping", mapping)?;
    let vgem = Vgem::open()?;
    {
        let buffer = alloc()?;
        let handle = vgem.prime_fd_to_buffer(buffer.fd().map_err(text)?);
        handle.map_err(text)?;
    }
    keeps("a GEM handle", vgem)?;
    let file = File::open(format!("{DEBUGFS}/buffers")).map_err(text)?;
    keeps("its file in debugfs open", file)?;
    // A message on its way to itself.
    let (socket, other) = std::os::unix::net::UnixDatagram::pair().map_err(text)?;
    ensure(crate::killed::send(&socket, &alloc()?)?, || {
        "the message did not go".to_owned()
    })?;
    keeps("a message on its way", (socket, other))
}

fn bad_parameters() -> Verdict {
    let _loaded = Loaded::set_aside()?;
    for (parameters, errno) in [
        ("max_buffer_mb=-1", Errno::INVAL),
        ("max_buffer_mb=x", Errno::INVAL),
        ("max_file_mb=", Errno::INVAL),
        ("max_user_mb=-1", Errno::INVAL),
        ("max_total_mb=1k", Errno::INVAL),
        ("standard_nodes=maybe", Errno::INVAL),
        ("heap=2", Errno::INVAL),
        ("max_buffer_mb=4294967296", Errno::RANGE),
    ] {
        let answer = load(parameters);
        ensure(answer == Err(errno), || {
            format!("{parameters}: {answer:?}, expected {errno}")
        })?;
        is_gone().map_err(|error| format!("{parameters}: {error}"))?;
    }
    Ok(())
}

/// Not half of it: where the heap is refused, the nodes go again, too.
fn no_heap() -> Verdict {
    let _loaded = Loaded::set_aside()?;
    for parameters in ["heap=1", "standard_nodes=1 heap=1"] {
        let answer = load(parameters);
        ensure(answer == Err(Errno::OPNOTSUPP), || {
            format!("{parameters}: {answer:?}, expected EOPNOTSUPP")
        })?;
        is_gone()?;
    }
    Ok(())
}

fn a_heap_stays() -> Verdict {
    // Not to be brought back: it cannot be unloaded any more.
    std::mem::forget(Loaded::set_aside()?);
    load("heap=1").map_err(text)?;
    let info = Device::open()?.info().map_err(text)?;
    ensure(info.nodes == NODE_HEAP, || format!("{info:?}"))?;
    let heap = DmaHeap::open("dmashare").map_err(text)?;
    let buffer = heap.allocate(&Request::new(MIB)).map_err(text)?;
    crate::memory::put(&buffer, MIB - 4, b"heap")?;
    crate::memory::holds(&buffer, MIB - 4, b"heap")?;
    let info = Device::open()?.info().map_err(text)?;
    ensure((info.total_used, info.buffers) == (MIB, 1), || {
        format!("{info:?}")
    })?;
    let path = format!(
        "/proc/self/fdinfo/{}",
        buffer.fd().map_err(text)?.as_raw_fd()
    );
    let shown = read_to_string(path).map_err(text)?;
    ensure(shown.contains("exp_name:\tdmashare\n"), || shown.clone())?;
    drop((buffer, heap));
    held::comes_back_to(1, users)?;
    let answer = unload();
    ensure(answer == Err(Errno::WOULDBLOCK), || {
        format!("unloading it with a heap: {answer:?}, expected EWOULDBLOCK")
    })?;
    ensure(Path::new(HEAP).exists(), || format!("{HEAP} is gone"))
}
