//! What lies behind a buffer: huge pages, pieces of memfds, room for a picture,
//! and what no memory here can be.

use std::sync::Arc;

use dmashare::alloc::{
    AllocError, Allocate, DmaHeap, Feature, HugePages, Memfd, Piece, Request, SysV, Udmabuf, Usage,
    Way, allocate, probe,
};
use dmashare::buffer::{Access, Buffer, Kind, Mapping, Seals};
use dmashare::share::Fourcc;
use dmashare_tests::conformance::Verdict;
use dmashare_tests::held;
use libtest_mimic::Trial;

use crate::{ensure, skipped, test, text};

const HUGE: u64 = 2 << 20;

pub(crate) fn trials() -> Vec<Trial> {
    let probe = probe();
    let of = |way, name, check: fn() -> Verdict| match &probe.row(way).verdict {
        Ok(_) => test(name, check),
        Err(reason) => skipped(name, reason),
    };
    vec![
        test("memory::huge_pages_of_a_memfd", huge_pages_of_a_memfd),
        test("memory::huge_pages_of_a_segment", huge_pages_of_a_segment),
        test("memory::too_few_huge_pages", too_few_huge_pages),
        of(
            Way::Udmabuf,
            "memory::huge_pages_of_a_udmabuf",
            huge_pages_of_a_udmabuf,
        ),
        of(
            Way::Udmabuf,
            "memory::pieces_of_a_huge_page",
            pieces_of_a_huge_page,
        ),
        of(
            Way::Udmabuf,
            "memory::pieces_lie_in_their_order",
            pieces_lie_in_their_order,
        ),
        of(
            Way::Udmabuf,
            "memory::pieces_that_cannot_be",
            pieces_that_cannot_be,
        ),
        of(Way::DmaHeap, "memory::heaps_are_listed", heaps_are_listed),
        test(
            "memory::contiguous_memory_finds_its_way",
            contiguous_memory_finds_its_way,
        ),
        test("memory::a_picture_finds_its_way", a_picture_finds_its_way),
    ]
}

pub(crate) fn trials_of(way: &Arc<dyn Allocate>) -> Vec<Trial> {
    let name = way.way();
    let trial = |check: &str, run: fn(&dyn Allocate) -> Verdict| {
        let way = Arc::clone(way);
        test(&format!("{name}::{check}"), move || run(&*way))
    };
    let mut trials = vec![
        trial("has_room_for_a_picture", has_room_for_a_picture),
        trial("refuses_what_it_never_has", refuses_what_it_never_has),
    ];
    if name == Way::Dumb {
        trials.push(trial("refuses_other_hardware", refuses_other_hardware));
    }
    trials
}

/// Huge pages set aside, until this is dropped.
struct Pool;

impl Pool {
    const COUNT: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

    fn of(pages: u64) -> Result<Pool, String> {
        let pool = Pool;
        std::fs::write(Pool::COUNT, pages.to_string()).map_err(text)?;
        // Those of the test before may come back a little later.
        held::comes_back_to(pages, free)?;
        Ok(pool)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        std::fs::write(Pool::COUNT, "0").expect("what was written once can be again");
    }
}

/// How many huge pages nobody has.
fn free() -> Result<u64, String> {
    let pool = HugePages::Size2M.pool();
    Ok(pool.ok_or("this kernel has no huge pages of 2 MiB")?.free)
}

fn huge(size: u64) -> Request {
    Request::new(size)
        .named("memory test")
        .huge_pages(HugePages::Size2M)
}

/// Maps it, which huge pages take another call for.
fn map(buffer: &Buffer) -> Result<Mapping, String> {
    match buffer.kind().is_fixed() {
        true => buffer.map(Access::ReadWrite).map_err(text),
        false => buffer.map_shrinkable(Access::ReadWrite).map_err(text),
    }
}

fn put(buffer: &Buffer, offset: u64, bytes: &[u8]) -> Verdict {
    let mut mapping = map(buffer)?;
    let mut guard = mapping.access(Access::Write).map_err(text)?;
    guard.write_at(offset, bytes).map_err(text)?;
    guard.finish().map_err(text)
}

fn holds(buffer: &Buffer, offset: u64, expected: &[u8]) -> Verdict {
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

fn is(buffer: &Buffer, kind: Kind, size: u64) -> Verdict {
    ensure((buffer.kind(), buffer.size()) == (kind, size), || {
        format!("{:?} of {} bytes", buffer.kind(), buffer.size())
    })
}

fn huge_pages_of_a_memfd() -> Verdict {
    let _pool = Pool::of(2)?;
    let memfd = Memfd::new().allocate(&huge(HUGE + 1)).map_err(text)?;
    is(&memfd, Kind::HugeTlb, 2 * HUGE)?;
    put(&memfd, 2 * HUGE - 4, b"last")?;
    holds(&memfd.try_clone().map_err(text)?, 2 * HUGE - 4, b"last")?;
    // It lies in them, and not in others.
    ensure(free()? == 0, || "no huge pages were taken".to_owned())
}

fn huge_pages_of_a_segment() -> Verdict {
    let _pool = Pool::of(2)?;
    let segment = SysV::new().allocate(&huge(2 * HUGE)).map_err(text)?;
    is(&segment, Kind::HugeTlb, 2 * HUGE)?;
    let id = segment.segment().ok_or("a segment without an id")?;
    put(&segment, 2 * HUGE - 4, b"last")?;
    let other = Buffer::from_segment(id).map_err(text)?;
    is(&other, Kind::HugeTlb, 2 * HUGE)?;
    holds(&other, 2 * HUGE - 4, b"last")?;
    ensure(free()? == 0, || "no huge pages were taken".to_owned())?;
    drop((segment, other));
    ensure(free()? == 2, || "they did not come back".to_owned())
}

/// Made by one call, and over a memfd that is there.
fn huge_pages_of_a_udmabuf() -> Verdict {
    let _pool = Pool::of(2)?;
    let udmabuf = Udmabuf::open().map_err(text)?;
    let made = udmabuf.allocate(&huge(1).for_device()).map_err(text)?;
    is(&made, Kind::DmaBuf, HUGE)?;
    put(&made, HUGE - 4, b"made")?;
    holds(&made, HUGE - 4, b"made")?;

    let memfd = Memfd::new().allocate(&huge(HUGE)).map_err(text)?;
    put(&memfd, HUGE - 8, b"from cpu")?;
    let exported = udmabuf.export(&memfd).map_err(text)?;
    is(&exported, Kind::DmaBuf, HUGE)?;
    holds(&exported, HUGE - 8, b"from cpu")?;
    put(&exported, 0, b"from dma-buf")?;
    holds(&memfd, 0, b"from dma-buf")?;
    // A dma-buf does not tell where it lies; the pool does.
    ensure(free()? == 0, || "no huge pages were taken".to_owned())
}

/// Small pages of a huge one, and back to front.
fn pieces_of_a_huge_page() -> Verdict {
    let _pool = Pool::of(1)?;
    let page = rustix::param::page_size() as u64;
    let memfd = Memfd::new().allocate(&huge(HUGE)).map_err(text)?;
    put(&memfd, page, b"second")?;
    put(&memfd, HUGE - page, b"last")?;
    let pieces = [HUGE - page..HUGE, page..2 * page].map(|range| Piece {
        memfd: &memfd,
        range,
    });
    let udmabuf = Udmabuf::open().map_err(text)?;
    let dma_buf = udmabuf.export_pieces(&pieces).map_err(text)?;
    is(&dma_buf, Kind::DmaBuf, 2 * page)?;
    holds(&dma_buf, 0, b"last")?;
    holds(&dma_buf, page, b"second")
}

fn too_few_huge_pages() -> Verdict {
    let _pool = Pool::of(1)?;
    let expected = AllocError::NoHugePages {
        size: HugePages::Size2M,
        needed: 2,
        free: Some(1),
    };
    for way in [Way::Memfd, Way::SysV] {
        let refused = way.open().and_then(|way| way.allocate(&huge(2 * HUGE)));
        ensure(refused.as_ref().err() == Some(&expected), || {
            format!("{way}: {refused:?}")
        })?;
    }
    ensure(
        expected.to_string().contains("add 1 to the number in"),
        || expected.to_string(),
    )
}

/// A page of each letter.
fn lettered(letters: &[u8]) -> Result<Buffer, String> {
    let page = rustix::param::page_size();
    let size = (letters.len() * page) as u64;
    let memfd = Memfd::new().allocate(&Request::new(size)).map_err(text)?;
    let bytes: Vec<u8> = letters.iter().flat_map(|l| vec![*l; page]).collect();
    put(&memfd, 0, &bytes)?;
    Ok(memfd)
}

fn pieces_lie_in_their_order() -> Verdict {
    let page = rustix::param::page_size();
    let (first, second) = (lettered(b"abcd")?, lettered(b"xyz")?);
    let piece = |memfd, from: u64, to: u64| Piece {
        memfd,
        range: from * page as u64..to * page as u64,
    };
    let pieces = [
        piece(&second, 1, 3),
        piece(&first, 3, 4),
        piece(&second, 0, 1),
        piece(&first, 0, 2),
        piece(&first, 3, 4), // once more
    ];
    let udmabuf = Udmabuf::open().map_err(text)?;
    let dma_buf = udmabuf.export_pieces(&pieces).map_err(text)?;
    is(&dma_buf, Kind::DmaBuf, 7 * page as u64)?;
    let expected: Vec<u8> = b"yzdxabd".iter().flat_map(|l| vec![*l; page]).collect();
    let mut found = vec![0; expected.len()];
    let mut mapping = map(&dma_buf)?;
    let guard = mapping.access(Access::Read).map_err(text)?;
    guard.read_at(0, &mut found).map_err(text)?;
    guard.finish().map_err(text)?;
    ensure(found == expected, || {
        let letters: Vec<u8> = found.iter().step_by(page).copied().collect();
        format!("pages {}", String::from_utf8_lossy(&letters))
    })?;

    // Written through the dma-buf, it is in the memfds, and in both places of
    // the page that came twice.
    put(&dma_buf, 2 * page as u64 - 1, b"ZD")?;
    holds(&second, 3 * page as u64 - 1, b"Z")?;
    holds(&first, 3 * page as u64, b"D")?;
    holds(&dma_buf, 6 * page as u64, b"Dd")
}

fn pieces_that_cannot_be() -> Verdict {
    let page = rustix::param::page_size() as u64;
    let udmabuf = Udmabuf::open().map_err(text)?;
    let memfd = lettered(b"abcd")?;
    let of = |range| {
        udmabuf.export_pieces(&[Piece {
            memfd: &memfd,
            range,
        }])
    };
    for range in [0..0, page..5 * page, 5 * page..6 * page] {
        let refused = of(range.clone());
        ensure(matches!(refused, Err(AllocError::Buffer(_))), || {
            format!("bytes {range:?}: {refused:?}")
        })?;
    }
    // The kernel's own refusal, and what helps: half a page, then a memfd that
    // is sealed against writing.
    let mut sealed = lettered(b"a")?;
    sealed.seal(Seals::WRITE).map_err(text)?;
    for refused in [of(0..page / 2), udmabuf.export(&sealed)] {
        let said = refused.map_or_else(text, |made| format!("made {}", made.name()));
        ensure(
            said.contains("UDMABUF_CREATE") && said.contains("the memfd must be whole pages"),
            || said,
        )?;
    }
    let none = udmabuf.export_pieces(&[]);
    ensure(matches!(none, Err(AllocError::Empty)), || {
        format!("of nothing: {none:?}")
    })?;
    // One more than is taken, of the kernel's own at first and of our module's.
    let limit = 1024;
    let one = Piece {
        memfd: &memfd,
        range: 0..page,
    };
    let many = udmabuf.export_pieces(&vec![one; limit + 1]);
    ensure(
        matches!(many, Err(AllocError::TooMany { limit: said, .. }) if said == limit),
        || format!("of {} pieces: {many:?}", limit + 1),
    )
}

fn heaps_are_listed() -> Verdict {
    let heaps = DmaHeap::list().map_err(text)?;
    ensure(heaps.iter().any(|heap| heap == DmaHeap::SYSTEM), || {
        format!("no {} in {heaps:?}", DmaHeap::SYSTEM)
    })?;
    let offered = probe().row(Way::DmaHeap).verdict.clone().map_err(text)?;
    ensure(offered.heaps == heaps, || {
        format!("offered {:?}, listed {heaps:?}", offered.heaps)
    })?;
    for heap in &heaps {
        let opened = DmaHeap::open(heap).map_err(text)?;
        let made = opened.allocate(&Request::new(1)).map_err(text)?;
        ensure(made.kind() == Kind::DmaBuf, || {
            format!("{heap}: {:?}", made.kind())
        })?;
    }
    Ok(())
}

/// To a heap over CMA, which no kernel of Debian's has, else to our module.
fn contiguous_memory_finds_its_way() -> Verdict {
    let request = Request::new(1 << 20).contiguous().for_device();
    let made = allocate(&request).map_err(text)?;
    let expected = match DmaHeap::open_contiguous() {
        Ok(_) => Way::DmaHeap,
        Err(_) => Way::Module,
    };
    ensure(made.way == expected, || {
        format!("by {}, expected {expected}", made.way)
    })?;
    for (way, reason) in &made.passed_over {
        let names_it = matches!(
            reason,
            AllocError::Cannot { way: said, what: Feature::Contiguous, .. } if said == way
        );
        ensure(names_it && reason.to_string().contains("over CMA"), || {
            format!("{way}: {reason}")
        })?;
    }
    Ok(())
}

/// To the first way that works for devices, with the frame that was asked for.
fn a_picture_finds_its_way() -> Verdict {
    let request = Request::picture(1920, 1080, Fourcc::new(*b"NV12")).map_err(text)?;
    let request = request.for_usage(Usage::CPU_WRITE | Usage::SCANOUT);
    let made = allocate(&request).map_err(text)?;
    let frame = made.frame.ok_or("no frame for a picture")?;
    ensure(request.frame.as_ref() == Some(&frame), || {
        format!("another frame: {frame:?}")
    })?;
    frame.check(&[made.buffer.size()]).map_err(text)?;
    let probe = probe();
    let mut rows = probe.rows().iter().filter(|row| row.way.for_devices());
    let without: Vec<Way> = rows
        .by_ref()
        .take_while(|row| row.way != made.way)
        .map(|row| row.way)
        .collect();
    let passed_over: Vec<Way> = made.passed_over.iter().map(|(way, _)| *way).collect();
    let usable = probe.row(made.way).verdict.is_ok();
    let none_before = without.iter().all(|way| probe.row(*way).verdict.is_err());
    ensure(usable && none_before && passed_over == without, || {
        format!("by {}, after {:?}", made.way, made.passed_over)
    })
}

/// Of each format, every pixel's bytes can be written and are there again.
fn has_room_for_a_picture(way: &dyn Allocate) -> Verdict {
    for code in [*b"XR24", *b"NV12"] {
        let request = Request::picture(1920, 1080, Fourcc::new(code)).map_err(text)?;
        let request = request.named("a picture").for_device();
        let frame = request.frame.clone().ok_or("no frame for a picture")?;
        let buffer = way.allocate(&request).map_err(text)?;
        let needed = frame.size_of_buffer(0).map_err(text)?;
        let pages = needed.next_multiple_of(rustix::param::page_size() as u64);
        is(&buffer, Kind::DmaBuf, pages)?;
        frame.check(&[buffer.size()]).map_err(text)?;

        let mut mapping = map(&buffer)?;
        let mut guard = mapping.access(Access::ReadWrite).map_err(text)?;
        let mut planes = Vec::new();
        for plane in 0..frame.planes.len() {
            let rows = frame.rows(plane).map_err(text)?;
            let seed = 7 + plane as u64;
            let pixels: Vec<u8> = (0..rows.bytes())
                .map(|at| ((at * seed) ^ (at >> 8)).to_le_bytes()[0])
                .collect();
            guard.write_rows(rows, &pixels).map_err(text)?;
            planes.push((rows, pixels));
        }
        // Only now: a plane that lay over another would show.
        for (plane, (rows, pixels)) in planes.iter().enumerate() {
            let mut found = vec![0; pixels.len()];
            guard.read_rows(*rows, &mut found).map_err(text)?;
            ensure(found == *pixels, || {
                format!("plane {plane} of {:?} has changed", frame.fourcc)
            })?;
        }
        guard.finish().map_err(text)?;
    }
    Ok(())
}

fn refuses_what_it_never_has(way: &dyn Allocate) -> Verdict {
    let plain = || Request::new(1 << 20).for_device();
    let mut requests = vec![
        (plain().sealed(Seals::SEAL), Feature::Seals(Seals::SEAL)),
        (plain().executable(), Feature::Executable),
    ];
    if way.way() != Way::Module {
        requests.push((plain().contiguous(), Feature::Contiguous));
    }
    if way.way() != Way::Udmabuf {
        let size = HugePages::Size2M;
        requests.push((plain().huge_pages(size), Feature::HugePages(size)));
    }
    requests.iter().try_for_each(|(request, feature)| {
        let refused = way.allocate(request);
        ensure(
            matches!(&refused, Err(AllocError::Cannot { what, .. }) if what == feature),
            || format!("{feature}: {refused:?}"),
        )
    })
}

/// A GPU or a camera may not find its way to the card's memory; the card does.
fn refuses_other_hardware(way: &dyn Allocate) -> Verdict {
    for usage in [Usage::GPU, Usage::CAMERA, Usage::GPU | Usage::CAMERA] {
        let request = Request::new(1 << 20).for_usage(usage | Usage::CPU_WRITE);
        let refused = way.allocate(&request);
        let names_it = matches!(
            &refused,
            Err(AllocError::Cannot { way: Way::Dumb, what: Feature::Usage(what), .. }) if *what == usage
        );
        ensure(names_it, || format!("{usage:?}: {refused:?}"))?;
    }
    let shown = Request::new(1 << 20).for_usage(Usage::CPU_WRITE | Usage::SCANOUT);
    way.allocate(&shown).map(drop).map_err(text)
}
