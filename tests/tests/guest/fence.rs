//! Fences of a real driver, on the dma-bufs of every way: what waits for them,
//! what does not, and what they tell.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dmashare::Errno;
use dmashare::alloc::{Allocate, Request, Way};
use dmashare::buffer::{Access, Buffer, BufferError};
use dmashare::fence::{Fence, FenceError, Status, now, ready, support};
use dmashare_tests::conformance::Verdict;
use dmashare_tests::held;
use libtest_mimic::Trial;

use crate::kms::dumb_is_in_ram;
use crate::vgem::{Job, Vgem};
use crate::{ensure, kernel_version, skipped, test, text};

/// Long enough to be told from no wait at all, also under emulation.
const WHILE: Duration = Duration::from_millis(200);

/// Where debugfs has the fences of sw_sync, which can fail.
const SW_SYNC: &str = "/sys/kernel/debug/sync/sw_sync";

pub(crate) fn trials_of(way: &Arc<dyn Allocate>) -> Vec<Trial> {
    let name = way.way();
    let trial = |check: &str, run: fn(&dyn Allocate) -> Verdict| {
        let way = Arc::clone(way);
        test(&format!("{name}::{check}"), move || run(&*way))
    };
    let tells = trial("dma_buf_tells_of_itself", tells_of_itself);
    // vgem, whose fences these are, cannot import what lies in the card.
    if name == Way::Dumb && !dumb_is_in_ram() {
        let refused = trial("fence_has_no_other_driver", has_no_other_driver);
        return vec![refused, tells];
    }
    vec![
        tells,
        trial("fence_of_a_writer", of_a_writer),
        trial("fence_of_a_reader", of_a_reader),
        trial("fence_holds_a_guard_back", holds_a_guard_back),
        trial("fence_is_imported", is_imported),
        trial("fences_are_merged", are_merged),
        trial("fence_waits_are_not_interrupted", are_not_interrupted),
        trial("fence_takes_a_deadline", takes_a_deadline),
        trial("fence_goes_by_its_handle", goes_by_its_handle),
        trial("fences_leak_nothing", leak_nothing),
    ]
}

pub(crate) fn trials() -> Vec<Trial> {
    match OpenOptions::new().read(true).write(true).open(SW_SYNC) {
        Ok(timeline) => vec![test("fence::failure_is_told", move || is_told(timeline))],
        Err(error) => vec![skipped(
            "fence::failure_is_told",
            format!("{SW_SYNC}: {error}; only sw_sync's fences can be made to fail"),
        )],
    }
}

fn buffer(way: &dyn Allocate) -> Result<Buffer, String> {
    way.allocate(&Request::new(1 << 16).for_device())
        .map_err(text)
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Verdict {
    ensure(found == expected, || {
        format!("{what}: {found:?}, expected {expected:?}")
    })
}

/// Whether such an access must wait: asked once without waiting, and once for a
/// while.
fn must_wait(buffer: &Buffer, access: Access) -> Result<bool, String> {
    let begun = Instant::now();
    let mut waits = [false; 2];
    for (waits, limit) in waits.iter_mut().zip([Duration::ZERO, WHILE]) {
        *waits = match ready(buffer, access, Some(limit)) {
            Ok(()) => false,
            Err(FenceError::Timeout { after, .. }) if after == limit => true,
            Err(error) => return Err(error.to_string()),
        };
    }
    let took = begun.elapsed();
    match waits {
        [true, true] if took < WHILE => Err(format!("waited {took:?}, not {WHILE:?}")),
        [zero, long] if zero != long => Err("not the same with another timeout".to_owned()),
        [waits, _] => Ok(waits),
    }
}

/// What there is to wait for, for each access.
fn exported(buffer: &Buffer) -> Result<[Status; 2], String> {
    let status = |access| Fence::export(buffer, access)?.status();
    Ok([
        status(Access::Read).map_err(text)?,
        status(Access::Write).map_err(text)?,
    ])
}

fn of_a_writer(way: &dyn Allocate) -> Verdict {
    let (vgem, buffer) = (Vgem::open()?, buffer(way)?);
    equal("idle", exported(&buffer)?, [Status::Signaled; 2])?;
    let begun = now();
    let job = vgem.start(Job::Writes, &buffer)?;
    equal("written", exported(&buffer)?, [Status::Pending; 2])?;
    equal("read waits", must_wait(&buffer, Access::Read)?, true)?;
    equal("write waits", must_wait(&buffer, Access::Write)?, true)?;

    let fence = Fence::export(&buffer, Access::Read).map_err(text)?;
    let info = fence.info().map_err(text)?;
    let [point] = &info.fences[..] else {
        return Err(format!("{info:?}"));
    };
    equal("driver", point.driver.as_str(), "vgem")?;
    equal("signalled at", point.signaled_at, None)?;
    let waited = fence.wait(Some(WHILE));
    let timeout = |error: &FenceError| matches!(error, FenceError::Timeout { after: WHILE, .. });
    ensure(waited.as_ref().is_err_and(timeout), || {
        format!("{waited:?}")
    })?;

    vgem.end(job)?;
    fence.wait(None).map_err(text)?;
    equal("status", fence.status(), Ok(Status::Signaled))?;
    let at = fence.info().map_err(text)?.fences[0].signaled_at;
    ensure(at.is_some_and(|at| begun < at && at < now()), || {
        format!("signalled at {at:?}, begun at {begun:?}, now {:?}", now())
    })?;
    equal("read waits after", must_wait(&buffer, Access::Read)?, false)?;
    equal(
        "write waits after",
        must_wait(&buffer, Access::Write)?,
        false,
    )?;
    equal("over", exported(&buffer)?, [Status::Signaled; 2])
}

fn of_a_reader(way: &dyn Allocate) -> Verdict {
    let (vgem, buffer) = (Vgem::open()?, buffer(way)?);
    let job = vgem.start(Job::Reads, &buffer)?;
    let expected = [Status::Signaled, Status::Pending];
    equal("read", exported(&buffer)?, expected)?;
    equal("read waits", must_wait(&buffer, Access::Read)?, false)?;
    equal("write waits", must_wait(&buffer, Access::Write)?, true)?;
    equal("both wait", must_wait(&buffer, Access::ReadWrite)?, true)?;
    vgem.end(job)?;
    equal(
        "write waits after",
        must_wait(&buffer, Access::Write)?,
        false,
    )
}

/// Runs `body` while another thread ends the job after a while, and says
/// whether it took as long.
fn held_back(
    vgem: &Vgem,
    job: crate::vgem::Fence,
    body: impl FnOnce() -> Verdict,
) -> Result<bool, String> {
    thread::scope(|scope| {
        let begun = Instant::now();
        let end = scope.spawn(move || {
            thread::sleep(WHILE);
            vgem.end(job)
        });
        body()?;
        let took = begun.elapsed();
        end.join().map_err(|_| "panicked")??;
        Ok(took >= WHILE)
    })
}

fn holds_a_guard_back(way: &dyn Allocate) -> Verdict {
    let (vgem, buffer) = (Vgem::open()?, buffer(way)?);
    let mut mapping = buffer.map(Access::ReadWrite).map_err(text)?;
    for (job, access, waits) in [
        (Job::Writes, Access::Read, true),
        (Job::Writes, Access::Write, true),
        (Job::Reads, Access::Read, false),
        (Job::Reads, Access::Write, true),
        (Job::Reads, Access::ReadWrite, true),
    ] {
        let job = vgem.start(job, &buffer)?;
        let body = || mapping.access(access).map_err(text)?.finish().map_err(text);
        let waited = held_back(&vgem, job, body)?;
        equal(&format!("a guard for {access} waited"), waited, waits)?;
    }
    Ok(())
}

fn is_imported(way: &dyn Allocate) -> Verdict {
    let (vgem, from, into) = (Vgem::open()?, buffer(way)?, buffer(way)?);
    for (access, read_waits) in [(Access::Read, false), (Access::Write, true)] {
        let job = vgem.start(Job::Writes, &from)?;
        let fence = Fence::export(&from, Access::Read).map_err(text)?;
        fence.import_into(&into, access).map_err(text)?;
        drop(fence);
        let waits = must_wait(&into, Access::Read)?;
        equal(&format!("for {access}: read waits"), waits, read_waits)?;
        let waits = must_wait(&into, Access::Write)?;
        equal(&format!("for {access}: write waits"), waits, true)?;
        vgem.end(job)?;
        equal("waits after", must_wait(&into, Access::Write)?, false)?;
    }
    Ok(())
}

fn are_merged(way: &dyn Allocate) -> Verdict {
    let (vgem, first, second) = (Vgem::open()?, buffer(way)?, buffer(way)?);
    let start = |buffer| -> Result<_, String> {
        let job = vgem.start(Job::Writes, buffer)?;
        Ok((job, Fence::export(buffer, Access::Read).map_err(text)?))
    };
    let ((one, first), (other, second)) = (start(&first)?, start(&second)?);
    let name = "x".repeat(dmashare::fence::MAX_NAME);
    let both = first.merge(&second, &name).map_err(text)?;
    let cloexec = rustix::io::fcntl_getfd(&both).map_err(text)?;
    equal("flags", cloexec, rustix::io::FdFlags::CLOEXEC)?;
    let info = both.info().map_err(text)?;
    equal("name", &info.name, &name)?;
    equal("fences", info.fences.len(), 2)?;
    equal("status", info.status, Status::Pending)?;
    for name in ["x".repeat(32), "a\0b".to_owned()] {
        let refused = first.merge(&second, &name);
        ensure(matches!(refused, Err(FenceError::Name { .. })), || {
            format!("{name:?}: {refused:?}")
        })?;
    }
    let itself = first.merge(&first, "").map_err(text)?;
    equal("of one", itself.info().map_err(text)?.fences.len(), 1)?;

    vgem.end(one)?;
    first.wait(None).map_err(text)?;
    equal("one is over", both.status(), Ok(Status::Pending))?;
    let waited = both.wait(Some(WHILE));
    ensure(matches!(waited, Err(FenceError::Timeout { .. })), || {
        format!("{waited:?}")
    })?;
    // What has signalled is left out.
    let rest = first.merge(&second, "rest").map_err(text)?;
    equal("the rest", rest.info().map_err(text)?.fences.len(), 1)?;

    vgem.end(other)?;
    both.wait(None).map_err(text)?;
    rest.wait(None).map_err(text)?;
    equal("both are over", both.status(), Ok(Status::Signaled))
}

static INTERRUPTIONS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count_it(_: libc::c_int) {
    INTERRUPTIONS.fetch_add(1, Ordering::Relaxed);
}

/// Runs `body` in a thread that a signal interrupts again and again.
fn interrupted(body: impl FnOnce() -> Verdict + Send) -> Verdict {
    // SAFETY: zeros are a valid value: no flags, so that calls do not restart.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = count_it as *const () as usize;
    // SAFETY: the handler does nothing that a handler may not.
    unsafe { libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()) };
    let before = INTERRUPTIONS.load(Ordering::Relaxed);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (send, receive) = std::sync::mpsc::channel();
        let over = &over;
        let body = scope.spawn(move || {
            // SAFETY: takes nothing.
            let sent = send.send(unsafe { libc::pthread_self() });
            sent.map_err(text)?;
            let said = body();
            over.store(true, Ordering::Relaxed);
            said
        });
        let target = receive.recv().map_err(text)?;
        while !over.load(Ordering::Relaxed) {
            // SAFETY: the thread is not joined yet.
            unsafe { libc::pthread_kill(target, libc::SIGALRM) };
            thread::sleep(Duration::from_millis(10));
        }
        body.join().map_err(|_| "panicked")?
    })?;
    let interruptions = INTERRUPTIONS.load(Ordering::Relaxed) - before;
    // The first may come before the wait; on a busy host there are few more.
    ensure(interruptions > 1, || {
        format!("only {interruptions} interruption")
    })
}

fn are_not_interrupted(way: &dyn Allocate) -> Verdict {
    let (vgem, buffer) = (Vgem::open()?, buffer(way)?);
    let mut mapping = buffer.map(Access::Read).map_err(text)?;
    let job = vgem.start(Job::Writes, &buffer)?;
    let fence = Fence::export(&buffer, Access::Read).map_err(text)?;
    interrupted(|| {
        let begun = Instant::now();
        let waited = fence.wait(Some(WHILE));
        let took = begun.elapsed();
        ensure(
            matches!(waited, Err(FenceError::Timeout { .. })) && took >= WHILE,
            || format!("{waited:?} after {took:?}"),
        )
    })?;
    let waited = |what: &str, body: &mut (dyn FnMut() -> Verdict + Send)| {
        let job = vgem.start(Job::Writes, &buffer)?;
        interrupted(|| {
            let waited = held_back(&vgem, job, body)?;
            equal(what, waited, true)
        })
    };
    vgem.end(job)?;
    waited("ready waited", &mut || {
        ready(&buffer, Access::Write, None).map_err(text)
    })?;
    waited("a guard waited", &mut || {
        mapping
            .access(Access::Read)
            .map_err(text)?
            .finish()
            .map_err(text)
    })
}

fn takes_a_deadline(way: &dyn Allocate) -> Verdict {
    let (vgem, buffer) = (Vgem::open()?, buffer(way)?);
    let known = kernel_version() >= (6, 4);
    let support = support(&buffer).map_err(text)?;
    equal(
        "export and import",
        (support.export, support.import),
        (true, true),
    )?;
    equal("deadline", support.deadline, known)?;
    let job = vgem.start(Job::Writes, &buffer)?;
    let fence = Fence::export(&buffer, Access::Read).map_err(text)?;
    for deadline in [
        now() + Duration::from_millis(16),
        Duration::ZERO,
        Duration::MAX,
    ] {
        match (known, fence.set_deadline(deadline)) {
            (true, Ok(())) | (false, Err(FenceError::Unsupported { since: "6.4", .. })) => {}
            (_, said) => return Err(format!("{deadline:?}: {said:?}")),
        }
    }
    // It is a wish, and changes nothing else.
    equal("status", fence.status(), Ok(Status::Pending))?;
    vgem.end(job)
}

fn goes_by_its_handle(way: &dyn Allocate) -> Verdict {
    let (vgem, buffer) = (Vgem::open()?, buffer(way)?);
    let job = vgem.start(Job::Writes, &buffer)?;
    let fence = Fence::export(&buffer, Access::Read).map_err(text)?;
    let cloexec = |fence: &Fence| rustix::io::fcntl_getfd(fence).map_err(text);
    equal("flags", cloexec(&fence)?, rustix::io::FdFlags::CLOEXEC)?;
    let plain = rustix::io::dup(fence.as_fd()).map_err(text)?;
    drop(fence);
    let again = Fence::from_fd(plain).map_err(text)?;
    equal("flags", cloexec(&again)?, rustix::io::FdFlags::CLOEXEC)?;
    // What it is of may go: the device, and the buffer.
    let dma_buf = buffer.into_fd().map_err(text)?;
    let refused = Fence::from_fd(dma_buf);
    ensure(matches!(refused, Err(FenceError::NotAFence { .. })), || {
        format!("{refused:?}")
    })?;
    equal("status", again.status(), Ok(Status::Pending))?;
    let refused = Buffer::from_fd(again.into_fd());
    ensure(
        matches!(refused, Err(BufferError::NotABuffer { .. })),
        || format!("{refused:?}"),
    )?;
    vgem.end(job)
}

fn leak_nothing(way: &dyn Allocate) -> Verdict {
    let (vgem, first) = (Vgem::open()?, buffer(way)?);
    let round = || -> Verdict {
        let job = vgem.start(Job::Writes, &first)?;
        let fence = Fence::export(&first, Access::Write).map_err(text)?;
        let both = fence.merge(&fence, "both").map_err(text)?;
        let _ = fence.merge(&fence, &"x".repeat(99));
        both.import_into(&first, Access::Read).map_err(text)?;
        both.info().map_err(text)?;
        support(&first).map_err(text)?;
        let _ = ready(&first, Access::Write, Some(Duration::ZERO));
        vgem.end(job)?;
        both.wait(None).map_err(text)
    };
    round()?;
    let held = || Ok((held::by_process()?, held::of_dma_buf(&first)?));
    let before = held()?;
    for _ in 0..20 {
        round()?;
    }
    held::comes_back_to(before, held)
}

/// No driver but its own imports it, and so no fence comes to it: there is
/// nothing to wait for.
fn has_no_other_driver(way: &dyn Allocate) -> Verdict {
    let (vgem, buffer) = (Vgem::open()?, buffer(way)?);
    let refused = vgem.start(Job::Writes, &buffer).map(|_| "imported");
    equal("vgem", refused, Err(Errno::NOSYS.to_string()))?;
    equal("idle", exported(&buffer)?, [Status::Signaled; 2])?;
    equal("waits", must_wait(&buffer, Access::Write)?, false)
}

fn tells_of_itself(way: &dyn Allocate) -> Verdict {
    let buffer = buffer(way)?;
    let exporter = match way.way() {
        Way::DmaHeap => "system",
        Way::Udmabuf => "udmabuf",
        Way::Dumb => "drm",
        _ => "dmashare",
    };
    let inode = crate::crtc::inode(buffer.fd().map_err(text)?)?;
    let info = buffer.info().map_err(text)?;
    equal("exporter", info.exporter.as_deref(), Some(exporter))?;
    equal("size", info.size, Some(buffer.size()))?;
    equal("inode", info.inode, inode)?;
    let second = buffer.map(Access::Read).map_err(text)?;
    let more = buffer.info().map_err(text)?.count;
    ensure(more > info.count, || {
        format!("{:?}, then {more:?}", info.count)
    })?;
    drop(second);
    for name in ["camera 3", "", "x\nsize:\t1", &"n".repeat(31)] {
        buffer.set_name(name).map_err(text)?;
        let info = buffer.info().map_err(text)?;
        equal("name", info.name.as_deref(), Some(name))?;
        equal("size", info.size, Some(buffer.size()))?;
    }
    for name in [&"n".repeat(32)[..], "a\0b"] {
        let refused = buffer.set_name(name);
        ensure(matches!(refused, Err(BufferError::Name { .. })), || {
            format!("{name:?}: {refused:?}")
        })?;
    }
    for refused in [
        buffer.read_at(0, &mut [0]).map(drop),
        buffer.write_at(0, &[0]).map(drop),
    ] {
        ensure(matches!(refused, Err(BufferError::NotAFile { .. })), || {
            format!("{refused:?}")
        })?;
    }
    let sealed = buffer.map_sealed().map(drop);
    ensure(matches!(sealed, Err(BufferError::NotSealed { .. })), || {
        format!("{sealed:?}")
    })
}

/// `struct sw_sync_create_fence_data` of the kernel's sw_sync.c
#[repr(C)]
struct CreateFence {
    value: u32,
    name: [u8; 32],
    fence: i32,
}

/// `_IOWR('W', 0, struct sw_sync_create_fence_data)`
const CREATE_FENCE: libc::Ioctl = 0xc028_5700;

/// A timeline that is closed fails the fences that are left on it.
fn is_told(timeline: File) -> Verdict {
    let create = || -> Result<Fence, String> {
        let mut create = CreateFence {
            value: 1,
            name: [0; 32],
            fence: -1,
        };
        // SAFETY: the ioctl reads and writes one such struct.
        let said = unsafe { libc::ioctl(timeline.as_raw_fd(), CREATE_FENCE, &raw mut create) };
        if said != 0 {
            return Err(std::io::Error::last_os_error().to_string());
        }
        // SAFETY: the kernel made this handle for us, and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(create.fence) };
        Fence::from_fd(fd).map_err(text)
    };
    let (fence, other) = (create()?, create()?);
    let before = fence.merge(&other, "before").map_err(text)?;
    equal("before", fence.status(), Ok(Status::Pending))?;
    drop(timeline);
    for fence in [&fence, &before] {
        equal("status", fence.status(), Ok(Status::Failed(Errno::NOENT)))?;
        let waited = fence.wait(Some(WHILE));
        let failed = |error: &FenceError| {
            matches!(
                error,
                FenceError::Failed {
                    source: Errno::NOENT,
                    ..
                }
            )
        };
        ensure(waited.as_ref().is_err_and(failed), || format!("{waited:?}"))?;
    }
    // The documented loss: merged only now, nobody hears of it.
    let after = fence.merge(&other, "after").map_err(text)?;
    equal("merged after", after.status(), Ok(Status::Signaled))
}
