//! Accounts of users: a user's buffers count together, through whichever open file,
//! node or heap they were made, and each user's apart.

use std::fs::{File, OpenOptions, Permissions, metadata, set_permissions, write};
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::ptr::null;

use dmashare_tests::conformance::Verdict;
use dmashare_tests::held;
use libtest_mimic::{Completion, Trial};
use rustix::io::Errno;

use crate::device::{
    Alloc, CONTIGUOUS, Device, Info, MIB, NODE_HEAP, NODE_UDMABUF, Node, PAGE, Range, ioctl,
    last_errno, owned,
};
use crate::forked::{Forked, in_another_process};
use crate::limits::Limit;
use crate::reload::{HEAP, Loaded, load};
use crate::{ensure, test, test_or_skip, text};
use crate::{memfd, users};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("users::limit_spans_files_and_nodes", spans_files),
        test("users::accounts_are_separate", are_separate),
        test("users::dead_process_is_uncharged", dead_process),
        test("users::namespace_counts_for_owner", namespace),
        test("users::root_namespace_counts_apart", root_namespace),
        test_or_skip("users::udmabuf_has_own_pool", udmabuf_pool),
    ]
}

const UDMABUF: &str = "/dev/udmabuf";

/// Two ordinary users.
const ALICE: u32 = 1000;
const BOB: u32 = 1001;

/// A node's permissions, until this is dropped.
pub(crate) struct Mode {
    node: &'static str,
    before: Permissions,
}

impl Mode {
    pub(crate) fn set(node: &'static str, mode: u32) -> Result<Mode, String> {
        let named = |error| format!("{node}: {error}");
        let before = metadata(node).map_err(named)?.permissions();
        set_permissions(node, Permissions::from_mode(mode)).map_err(named)?;
        Ok(Mode { node, before })
    }

    /// The module's own nodes, for everyone.
    fn of_all() -> Result<Vec<Mode>, String> {
        let modes = Node::ALL.map(|node| Mode::set(node.path(), 0o666));
        modes.into_iter().collect()
    }
}

impl Drop for Mode {
    fn drop(&mut self) {
        set_permissions(self.node, self.before.clone()).expect("it was changed before");
    }
}

/// Makes the calling process, a copy of the test, one of this user for good.
pub(crate) fn become_user(uid: u32) -> Verdict {
    // SAFETY: plain numbers; the copy has one thread.
    let changed = unsafe {
        libc::setgroups(0, null()) == 0
            && libc::setresgid(uid, uid, uid) == 0
            && libc::setresuid(uid, uid, uid) == 0
    };
    ensure(changed, || format!("becoming user {uid}: {}", last_errno()))
}

/// Changes the effective user, which can be undone.
fn act_as(uid: u32) -> Verdict {
    // SAFETY: plain numbers; the copy has one thread.
    let changed = unsafe { libc::seteuid(uid) } == 0;
    ensure(changed, || {
        format!("acting as user {uid}: {}", last_errno())
    })
}

fn unshare_user() -> Verdict {
    // SAFETY: a plain number; the copy has one thread.
    let entered = unsafe { libc::unshare(libc::CLONE_NEWUSER) } == 0;
    ensure(entered, || {
        format!("unshare(CLONE_NEWUSER): {}", last_errno())
    })
}

/// Moves the calling process into a user namespace of its own, with users in it.
fn enter_namespace(mapped: &Mapped) -> Verdict {
    unshare_user()?;
    (&mapped.asks)
        .write_all(&std::process::id().to_ne_bytes())
        .map_err(text)?;
    (&mapped.answers).read_exact(&mut [0]).map_err(text)
}

/// The user mapping of a copy's namespace, which its parent writes, as newuidmap(1)
/// does with the right to.
struct Mapped {
    asked: PipeReader,
    asks: PipeWriter,
    answers: PipeReader,
    answer: PipeWriter,
}

impl Mapped {
    fn new() -> Result<Mapped, String> {
        let (asked, asks) = pipe().map_err(text)?;
        let (answers, answer) = pipe().map_err(text)?;
        Ok(Mapped {
            asked,
            asks,
            answers,
            answer,
        })
    }

    /// Waits for a copy that enters a namespace, and maps its users.
    fn serve(&self, mapping: &str) -> Verdict {
        let mut pid = [0; 4];
        (&self.asked).read_exact(&mut pid).map_err(text)?;
        for map in ["uid_map", "gid_map"] {
            let path = format!("/proc/{}/{map}", u32::from_ne_bytes(pid));
            write(&path, mapping).map_err(|error| format!("{path}: {error}"))?;
        }
        (&self.answer).write_all(&[0]).map_err(text)
    }
}

/// A process of a user that holds a buffer, until it is told to end, or killed.
struct Holder {
    process: Forked,
    end: PipeWriter,
}

impl Holder {
    fn start(uid: u32, bytes: u64) -> Result<Holder, String> {
        let (mut ready, mut tell) = pipe().map_err(text)?;
        let (mut ends, end) = pipe().map_err(text)?;
        let process = Forked::start(move || {
            become_user(uid)?;
            let device = Device::open()?;
            let _made = device.alloc(Alloc::new(bytes)).map_err(text)?;
            tell.write_all(&[0]).map_err(text)?;
            // A process that ends has closed nothing by itself.
            ends.read_exact(&mut [0]).map_err(text)
        })?;
        match ready.read_exact(&mut [0]) {
            Ok(()) => Ok(Holder { process, end }),
            // It has ended, and says why.
            Err(_) => Err(process.wait().err().unwrap_or_default()),
        }
    }

    fn end(mut self) -> Verdict {
        self.end.write_all(&[0]).map_err(text)?;
        self.process.wait()
    }
}

fn info(device: &Device) -> Result<Info, String> {
    device.info().map_err(text)
}

fn allocates(device: &Device, bytes: u64) -> Result<OwnedFd, String> {
    let made = device.alloc(Alloc::new(bytes));
    made.map(|made| made.fd)
        .map_err(|errno| format!("{bytes} bytes: {errno}"))
}

/// That all of these are over a limit.
fn refused<T: std::fmt::Debug>(what: &str, answer: Result<T, Errno>) -> Verdict {
    let errno = answer.map(drop).err();
    ensure(errno == Some(Errno::DQUOT), || {
        format!("{what}: {errno:?}, expected EDQUOT")
    })
}

/// The account of a user, as a process of it sees it.
fn has_used(uid: u32, bytes: u64) -> Verdict {
    in_another_process(|| {
        become_user(uid)?;
        let device = Device::open()?;
        let used = || Ok(info(&device)?.user_used);
        held::comes_back_to(bytes, used).map_err(|error| format!("account of {uid}: {error}"))
    })
}

/// Shows that opening a node again, or another node, does not give a user more.
fn spans_files() -> Verdict {
    held::comes_back_to(0, users)?;
    let _limit = Limit::set("max_user_mb", 8)?;
    let (first, second) = (Device::open()?, Device::open()?);
    let used = |bytes| {
        for device in [&first, &second] {
            let info = info(device)?;
            ensure((info.user_used, info.user_max) == (bytes, 8 * MIB), || {
                format!("{info:?}, expected {bytes} of 8 MiB used")
            })?;
        }
        Ok::<(), String>(())
    };
    used(0)?;
    let five = allocates(&first, 5 * MIB)?;
    used(5 * MIB)?;
    let memfd = memfd(4 * MIB)?;
    let range = Range::new(&memfd, 0, 4 * MIB);
    let contiguous = Alloc::new(4 * MIB).flags(CONTIGUOUS);
    for device in [&first, &second, &Device::open()?] {
        refused("system memory", device.alloc(Alloc::new(4 * MIB)))?;
        refused("contiguous memory", device.alloc(contiguous))?;
        refused("a memfd", device.wrap(&[range]))?;
    }
    used(5 * MIB)?;
    let two = second.alloc(Alloc::new(2 * MIB).flags(CONTIGUOUS));
    let two = two.map_err(text)?;
    let one = second.wrap(&[Range::new(&memfd, 0, MIB)]).map_err(text)?;
    used(8 * MIB)?;
    refused("one page more", first.alloc(Alloc::new(PAGE)))?;
    // The limit was lowered below what is used already.
    let lower = Limit::set("max_user_mb", 1)?;
    drop((two, one));
    refused("a page, over a lower limit", second.alloc(Alloc::new(PAGE)))?;
    drop(lower);
    used(5 * MIB)?;
    drop(five);
    used(0)
}

/// Shows that one user's buffers take nothing from another user's limit.
fn are_separate() -> Verdict {
    held::comes_back_to(0, users)?;
    let _modes = Mode::of_all()?;
    let _limit = Limit::set("max_user_mb", 8)?;
    let alice = Holder::start(ALICE, 7 * MIB)?;
    let again = in_another_process(|| {
        become_user(ALICE)?;
        let device = Device::open()?;
        refused("another process of hers", device.alloc(Alloc::new(2 * MIB)))?;
        allocates(&device, MIB).map(drop)
    });
    again?;
    let bob = Holder::start(BOB, 8 * MIB)?;
    let root = Device::open()?;
    let eight = allocates(&root, 8 * MIB)?;
    let total = info(&root)?;
    ensure(
        (total.user_used, total.total_used) == (8 * MIB, 23 * MIB),
        || format!("{total:?}, expected 8 MiB of the user's and 23 in all"),
    )?;
    has_used(ALICE, 7 * MIB)?;
    has_used(BOB, 8 * MIB)?;
    alice.end()?;
    has_used(ALICE, 0)?;
    has_used(BOB, 8 * MIB)?;
    bob.end()?;
    has_used(BOB, 0)?;
    drop(eight);
    ensure(info(&root)?.total_used == 0, || {
        format!("{:?}", info(&root))
    })
}

/// Shows that the account of a process that was killed comes back to zero.
fn dead_process() -> Verdict {
    held::comes_back_to(0, users)?;
    let _modes = Mode::of_all()?;
    let _limit = Limit::set("max_user_mb", 8)?;
    for _ in 0..3 {
        let holder = Holder::start(ALICE, 8 * MIB)?;
        has_used(ALICE, 8 * MIB)?;
        holder.process.kill()?;
        holder.process.wait()?;
        has_used(ALICE, 0)?;
    }
    held::comes_back_to(0, users)
}

/// Shows that the users of a user namespace count for its owner, too, who can have
/// thousands of them, and become each.
fn namespace() -> Verdict {
    held::comes_back_to(0, users)?;
    let _modes = Mode::of_all()?;
    let _limit = Limit::set("max_user_mb", 8)?;
    let mapped = Mapped::new()?;
    let process = Forked::start(|| {
        become_user(ALICE)?;
        let device = Device::open()?;
        let used = |what: &str, bytes| {
            let used = info(&device)?.user_used;
            ensure(used == bytes, || {
                format!("{what}: {used} bytes used, expected {bytes}")
            })
        };
        let _outside = allocates(&device, 3 * MIB)?;
        enter_namespace(&mapped)?;
        act_as(1)?;
        used("the first user, before", 0)?;
        let _first = allocates(&device, 3 * MIB)?;
        used("the first user", 3 * MIB)?;
        // Its own account has room for them, the owner's has not.
        refused("the first user", device.alloc(Alloc::new(3 * MIB)))?;
        act_as(0)?;
        used("the owner", 6 * MIB)?;
        act_as(2)?;
        refused("the second user", device.alloc(Alloc::new(3 * MIB)))?;
        refused(
            "the second user, by a file of its own",
            Device::open()?.alloc(Alloc::new(3 * MIB)),
        )?;
        let _second = allocates(&device, 2 * MIB)?;
        used("the second user", 2 * MIB)?;
        act_as(0)?;
        used("the owner", 8 * MIB)?;
        // A namespace in the namespace is its outermost owner's, too.
        become_user(3)?;
        unshare_user()?;
        refused("a deeper namespace", device.alloc(Alloc::new(PAGE)))
    })?;
    let served = mapped.serve(&format!("0 {ALICE} 1\n1 100000 8\n"));
    process.wait()?;
    served?;
    has_used(ALICE, 0)
}

/// Shows that the namespaces that root makes, as for containers of the system, do not
/// share one account: their users count for themselves.
fn root_namespace() -> Verdict {
    held::comes_back_to(0, users)?;
    let _modes = Mode::of_all()?;
    let _limit = Limit::set("max_user_mb", 8)?;
    let device = Device::open()?;
    // Root's own account is full.
    let _eight = allocates(&device, 8 * MIB)?;
    refused("root", device.alloc(Alloc::new(PAGE)))?;
    let mapped = Mapped::new()?;
    let process = Forked::start(|| {
        enter_namespace(&mapped)?;
        let mut held = Vec::new();
        for user in [0, 1] {
            act_as(user)?;
            held.push(allocates(&device, 8 * MIB)?);
            refused("it", device.alloc(Alloc::new(PAGE)))?;
        }
        Ok(())
    })?;
    let served = mapped.serve("0 200000 2\n");
    process.wait()?;
    served
}

/// `struct udmabuf_create` of linux/udmabuf.h
#[repr(C)]
struct UdmabufCreate {
    memfd: i32,
    flags: u32,
    offset: u64,
    size: u64,
}

const UDMABUF_CREATE: libc::Ioctl = 0x4018_7542;

fn udmabuf(node: &File, memfd: &OwnedFd, size: u64) -> Result<OwnedFd, Errno> {
    let mut create = UdmabufCreate {
        memfd: memfd.as_raw_fd(),
        flags: 1,
        offset: 0,
        size,
    };
    // SAFETY: the request reads one `struct udmabuf_create`.
    unsafe { ioctl(node, UDMABUF_CREATE, (&raw mut create).cast()) }.map(owned)
}

fn open(node: &str) -> Result<File, String> {
    let file = OpenOptions::new().read(true).write(true).open(node);
    file.map_err(|error| format!("{node}: {error}"))
}

/// Shows that /dev/udmabuf has a limit and accounts of its own: it takes nothing from
/// the other nodes, nor they from it.
fn udmabuf_pool() -> Result<Completion, String> {
    held::comes_back_to(0, users)?;
    let device = Device::open()?;
    if info(&device)?.nodes & NODE_UDMABUF == 0 {
        let reason = "/dev/udmabuf is the kernel's own, or not asked for by standard_nodes=1";
        return Ok(Completion::ignored_with(reason));
    }
    let node = open(UDMABUF)?;
    let memfd = memfd(8 * MIB)?;
    let too_much = |what: &str, size| {
        let errno = udmabuf(&node, &memfd, size).err();
        // It knows no EDQUOT, nor do programs for the kernel's own.
        ensure(errno == Some(Errno::NOMEM), || {
            format!("{what}: {errno:?}, expected ENOMEM")
        })
    };
    let unused = |what: &str| {
        let info = info(&device)?;
        ensure(
            (info.user_used, info.total_used, info.buffers) == (0, 0, 0),
            || format!("{what}: {info:?}"),
        )
    };
    {
        let _limit = Limit::set("max_udmabuf_mb", 4)?;
        let _three = udmabuf(&node, &memfd, 3 * MIB).map_err(text)?;
        unused("with a buffer of /dev/udmabuf")?;
        too_much("a page over the part of one user", PAGE)?;
        // The user's account in this pool is not that in the other.
        let _total = Limit::set("max_total_mb", 2)?;
        let _user = Limit::set("max_user_mb", 2)?;
        let _two = allocates(&device, 2 * MIB)?;
        refused("over max_total_mb", device.alloc(Alloc::new(PAGE)))?;
        // The rest is another user's.
        in_another_process(|| {
            become_user(1000)?;
            let _one = udmabuf(&node, &memfd, MIB).map_err(text)?;
            too_much("a page over max_udmabuf_mb", PAGE)
        })?;
    }
    unused("after all")?;
    // All that was counted there is given back.
    let _limit = Limit::set("max_udmabuf_mb", 8)?;
    udmabuf(&node, &memfd, 6 * MIB).map_err(text)?;
    Ok(Completion::Completed)
}

/// `struct dma_heap_allocation_data` of linux/dma-heap.h
#[repr(C)]
struct HeapAllocation {
    len: u64,
    fd: u32,
    fd_flags: u32,
    heap_flags: u64,
}

const DMA_HEAP_IOCTL_ALLOC: libc::Ioctl = 0xc018_4800;

fn from_heap(heap: &File, len: u64) -> Result<OwnedFd, Errno> {
    let mut allocation = HeapAllocation {
        len,
        fd: 0,
        fd_flags: (libc::O_RDWR | libc::O_CLOEXEC).cast_unsigned(),
        heap_flags: 0,
    };
    // SAFETY: the request reads and writes one `struct dma_heap_allocation_data`.
    unsafe { ioctl(heap, DMA_HEAP_IOCTL_ALLOC, (&raw mut allocation).cast()) }?;
    Ok(owned(allocation.fd.cast_signed()))
}

/// Shows that buffers of the framework's heap count for the user that allocates them,
/// in one account with those of the nodes, however often the heap is opened. The module
/// with a heap stays loaded.
pub(crate) fn heap() -> Verdict {
    if !Path::new(HEAP).exists() {
        // Not to be brought back: it cannot be unloaded any more.
        std::mem::forget(Loaded::set_aside()?);
        load("heap=1").map_err(text)?;
    }
    let device = Device::open()?;
    let before = info(&device)?;
    ensure(before.nodes & NODE_HEAP != 0, || format!("{before:?}"))?;
    let mut modes = Mode::of_all()?;
    modes.push(Mode::set(HEAP, 0o666)?);
    let _limit = Limit::set("max_user_mb", 8)?;
    in_another_process(|| {
        become_user(ALICE)?;
        let device = Device::open()?;
        let used = |bytes| {
            let info = info(&device)?;
            ensure((info.user_used, info.file_used) == (bytes, 0), || {
                format!("{info:?}, expected {bytes} bytes of the user's")
            })
        };
        used(0)?;
        let _five = from_heap(&open(HEAP)?, 5 * MIB).map_err(text)?;
        used(5 * MIB)?;
        refused("the heap, opened again", from_heap(&open(HEAP)?, 4 * MIB))?;
        refused("the node", device.alloc(Alloc::new(4 * MIB)))?;
        let three = from_heap(&open(HEAP)?, 3 * MIB).map_err(text)?;
        used(8 * MIB)?;
        drop(three);
        used(5 * MIB)
    })?;
    has_used(ALICE, 0)?;
    // Another user's account is another one.
    in_another_process(|| {
        become_user(BOB)?;
        from_heap(&open(HEAP)?, 8 * MIB).map(drop).map_err(text)
    })
}
