//! The bounds on memory, and what INFO tells of them.

use std::fs::{read_to_string, write};

use dmashare::buffer::Access;
use dmashare_tests::conformance::Verdict;
use dmashare_tests::guest::kernel_has_nodes;
use dmashare_tests::held;
use libtest_mimic::Trial;
use rustix::io::Errno;

use crate::device::{
    Alloc, BELOW_4G, CONTIGUOUS, Device, MIB, Made, NODE_DMA_HEAP, NODE_UDMABUF, PAGE, Range,
    WRITE_COMBINED,
};
use crate::{ensure, test, text};
use crate::{memfd, users};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("module::tells_what_it_is", tells_what_it_is),
        test("module::tells_what_is_used", tells_what_is_used),
        test("module::bounds_one_buffer", bounds_one_buffer),
        test("module::bounds_a_file", bounds_a_file),
        test("module::bounds_all_buffers", bounds_all_buffers),
        test("module::counts_pages_in_32_bits", counts_pages),
        test("module::gives_no_more_than_there_is", no_more_than_there_is),
    ]
}

/// A limit of the module, set until this is dropped.
pub(crate) struct Limit {
    parameter: String,
    before: String,
}

impl Limit {
    pub(crate) fn set(name: &str, mib: u32) -> Result<Limit, String> {
        let parameter = format!("/sys/module/dmashare/parameters/{name}");
        let before = read_to_string(&parameter).map_err(text)?;
        write(&parameter, mib.to_string()).map_err(text)?;
        Ok(Limit { parameter, before })
    }

    /// All of them as high as can be.
    pub(crate) fn lifted() -> Result<Vec<Limit>, String> {
        let limits = [
            "max_buffer_mb",
            "max_file_mb",
            "max_user_mb",
            "max_total_mb",
        ];
        let lifted = limits.iter().map(|name| Limit::set(name, u32::MAX));
        lifted.collect()
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        write(&self.parameter, &self.before).expect("what was read can be written");
    }
}

fn taken(what: &str, answer: Result<Made, Errno>) -> Result<Made, String> {
    answer.map_err(|errno| format!("{what}: {errno}"))
}

fn refused(what: &str, answer: Result<Made, Errno>) -> Verdict {
    let errno = answer.map(drop).err();
    ensure(errno == Some(Errno::TOOBIG), || {
        format!("{what}: {errno:?}, expected E2BIG")
    })
}

fn tells_what_it_is() -> Verdict {
    let info = Device::open()?.info().map_err(text)?;
    ensure(info.version >= 2, || format!("{info:?}"))?;
    let version = read_to_string("/sys/module/dmashare/version").map_err(text)?;
    ensure(version.trim() == info.version.to_string(), || {
        format!("it says {}, and the kernel {version:?}", info.version)
    })?;
    let known = CONTIGUOUS | BELOW_4G | WRITE_COMBINED;
    ensure(info.alloc_flags & known == known, || format!("{info:?}"))?;
    ensure((info.reserved0, info.reserved) == (0, [0; 3]), || {
        format!("{info:?}")
    })?;
    // They were asked for.
    let nodes = match kernel_has_nodes() {
        true => 0,
        false => NODE_UDMABUF | NODE_DMA_HEAP,
    };
    ensure(info.nodes == nodes, || {
        format!("nodes {}, expected {nodes}", info.nodes)
    })
}

fn tells_what_is_used() -> Verdict {
    held::comes_back_to(0, users)?;
    let (device, other) = (Device::open()?, Device::open()?);
    let info = || device.info().map_err(text);
    let fresh = info()?;
    ensure(
        (fresh.file_used, fresh.total_used, fresh.buffers) == (0, 0, 0),
        || format!("{fresh:?} before anything was made"),
    )?;
    for (parameter, told) in [
        ("max_buffer_mb", fresh.max_buffer),
        ("max_file_mb", fresh.file_max),
        ("max_total_mb", fresh.total_max),
    ] {
        let path = format!("/sys/module/dmashare/parameters/{parameter}");
        let limit: u64 = read_to_string(path)
            .map_err(text)?
            .trim()
            .parse()
            .map_err(text)?;
        ensure(told == limit * MIB, || {
            format!("{parameter} is {limit}, and {told} told")
        })?;
    }
    let lowered = Limit::set("max_file_mb", 3)?;
    ensure(info()?.file_max == 3 * MIB, || format!("{:?}", info()))?;
    drop(lowered);

    let used = |what: &str, file, total, buffers| {
        let now = info()?;
        ensure(
            (now.file_used, now.total_used, now.buffers) == (file, total, buffers),
            || format!("{what}: {now:?}, expected {file}, {total} and {buffers}"),
        )
    };
    let first = taken("a byte", device.alloc(Alloc::new(1)))?;
    used("a page of ours", PAGE, PAGE, 1)?;
    let contiguous = Alloc::new(3 * PAGE).flags(CONTIGUOUS);
    let second = taken("three pages", other.alloc(contiguous))?;
    used("another file's", PAGE, 4 * PAGE, 2)?;
    let memfd = memfd(8 * PAGE)?;
    let range = Range::new(&memfd, 0, 8 * PAGE);
    let third = taken("a memfd twice", device.wrap(&[range, range]))?;
    used("a memfd twice", 17 * PAGE, 20 * PAGE, 3)?;
    drop(other);
    used("another file, closed", 17 * PAGE, 20 * PAGE, 3)?;
    drop(second);
    used("the other's is gone", 17 * PAGE, 17 * PAGE, 2)?;
    let mapping = first.buffer()?.map(Access::Read).map_err(text)?;
    used("only mapped", 17 * PAGE, 17 * PAGE, 2)?;
    drop(mapping);
    drop(third);
    used("all are gone", 0, 0, 0)
}

fn bounds_one_buffer() -> Verdict {
    let _limit = Limit::set("max_buffer_mb", 1)?;
    let device = Device::open()?;
    let memfd = memfd(2 * MIB)?;
    for flags in [0, CONTIGUOUS] {
        let alloc = |size| device.alloc(Alloc::new(size).flags(flags));
        let _first = taken("1 MiB", alloc(MIB))?;
        let _second = taken("another MiB", alloc(MIB))?;
        refused("a byte over the limit", alloc(MIB + 1))?;
    }
    let wrap = |size| device.wrap(&[Range::new(&memfd, 0, size)]);
    let _whole = taken("1 MiB of a memfd", wrap(MIB))?;
    refused("a page more of a memfd", wrap(MIB + PAGE))
}

fn bounds_a_file() -> Verdict {
    let _limit = Limit::set("max_file_mb", 1)?;
    let (device, other) = (Device::open()?, Device::open()?);
    let alloc = |device: &Device, size| device.alloc(Alloc::new(size));
    let first = taken("1 MiB", alloc(&device, MIB))?;
    refused("a second buffer", alloc(&device, 1))?;
    let memfd = memfd(PAGE)?;
    refused("a memfd", device.wrap(&[Range::new(&memfd, 0, PAGE)]))?;
    let _others = taken("1 MiB of another open file", alloc(&other, MIB))?;
    // It counts as long as anyone uses it, here a mapping.
    let first = first.buffer()?;
    let mapping = first.map(Access::Read).map_err(text)?;
    drop(first);
    refused("a second buffer, the first only mapped", alloc(&device, 1))?;
    drop(mapping);
    taken("1 MiB after the first is gone", alloc(&device, MIB)).map(drop)
}

fn bounds_all_buffers() -> Verdict {
    // Those of the tests before would count.
    held::comes_back_to(0, users)?;
    let _limit = Limit::set("max_total_mb", 1)?;
    let (device, other) = (Device::open()?, Device::open()?);
    let alloc = |device: &Device, size| device.alloc(Alloc::new(size));
    let first = taken("1 MiB", alloc(&device, MIB))?;
    refused("a second buffer", alloc(&device, 1))?;
    refused("another file's buffer", alloc(&other, 1))?;
    // Below what is used already.
    let lower = Limit::set("max_total_mb", 0)?;
    refused("a buffer, with no limit left", alloc(&other, 1))?;
    drop(lower);
    drop(first);
    taken("1 MiB after the first is gone", alloc(&other, MIB)).map(drop)
}

/// With limits above what the module can count it must not lose the upper bits.
fn counts_pages() -> Verdict {
    let _limits = Limit::lifted()?;
    let device = Device::open()?;
    for pages in [1 << 31, 1 << 32, (1 << 32) + 1] {
        let what = format!("{pages} pages");
        refused(&what, device.alloc(Alloc::new(pages * PAGE)))?;
    }
    let contiguous = |size| device.alloc(Alloc::new(size).flags(CONTIGUOUS));
    for size in [1 << 32, (1 << 32) + 1, (1 << 32) + PAGE, 1 << 33] {
        refused(&format!("a run of {size} bytes"), contiguous(size))?;
    }
    Ok(())
}

/// With its limits lifted, memory ends before they do: an error and no harm.
fn no_more_than_there_is() -> Verdict {
    let _limits = Limit::lifted()?;
    let device = Device::open()?;
    let memory = rustix::system::sysinfo();
    let most = u64::from(memory.mem_unit) * memory.totalram as u64;
    let runs = [most, most.min((1 << 32) - PAGE)];
    for (size, flags) in [(2 * most, 0), (runs[0], 0), (runs[1], CONTIGUOUS)] {
        let answer = device.alloc(Alloc::new(size).flags(flags)).map(drop);
        ensure(answer == Err(Errno::NOMEM), || {
            format!("{size} bytes of {most}, flags {flags}: {answer:?}, expected ENOMEM")
        })?;
    }
    let used = device.info().map_err(text)?;
    ensure((used.file_used, used.buffers) == (0, 0), || {
        format!("{used:?}")
    })?;
    taken("1 MiB afterwards", device.alloc(Alloc::new(MIB))).map(drop)
}
