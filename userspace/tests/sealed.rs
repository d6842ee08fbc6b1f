//! Memory that is sealed, and memory that a peer takes away: what stays, and
//! what is an error instead of a signal.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use dmashare::Errno;
use dmashare::alloc::{Allocate, Memfd, Request};
use dmashare::buffer::{Access, Buffer, BufferError, Seals};
use dmashare::share::{Draft, Socket};
use rustix::fs::{
    FallocateFlags, MemfdFlags, OFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create,
};

const SIZE_BYTES: usize = 64 << 10;
const SIZE: u64 = SIZE_BYTES as u64;

/// A memfd that takes seals and has none, full of sevens.
fn unsealed() -> Buffer {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = memfd_create("theirs", flags).unwrap();
    ftruncate(&fd, SIZE).unwrap();
    let buffer = Buffer::from_fd(fd).unwrap();
    assert_eq!(buffer.write_at(0, &[7; SIZE_BYTES]).unwrap(), SIZE_BYTES);
    buffer
}

fn missing(buffer: &Buffer) -> Option<Seals> {
    match buffer.map_sealed() {
        Err(BufferError::NotSealed { missing, .. }) => Some(missing),
        Err(other) => panic!("{other}"),
        Ok(_) => None,
    }
}

#[test]
fn the_seals_that_are_missing_are_named() {
    let mut buffer = unsealed();
    assert_eq!(missing(&buffer), Some(Seals::WRITE | Seals::SHRINK));
    let error = buffer.map_sealed().unwrap_err();
    assert_eq!(
        error.to_string(),
        "/memfd:theirs is not sealed: it lacks F_SEAL_SHRINK and F_SEAL_WRITE; \
         seal it (only a memfd can be), or read it through a guard"
    );
    buffer.seal(Seals::SHRINK | Seals::GROW).unwrap();
    assert_eq!(missing(&buffer), Some(Seals::WRITE));
    buffer.seal(Seals::WRITE).unwrap();
    assert_eq!(missing(&buffer), None);
    assert!(buffer.map_sealed().unwrap().iter().all(|byte| *byte == 7));
}

/// A mapping that was made before it goes on writing.
#[test]
fn sealed_against_future_writes_is_not_sealed() {
    let mut buffer = unsealed();
    let mut mapping = buffer.map_shrinkable(Access::ReadWrite).unwrap();
    buffer.seal(Seals::SHRINK | Seals::FUTURE_WRITE).unwrap();
    assert_eq!(missing(&buffer), Some(Seals::WRITE));
    let mut guard = mapping.access(Access::ReadWrite).unwrap();
    guard.write_at(0, b"still written").unwrap();
    drop(guard);
    let mut seen = [0; 13];
    buffer.read_at(0, &mut seen).unwrap();
    assert_eq!(&seen, b"still written");
    // And with it there, the seal that counts cannot be had.
    let refused = buffer.seal(Seals::WRITE);
    let source = Errno::BUSY;
    assert!(matches!(refused, Err(BufferError::Os { source: found, .. }) if found == source));
}

/// What the handle was when it came does not count: its owner seals it later,
/// after it made it smaller.
#[test]
fn seals_and_size_are_those_of_the_moment() {
    let theirs = unsealed();
    let ours = Buffer::from_fd(theirs.try_clone().unwrap().into_fd().unwrap()).unwrap();
    assert_eq!((ours.size(), missing(&ours).is_some()), (SIZE, true));
    ftruncate(theirs.fd().unwrap(), 5000).unwrap();
    fcntl_add_seals(theirs.fd().unwrap(), Seals::SHRINK | Seals::WRITE).unwrap();
    // `ours` still says 64 KiB, and a mapping of those would end in SIGBUS.
    assert_eq!(ours.size(), SIZE);
    let sealed = ours.map_sealed().unwrap();
    assert_eq!(
        (sealed.len(), sealed.iter().copied().min()),
        (5000, Some(7))
    );
}

#[test]
fn a_sealed_mapping_outlives_its_handle_and_goes_to_threads() {
    let mut buffer = unsealed();
    buffer.seal(Seals::SHRINK | Seals::WRITE).unwrap();
    let sealed = buffer.map_sealed().unwrap();
    drop(buffer);
    let sum = std::thread::spawn(move || sealed.iter().map(|b| u64::from(*b)).sum::<u64>());
    assert_eq!(sum.join().unwrap(), 7 * SIZE);
}

/// Nothing that could write to it or take it away works any more, by any
/// handle: not a write, a mapping, a hole or an end.
#[test]
fn nobody_changes_what_is_sealed() {
    let mut buffer = unsealed();
    buffer.seal(Seals::SHRINK | Seals::WRITE).unwrap();
    let sealed = buffer.map_sealed().unwrap();
    let fd = buffer.fd().unwrap();
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let again: OwnedFd = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
        .into();
    for fd in [fd, again.as_fd()] {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        assert_eq!(fallocate(fd, hole, 0, SIZE), Err(Errno::PERM));
        assert_eq!(ftruncate(fd, 0), Err(Errno::PERM));
        assert_eq!(rustix::io::pwrite(fd, b"x", 0), Err(Errno::PERM));
    }
    assert!(buffer.map(Access::Write).is_err());
    // Growing is not forbidden here, and does no harm.
    ftruncate(fd, 2 * SIZE).unwrap();
    assert!(sealed.iter().all(|byte| *byte == 7) && sealed.len() == SIZE_BYTES);
}

#[test]
fn a_handle_for_reading_is_enough() {
    let mut buffer = unsealed();
    buffer.seal(Seals::SHRINK | Seals::WRITE).unwrap();
    let path = format!("/proc/self/fd/{}", buffer.fd().unwrap().as_raw_fd());
    let reader = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, 0.into()).unwrap();
    let reader = Buffer::from_fd(reader).unwrap();
    assert_eq!(reader.map_sealed().unwrap().len(), SIZE_BYTES);
}

#[test]
fn what_takes_no_seals_is_never_sealed() {
    let file = tempfile::tempfile_in("/dev/shm").unwrap();
    file.set_len(SIZE).unwrap();
    let shm = Buffer::from_fd(file.into()).unwrap();
    assert_eq!(missing(&shm), Some(Seals::WRITE | Seals::SHRINK));
    assert_eq!(missing(&segment()), Some(Seals::WRITE | Seals::SHRINK));
}

fn segment() -> Buffer {
    // SAFETY: takes three numbers.
    let id = unsafe { libc::shmget(libc::IPC_PRIVATE, SIZE_BYTES, 0o600) };
    let buffer = Buffer::from_segment(id).unwrap();
    // SAFETY: IPC_RMID uses no third argument.
    unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
    buffer
}

/// Another process that holds the buffer, as its standard output, and makes it
/// as long as it is told.
struct Peer {
    process: Child,
}

impl Peer {
    fn holding(buffer: &Buffer) -> Peer {
        let theirs = buffer.try_clone().unwrap().into_fd().unwrap();
        let process = Command::new("sh")
            .args([
                "-c",
                "while read size; do truncate -s $size /proc/self/fd/1; echo done >&2; done",
            ])
            .stdin(Stdio::piped())
            .stdout(File::from(theirs))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Peer { process }
    }

    fn resize(&mut self, size: u64) {
        let stdin = self.process.stdin.as_mut().unwrap();
        writeln!(stdin, "{size}").unwrap();
        let mut answer = String::new();
        let stderr = self.process.stderr.as_mut().unwrap();
        BufReader::new(stderr).read_line(&mut answer).unwrap();
        assert_eq!(answer, "done\n");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        self.process.wait().unwrap();
    }
}

/// Through a mapping, each of these would have been a SIGBUS.
#[test]
fn a_peer_that_shrinks_it_makes_reads_short() {
    let shm = tempfile::tempfile_in("/dev/shm").unwrap();
    shm.set_len(SIZE).unwrap();
    for buffer in [unsealed(), Buffer::from_fd(shm.into()).unwrap()] {
        let mut peer = Peer::holding(&buffer);
        let mut bytes = vec![0; SIZE_BYTES];
        assert_eq!(buffer.read_at(0, &mut bytes).unwrap(), SIZE_BYTES);
        peer.resize(5000);
        assert_eq!(buffer.read_at(0, &mut bytes).unwrap(), 5000);
        assert_eq!(buffer.read_at(4990, &mut bytes).unwrap(), 10);
        assert_eq!(buffer.read_at(5000, &mut bytes).unwrap(), 0);
        assert_eq!(buffer.read_at(SIZE, &mut bytes).unwrap(), 0);
        peer.resize(0);
        assert_eq!(buffer.read_at(0, &mut bytes).unwrap(), 0);
        // It grows back, with zeros before what was written.
        assert_eq!(buffer.write_at(100, b"again").unwrap(), 5);
        assert_eq!(buffer.read_at(0, &mut bytes).unwrap(), 105);
        assert_eq!(
            (&bytes[..100], &bytes[100..105]),
            (&[0; 100][..], &b"again"[..])
        );
    }
}

/// The test above proves nothing unless a mapping does end in SIGBUS: here, in
/// a process of its own.
#[test]
fn a_peer_that_shrinks_it_ends_who_mapped_it() {
    use std::os::unix::process::ExitStatusExt;
    const NAME: &str = "a_peer_that_shrinks_it_ends_who_mapped_it";
    const VICTIM: &str = "DMASHARE_TEST_VICTIM";
    if std::env::var_os(VICTIM).is_some() {
        let buffer = unsealed();
        assert!(matches!(
            buffer.map(Access::Read),
            Err(BufferError::Shrinkable { .. })
        ));
        let mut mapping = buffer.map_shrinkable(Access::Read).unwrap();
        Peer::holding(&buffer).resize(0);
        let guard = mapping.access(Access::Read).unwrap();
        let _ = guard.read_at(0, &mut [0]);
        std::process::exit(0); // It lived.
    }
    let status = Command::new(std::env::current_exe().unwrap())
        .args([NAME, "--exact", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
}

#[test]
fn writes_stay_within_the_buffer() {
    let buffer = Memfd::new().allocate(&Request::new(SIZE)).unwrap();
    for (offset, len) in [(SIZE, 1), (SIZE - 1, 2), (u64::MAX, 1), (u64::MAX, 0)] {
        let refused = buffer.write_at(offset, &vec![1; len]);
        assert!(
            matches!(refused, Err(BufferError::Range { .. })),
            "{offset} {len}"
        );
    }
    assert_eq!(buffer.write_at(SIZE, &[]).unwrap(), 0);
    assert_eq!(buffer.read_at(u64::MAX >> 1, &mut []).unwrap(), 0);
    let mut sealed = buffer.try_clone().unwrap();
    sealed.seal(Seals::WRITE).unwrap();
    let refused = buffer.write_at(0, b"x");
    let source = Errno::PERM;
    assert!(matches!(refused, Err(BufferError::Os { source: found, .. }) if found == source));
}

#[test]
fn a_segment_can_only_be_mapped() {
    let segment = segment();
    let refused = BufferError::NotAFile {
        name: segment.name(),
    };
    assert_eq!(segment.read_at(0, &mut [0]), Err(refused.clone()));
    assert_eq!(segment.write_at(0, &[0]), Err(refused));
    assert!(matches!(
        segment.info(),
        Err(BufferError::NotADmaBuf { .. })
    ));
    assert!(matches!(
        segment.set_name("x"),
        Err(BufferError::NotADmaBuf { .. })
    ));
}

/// A peer has the same open file description as the sender, and its flags.
#[test]
fn peer_append_flag_grows_nothing() {
    let (here, there) = Socket::pair().unwrap();
    let ours = unsealed();
    here.send_message(&Draft::new().buffers([&ours])).unwrap();
    let theirs = there.recv_message().unwrap().buffers.remove(0);
    let flags = rustix::fs::fcntl_getfl(theirs.fd().unwrap()).unwrap();
    let set = |flags| rustix::fs::fcntl_setfl(theirs.fd().unwrap(), flags).unwrap();

    set(flags | OFlags::APPEND);
    assert_eq!(ours.write_at(100, b"here").unwrap(), 4);
    assert_eq!(size(&ours), SIZE);
    let mut bytes = [0; 4];
    assert_eq!(ours.read_at(100, &mut bytes).unwrap(), 4);
    assert_eq!(&bytes, b"here");

    // Between a look at the flags and the write, too.
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                set(flags | OFlags::APPEND);
                set(flags);
            }
        });
        for _ in 0..2000 {
            assert_eq!(ours.write_at(0, &[1; 4096]).unwrap(), 4096);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(size(&ours), SIZE);
}

fn size(buffer: &Buffer) -> u64 {
    let stat = rustix::fs::fstat(buffer.fd().unwrap()).unwrap();
    stat.st_size.cast_unsigned()
}
