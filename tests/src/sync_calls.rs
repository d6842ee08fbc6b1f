//! Seeing, and refusing, a thread's `DMA_BUF_IOCTL_SYNC` calls.
//!
//! Some answers of a kernel cannot be had by asking: an interrupted SYNC, or an
//! END that fails. Here a filter (seccomp(2), with `SECCOMP_RET_USER_NOTIF`)
//! stops a thread at each SYNC, and another thread says what becomes of it: the
//! kernel makes it after all, or the caller gets this error. The code under
//! test, the buffer and the kernel are the real ones.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::mpsc;
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};

/// `DMA_BUF_IOCTL_SYNC` of linux/dma-buf.h: `_IOW('b', 0, struct dma_buf_sync)`.
const DMA_BUF_IOCTL_SYNC: u32 = 0x4008_6200;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The kernel makes it.
    Kernel,
    /// It fails with this errno, and the kernel does not see it.
    Errno(i32),
}

/// Runs `body` in a thread of its own, and asks `answer` at each of its SYNCs,
/// with the call's `DMA_BUF_SYNC_*` flags. Gives what `body` gave, or its panic.
///
/// # Errors
/// Where the system has no seccomp(2), or forbids it.
///
/// ```
/// use dmashare_tests::sync_calls::{Answer, watch};
/// let mut seen = Vec::new();
/// let answer = |flags| {
///     seen.push(flags);
///     Answer::Errno(libc::EIO)
/// };
/// let result = watch(answer, || {
///     // SAFETY: reads eight bytes, if it is made at all.
///     let failed = unsafe { libc::ioctl(0, 0x4008_6200, &5_u64) } == -1;
///     failed.then(std::io::Error::last_os_error)
/// })?;
/// assert_eq!(result.unwrap().unwrap().raw_os_error(), Some(libc::EIO));
/// assert_eq!(seen, [5]);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn watch<T: Send>(
    mut answer: impl FnMut(u64) -> Answer,
    body: impl FnOnce() -> T + Send,
) -> io::Result<thread::Result<T>> {
    thread::scope(|scope| {
        let (send, receive) = mpsc::channel();
        let watched = scope.spawn(move || {
            let installed = install_filter();
            let go = installed.is_ok();
            send.send(installed).expect("the watcher waits for this");
            go.then(body)
        });
        let listener = receive.recv().expect("the thread sends this first")?;
        watch_until_its_end(&listener, &mut answer)?;
        Ok(watched
            .join()
            .map(|done| done.expect("the filter is installed")))
    })
}

/// Answers call after call, until the thread is gone.
fn watch_until_its_end(
    listener: &OwnedFd,
    answer: &mut impl FnMut(u64) -> Answer,
) -> io::Result<()> {
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
        if !fds[0].revents().contains(PollFlags::IN) {
            return Ok(()); // HUP: nobody is left that has the filter
        }
        // SAFETY: zeros are a valid value, and the kernel demands them.
        let mut stopped: libc::seccomp_notif = unsafe { zeroed() };
        let receive = libc::SECCOMP_IOCTL_NOTIF_RECV;
        // SAFETY: the ioctl writes one seccomp_notif.
        check(unsafe { libc::ioctl(listener.as_raw_fd(), receive, &raw mut stopped) })?;

        let flags = usize::try_from(stopped.data.args[2]).expect("an address is a usize");
        let flags = std::ptr::with_exposed_provenance::<u64>(flags);
        // SAFETY: the thread is of this process, and is stopped in a call to
        // which it passed the address of its flags.
        let flags = unsafe { flags.read_unaligned() };

        // SAFETY: zeros are a valid value.
        let mut reply: libc::seccomp_notif_resp = unsafe { zeroed() };
        reply.id = stopped.id;
        match answer(flags) {
            Answer::Kernel => reply.flags = 1, // SECCOMP_USER_NOTIF_FLAG_CONTINUE
            Answer::Errno(errno) => reply.error = -errno,
        }
        let send = libc::SECCOMP_IOCTL_NOTIF_SEND;
        // SAFETY: the ioctl reads one seccomp_notif_resp.
        check(unsafe { libc::ioctl(listener.as_raw_fd(), send, &raw mut reply) })?;
    }
}

/// Stops this thread, and no other, at each SYNC from now on.
fn install_filter() -> io::Result<OwnedFd> {
    // Of struct seccomp_data: the call's number, and the low half of its
    // second argument, the ioctl's number.
    const CALL: u32 = 0;
    const REQUEST: u32 = 24 + if cfg!(target_endian = "big") { 4 } else { 0 };
    let load = |at| op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at, 0);
    let unless = |value, skip| op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, skip);
    let end = |action| op(libc::BPF_RET | libc::BPF_K, action, 0);
    let ioctl = u32::try_from(libc::SYS_ioctl).expect("the number of a call");
    let mut filter = [
        load(CALL),
        unless(ioctl, 3),
        load(REQUEST),
        unless(DMA_BUF_IOCTL_SYNC, 1),
        end(libc::SECCOMP_RET_USER_NOTIF),
        end(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: 6,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: sets a flag of this thread; unprivileged filters need it.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    // SAFETY: reads `program`, which outlives the call.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    match RawFd::try_from(listener) {
        // SAFETY: the call succeeded, so this is a new fd that no one owns;
        // the kernel has made it to close on exec.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// An instruction; a comparison goes on where it holds, and skips `skip` others
/// where it does not.
fn op(code: u32, k: u32, skip: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: u16::try_from(code).expect("an opcode has 16 bits"),
        jt: 0,
        jf: skip,
        k,
    }
}

/// The error behind a C function's -1.
fn check(returned: i32) -> io::Result<()> {
    match returned {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
