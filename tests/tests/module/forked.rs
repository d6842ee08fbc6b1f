//! Copies of this process that do one thing and end, or are killed: they come
//! faster than a new program would.

use std::any::Any;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use dmashare_tests::conformance::Verdict;
use dmashare_tests::held;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::{ensure, text};

/// The copy, until it was waited for or this is dropped, which kills it.
pub(crate) struct Forked {
    pid: Pid,
    says: File,
    waited: bool,
}

impl Forked {
    /// Begins a copy that does this. It must not be waited for by what it does.
    pub(crate) fn start(body: impl FnOnce() -> Verdict) -> Result<Forked, String> {
        // One that was joined may end a little later.
        held::comes_back_to(1, threads)?;
        let (says, say) = pipe_with(PipeFlags::CLOEXEC).map_err(text)?;
        // SAFETY: there is no other thread whose locks the copy could wait for.
        match unsafe { libc::fork() } {
            -1 => Err(format!("fork: {}", std::io::Error::last_os_error())),
            0 => {
                drop(says);
                run(body, say)
            }
            pid => Ok(Forked {
                pid: Pid::from_raw(pid).ok_or("fork gave no pid")?,
                says: File::from(says),
                waited: false,
            }),
        }
    }

    pub(crate) fn kill(&self) -> Verdict {
        kill_process(self.pid, Signal::KILL).map_err(text)
    }

    /// What it said at its end; one that was killed said nothing, and is none
    /// that failed.
    pub(crate) fn wait(mut self) -> Verdict {
        let mut said = String::new();
        self.says.read_to_string(&mut said).map_err(text)?;
        let ended = self.reap()?;
        ensure(said.is_empty(), || said)?;
        ensure(ended, || "it ended by a signal of its own".to_owned())
    }

    /// Whether it exited or was killed by SIGKILL.
    fn reap(&mut self) -> Result<bool, String> {
        self.waited = true;
        let waited = waitpid(Some(self.pid), WaitOptions::empty()).map_err(text)?;
        let (_, status) = waited.ok_or("it has not ended")?;
        let killed = status.terminating_signal() == Some(Signal::KILL.as_raw());
        Ok(killed || status.exited())
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        if !self.waited {
            self.kill().expect("it is ours");
            self.reap().expect("it was not waited for");
        }
    }
}

/// Does it in a process of its own, and gives what it said.
pub(crate) fn in_another_process(body: impl FnOnce() -> Verdict) -> Verdict {
    Forked::start(body)?.wait()
}

fn threads() -> Result<usize, String> {
    Ok(std::fs::read_dir("/proc/self/task").map_err(text)?.count())
}

/// The copy's whole life: no destructor of ours runs in it, nor the harness.
fn run(body: impl FnOnce() -> Verdict, say: OwnedFd) -> ! {
    let verdict = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(words(&*panic)));
    let said = match verdict {
        Ok(()) => Ok(()),
        Err(reason) => File::from(say).write_all(reason.as_bytes()),
    };
    // SAFETY: ends the process.
    unsafe { libc::_exit(i32::from(said.is_err())) }
}

fn words(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("it panicked: {}", words.unwrap_or("without a word"))
}
