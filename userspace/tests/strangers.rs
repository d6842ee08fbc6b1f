//! Attacks of other users on names in shared places: POSIX names, System V keys
//! and the paths of sockets.

#[path = "common/user.rs"]
mod user;

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use dmashare::Errno;
use dmashare::alloc::{AllocError, Key, Mode, Owner, Posix, Request, SysV};
use dmashare::share::{Listener, Socket, SocketError};
use libtest_mimic::{Arguments, Completion, Trial};
use user::{STRANGER, as_user, become_user, needs_root};

/// A user who is attacked, and is not root.
const VICTIM: u32 = 65533;

const OWNER: Mode = Mode::RUSR.union(Mode::WUSR);

fn main() {
    let tests: &[(&str, fn())] = &[
        (
            "sysv_failed_creation_names_key",
            sysv_failed_creation_names_key,
        ),
        ("bind_ignores_strangers_locks", bind_ignores_strangers_locks),
        (
            "bind_spares_files_behind_swapped_folders",
            bind_spares_files_behind_swapped_folders,
        ),
        (
            "bind_leaves_strangers_sockets",
            bind_leaves_strangers_sockets,
        ),
        ("posix_symlink_is_refused", posix_symlink_is_refused),
        ("posix_fifo_does_not_block", posix_fifo_does_not_block),
        ("posix_hard_link_is_refused", posix_hard_link_is_refused),
        (
            "posix_strangers_object_is_refused",
            posix_strangers_object_is_refused,
        ),
        ("posix_lease_does_not_block", posix_lease_does_not_block),
    ];
    let trials = tests.iter().map(|&(name, test)| {
        Trial::ignorable_test(name, move || Ok::<Completion, _>(needs_root(test)))
    });
    let room = Trial::ignorable_test("posix_room_is_granted_once", || {
        let mut mounts = true;
        let ended = needs_root(|| {
            mounts = as_user(0, unshare_mounts);
            if mounts {
                posix_room_is_granted_once();
            }
        });
        Ok(match mounts {
            true => ended,
            false => Completion::ignored_with("needs CAP_SYS_ADMIN, to mount a small /dev/shm"),
        })
    });
    let trials = trials.chain([room]);
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

/// A name in `/dev/shm` that is free again at its end, whoever took it.
struct Name(String);

impl Name {
    fn new(test: &str) -> Name {
        Name(format!("dmashare-strangers-{test}-{}", std::process::id()))
    }

    fn path(&self) -> PathBuf {
        Path::new("/dev/shm").join(&self.0)
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.path());
    }
}

fn make_fifo(path: &Path, mode: u32) {
    let name = CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: a path that ends with a NUL.
    let made = unsafe { libc::mkfifo(name.as_ptr(), mode) };
    assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
}

fn errno<T: std::fmt::Debug>(result: Result<T, AllocError>) -> Errno {
    match result {
        Err(AllocError::Os { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

/// Runs this as the user who is attacked, and fails where it takes long.
fn promptly<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    // Not scoped: a thread that hangs must not keep the test from failing.
    std::thread::spawn(move || {
        become_user(VICTIM);
        let _ = sender.send(act());
    });
    receiver
        .recv_timeout(Duration::from_secs(10))
        .expect("the call waits for a stranger")
}

fn posix_symlink_is_refused() {
    let (target, link) = (Name::new("target"), Name::new("link"));
    let _mine = Posix::create(&target.0, &Request::new(4096), OWNER).unwrap();
    as_user(STRANGER, || {
        std::os::unix::fs::symlink(target.path(), link.path()).unwrap();
    });
    for opened in [
        Posix::open(&link.0),
        Posix::open_owned(&link.0, Owner::Anyone),
        Posix::open_when_sized(&link.0, Duration::from_millis(200)),
    ] {
        let message = opened.as_ref().unwrap_err().to_string();
        assert!(message.contains("symbolic link"), "{message}");
        assert_eq!(errno(opened), Errno::LOOP);
    }
    let made = Posix::create(&link.0, &Request::new(1), OWNER);
    assert_eq!(errno(made), Errno::EXIST);
}

/// One that its victim may only read: opened for reading, it would wait for one
/// who writes.
fn posix_fifo_does_not_block() {
    let fifo = Name::new("fifo");
    as_user(STRANGER, || make_fifo(&fifo.path(), 0o444));
    let started = Instant::now();
    let name = fifo.0.clone();
    let opened = promptly(move || {
        [
            Posix::open(&name),
            Posix::open_owned(&name, Owner::Anyone),
            Posix::open_when_sized(&name, Duration::from_secs(60)),
        ]
    });
    for opened in opened {
        let error = opened.unwrap_err();
        assert!(
            matches!(error, AllocError::NotAnObject { what: "a FIFO", .. }),
            "{error}"
        );
    }
    assert!(started.elapsed() < Duration::from_secs(10));
}

/// As a stranger makes one where fs.protected_hardlinks is 0.
fn posix_hard_link_is_refused() {
    let (target, link) = (Name::new("linked"), Name::new("hard"));
    let _mine = Posix::create(&target.0, &Request::new(4096), OWNER).unwrap();
    std::fs::hard_link(target.path(), link.path()).unwrap();
    let error = Posix::open_owned(&link.0, Owner::this_user()).unwrap_err();
    assert!(matches!(error, AllocError::Linked { .. }), "{error}");
    Posix::open_owned(&link.0, Owner::Anyone).unwrap();
    std::fs::remove_file(link.path()).unwrap();
    Posix::open(&target.0).unwrap();
}

fn posix_strangers_object_is_refused() {
    let name = Name::new("theirs");
    let everyone = Mode::RWXU | Mode::RWXG | Mode::RWXO;
    as_user(STRANGER, || {
        Posix::create(&name.0, &Request::new(4096), everyone).unwrap();
    });
    for owner in [Owner::Trusted, Owner::this_user(), Owner::User(VICTIM)] {
        let error = Posix::open_owned(&name.0, owner).unwrap_err();
        let expected = AllocError::Owner {
            name: name.path().display().to_string(),
            uid: STRANGER,
            expected: owner,
        };
        assert_eq!(error, expected);
    }
    Posix::open_owned(&name.0, Owner::User(STRANGER)).unwrap();
    Posix::open_owned(&name.0, Owner::Anyone).unwrap();
    as_user(STRANGER, || Posix::open(&name.0).unwrap());

    // Root's is taken by others, as a service's is.
    let name = Name::new("roots");
    let readable = OWNER | Mode::ROTH;
    let _mine = Posix::create(&name.0, &Request::new(4096), readable).unwrap();
    as_user(STRANGER, || Posix::open(&name.0).unwrap());
}

/// Who owns a file can have others wait who open it, for 45 seconds
/// (/proc/sys/fs/lease-break-time).
fn posix_lease_does_not_block() {
    let name = Name::new("lease");
    let everyone = Mode::RWXU | Mode::RWXG | Mode::RWXO;
    let leased = as_user(STRANGER, || {
        let buffer = Posix::create(&name.0, &Request::new(4096), everyone).unwrap();
        // A lease is that of a file nobody has open for writing.
        drop(buffer);
        let file = std::fs::File::open(name.path()).unwrap();
        // SAFETY: takes numbers.
        let leased = unsafe {
            libc::fcntl(
                std::os::fd::AsRawFd::as_raw_fd(&file),
                libc::F_SETLEASE,
                libc::F_WRLCK,
            )
        };
        assert_eq!(leased, 0, "{}", std::io::Error::last_os_error());
        file
    });
    let opened = {
        let name = name.0.clone();
        promptly(move || Posix::open_owned(&name, Owner::Anyone))
    };
    assert_eq!(errno(opened), Errno::AGAIN);
    drop(leased);
}

/// A folder with this mode.
fn folder(mode: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(folder.path(), mode).unwrap();
    folder
}

/// Leaves a socket at a path, as a process does that was killed.
fn leave_socket(path: &Path) {
    drop(std::os::unix::net::UnixListener::bind(path).unwrap());
}

/// Any lock that a stranger can have in a folder such as /tmp: of the folder
/// itself, and of a file that has the name of ours.
fn bind_ignores_strangers_locks() {
    let folder = folder(0o1777);
    let path = folder.path().join("frames");
    let locks = as_user(STRANGER, || {
        let lock = folder.path().join(".frames.lock");
        let locks = [
            std::fs::File::open(folder.path()).unwrap(),
            std::fs::File::create_new(lock).unwrap(),
        ];
        for file in &locks {
            rustix::fs::flock(file, rustix::fs::FlockOperation::LockExclusive).unwrap();
        }
        locks
    });
    let started = Instant::now();
    drop(Listener::bind(&path).unwrap());
    leave_socket(&path);
    drop(Listener::bind(&path).unwrap());
    assert!(started.elapsed() < Duration::from_millis(900));
    // Nor is a link followed, or a FIFO waited for.
    let lock = folder.path().join(".frames.lock");
    let precious = folder.path().join("precious");
    std::fs::remove_file(&lock).unwrap();
    as_user(STRANGER, || {
        std::os::unix::fs::symlink(&precious, &lock).unwrap()
    });
    leave_socket(&path);
    drop(Listener::bind(&path).unwrap());
    assert!(!precious.exists());
    std::fs::remove_file(&lock).unwrap();
    as_user(STRANGER, || make_fifo(&lock, 0o666));
    leave_socket(&path);
    drop(Listener::bind(&path).unwrap());
    drop(locks);
}

/// The owner of a folder above turns the path to another folder and back, as
/// fast as he can.
fn bind_spares_files_behind_swapped_folders() {
    use rustix::fs::{AtFlags, CWD, RenameFlags, renameat_with, statat, unlinkat};

    let above = folder(0o777);
    let theirs = folder(0o755);
    let precious = theirs.path().join("frames");
    std::fs::write(&precious, "precious").unwrap();
    let turned = above.path().join("turned");
    let link = above.path().join("link");
    as_user(STRANGER, || {
        std::fs::create_dir(&turned).unwrap();
        std::os::unix::fs::symlink(theirs.path(), &link).unwrap();
    });
    let inside = std::fs::File::open(&turned).unwrap();
    let path = turned.join("frames");
    let ended = std::sync::atomic::AtomicBool::new(false);
    let (mut bound, mut elsewhere) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            become_user(STRANGER);
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                renameat_with(CWD, &turned, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(3) && precious.exists() {
            if statat(&inside, "frames", AtFlags::SYMLINK_NOFOLLOW).is_err() {
                let fd = std::os::fd::AsRawFd::as_raw_fd(&inside);
                leave_socket(Path::new(&format!("/proc/self/fd/{fd}/frames")));
            }
            match Listener::bind(&path) {
                Ok(listener) => {
                    bound += 1;
                    drop(listener);
                }
                Err(SocketError::NotASocket(_)) => elsewhere += 1,
                Err(error) => panic!("{error}"),
            }
        }
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
    assert_eq!(std::fs::read_dir(theirs.path()).unwrap().count(), 1);
    assert!(
        bound > 0 && elsewhere > 0,
        "{bound} bound, {elsewhere} elsewhere"
    );
    let _ = unlinkat(&inside, "frames", AtFlags::empty());
}

fn bind_leaves_strangers_sockets() {
    let folder = folder(0o1777);
    let path = folder.path().join("frames");
    as_user(STRANGER, || leave_socket(&path));
    let error = Listener::bind(&path).unwrap_err();
    let expected = SocketError::Foreign {
        path: path.clone(),
        uid: STRANGER,
    };
    assert_eq!(error, expected);
    assert!(path.symlink_metadata().is_ok());
    as_user(STRANGER, || {
        let listener = Listener::bind(&path).unwrap();
        Socket::connect(&path).unwrap();
        listener.accept().unwrap();
    });
}

/// Gives this thread mounts of its own, if it may have them.
fn unshare_mounts() -> bool {
    // SAFETY: takes a number.
    unsafe { libc::unshare(libc::CLONE_NEWNS) == 0 }
}

/// Gives this thread a /dev/shm of its own, of this size.
fn own_shm(size: u64) {
    let call = |source: &str, target: &str, kind: &str, flags, data: &str| {
        let words = [source, target, kind, data].map(|word| CString::new(word).unwrap());
        let [source, target, kind, data] = words.each_ref().map(|word| word.as_ptr());
        // SAFETY: four strings that end with a NUL.
        let mounted = unsafe { libc::mount(source, target, kind, flags, data.cast()) };
        assert_eq!(mounted, 0, "{}", std::io::Error::last_os_error());
    };
    assert!(unshare_mounts(), "{}", std::io::Error::last_os_error());
    call("none", "/", "none", libc::MS_REC | libc::MS_PRIVATE, "");
    call(
        "tmpfs",
        "/dev/shm",
        "tmpfs",
        0,
        &format!("size={size},mode=1777"),
    );
}

/// Two users who each want 60 % of /dev/shm: one of them gets it.
fn posix_room_is_granted_once() {
    let page = rustix::param::page_size() as u64;
    let size = 100 * page;
    let request = Request::new(60 * page);
    let room = |request: &Request| {
        as_user(0, || {
            own_shm(size);
            let fill = |buffer: &dmashare::buffer::Buffer| {
                use dmashare::buffer::Access;
                let mut mapping = buffer.map_shrinkable(Access::Write).unwrap();
                mapping.access(Access::Write).unwrap().fill(7).unwrap();
            };
            let first = Posix::create("first", request, OWNER);
            become_user(STRANGER);
            let second = Posix::create("second", request, OWNER);
            let left = Path::new("/dev/shm/second").exists();
            let made = (first.is_ok(), second.is_ok(), left);
            if !request.unreserved {
                // No SIGBUS: its pages are there, though all others are taken.
                while Posix::create("rest", &Request::new(page), OWNER).is_ok() {
                    let rest = format!("/dev/shm/{:?}", Instant::now()).replace([' ', '{'], "");
                    std::fs::rename("/dev/shm/rest", rest).unwrap();
                }
                fill(&first.unwrap());
            }
            let why = second.err().map(|error| error.to_string());
            (made, why)
        })
    };
    let (made, why) = room(&request);
    assert_eq!(made, (true, false, false));
    assert!(why.unwrap().contains("the room left in /dev/shm"));
    let (made, _) = room(&request.unreserved());
    assert_eq!(made, (true, true, true));
}

/// Who is not root may not attach what he has no right to, though he made it.
fn sysv_failed_creation_names_key() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let key = Key::of_path(file.path(), b'f').unwrap();
    let made = as_user(STRANGER, || {
        SysV::create(key, &Request::new(1), Mode::empty())
    });
    let error = made.unwrap_err().to_string();
    let expected = format!("System V key {key}: shmat: ");
    assert!(error.starts_with(&expected), "{error}");
    assert_eq!(errno(SysV::open(key)), Errno::NOENT);
}
