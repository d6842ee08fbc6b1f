//! Allocations of the kernel's that fail, one after the other: whichever it is,
//! a call ends with an error or does without, and leaves nothing behind.
//!
//! For kernels with CONFIG_FAULT_INJECTION: each thread there has a file that
//! says the how-manyth of its next allocations is to fail
//! (<https://docs.kernel.org/fault-injection/fault-injection.html>).

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr::null_mut;

use dmashare_tests::conformance::Verdict;
use dmashare_tests::held;
use drm::control::Device as _;
use libtest_mimic::Trial;
use rustix::io::Errno;

use crate::device::{
    Alloc, Argument, BELOW_4G, CONTIGUOUS, Device, INFO, Info, MIB, Node, PAGE, QUERY, Query,
    Range, WRITE_COMBINED, Wrap, last_errno,
};
use crate::forked::Forked;
use crate::gem::Vgem;
use crate::refused::state;
use crate::{ensure, skipped, test, text};
use crate::{memfd, reload, users};

const FAIL_NTH: &str = "/proc/thread-self/fail-nth";

/// More than any call has; who makes as many is in a loop.
const MOST: u32 = 20_000;

pub(crate) fn trials() -> Vec<Trial> {
    of(vec![
        ("injected::alloc", alloc as fn() -> Verdict),
        ("injected::wrap", wrap),
        ("injected::answers", answers),
        ("injected::open", open),
        ("injected::mmap", mmap),
        ("injected::import", import),
    ])
}

/// Those that load the module: among the last.
pub(crate) fn trials_of_loading() -> Vec<Trial> {
    of(vec![("injected::load", load)])
}

type Check = (&'static str, fn() -> Verdict);

fn of(checks: Vec<Check>) -> Vec<Trial> {
    let there = Path::new(FAIL_NTH).exists();
    let trial = |(name, check)| match there {
        true => test(name, check),
        false => skipped(name, "this kernel is built without fault injection"),
    };
    checks.into_iter().map(trial).collect()
}

/// This thread's file.
struct Injector(File);

impl Injector {
    fn new() -> Result<Injector, String> {
        // By itself it leaves out the allocations that matter here.
        for (fault, setting, value) in [
            ("failslab", "ignore-gfp-wait", "N"),
            ("failslab", "verbose", "0"),
            ("fail_page_alloc", "ignore-gfp-wait", "N"),
            ("fail_page_alloc", "ignore-gfp-highmem", "N"),
            ("fail_page_alloc", "min-order", "0"),
            ("fail_page_alloc", "verbose", "0"),
            ("fail_usercopy", "verbose", "0"),
        ] {
            let path = format!("/sys/kernel/debug/{fault}/{setting}");
            if Path::new(&path).exists() {
                std::fs::write(&path, value).map_err(|error| format!("{path}: {error}"))?;
            }
        }
        let file = OpenOptions::new().read(true).write(true).open(FAIL_NTH);
        file.map(Injector).map_err(text)
    }

    /// Makes a call whose `nth` allocation, or copy from or to user space, fails;
    /// whether it came to that.
    fn fail<T>(&self, nth: u32, call: impl FnOnce() -> T) -> Result<(T, bool), String> {
        let order = nth.to_string();
        self.0.write_at(order.as_bytes(), 0).map_err(text)?;
        let answer = call();
        let mut left = [0; 16];
        let read = self.0.read_at(&mut left, 0);
        // What is left over may make the disarming fail, but only once.
        self.0
            .write_at(b"0", 0)
            .or_else(|_| self.0.write_at(b"0", 0))
            .map_err(text)?;
        match read {
            Ok(read) => Ok((answer, left[..read].starts_with(b"0"))),
            // It was the reading that failed: the call came to its end before.
            Err(error) if error.raw_os_error() == Some(libc::EFAULT) => Ok((answer, false)),
            Err(error) => Err(text(error)),
        }
    }
}

/// Makes the call with its first allocation failing, its second, and so on until
/// none is left. `state` is what must be the same after each.
fn each<T, S: Copy + PartialEq + Debug>(
    what: &str,
    state: impl Fn() -> Result<S, String>,
    call: impl Fn() -> Result<T, Errno>,
) -> Verdict {
    let injector = Injector::new()?;
    let before = state()?;
    let mut refused = 0;
    for nth in 1..MOST {
        let (answer, injected) = injector.fail(nth, &call)?;
        if let Err(errno) = &answer {
            refused += 1;
            ensure(injected, || format!("{what}: {errno} without a failure"))?;
            // EFAULT where the copy of the argument is what failed.
            ensure([Errno::NOMEM, Errno::FAULT].contains(errno), || {
                format!("{what}, failure {nth}: {errno}")
            })?;
        }
        drop(answer);
        held::comes_back_to(before, &state)
            .map_err(|error| format!("{what}, failure {nth}: {error}"))?;
        let again = call().map(drop);
        ensure(again.is_ok(), || {
            format!("{what}, after failure {nth}: {again:?}")
        })?;
        if !injected {
            return ensure(refused > 0, || {
                format!("{what}: no failure of {nth} was an error")
            });
        }
    }
    Err(format!("{what}: more than {MOST} allocations"))
}

fn alloc() -> Verdict {
    let device = Device::open()?;
    for alloc in [
        Alloc::new(PAGE),
        Alloc::new(64 * PAGE).max_chunk(PAGE),
        Alloc::new(MIB).flags(BELOW_4G),
        Alloc::new(8 * MIB),
        Alloc::new(3 * PAGE).flags(CONTIGUOUS),
        Alloc::new(4 * MIB + PAGE).flags(CONTIGUOUS),
        Alloc::new(16 * PAGE).flags(WRITE_COMBINED),
        Alloc::new(MIB).flags(WRITE_COMBINED | CONTIGUOUS),
    ] {
        let what = format!("{alloc:?}");
        each(&what, || state(&device), || device.alloc_fd(alloc))?;
    }
    Ok(())
}

fn wrap() -> Verdict {
    let device = Device::open()?;
    let memfd = memfd(64 * PAGE)?;
    let range = |offset, pages| Range::new(&memfd, offset * PAGE, pages * PAGE);
    for ranges in [
        vec![range(0, 1)],
        vec![range(0, 64)],
        vec![range(60, 4), range(0, 32), range(2, 1)],
        vec![range(7, 1); 32],
    ] {
        let what = format!("{} ranges", ranges.len());
        each(
            &what,
            || state(&device),
            || device.wrap_fd(Wrap::new(&ranges)),
        )?;
    }
    // Pages that are not there yet, each time.
    let fresh = || {
        let memfd = crate::memfd(16 * PAGE).map_err(|_| Errno::NOMEM)?;
        device.wrap_fd(Wrap::new(&[Range::new(&memfd, 0, 16 * PAGE)]))
    };
    each("a new memfd", || state(&device), fresh)?;
    rustix::fs::fcntl_add_seals(&memfd, rustix::fs::SealFlags::WRITE)
        .map_err(|errno| format!("sealing the memfd after all: {errno}"))
}

/// The answer cannot be copied: it is EFAULT, and the argument is as before.
fn answers() -> Verdict {
    let device = Device::open()?;
    let injector = Injector::new()?;
    let made = device.alloc_fd(Alloc::new(PAGE)).map_err(text)?;
    let before = state(&device)?;
    for node in Node::ALL {
        answered(&injector, &device, (node, INFO), Info::new())?;
        answered(&injector, &device, (node, QUERY), Query::new(&made))?;
    }
    held::comes_back_to(before, || state(&device))
}

fn answered<T: Argument>(
    injector: &Injector,
    device: &Device,
    (node, request): (Node, libc::Ioctl),
    argument: T,
) -> Verdict {
    for nth in 1..MOST {
        let mut given = argument;
        let call = || device.call(node, request, &mut given);
        let (answer, injected) = injector.fail(nth, call)?;
        let good = match answer {
            Ok(returned) => returned == 0 && given != argument,
            Err(errno) => injected && errno == Errno::FAULT && given == argument,
        };
        ensure(good, || {
            format!("ioctl {request:#x} on {node:?}, failure {nth}: {answer:?}, {given:?}")
        })?;
        if !injected {
            return Ok(());
        }
    }
    Err(format!("ioctl {request:#x}: more than {MOST} failures"))
}

fn open() -> Verdict {
    let device = Device::open()?;
    for node in Node::ALL {
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
        let open = || rustix::fs::open(node.path(), flags, 0.into());
        each(node.path(), || state(&device), open)?;
    }
    Ok(())
}

/// A mapping, until this is dropped.
struct Mapped(*mut libc::c_void, usize);

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers into it.
        unsafe { libc::munmap(self.0, self.1) };
    }
}

fn map(fd: &OwnedFd, length: usize) -> Result<Mapped, Errno> {
    let (prot, fd) = (libc::PROT_READ | libc::PROT_WRITE, fd.as_raw_fd());
    // SAFETY: a new mapping, where nothing is; no one reads or writes it.
    let at = unsafe { libc::mmap(null_mut(), length, prot, libc::MAP_SHARED, fd, 0) };
    match at == libc::MAP_FAILED {
        true => Err(last_errno()),
        false => Ok(Mapped(at, length)),
    }
}

/// One that needs tables of its own, over pieces of all sizes.
fn mmap() -> Verdict {
    let device = Device::open()?;
    for alloc in [
        Alloc::new(4 * MIB).max_chunk(PAGE),
        Alloc::new(4 * MIB),
        Alloc::new(4 * MIB).flags(CONTIGUOUS | WRITE_COMBINED),
    ] {
        let made = device.alloc(alloc).map_err(text)?;
        let what = format!("mmap of {alloc:?}");
        each(&what, || state(&device), || map(&made.fd, 4 << 20))?;
    }
    Ok(())
}

/// A GEM handle, until this is dropped.
struct Imported<'a>(&'a Vgem, drm::buffer::Handle);

impl Drop for Imported<'_> {
    fn drop(&mut self) {
        self.0.close_buffer(self.1).expect("it is ours");
    }
}

/// With that, what the driver does: it attaches itself, and may map.
fn import() -> Verdict {
    let device = Device::open()?;
    let vgem = Vgem::open()?;
    for alloc in [
        Alloc::new(PAGE),
        Alloc::new(256 * PAGE).max_chunk(PAGE),
        Alloc::new(3 * PAGE).flags(CONTIGUOUS),
    ] {
        let made = device.alloc(alloc).map_err(text)?;
        let import = || match vgem.prime_fd_to_buffer(made.fd.as_fd()) {
            Ok(handle) => Ok(Imported(&vgem, handle)),
            Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        };
        let what = format!("import of {alloc:?}");
        each(&what, || state(&device), import)?;
    }
    Ok(())
}

/// Nodes that a load can add beside the module's own.
const STANDARD_NODES: [&str; 3] = [
    "/dev/udmabuf",
    "/dev/dma_heap/system",
    "/dev/dma_heap/dmashare",
];

/// Opens all nodes, again and again, and keeps what it gets for a while: one that was
/// opened too early would be closed after its module is gone.
fn opens() -> Verdict {
    let paths = Node::ALL.map(Node::path).into_iter().chain(STANDARD_NODES);
    let paths: Vec<&str> = paths.collect();
    let mut kept = Vec::new();
    loop {
        for path in &paths {
            let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
            kept.extend(rustix::fs::open(*path, flags, 0.into()));
        }
        if kept.len() > 32 {
            kept.clear();
        }
    }
}

/// The kernel's own allocations for a module are among them. A node is visible as soon
/// as it is registered, and a later step can still fail: then the kernel frees the
/// module, whoever uses it. Meanwhile another process opens the nodes, and KASAN sees a
/// use of what was freed.
fn load() -> Verdict {
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
                // Without memory for its path, the kernel gives a node another.
                let named = Node::ALL.iter().all(|node| Path::new(node.path()).exists());
                ensure(named || injected, || "a node is missing".to_owned())?;
                if named {
                    let device = Device::open()?;
                    device.alloc(Alloc::new(PAGE)).map_err(text)?;
                }
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
