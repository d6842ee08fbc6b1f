//! What a seal against writing is worth on this kernel: who can still write,
//! and what of it can be mapped.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::Command;

use dmashare::alloc::{Allocate, Memfd, Request, Udmabuf, Way, probe};
use dmashare::buffer::{Access, Buffer, BufferError, Kind, Seals};
use dmashare_tests::conformance::Verdict;
use dmashare_tests::held::comes_back_to;
use libtest_mimic::{Completion, Trial};
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::{ensure, skipped, test, text};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        test("sealed::memory_is_plain_bytes", is_plain_bytes),
        test(
            "sealed::huge_pages_are_plain_bytes",
            huge_pages_are_plain_bytes,
        ),
        Trial::ignorable_test("sealed::huge_page_limit_is_error", move || {
            huge_page_limit_is_error().map_err(Into::into)
        }),
    ];
    trials.push(match &probe().row(Way::Udmabuf).verdict {
        Ok(_) => test("sealed::no_device_writes_it", no_device_writes_it),
        Err(reason) => skipped("sealed::no_device_writes_it", reason),
    });
    trials
}

/// By a handle that is open for writing, which before 6.7 a shared mapping of
/// sealed memory was refused to.
fn is_plain_bytes() -> Verdict {
    let mut memfd = Memfd::new().allocate(&Request::new(8192)).map_err(text)?;
    memfd.write_at(4096, b"sealed").map_err(text)?;
    memfd.seal(Seals::WRITE).map_err(text)?;
    let sealed = memfd.map_sealed().map_err(text)?;
    ensure(
        sealed.len() == 8192 && &sealed[4096..4102] == b"sealed",
        || format!("{:?}", &sealed[4096..4102]),
    )?;
    let mut mapping = memfd.map(Access::Read).map_err(text)?;
    let guard = mapping.access(Access::Read).map_err(text)?;
    let byte = guard.read::<u8>(4096).map_err(text)?;
    ensure(byte == b's', || format!("{byte}"))
}

fn huge_pages_are_plain_bytes() -> Verdict {
    const PAGE: u64 = 2 << 20;
    let pool = "/proc/sys/vm/nr_hugepages";
    std::fs::write(pool, "2").map_err(text)?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
    let verdict = (|| {
        let fd = memfd_create("huge", flags).map_err(text)?;
        ftruncate(&fd, PAGE).map_err(text)?;
        let mut huge = Buffer::from_fd(fd).map_err(text)?;
        ensure(huge.kind() == Kind::HugeTlb, || {
            format!("{:?}", huge.kind())
        })?;
        let mut mapping = huge.map_shrinkable(Access::Write).map_err(text)?;
        let mut guard = mapping.access(Access::Write).map_err(text)?;
        guard.write_at(PAGE - 4, b"huge").map_err(text)?;
        guard.finish().map_err(text)?;
        drop(mapping);
        huge.seal(Seals::SHRINK | Seals::WRITE).map_err(text)?;
        let sealed = huge.map_sealed().map_err(text)?;
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let punched = fallocate(huge.fd().map_err(text)?, hole, 0, PAGE);
        ensure(punched == Err(Errno::PERM), || {
            format!("a hole: {punched:?}")
        })?;
        ensure(sealed.ends_with(b"huge"), || "other bytes".to_owned())
    })();
    std::fs::write(pool, "0").map_err(text)?;
    verdict
}

/// What tells a copy of this program to map the memfd that is its standard
/// input, in the cgroup that is its second argument.
const CHILD: &str = "sealed-child";

/// Does so where this process was started for it. To be called first in `main`.
pub(crate) fn child() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some(CHILD) {
        return;
    }
    let group = PathBuf::from(arguments.next().unwrap_or_default());
    match maps_in(&group) {
        Ok(said) => println!("{said}"),
        Err(error) => eprintln!("{error}"),
    }
    std::process::exit(0);
}

fn maps_in(group: &Path) -> Result<String, String> {
    std::fs::write(group.join("cgroup.procs"), "0").map_err(text)?;
    let fd = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3).map_err(text)?;
    let huge = Buffer::from_fd(fd).map_err(text)?;
    Ok(match huge.map_sealed() {
        // Without an error the bytes are there.
        Ok(sealed) => format!("mapped, first byte {}", sealed[0]),
        Err(error) => error.to_string(),
    })
}

/// Pages that nobody has touched yet, in a process whose cgroup may have none:
/// an error of the mapping, not SIGBUS at the first byte.
fn huge_page_limit_is_error() -> Result<Completion, String> {
    const PAGE: u64 = 2 << 20;
    let hierarchy = match Hierarchy::mount() {
        Ok(hierarchy) => hierarchy,
        Err(reason) => return Ok(Completion::ignored_with(reason)),
    };
    let root = hierarchy.path();
    let controllers = std::fs::read_to_string(root.join("cgroup.controllers")).map_err(text)?;
    if !controllers.split_whitespace().any(|name| name == "hugetlb") {
        let reason = format!("this kernel's cgroups count {controllers:?}, and no huge pages");
        return Ok(Completion::ignored_with(reason));
    }
    std::fs::write(root.join("cgroup.subtree_control"), "+hugetlb").map_err(text)?;
    let pool = "/proc/sys/vm/nr_hugepages";
    std::fs::write(pool, "2").map_err(text)?;
    let group = root.join("dmashare-sealed");
    std::fs::create_dir(&group).map_err(text)?;
    let run = || {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
        let fd = memfd_create("huge", flags).map_err(text)?;
        ftruncate(&fd, PAGE).map_err(text)?;
        let mut huge = Buffer::from_fd(fd).map_err(text)?;
        huge.seal(Seals::SHRINK | Seals::GROW | Seals::WRITE)
            .map_err(text)?;
        for (limit, expected) in [("0", "hugetlb.*.max"), ("max", "mapped, first byte 0")] {
            std::fs::write(group.join("hugetlb.2MB.max"), limit).map_err(text)?;
            let mut other = Command::new("/proc/self/exe");
            other.arg(CHILD).arg(&group);
            other.stdin(huge.try_clone().and_then(Buffer::into_fd).map_err(text)?);
            let ended = other.output().map_err(text)?;
            let said = String::from_utf8_lossy(&ended.stdout);
            ensure(ended.status.success() && said.contains(expected), || {
                format!("with a limit of {limit}: {ended:?}")
            })?;
        }
        Ok(Completion::Completed)
    };
    let verdict = run();
    std::fs::remove_dir(&group).map_err(text)?;
    std::fs::write(pool, "0").map_err(text)?;
    verdict
}

/// The hierarchy of cgroups, until this is dropped.
struct Hierarchy(TempDir);

impl Hierarchy {
    fn mount() -> Result<Hierarchy, String> {
        let folder = tempfile::tempdir().map_err(text)?;
        let kind = c"cgroup2".as_ptr();
        let target = Hierarchy::target(folder.path());
        // SAFETY: the strings end, and last as long as the call.
        match unsafe { libc::mount(kind, target.as_ptr(), kind, 0, std::ptr::null()) } {
            0 => Ok(Hierarchy(folder)),
            _ => Err(format!("cgroup2: {}", std::io::Error::last_os_error())),
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn target(path: &Path) -> CString {
        CString::new(path.as_os_str().as_encoded_bytes()).expect("a path has no zero in it")
    }
}

impl Drop for Hierarchy {
    fn drop(&mut self) {
        let target = Hierarchy::target(self.path());
        // SAFETY: the string ends, and lasts as long as the call.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
}

/// A udmabuf holds the memfd's pages: before the seal it keeps it away, and
/// after it there is none.
fn no_device_writes_it() -> Verdict {
    let mut memfd = Memfd::new().allocate(&Request::new(8192)).map_err(text)?;
    let udmabuf = Udmabuf::open().map_err(text)?;
    let dma_buf = udmabuf.export(&memfd).map_err(text)?;
    refused(&mut memfd, "a udmabuf")?;
    let mut mapping = dma_buf.map(Access::Write).map_err(text)?;
    drop(dma_buf);
    refused(&mut memfd, "a mapping of a udmabuf")?;
    mapping
        .access(Access::Write)
        .map_err(text)?
        .fill(7)
        .map_err(text)?;
    drop(mapping);

    // The kernel may let go of the pages a little later.
    comes_back_to(true, || {
        Ok(memfd.try_clone().map_err(text)?.seal(Seals::WRITE).is_ok())
    })?;
    let sealed = memfd.map_sealed().map_err(text)?;
    ensure(sealed.iter().all(|byte| *byte == 7), || {
        "other bytes".to_owned()
    })?;
    let again = udmabuf.export(&memfd);
    ensure(again.is_err(), || "a udmabuf of sealed memory".to_owned())
}

fn refused(memfd: &mut Buffer, held_by: &str) -> Verdict {
    let said = memfd.seal(Seals::WRITE);
    let busy = |error: &BufferError| {
        matches!(
            error,
            BufferError::Os {
                source: Errno::BUSY,
                ..
            }
        )
    };
    ensure(said.as_ref().is_err_and(busy), || {
        format!("held by {held_by}, the seal gave {said:?}")
    })
}
