//! What debugfs shows: every buffer, who made it, and who imported it.

use std::ffi::CStr;
use std::fs::{read_to_string, write};
use std::os::fd::AsFd;

use dmashare::import::drm::Card;
use dmashare_tests::conformance::Verdict;
use dmashare_tests::guest::kernel_version;
use dmashare_tests::held;
use drm::control::Device as _;
use libtest_mimic::Trial;

use crate::device::{Alloc, CONTIGUOUS, Device, MIB, Made, PAGE, Range, WRITE_COMBINED};
use crate::forked::in_another_process;
use crate::gem::Vgem;
use crate::memfd;
use crate::{ensure, test, text};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("module::shows_its_buffers", its_buffers),
        test("module::shows_names_on_one_line", names_on_one_line),
        test("module::shows_who_made_them", who_made_them),
        test("module::shows_attachments", attachments),
        test("module::shows_no_more_than_there_are", no_more),
    ]
}

/// A line of `/sys/kernel/debug/dmashare/buffers`, without its overhead, and the
/// lines of its attachments.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    bytes: u64,
    chunks: u32,
    memory: String,
    cpu: String,
    exporter: String,
    pid: String,
    uid: String,
    comm: String,
    name: String,
    attached: Vec<String>,
}

fn table() -> Result<String, String> {
    let path = "/sys/kernel/debug/dmashare/buffers";
    read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

fn shown(buffer: impl AsFd) -> Result<Shown, String> {
    let inode = rustix::fs::fstat(buffer).map_err(text)?.st_ino.to_string();
    let table = table()?;
    let begins = |line: &&str| line.split('\t').next() == Some(&inode);
    let mut lines = table.lines().skip_while(|line| !begins(line));
    let line = lines
        .next()
        .ok_or_else(|| format!("no {inode} in {table}"))?;
    let fields: Vec<&str> = line.split('\t').collect();
    let [
        _,
        bytes,
        chunks,
        memory,
        cpu,
        overhead,
        exporter,
        pid,
        uid,
        comm,
        name,
    ] = fields[..]
    else {
        return Err(format!("{} fields in {line:?}", fields.len()));
    };
    let overhead: u64 = overhead.parse().map_err(text)?;
    ensure(overhead > 0, || format!("no overhead in {line:?}"))?;
    let attached = lines.take_while(|line| line.starts_with('\t'));
    Ok(Shown {
        bytes: bytes.parse().map_err(text)?,
        chunks: chunks.parse().map_err(text)?,
        memory: memory.to_owned(),
        cpu: cpu.to_owned(),
        exporter: exporter.to_owned(),
        pid: pid.to_owned(),
        uid: uid.to_owned(),
        comm: comm.to_owned(),
        name: name.to_owned(),
        attached: attached.map(|line| line.trim().to_owned()).collect(),
    })
}

/// How many buffers and bytes there are in all, by its last line.
pub(crate) fn totals() -> Result<(u64, u64), String> {
    let table = table()?;
    let last = table.lines().last().unwrap_or_default();
    let words: Vec<&str> = last.split(' ').collect();
    match words[..] {
        [
            "total",
            buffers,
            "buffers,",
            bytes,
            "bytes",
            "of",
            "at",
            "most",
            _,
        ] => Ok((buffers.parse().map_err(text)?, bytes.parse().map_err(text)?)),
        _ => Err(format!("its last line is {last:?}")),
    }
}

fn its_buffers() -> Verdict {
    let device = Device::open()?;
    let memfd = memfd(4 * PAGE)?;
    let ranges = [
        Range::new(&memfd, 0, PAGE),
        Range::new(&memfd, 2 * PAGE, PAGE),
    ];
    let alloc = |alloc| device.alloc(alloc).map_err(text);
    let single = alloc(Alloc::new(MIB).max_chunk(PAGE))?;
    let cases = [
        (
            "system",
            "cached",
            "single pages",
            single.named(c"single pages")?,
        ),
        (
            "system",
            "write-combined",
            "",
            alloc(Alloc::new(3 * MIB).flags(WRITE_COMBINED))?,
        ),
        (
            "contiguous",
            "cached",
            "",
            alloc(Alloc::new(3 * PAGE).flags(CONTIGUOUS))?,
        ),
        ("memfd", "cached", "", device.wrap(&ranges).map_err(text)?),
    ];
    let comm = read_to_string("/proc/self/comm").map_err(text)?;
    for (memory, cpu, name, made) in &cases {
        let expected = Shown {
            bytes: rustix::fs::fstat(&made.fd)
                .map_err(text)?
                .st_size
                .cast_unsigned(),
            chunks: made.chunks,
            memory: (*memory).to_owned(),
            cpu: (*cpu).to_owned(),
            exporter: "dmashare".to_owned(),
            pid: std::process::id().to_string(),
            uid: "0".to_owned(),
            comm: comm.trim().to_owned(),
            name: (*name).to_owned(),
            attached: Vec::new(),
        };
        let shown = shown(&made.fd)?;
        ensure(shown == expected, || {
            format!("{shown:?}, expected {expected:?}")
        })?;
    }
    let bytes = 4 * MIB + 5 * PAGE;
    ensure(totals()? == (4, bytes), || {
        format!("{:?}, expected 4 of {bytes}", totals())
    })?;
    drop(cases);
    ensure(totals()? == (0, 0), || format!("{:?} after all", totals()))
}

/// Whatever a name is, it neither ends a line nor moves a field, nor reaches a
/// terminal as a command.
fn names_on_one_line() -> Verdict {
    let device = Device::open()?;
    let shown_as = |name: &CStr| {
        let made = device.alloc(Alloc::new(PAGE)).map_err(text)?;
        shown(&made.named(name)?.fd).map(|shown| shown.name)
    };
    for (name, expected) in [
        (c"two words", "two words"),
        (c"line\nline", "line\\nline"),
        (c"tab\ttab", "tab\\ttab"),
        (c"\r\x0b\x0c", "\\r\\v\\f"),
        (c"\x1b[31mred", "\\e[31mred"),
        (c"\x01\x02\x7f", "\\001\\002\\177"),
    ] {
        let shown = shown_as(name)?;
        ensure(shown == expected, || {
            format!("{name:?} shows as {shown:?}, expected {expected:?}")
        })?;
    }
    Ok(())
}

/// A process that calls itself something odd, and is gone while its buffer is
/// still mapped by us.
fn who_made_them() -> Verdict {
    in_another_process(|| {
        write("/proc/self/comm", "a\tb\nc d").map_err(text)?;
        let made = Device::open()?.alloc(Alloc::new(PAGE)).map_err(text)?;
        let shown = shown(&made.fd)?;
        let pid = std::process::id().to_string();
        ensure(shown.comm == "a\\tb\\nc d" && shown.pid == pid, || {
            format!("{shown:?} of process {pid}")
        })
    })
}

fn attachments() -> Verdict {
    let device = Device::open()?;
    let card = Card::find("vgem").map_err(text)?;
    let vgem = Vgem::open()?;
    let memfd = memfd(PAGE)?;
    let ranges = [Range::new(&memfd, 0, PAGE)];
    let made: [Made; 2] = [
        device.alloc(Alloc::new(MIB)).map_err(text)?,
        device.wrap(&ranges).map_err(text)?.named(c"imported")?,
    ];
    for made in &made {
        ensure(shown(&made.fd)?.attached.is_empty(), || {
            "attached before anyone imported it".to_owned()
        })?;
        let handle = vgem.prime_fd_to_buffer(made.fd.as_fd()).map_err(text)?;
        // Before 7.0, what it imports it also maps.
        let mappings = u32::from(kernel_version() < (7, 0));
        let attached = shown(&made.fd)?.attached;
        ensure(
            matches!(&attached[..], [one] if one.starts_with("attached ")
                && one.contains(" driver ") && one.contains("vgem")
                && one.ends_with(&format!(" mappings {mappings}"))),
            || format!("{attached:?}, imported by {}", card.path().display()),
        )?;
        vgem.close_buffer(handle).map_err(text)?;
        held::comes_back_to(Vec::new(), || Ok(shown(&made.fd)?.attached))?;
    }
    Ok(())
}

/// Many, made and dropped in another order.
fn no_more() -> Verdict {
    let device = Device::open()?;
    let mut all: Vec<Made> = (1..=64)
        .map(|pages| device.alloc(Alloc::new(pages * PAGE)).map_err(text))
        .collect::<Result<_, _>>()?;
    let bytes = 64 * 65 / 2 * PAGE;
    ensure(totals()? == (64, bytes), || format!("{:?}", totals()))?;
    let lines = table()?.lines().count();
    ensure(lines == 66, || format!("{lines} lines for 64 buffers"))?;
    for at in (0..64).rev().step_by(2) {
        all.remove(at);
    }
    ensure(totals()?.0 == 32, || format!("{:?}", totals()))?;
    drop(all);
    ensure(totals()? == (0, 0), || format!("{:?}", totals()))?;
    let lines = table()?.lines().count();
    ensure(lines == 2, || format!("{lines} lines for nothing"))
}
