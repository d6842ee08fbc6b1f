//! Another process whose handles can be taken, without its help.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::closing::Closing;
use super::{Peer, SocketError};
use crate::buffer::{Buffer, BufferError};

/// A process, held by a pidfd (pidfd_open(2)): it stays this one when the
/// process ends and its pid is given to another.
///
/// A debugger, a supervisor or a compositor can take a buffer out of a process
/// that does not pass it: [`take`](Self::take) needs the rights that ptrace(2)
/// needs, and the process is not stopped.
///
/// ```
/// use std::os::fd::AsRawFd;
/// use dmashare::alloc::{Allocate, Memfd, Request};
/// use dmashare::share::Process;
/// let buffer = Memfd::new().allocate(&Request::new(4096))?;
/// let number = buffer.fd()?.as_raw_fd();
/// let taken = Process::open(std::process::id())?.take(number)?;
/// assert_eq!(taken.size(), 4096);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Process {
    pid: u32,
    pidfd: OwnedFd,
}

/// Why a process, or a handle of it, cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// A system call failed.
    #[error("process {pid}: {operation}: {source}{}", advice(operation, *source))]
    Os {
        /// The system call.
        operation: &'static str,
        /// The process.
        pid: u32,
        /// What the kernel said.
        source: Errno,
    },
    /// The process cannot be seen from our PID namespace, so it has no pid here.
    #[error("the process is in a PID namespace that this one does not see")]
    Unseen,
    /// What was taken is no buffer; it is closed.
    #[error("handle {number} of process {pid}: {source}")]
    Buffer {
        /// The process.
        pid: u32,
        /// The number that the handle has there.
        number: i32,
        /// What is wrong with it.
        source: BufferError,
    },
    /// The connection does not tell who its peer is.
    #[error(transparent)]
    Socket(#[from] SocketError),
}

impl Process {
    /// The process that has this pid now. Where it is not our child, and is not
    /// held otherwise, it can have ended, and another one have its pid.
    ///
    /// # Errors
    /// [`ProcessError::Os`]: `ESRCH` where there is none.
    ///
    /// ```
    /// use dmashare::share::{Process, ProcessError};
    /// let refused = Process::open(u32::MAX);
    /// assert!(matches!(refused, Err(ProcessError::Os { .. })));
    /// ```
    pub fn open(pid: u32) -> Result<Process, ProcessError> {
        const OPERATION: &str = "pidfd_open";
        let kernel = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let kernel = kernel.ok_or(Errno::SRCH);
        let pidfd = kernel.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
        let pidfd = pidfd.map_err(os(OPERATION, pid))?;
        Ok(Process { pid, pidfd })
    }

    /// The process of a peer, by its pid. If the peer has ended since it
    /// connected, that can be another one:
    /// [`Socket::peer_process`](super::Socket::peer_process) has no such gap
    /// where the kernel is 6.5 or newer.
    ///
    /// # Errors
    /// [`ProcessError::Unseen`], and those of [`open`](Self::open).
    pub fn of(peer: &Peer) -> Result<Process, ProcessError> {
        Process::open(peer.pid.ok_or(ProcessError::Unseen)?)
    }

    pub(super) fn from_peer(peer: &Peer, pidfd: OwnedFd) -> Result<Process, ProcessError> {
        let pid = peer.pid.ok_or(ProcessError::Unseen)?;
        Ok(Process { pid, pidfd })
    }

    /// Its pid, also after its end.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Takes a second handle of what is behind one of its handles
    /// (pidfd_getfd(2), Linux 5.6), by the number that it has there, and
    /// examines it.
    ///
    /// # Errors
    /// [`ProcessError::Os`]: `EPERM` where this process may not trace the other
    /// (`PTRACE_MODE_ATTACH_REALCREDS` of ptrace(2)), `EBADF` where that has no
    /// such handle, `ESRCH` where it has ended. [`ProcessError::Buffer`] where
    /// it is no buffer.
    ///
    /// ```
    /// use dmashare::share::{Process, ProcessError};
    /// let refused = Process::open(std::process::id())?.take(-1);
    /// assert!(matches!(refused, Err(ProcessError::Os { operation: "pidfd_getfd", .. })));
    /// # Ok::<(), ProcessError>(())
    /// ```
    pub fn take(&self, number: i32) -> Result<Buffer, ProcessError> {
        let pid = self.pid;
        let fd = match number {
            // As the kernel has it; rustix takes no such number.
            ..0 => Err(Errno::BADF),
            _ => pidfd_getfd(&self.pidfd, number, PidfdGetfdFlags::empty()),
        };
        let fd = fd.map_err(os("pidfd_getfd", pid))?;
        Buffer::examined(fd).map_err(|(source, fd)| {
            Closing::default().close(fd);
            ProcessError::Buffer {
                pid,
                number,
                source,
            }
        })
    }
}

/// The pidfd: poll(2) finds it readable when the process has ended.
impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

fn os(operation: &'static str, pid: u32) -> impl FnOnce(Errno) -> ProcessError {
    move |source| ProcessError::Os {
        operation,
        pid,
        source,
    }
}

/// What to do where errno alone does not say it.
fn advice(operation: &str, errno: Errno) -> &'static str {
    match (operation, errno) {
        ("pidfd_getfd", Errno::PERM) => {
            "; taking a handle needs the right to trace the process: be its user, and have \
             CAP_SYS_PTRACE where /proc/sys/kernel/yama/ptrace_scope is not 0, or have the \
             process allow it by prctl(PR_SET_PTRACER)"
        }
        ("pidfd_getfd", Errno::BADF) => "; it has no handle of this number",
        (_, Errno::SRCH) => "; it has ended",
        (_, Errno::NOSYS) => "; this needs Linux 5.6 or newer, and a seccomp filter that allows it",
        (_, Errno::MFILE) => "; close handles or raise RLIMIT_NOFILE",
        _ => "",
    }
}
