//! The ways that every host has, where their edges are: sizes, keys, names, and
//! what none of them gives.

use std::process::Command;
use std::time::{Duration, Instant};

use dmashare::alloc::{
    AllocError, Allocate, DmaHeap, Feature, HugePages, Key, Memfd, Mode, Posix, Request, SysV,
    Usage, Way, allocate, probe,
};
use dmashare::buffer::{Access, Buffer, BufferError, Kind, Seals};
use dmashare::frame::{Fourcc, Frame};
use rustix::io::Errno;

const OWNER: Mode = Mode::RUSR.union(Mode::WUSR);

fn hosts_ways() -> [Box<dyn Allocate>; 3] {
    [
        Box::new(Memfd::new()),
        Box::new(Posix::new()),
        Box::new(SysV::new()),
    ]
}

fn page() -> u64 {
    rustix::param::page_size() as u64
}

/// A name or key that no other run of this test has.
fn unique(test: &str) -> String {
    format!("dmashare-test-{test}-{}", std::process::id())
}

/// No page is touched, so that only the numbers are tried.
#[test]
fn sizes_are_exact_at_their_edges() {
    let four_gib = 1u64 << 32;
    for way in hosts_ways() {
        for size in [
            1,
            page() - 1,
            page(),
            page() + 1,
            four_gib - 1,
            four_gib,
            four_gib + 1,
        ] {
            match way.allocate(&Request::new(size).unreserved()) {
                Ok(buffer) => assert_eq!(buffer.size(), size.next_multiple_of(page()), "{way:?}"),
                // On a small machine, and only there.
                Err(AllocError::TooLarge { limit, .. }) => assert!(limit < size, "{way:?}"),
                Err(AllocError::Os {
                    source: Errno::NOMEM,
                    ..
                }) => {
                    assert!(size >= four_gib - 1 && memory() < 2 * four_gib, "{way:?}");
                }
                Err(other) => panic!("{way:?}, {size} bytes: {other}"),
            }
        }
        let empty = way.allocate(&Request::new(0)).unwrap_err();
        assert_eq!(empty, AllocError::Empty, "{way:?}");
        for size in [1 << 63, u64::MAX] {
            let large = way.allocate(&Request::new(size)).unwrap_err();
            assert!(matches!(large, AllocError::TooLarge { .. }), "{large}");
        }
    }
}

fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram as u64 * u64::from(info.mem_unit)
}

fn feature(refused: Result<Buffer, AllocError>) -> Feature {
    match refused {
        Err(AllocError::Cannot { what, why, .. }) => {
            assert!(!why.is_empty());
            what
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_way_has_not_is_refused() {
    for way in hosts_ways() {
        let plain = Request::new(1);
        let contiguous = way.allocate(&plain.clone().contiguous());
        assert_eq!(feature(contiguous), Feature::Contiguous);
        for usage in [Usage::DEVICE, Usage::SCANOUT, Usage::GPU, Usage::CAMERA] {
            let refused = way.allocate(&plain.clone().for_usage(usage)).unwrap_err();
            assert_eq!(refused, AllocError::NotForDevices(way.way()));
        }
        for seals in [Seals::WRITE, Seals::FUTURE_WRITE] {
            let sealed = way.allocate(&plain.clone().sealed(seals));
            assert_eq!(feature(sealed), Feature::Seals(seals));
        }
        if way.way() != Way::Memfd {
            let sealed = way.allocate(&plain.clone().sealed(Seals::SEAL));
            assert_eq!(feature(sealed), Feature::Seals(Seals::SEAL));
            assert_eq!(
                feature(way.allocate(&plain.clone().executable())),
                Feature::Executable
            );
        }
        // Every way has these, or has as much of them.
        let fixed = way.allocate(&plain.sealed(Seals::SHRINK | Seals::GROW));
        assert!(fixed.is_ok(), "{fixed:?}");
    }
    // Nor does `allocate` fall back: to scattered pages, or to a memfd.
    let refused = allocate(&Request::new(1).contiguous());
    match refused {
        Ok(made) => assert!(matches!(made.way, Way::DmaHeap | Way::Module)),
        Err(AllocError::NoWay(reasons)) => {
            let asked: Vec<Way> = reasons.iter().map(|(way, _)| *way).collect();
            let all = [
                Way::Memfd,
                Way::DmaHeap,
                Way::Udmabuf,
                Way::Module,
                Way::Dumb,
            ];
            assert_eq!(asked, all);
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_memfd_has_the_seals_that_were_asked_for() {
    let memfd = Memfd::new();
    let seals = |request: &Request| match memfd.allocate(request).unwrap().kind() {
        Kind::Memfd(seals) => seals,
        other => panic!("{other:?}"),
    };
    let always = Seals::SHRINK | Seals::GROW;
    let plain = seals(&Request::new(1));
    assert_eq!(plain - Seals::EXEC, always);
    let last = seals(&Request::new(1).sealed(Seals::SEAL));
    assert_eq!(last - Seals::EXEC, always | Seals::SEAL);
    let runs = seals(&Request::new(1).executable());
    assert_eq!(runs, always);
    let both = memfd.allocate(&Request::new(1).executable().sealed(Seals::EXEC));
    assert_eq!(feature(both), Feature::Executable);
    // A kernel that does not know it says so.
    match memfd.allocate(&Request::new(1).sealed(Seals::EXEC)) {
        Ok(buffer) => assert_eq!(buffer.kind(), Kind::Memfd(always | Seals::EXEC)),
        Err(AllocError::Buffer(BufferError::Os { source, .. })) => {
            assert_eq!((source, plain), (Errno::INVAL, always));
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_picture_has_room_for_its_planes() {
    for code in [*b"XR24", *b"RG24", *b"NV12", *b"YU12", *b"P010", *b"YUYV"] {
        let request = Request::picture(1001, 333, Fourcc::new(code)).unwrap();
        let made = allocate(&request).unwrap();
        let frame = made.frame.unwrap();
        assert_eq!(frame.check(&[made.buffer.size()]), Ok(()));
        assert_eq!(frame.check(&[request.size]), Ok(()));
        let mut mapping = made.buffer.map(Access::Write).unwrap();
        let mut guard = mapping.access(Access::Write).unwrap();
        for (plane, place) in frame.planes.iter().enumerate() {
            assert_eq!((place.stride % 256, place.offset % 256), (0, 0));
            let rows = frame.rows(plane).unwrap();
            let bytes = vec![7; usize::try_from(rows.bytes()).unwrap()];
            guard.write_rows(rows, &bytes).unwrap();
        }
    }
    assert!(Request::picture(1, 1, Fourcc::new(*b"????")).is_err());
    assert!(Request::picture(0, 1, Fourcc::XRGB8888).is_err());
    let unlike = Frame::packed(1001, 333, Fourcc::XRGB8888).unwrap();
    assert_ne!(unlike.planes[0].stride % 256, 0);
}

/// With what the machine has: all pages, or the number that is missing.
#[test]
fn huge_pages_are_had_or_counted() {
    for size in HugePages::ALL {
        for way in hosts_ways() {
            let made = way.allocate(&Request::new(1).huge_pages(size));
            if way.way() == Way::Posix {
                assert_eq!(feature(made), Feature::HugePages(size));
                continue;
            }
            match made {
                Ok(buffer) => {
                    assert_eq!(
                        (buffer.kind(), buffer.size()),
                        (Kind::HugeTlb, size.bytes())
                    );
                    assert!(size.pool().is_some_and(|pool| pool.total > 0));
                }
                Err(error @ AllocError::NoHugePages { needed, free, .. }) => {
                    assert_eq!((needed, free), (1, size.pool().map(|pool| pool.free)));
                    let says = match free {
                        Some(_) => "nr_hugepages",
                        None => "is missing",
                    };
                    assert!(error.to_string().contains(says), "{error}");
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn a_key_is_that_of_ftok() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = std::ffi::CString::new(file.path().to_str().unwrap()).unwrap();
    for project in [0u8, 1, b'd', 0x7f, 0x80, 0xff] {
        // SAFETY: a path that ends with a NUL.
        let theirs = unsafe { libc::ftok(path.as_ptr(), project.into()) };
        match Key::new(theirs) {
            Some(key) => assert_eq!(Key::of_path(file.path(), project), Ok(key)),
            None => assert!(Key::of_path(file.path(), project).is_err()),
        }
    }
    let missing = Key::of_path("/no such file", 1).unwrap_err();
    assert!(
        matches!(
            missing,
            AllocError::Os {
                source: Errno::NOENT,
                ..
            }
        ),
        "{missing}"
    );
}

fn errno(result: Result<Buffer, AllocError>) -> Errno {
    match result {
        Err(AllocError::Os { source, .. } | AllocError::Buffer(BufferError::Os { source, .. })) => {
            source
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_has_one_segment_until_it_is_removed() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let key = Key::of_path(file.path(), b'k').unwrap();
    assert_eq!(errno(SysV::open(key)), Errno::NOENT);

    let first = SysV::create(key, &Request::new(5000), OWNER).unwrap();
    let exists = SysV::create(key, &Request::new(5000), OWNER);
    let message = exists.as_ref().unwrap_err().to_string();
    assert!(
        message.contains(&format!("ipcrm --shmem-key {key}")),
        "{message}"
    );
    assert_eq!(errno(exists), Errno::EXIST);

    let second = SysV::open(key).unwrap();
    assert_eq!(
        (second.segment(), second.size()),
        (first.segment(), 2 * page())
    );
    first
        .map(Access::Write)
        .unwrap()
        .access(Access::Write)
        .unwrap()
        .fill(9)
        .unwrap();

    SysV::remove(key).unwrap();
    assert_eq!(errno(SysV::open(key)), Errno::NOENT);
    assert!(SysV::remove(key).is_err());
    // Its memory lives on.
    drop(first);
    let mut byte = [0];
    let mut mapping = second.map(Access::Read).unwrap();
    mapping
        .access(Access::Read)
        .unwrap()
        .read_at(5000, &mut byte)
        .unwrap();
    assert_eq!(byte, [9]);
}

#[test]
fn another_users_segment_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let key = Key::of_path(file.path(), b'p').unwrap();
    let as_nobody = |what: fn(Key) -> Result<Buffer, AllocError>| {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    become_nobody();
                    what(key)
                })
                .join()
                .unwrap()
        })
    };
    if rustix::process::geteuid().is_root() {
        let _mine = SysV::create(key, &Request::new(1), OWNER).unwrap();
        assert_eq!(errno(as_nobody(SysV::open)), Errno::ACCESS);
    } else {
        // Its owner, too, may do only what the mode says, and so cannot attach
        // what it just made: the key is free again.
        let none = Mode::empty();
        assert_eq!(
            errno(SysV::create(key, &Request::new(1), none)),
            Errno::ACCESS
        );
        assert_eq!(errno(SysV::open(key)), Errno::NOENT);
        return;
    }
    SysV::remove(key).unwrap();

    // Who may read it, gets it for reading.
    // Root's group is still that thread's.
    let readable = OWNER | Mode::RGRP | Mode::ROTH;
    let _mine = SysV::create(key, &Request::new(1), readable).unwrap();
    let theirs = as_nobody(|key| {
        let buffer = SysV::open(key)?;
        assert!(buffer.map(Access::Write).is_err());
        assert!(buffer.map(Access::Read).is_ok());
        Ok(buffer)
    });
    SysV::remove(key).unwrap();
    theirs.unwrap();
}

/// Gives up root, in this thread alone: the C library would do so in all.
fn become_nobody() {
    let nobody = 65534;
    // SAFETY: takes three numbers.
    let done = unsafe { libc::syscall(libc::SYS_setresuid, nobody, nobody, nobody) };
    assert_eq!(done, 0);
}

#[test]
fn a_name_has_one_memory_until_it_is_unlinked() {
    let name = unique("name");
    assert_eq!(errno(Posix::open(&name)), Errno::NOENT);
    let started = Instant::now();
    let missing = Posix::open_when_sized(&name, Duration::from_secs(10));
    assert_eq!(errno(missing), Errno::NOENT);
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "waited for a name"
    );

    let first = Posix::create(&name, &Request::new(5000), OWNER).unwrap();
    assert_eq!((first.kind(), first.size()), (Kind::Shm, 2 * page()));
    let shrinkable = first.map(Access::Read);
    assert!(matches!(shrinkable, Err(BufferError::Shrinkable { .. })));
    assert_eq!(
        errno(Posix::create(&name, &Request::new(1), OWNER)),
        Errno::EXIST
    );
    let second = Posix::open(&format!("/{name}")).unwrap();
    assert_eq!(second.size(), first.size());
    Posix::unlink(&name).unwrap();
    assert_eq!(errno(Posix::open(&name)), Errno::NOENT);
    assert!(second.map_shrinkable(Access::Write).is_ok());
}

#[test]
fn a_name_that_cannot_be_made_is_not_left() {
    let name = unique("large");
    let large = Posix::create(&name, &Request::new(1 << 62), OWNER);
    // The room in /dev/shm, or the file system's own word.
    assert!(large.is_err());
    assert_eq!(errno(Posix::open(&name)), Errno::NOENT);
}

#[test]
fn a_size_can_be_waited_for() {
    let name = unique("wait");
    let path = format!("/dev/shm/{name}");
    let file = std::fs::File::create_new(&path).unwrap();
    let empty = Posix::open(&name).unwrap_err();
    assert!(
        matches!(empty, AllocError::Buffer(BufferError::Empty { .. })),
        "{empty}"
    );
    let started = Instant::now();
    let never = Posix::open_when_sized(&name, Duration::from_millis(30));
    assert_eq!(errno(never), Errno::TIMEDOUT);
    assert!(started.elapsed() >= Duration::from_millis(30));

    let maker = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        file.set_len(4096).unwrap();
    });
    let buffer = Posix::open_when_sized(&name, Duration::from_secs(60));
    maker.join().unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(buffer.unwrap().size(), 4096);
}

/// The word by which this program starts itself, to be killed.
const VICTIM: &str = "DMASHARE_TEST_VICTIM";

#[test]
fn nothing_stays_of_a_process_that_is_killed() {
    if std::env::var_os(VICTIM).is_some() {
        let buffers = hosts_ways().map(|way| way.allocate(&Request::new(1)).unwrap());
        let segment = buffers.iter().find_map(Buffer::segment).unwrap();
        println!("segment {segment}");
        loop {
            std::thread::park();
        }
    }
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "nothing_stays_of_a_process_that_is_killed",
            "--nocapture",
        ])
        .env(VICTIM, "")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let said = std::io::BufReader::new(victim.stdout.take().unwrap());
    let id = std::io::BufRead::lines(said)
        // The harness writes the test's name before what the test says.
        .find_map(|line| {
            Some(
                line.unwrap()
                    .split_once("segment ")?
                    .1
                    .parse::<i32>()
                    .unwrap(),
            )
        })
        .expect("it allocates");
    assert!(Buffer::from_segment(id).is_ok());
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(Buffer::from_segment(id).is_err());
    let pid = format!(".{}.", victim.id());
    let mut names = std::fs::read_dir("/dev/shm").unwrap();
    assert!(!names.any(|name| name.unwrap().file_name().to_string_lossy().contains(&pid)));
}

#[test]
fn an_offer_says_what_the_way_has() {
    let probe = probe();
    let offer = |way| probe.row(way).verdict.clone().unwrap();
    let memfd = offer(Way::Memfd);
    assert!(matches!(memfd.kind, Kind::Memfd(_)));
    assert!(memfd.sealable && !memfd.named && !memfd.devices);
    assert_eq!(memfd.largest.bytes, i64::MAX as u64);
    assert!(offer(Way::Posix).named && offer(Way::SysV).named);
    assert_eq!(offer(Way::Posix).kind, Kind::Shm);
    assert_eq!(offer(Way::SysV).kind, Kind::SysV);
    // One more than it says is refused by it.
    let Some(more) = offer(Way::Posix).largest.bytes.checked_add(1 << 30) else {
        unreachable!()
    };
    assert!(Posix::new().allocate(&Request::new(more)).is_err());
    if DmaHeap::list().unwrap().is_empty() {
        assert!(probe.row(Way::DmaHeap).verdict.is_err());
    }
}
