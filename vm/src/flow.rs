//! How much of a program's input is on its way to it, and whether it still runs.

use std::sync::{Condvar, Mutex, PoisonError};

use dmashare_vm_init::{MAX_PAYLOAD, WINDOW};

use crate::guest::lock;

/// What is known on this end of one program in the guest.
#[derive(Default)]
pub(crate) struct Flow {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Bytes of input that were sent and not taken.
    under_way: usize,
    /// It takes no more of them.
    closed: bool,
    /// It has ended, and all that it said is here.
    ended: bool,
}

impl Flow {
    /// Wait until there is room for input, and take of it what is wanted, or a part;
    /// `None` where the program takes no more.
    pub(crate) fn reserve(&self, wanted: usize) -> Option<usize> {
        let full = |state: &mut State| !state.closed && state.under_way >= WINDOW;
        let state = self.changed.wait_while(lock(&self.state), full);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return None;
        }
        let part = wanted.min(MAX_PAYLOAD).min(WINDOW - state.under_way);
        state.under_way += part;
        Some(part)
    }

    /// The program took so many bytes; none: it takes no more.
    pub(crate) fn took(&self, bytes: usize) {
        let mut state = lock(&self.state);
        state.under_way = state.under_way.saturating_sub(bytes);
        state.closed |= bytes == 0;
        self.changed.notify_all();
    }

    /// It has ended, or its guest has.
    pub(crate) fn end(&self) {
        lock(&self.state).ended = true;
        self.took(0);
    }

    pub(crate) fn has_ended(&self) -> bool {
        lock(&self.state).ended
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn input_waits_for_the_program_to_take_it() {
        let flow = Arc::new(Flow::default());
        let mut sent = 0;
        while sent < WINDOW {
            sent += flow.reserve(usize::MAX).unwrap();
        }
        let theirs = flow.clone();
        let waits = std::thread::spawn(move || (theirs.reserve(usize::MAX), theirs.reserve(1)));
        flow.took(10);
        // The second waits on, until the program is gone.
        while lock(&flow.state).under_way < WINDOW {
            std::thread::yield_now();
        }
        flow.end();
        assert_eq!(waits.join().unwrap(), (Some(10), None));
        assert!(flow.has_ended());
    }
}
