//! A process that can open no more handles.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::common::handles;

/// The limit of open handles, lowered while it lives.
pub(crate) struct TableLimit {
    limit: Rlimit,
    fill: Vec<OwnedFd>,
}

impl TableLimit {
    /// Room for just this many more.
    pub(crate) fn leave(room: usize) -> TableLimit {
        let limit = getrlimit(Resource::Nofile);
        // The limit is one on numbers, so the gaps below it are to be filled.
        let numbers = handles();
        let numbers = numbers.iter().map(|(number, _)| number.parse().unwrap());
        let highest: RawFd = numbers.max().unwrap();
        let mut fill: Vec<OwnedFd> = Vec::new();
        while fill.len() < room + 1 || fill[fill.len() - room - 1].as_raw_fd() < highest {
            fill.push(std::fs::File::open("/dev/null").unwrap().into());
        }
        let end = fill[fill.len() - 1].as_raw_fd() + 1;
        let lowered = Rlimit {
            current: Some(end.try_into().unwrap()),
            maximum: limit.maximum,
        };
        setrlimit(Resource::Nofile, lowered).unwrap();
        // Those opened last have the highest numbers, next to each other.
        fill.truncate(fill.len() - room);
        TableLimit { limit, fill }
    }
}

impl Drop for TableLimit {
    fn drop(&mut self) {
        setrlimit(Resource::Nofile, self.limit).unwrap();
        self.fill.clear();
    }
}
