//! Limits on memory, and what INFO reports of them and of the nodes.

use std::fs::{read_to_string, write};

use dmashare::buffer::Access;
use dmashare_tests::conformance::Verdict;
use dmashare_tests::guest::kernel_has_nodes;
use dmashare_tests::held;
use libtest_mimic::Trial;
use rustix::io::Errno;

use crate::device::{
    Alloc, CONTIGUOUS, Device, FEATURE_ALLOC, FEATURE_BELOW_4G, FEATURE_MAX_CHUNK, FEATURE_WRAP,
    FEATURE_WRITE_COMBINED, INFO_SIZE, MIB, Made, NODE_DMA_HEAP, NODE_UDMABUF, Node, PAGE, Range,
};
use crate::{ensure, test, text};
use crate::{memfd, users};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("module::info_reports_memory_and_features", features),
        test("module::info_reports_bytes_used", bytes_used),
        test("module::limit_of_buffer_is_efbig", limit_of_buffer),
        test("module::limit_of_file_is_edquot", limit_of_file),
        test("module::limit_of_user_is_edquot", limit_of_user),
        test("module::limit_of_total_is_edquot", limit_of_total),
        test("module::length_beyond_32_bits_is_efbig", counts_pages),
        test("module::memory_short_is_enomem", no_more_than_there_is),
    ]
}

const LIMITS: [&str; 4] = [
    "max_buffer_mb",
    "max_file_mb",
    "max_user_mb",
    "max_total_mb",
];

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
        let lifted = LIMITS.iter().map(|name| Limit::set(name, u32::MAX));
        lifted.collect()
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        write(&self.parameter, &self.before).expect("what was read can be written");
    }
}

/// A buffer of so many bytes, through this node.
fn make(device: &Device, node: Node, length: u64) -> Result<Made, Errno> {
    match node {
        Node::System => device.alloc(Alloc::new(length)),
        Node::Contiguous => device.alloc(Alloc::new(length).flags(CONTIGUOUS)),
        Node::Memfd => {
            let length = length.next_multiple_of(PAGE);
            let memfd = memfd(length).map_err(|_| Errno::IO)?;
            device.wrap(&[Range::new(&memfd, 0, length)])
        }
    }
}

fn taken(what: &str, answer: Result<Made, Errno>) -> Result<Made, String> {
    answer.map_err(|errno| format!("{what}: {errno}"))
}

fn refused(what: &str, answer: Result<Made, Errno>, expected: Errno) -> Verdict {
    let errno = answer.map(drop).err();
    ensure(errno == Some(expected), || {
        format!("{what}: {errno:?}, expected {expected}")
    })
}

fn features() -> Verdict {
    let version = read_to_string("/sys/module/dmashare/version").map_err(text)?;
    ensure(version.trim() == "0.1.0", || {
        format!("version {version:?}, expected 0.1.0")
    })?;
    let device = Device::open()?;
    let write_combined = match cfg!(target_arch = "x86_64") {
        true => FEATURE_WRITE_COMBINED,
        false => 0,
    };
    let of_memory = FEATURE_ALLOC | FEATURE_BELOW_4G | write_combined;
    // They were asked for.
    let nodes = match kernel_has_nodes() {
        true => 0,
        false => NODE_UDMABUF | NODE_DMA_HEAP,
    };
    for (node, memory, features) in [
        (Node::System, 1, of_memory | FEATURE_MAX_CHUNK),
        (Node::Contiguous, 2, of_memory),
        (Node::Memfd, 3, FEATURE_WRAP),
    ] {
        let info = device.info_of(node).map_err(text)?;
        let found = (info.size, info.memory, info.features, info.nodes);
        let expected = (INFO_SIZE, memory, features, nodes);
        ensure(found == expected && info.reserved == 0, || {
            format!("{node:?}: {info:?}, expected {expected:?}")
        })?;
    }
    Ok(())
}

fn bytes_used() -> Verdict {
    held::comes_back_to(0, users)?;
    let (device, other) = (Device::open()?, Device::open()?);
    let info = || device.info().map_err(text);
    let limits = |info: &crate::device::Info| {
        [
            info.buffer_max,
            info.file_max,
            info.user_max,
            info.total_max,
        ]
    };
    for (at, name) in LIMITS.iter().enumerate() {
        let path = format!("/sys/module/dmashare/parameters/{name}");
        let limit = read_to_string(path).map_err(text)?;
        let limit: u64 = limit.trim().parse().map_err(text)?;
        let told = limits(&info()?)[at];
        ensure(told == limit * MIB, || {
            format!("{name} is {limit}, and INFO has {told}")
        })?;
        let _set = Limit::set(name, 3)?;
        for node in Node::ALL {
            let told = limits(&device.info_of(node).map_err(text)?)[at];
            ensure(told == 3 * MIB, || {
                format!("{name} is 3, and INFO has {told}")
            })?;
        }
    }

    // By the file of each node, and all of them.
    let used = |what: &str, files: [u64; 3], total, buffers| {
        for (node, file) in Node::ALL.into_iter().zip(files) {
            let now = device.info_of(node).map_err(text)?;
            let found = (now.file_used, now.user_used, now.total_used, now.buffers);
            let expected = (file, total, total, buffers);
            ensure(found == expected, || {
                format!("{what}, {node:?}: {now:?}, expected {expected:?}")
            })?;
        }
        Ok::<(), String>(())
    };
    used("nothing was made", [0; 3], 0, 0)?;
    let first = taken("a byte", make(&device, Node::System, 1))?;
    used("a page", [PAGE, 0, 0], PAGE, 1)?;
    let second = taken("a run", make(&device, Node::Contiguous, 3 * PAGE))?;
    used("a run", [PAGE, 3 * PAGE, 0], 4 * PAGE, 2)?;
    let others = taken("another file's", make(&other, Node::Contiguous, 3 * PAGE))?;
    used("another file's", [PAGE, 3 * PAGE, 0], 7 * PAGE, 3)?;
    let memfd = memfd(8 * PAGE)?;
    let range = Range::new(&memfd, 0, 8 * PAGE);
    let third = taken("a memfd twice", device.wrap(&[range, range]))?;
    let files = [PAGE, 3 * PAGE, 16 * PAGE];
    used("a memfd twice", files, 23 * PAGE, 4)?;
    drop(other);
    used("another file, closed", files, 23 * PAGE, 4)?;
    drop(others);
    used("the other's is gone", files, 20 * PAGE, 3)?;
    drop(second);
    let files = [PAGE, 0, 16 * PAGE];
    used("the run is gone", files, 17 * PAGE, 2)?;
    let mapping = first.buffer()?.map(Access::Read).map_err(text)?;
    used("only mapped", files, 17 * PAGE, 2)?;
    drop(mapping);
    drop(third);
    used("all are gone", [0; 3], 0, 0)
}

fn limit_of_buffer() -> Verdict {
    let _limit = Limit::set("max_buffer_mb", 1)?;
    let device = Device::open()?;
    for node in Node::ALL {
        let _first = taken("1 MiB", make(&device, node, MIB))?;
        let _second = taken("another MiB", make(&device, node, MIB))?;
        let what = format!("a byte over the limit, {node:?}");
        refused(&what, make(&device, node, MIB + 1), Errno::FBIG)?;
    }
    // It is one buffer that is too long, whatever else is short.
    let _total = Limit::set("max_total_mb", 0)?;
    for node in Node::ALL {
        refused("more than both", make(&device, node, MIB + 1), Errno::FBIG)?;
    }
    Ok(())
}

fn limit_of_file() -> Verdict {
    let _limit = Limit::set("max_file_mb", 1)?;
    let (device, other) = (Device::open()?, Device::open()?);
    for node in Node::ALL {
        let what = |what: &str| format!("{what}, {node:?}");
        let first = taken(&what("1 MiB"), make(&device, node, MIB))?;
        let second = make(&device, node, 1);
        refused(&what("a second buffer"), second, Errno::DQUOT)?;
        taken(&what("another open file"), make(&other, node, MIB))?;
        for another in Node::ALL {
            if another != node {
                taken(&what("another node"), make(&device, another, MIB))?;
            }
        }
        // It counts as long as anyone uses it, here a mapping.
        let first = first.buffer()?;
        let mapping = first.map(Access::Read).map_err(text)?;
        drop(first);
        let second = make(&device, node, 1);
        refused(&what("with the first only mapped"), second, Errno::DQUOT)?;
        drop(mapping);
        taken(&what("1 MiB after it"), make(&device, node, MIB))?;
    }
    Ok(())
}

fn limit_of_user() -> Verdict {
    limit_of_all("max_user_mb")
}

fn limit_of_total() -> Verdict {
    limit_of_all("max_total_mb")
}

/// Whatever the node and the open file is.
fn limit_of_all(name: &str) -> Verdict {
    // Those of the tests before would count.
    held::comes_back_to(0, users)?;
    let _limit = Limit::set(name, 1)?;
    let (device, other) = (Device::open()?, Device::open()?);
    for node in Node::ALL {
        let first = taken("1 MiB", make(&device, node, MIB))?;
        for another in Node::ALL {
            let what = format!("{name}: {another:?} after {node:?}");
            refused(&what, make(&device, another, 1), Errno::DQUOT)?;
            refused(&what, make(&other, another, 1), Errno::DQUOT)?;
        }
        // Below what is used already.
        let lower = Limit::set(name, 0)?;
        let none = make(&other, node, 1);
        refused("with no limit left", none, Errno::DQUOT)?;
        drop(lower);
        drop(first);
        taken("1 MiB after the first is gone", make(&other, node, MIB))?;
    }
    Ok(())
}

/// With limits above what the module can count it must not lose the upper bits.
fn counts_pages() -> Verdict {
    let _limits = Limit::lifted()?;
    let device = Device::open()?;
    for pages in [1 << 31, 1 << 32, (1 << 32) + 1] {
        let what = format!("{pages} pages");
        let answer = device.alloc(Alloc::new(pages * PAGE));
        refused(&what, answer, Errno::FBIG)?;
    }
    for length in [1 << 32, (1 << 32) + 1, (1 << 32) + PAGE, 1 << 33] {
        let what = format!("a run of {length} bytes");
        let answer = device.alloc(Alloc::new(length).flags(CONTIGUOUS));
        refused(&what, answer, Errno::FBIG)?;
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
    ensure((used.total_used, used.buffers) == (0, 0), || {
        format!("{used:?}")
    })?;
    taken("1 MiB afterwards", device.alloc(Alloc::new(MIB))).map(drop)
}
