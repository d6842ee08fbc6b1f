//! What a seal against writing is worth on this kernel: who can still write,
//! and what of it can be mapped.

use dmashare::alloc::{Allocate, Memfd, Request, Udmabuf, Way, probe};
use dmashare::buffer::{Access, Buffer, BufferError, Kind, Seals};
use dmashare_tests::conformance::Verdict;
use dmashare_tests::held::comes_back_to;
use libtest_mimic::Trial;
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use rustix::io::Errno;

use crate::{ensure, skipped, test, text};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        test("sealed::memory_is_plain_bytes", is_plain_bytes),
        test(
            "sealed::huge_pages_are_plain_bytes",
            huge_pages_are_plain_bytes,
        ),
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
