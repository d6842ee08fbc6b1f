//! Closing received handles that are no memory: close(2) can wait for a peer.
//!
//! A socket lingers for as long as its options say (`SO_LINGER`), and a file on
//! FUSE or on a network waits for its server. Such handles are closed on threads
//! of their own. close(2) frees the number of a handle before it waits, so a
//! thread that waits holds no handle.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use rustix::net::sockopt;

/// The most handles of a process whose closing is waited for at a time.
const MAX_BUSY: usize = 256;

/// How long a handle may take before the next one is closed by another thread.
const SLOW: Duration = Duration::from_millis(5);

/// How long the last thread waits for more to close before it ends.
const IDLE: Duration = Duration::from_secs(1);

/// They call close(2), and nothing else.
const STACK: usize = 64 << 10;

/// The handles of one connection that are being closed, or wait for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Closing(Arc<AtomicUsize>);

struct Pool {
    waiting: VecDeque<(OwnedFd, Closing)>,
    /// Threads that close.
    busy: usize,
    /// Whether one more waits for work, or for the others to be slow.
    standby: bool,
    /// Counts what was closed.
    done: u64,
}

static POOL: Mutex<Pool> = Mutex::new(Pool {
    waiting: VecDeque::new(),
    busy: 0,
    standby: false,
    done: 0,
});
static MORE: Condvar = Condvar::new();

impl Closing {
    /// How many handles are not closed yet.
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Closes a handle, without waiting for it. Where no thread can be made, it
    /// stays open until one can.
    pub(super) fn close(&self, fd: OwnedFd) {
        self.0.fetch_add(1, Ordering::Relaxed);
        let mut pool = pool();
        pool.waiting.push_back((fd, self.clone()));
        pool.stand_by();
        MORE.notify_one();
    }
}

impl Pool {
    /// Has a thread wait for work.
    fn stand_by(&mut self) {
        if !self.standby && self.busy < MAX_BUSY {
            let thread = Builder::new().name("dmashare close".to_owned());
            self.standby = thread.stack_size(STACK).spawn(work).is_ok();
        }
    }
}

/// What these guard is right between any two statements that could panic.
fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits while `on` holds, and for no longer than that.
fn wait(
    pool: MutexGuard<'static, Pool>,
    limit: Duration,
    on: impl FnMut(&mut Pool) -> bool,
) -> MutexGuard<'static, Pool> {
    let waited = MORE.wait_timeout_while(pool, limit, on);
    waited.unwrap_or_else(PoisonError::into_inner).0
}

fn work() {
    let mut pool = pool();
    loop {
        pool = wait(pool, IDLE, |pool| pool.waiting.is_empty());
        if pool.waiting.is_empty() {
            pool.standby = false;
            return;
        }
        let done = pool.done;
        if pool.busy > 0 {
            pool = wait(pool, SLOW, |pool| pool.busy > 0 && pool.done == done);
        }
        if pool.busy > 0 && pool.done != done {
            continue;
        }
        pool.standby = false;
        pool.busy += 1;
        while let Some((fd, closing)) = pool.waiting.pop_front() {
            if !pool.waiting.is_empty() {
                pool.stand_by();
            }
            drop(pool);
            forget_linger(&fd);
            drop(fd);
            closing.0.fetch_sub(1, Ordering::Relaxed);
            pool = self::pool();
            pool.done += 1;
        }
        pool.busy -= 1;
        if pool.standby {
            return;
        }
        pool.standby = true;
    }
}

/// Has the kernel send what a socket has unsent while nobody waits for it.
pub(super) fn forget_linger(fd: impl AsFd) {
    // What is no socket has no such option.
    let _ = sockopt::set_socket_linger(fd, None);
}
