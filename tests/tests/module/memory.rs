//! What lies in a buffer, and huge pages for it to lie in.

use std::fs::write;

use dmashare::alloc::HugePages;
use dmashare::buffer::{Access, Buffer, Mapping};
use dmashare_tests::conformance::Verdict;
use dmashare_tests::held;

use crate::{ensure, text};

/// Huge pages of 2 MiB set aside, until this is dropped.
pub(crate) struct Pool;

impl Pool {
    const COUNT: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

    pub(crate) fn of(pages: u64) -> Result<Pool, String> {
        let pool = Pool;
        write(Pool::COUNT, pages.to_string()).map_err(text)?;
        pool.has_free(pages)?;
        Ok(pool)
    }

    /// That so many are with nobody, now or a little later.
    pub(crate) fn has_free(&self, pages: u64) -> Verdict {
        held::comes_back_to(Some(pages), || {
            Ok(HugePages::Size2M.pool().map(|pool| pool.free))
        })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        write(Pool::COUNT, "0").expect("what was written once can be again");
    }
}

/// Maps it, which huge pages take another call for.
pub(crate) fn map(buffer: &Buffer) -> Result<Mapping, String> {
    match buffer.kind().is_fixed() {
        true => buffer.map(Access::ReadWrite).map_err(text),
        false => buffer.map_shrinkable(Access::ReadWrite).map_err(text),
    }
}

pub(crate) fn put(buffer: &Buffer, offset: u64, bytes: &[u8]) -> Verdict {
    let mut mapping = map(buffer)?;
    let mut guard = mapping.access(Access::Write).map_err(text)?;
    guard.write_at(offset, bytes).map_err(text)?;
    guard.finish().map_err(text)
}

pub(crate) fn holds(buffer: &Buffer, offset: u64, expected: &[u8]) -> Verdict {
    let mut found = vec![0; expected.len()];
    let mut mapping = map(buffer)?;
    let guard = mapping.access(Access::Read).map_err(text)?;
    guard.read_at(offset, &mut found).map_err(text)?;
    guard.finish().map_err(text)?;
    ensure(found == expected, || {
        let name = buffer.name();
        format!("{name} at {offset}: {found:?}, expected {expected:?}")
    })
}
