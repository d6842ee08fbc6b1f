//! `dmashare write`, `read` and `rm` where another user was there first.

#[path = "../../tests/common/user.rs"]
mod user;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use libtest_mimic::{Arguments, Completion, Trial};
use user::{STRANGER, as_user, needs_root};

fn main() {
    let tests: &[(&str, fn())] = &[
        (
            "write_to_a_strangers_listener_is_refused",
            write_to_a_strangers_listener_is_refused,
        ),
        (
            "read_from_a_strangers_listener_is_refused",
            read_from_a_strangers_listener_is_refused,
        ),
        ("open_objects_are_not_written", open_objects_are_not_written),
        (
            "sysv_given_segment_is_not_written",
            sysv_given_segment_is_not_written,
        ),
        ("posix_symlink_is_not_written", posix_symlink_is_not_written),
        (
            "posix_strangers_object_is_not_read",
            posix_strangers_object_is_not_read,
        ),
    ];
    let trials = tests.iter().map(|&(name, test)| {
        Trial::ignorable_test(name, move || Ok::<Completion, _>(needs_root(test)))
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

fn run(arguments: &[&str]) -> Output {
    // What waits for a stranger is ended.
    Command::new("timeout")
        .args(["20", env!("CARGO_BIN_EXE_dmashare")])
        .args(arguments)
        .output()
        .unwrap()
}

/// What it prints, where it succeeds.
fn prints(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What it says, where it fails.
fn fails(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// A name in `/dev/shm` that is free again at its end, whoever took it.
struct Name(String);

impl Name {
    fn new(test: &str) -> Name {
        Name(format!(
            "/dmashare-cli-strangers-{test}-{}",
            std::process::id()
        ))
    }

    fn path(&self) -> PathBuf {
        Path::new("/dev/shm").join(&self.0[1..])
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.path());
    }
}

fn posix_symlink_is_not_written() {
    let (precious, link) = (Name::new("precious"), Name::new("link"));
    std::fs::write(precious.path(), [b'x'; 4096]).unwrap();
    as_user(STRANGER, || {
        std::os::unix::fs::symlink(precious.path(), link.path()).unwrap();
    });
    let write = [
        "write", "posix", "--name", &link.0, "--size", "4K", "--text", "evil",
    ];
    let said = fails(&write);
    assert!(said.contains("symbolic link"), "{said}");
    assert_eq!(std::fs::read(precious.path()).unwrap(), [b'x'; 4096]);
    fails(&["read", "posix", "--name", &link.0, "--anyone"]);
    prints(&["rm", "posix", "--name", &link.0]);
    assert!(precious.path().exists());
}

fn posix_strangers_object_is_not_read() {
    let name = Name::new("theirs");
    as_user(STRANGER, || {
        std::fs::write(name.path(), [b'x'; 4096]).unwrap()
    });
    let read = ["read", "posix", "--name", &name.0, "--bytes", "1"];
    let said = fails(&read);
    assert!(
        said.contains("user 65534") && said.contains("--anyone"),
        "{said}"
    );
    assert_eq!(prints(&[&read[..], &["--anyone"]].concat()), "x");
    let write = [
        "write", "posix", "--name", &name.0, "--size", "4K", "--text", "secret",
    ];
    assert!(fails(&write).contains("user 65534"));
    assert_eq!(std::fs::read(name.path()).unwrap(), [b'x'; 4096]);
}

/// A System V key that is free again at its end, whoever took it.
struct Segment {
    file: tempfile::NamedTempFile,
    key: i32,
}

impl Segment {
    fn new() -> Segment {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = std::ffi::CString::new(file.path().to_str().unwrap()).unwrap();
        // SAFETY: a path that ends with a NUL.
        let key = unsafe { libc::ftok(path.as_ptr(), 0) };
        Segment { file, key }
    }

    fn path(&self) -> &str {
        self.file.path().to_str().unwrap()
    }

    fn make(&self, mode: i32) -> i32 {
        // SAFETY: takes three numbers.
        let id = unsafe { libc::shmget(self.key, 4096, libc::IPC_CREAT | libc::IPC_EXCL | mode) };
        assert!(id >= 0, "{}", std::io::Error::last_os_error());
        id
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: takes numbers, and no memory for IPC_RMID.
        unsafe {
            let id = libc::shmget(self.key, 0, 0);
            libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut());
        }
    }
}

/// The first bytes of a segment, as this thread's user may read them.
fn bytes_of(id: i32) -> [u8; 6] {
    // SAFETY: attaches 4096 bytes, copies six of them, and detaches.
    unsafe {
        let memory = libc::shmat(id, std::ptr::null(), libc::SHM_RDONLY);
        assert_ne!(
            memory.addr(),
            usize::MAX,
            "{}",
            std::io::Error::last_os_error()
        );
        let bytes = memory.cast::<[u8; 6]>().read();
        libc::shmdt(memory);
        bytes
    }
}

/// A squatter makes it, gives it to root, and could read it as its creator.
fn sysv_given_segment_is_not_written() {
    let segment = Segment::new();
    let id = as_user(STRANGER, || {
        let id = segment.make(0o600);
        // SAFETY: the kernel fills one `shmid_ds`, and reads it again.
        unsafe {
            let mut stat: libc::shmid_ds = std::mem::zeroed();
            assert_eq!(libc::shmctl(id, libc::IPC_STAT, &raw mut stat), 0);
            stat.shm_perm.uid = 0;
            stat.shm_perm.gid = 0;
            assert_eq!(libc::shmctl(id, libc::IPC_SET, &raw mut stat), 0);
        }
        id
    });
    let write = [
        "write",
        "sysv",
        "--path",
        segment.path(),
        "--size",
        "4K",
        "--text",
        "secret",
    ];
    let said = fails(&write);
    assert!(said.contains("user 65534"), "{said}");
    let key = format!("{:#010x}", segment.key);
    assert!(said.contains(&key), "{said}");
    // It still may read what is there: nothing.
    assert_eq!(as_user(STRANGER, || bytes_of(id)), [0; 6]);
    let read = ["read", "sysv", "--path", segment.path()];
    assert!(fails(&read).contains("--anyone"));
    prints(&[&read[..], &["--anyone"]].concat());
}

fn open_objects_are_not_written() {
    let segment = Segment::new();
    let id = segment.make(0o644);
    let write = [
        "write",
        "sysv",
        "--path",
        segment.path(),
        "--size",
        "4K",
        "--text",
        "secret",
    ];
    let said = fails(&write);
    assert!(said.contains("mode 0644"), "{said}");
    assert_eq!(bytes_of(id), [0; 6]);

    let name = Name::new("open");
    std::fs::write(name.path(), [b'x'; 4096]).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o604);
    std::fs::set_permissions(name.path(), mode).unwrap();
    let write = [
        "write", "posix", "--name", &name.0, "--size", "4K", "--text", "secret",
    ];
    let said = fails(&write);
    assert!(
        said.contains("mode 0604") && said.contains("rm posix"),
        "{said}"
    );
    assert_eq!(std::fs::read(name.path()).unwrap(), [b'x'; 4096]);
}

/// A stranger's listener at an abstract name, and what came to it.
fn with_strangers_listener(run: impl FnOnce(&str)) -> Vec<Vec<u8>> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener};
    use std::sync::atomic::{AtomicU32, Ordering};

    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("dmashare-strangers-{}-{count}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    // The kernel notes the user who calls listen(2).
    let listener = as_user(STRANGER, || UnixListener::bind_addr(&address).unwrap());
    run(&format!("@{name}"));
    listener.set_nonblocking(true).unwrap();
    let connections = std::iter::from_fn(|| listener.accept().ok());
    connections
        .map(|(mut connection, _)| {
            let mut bytes = Vec::new();
            connection.set_nonblocking(false).unwrap();
            std::io::Read::read_to_end(&mut connection, &mut bytes).unwrap();
            bytes
        })
        .collect()
}

fn write_to_a_strangers_listener_is_refused() {
    let common = [
        "--size",
        "4K",
        "--text",
        "secret",
        "--type",
        "stream",
        "--timeout",
        "5s",
    ];
    for kind in [&["--plain"][..], &[]] {
        let came = with_strangers_listener(|address| {
            let write = ["write", "memfd", "--socket", address];
            let said = fails(&[&write[..], &common, kind].concat());
            assert!(
                said.contains("(user 65534, group 65534) is refused"),
                "{said}"
            );
            assert!(said.contains("--anyone"), "{said}");
        });
        assert_eq!(came, [b""], "a stranger was sent something");
        let came = with_strangers_listener(|address| {
            let write = ["write", "memfd", "--anyone", "--socket", address];
            prints(&[&write[..], &common, kind].concat());
        });
        assert!(matches!(&came[..], [bytes] if !bytes.is_empty()));
    }
}

/// What it would send is a stranger's memory.
fn read_from_a_strangers_listener_is_refused() {
    with_strangers_listener(|address| {
        let read = [
            "read",
            "fd",
            "--connect",
            "--plain",
            "--timeout",
            "5s",
            "--socket",
            address,
        ];
        let said = fails(&read);
        assert!(
            said.contains("(user 65534, group 65534) is refused"),
            "{said}"
        );
    });
}
