//! Guests at rest, from which others go on.
//!
//! One that has just booted is kept in the cache, by all that it was made of:
//! the next of its kind begins there. What is one guest's own (its clock, its
//! random numbers, what folders it shares) is told to it afterwards, in either
//! case.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use dmashare_vm_init::Ready;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::cache::{self, BLOCK, Cache};
use crate::qemu::{Memory, memfd};
use crate::qmp::Saved;
use crate::vm::Order;
use crate::{Error, Vm, fault};

/// What kind of artefact they are.
const KIND: &str = "snapshot";

/// How many bytes all of them may take on the disk: some twenty guests, or five
/// of a debug kernel.
const KEEP: u64 = 4_000_000_000;

const MEMORY: &str = "memory";
const STATE: &str = "state";
const ABOUT: &str = "about.json";

/// A guest at rest.
#[derive(Clone)]
pub(crate) struct Image {
    /// Its memory, where that is not in `state`.
    pub(crate) memory: Option<Arc<File>>,
    /// The state of its processors and devices.
    pub(crate) state: Arc<File>,
    pub(crate) about: About,
}

/// What it said before.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) ready: Ready,
    pub(crate) console: String,
    /// The number of the last program that ran in it.
    pub(crate) last_process: u32,
}

impl Image {
    /// What a machine that goes on from here has for a memory.
    pub(crate) fn memory(&self) -> Memory<'_> {
        match &self.memory {
            Some(file) => Memory::CopyOf(file),
            None => Memory::Own,
        }
    }

    /// What the state is of.
    pub(crate) fn saved(&self) -> Saved {
        match self.memory {
            Some(_) => Saved::ButMemory,
            None => Saved::Whole,
        }
    }
}

/// A guest at rest, from which others go on: see [`Vm::snapshot`].
///
/// It is kept in this process's memory, and gone when it is dropped; guests that
/// went on from it live on.
#[derive(Clone)]
pub struct Snapshot {
    pub(crate) image: Image,
    pub(crate) order: Order,
}

impl Snapshot {
    /// One more guest that goes on from here, with random numbers and a clock of
    /// its own, and the same folders.
    ///
    /// # Errors
    /// What kept it from going on, told apart as in [`Error`].
    pub fn restore(&self) -> Result<Vm, Error> {
        Vm::resume(&self.order, &self.image, self.order.deadline)
    }

    pub(crate) fn take(vm: &Vm, order: Order) -> io::Result<Snapshot> {
        let state = memfd("snapshot")?;
        let about = vm.at_rest(&state, Saved::Whole, || Ok(vm.about()))?;
        let image = Image {
            memory: None,
            state: Arc::new(state),
            about,
        };
        Ok(Snapshot { image, order })
    }
}

/// A place in the cache for a guest that has just booted.
pub(crate) struct Place<'a> {
    pub(crate) cache: &'a Cache,
    pub(crate) key: String,
    /// None went on from the one that is there.
    pub(crate) failed: bool,
}

impl Place<'_> {
    pub(crate) fn folder(&self) -> PathBuf {
        self.cache.folder().join(KIND).join(&self.key)
    }

    /// The guest that is there.
    pub(crate) fn find(&self) -> Option<Image> {
        let folder = self.cache.whole(KIND, &self.key)?;
        let open = |name: &str| {
            File::options()
                .read(true)
                .write(true)
                .open(folder.join(name))
        };
        let about = open(ABOUT).ok()?;
        Some(Image {
            memory: Some(Arc::new(open(MEMORY).ok()?)),
            state: Arc::new(open(STATE).ok()?),
            about: serde_json::from_reader(io::BufReader::new(about)).ok()?,
        })
    }

    /// Take it away; those that use it go on.
    pub(crate) fn clear(&self) {
        // Where it stays, it is found out again that it is of no use.
        let _ = self.cache.remove(KIND, &self.key);
    }

    /// A guest has booted: it was not the host's fault that none went on from there.
    pub(crate) fn clear_failed(&self) {
        if self.failed {
            self.clear();
        }
    }

    /// Keep this guest, which has its memory in this file. Told why not where
    /// it cannot be kept; it goes on in any case.
    pub(crate) fn keep(&self, vm: &Vm, memory: &File) -> Result<(), Error> {
        // Twice, for what of it is not memory.
        let need = memory.metadata().map_or(0, |stat| stat.blocks() * BLOCK);
        let kept = self.cache.artefact(KIND, &self.key, need, |folder| {
            self.fill(folder, vm, memory)
        });
        trim(self.cache, &self.key, KEEP);
        kept.map(drop)
    }

    fn fill(&self, folder: &Path, vm: &Vm, memory: &File) -> Result<(), Error> {
        let create = |name: &str| {
            let path = folder.join(name);
            File::create_new(&path).map_err(cache::Error::io("make", path))
        };
        let (state, copy) = (create(STATE)?, create(MEMORY)?);
        let about = vm
            .at_rest(&state, Saved::ButMemory, || {
                copy_sparse(memory, &copy)?;
                // All that begin here would be said to have it.
                match vm.alarmed() {
                    true => Err(io::Error::other(fault::FAULTY)),
                    false => Ok(vm.about()),
                }
            })
            .map_err(Error::io("save the guest"))?;
        let about = serde_json::to_vec(&about).expect("it has a JSON form");
        let path = folder.join(ABOUT);
        Ok(fs::write(&path, about).map_err(cache::Error::io("write", path))?)
    }
}

/// Copy a file that is mostly zeros.
fn copy_sparse(from: &File, to: &File) -> io::Result<()> {
    const PAGE: usize = 4096;
    let mut buffer = vec![0; 256 * PAGE];
    let end = from.metadata()?.len();
    to.set_len(end)?;
    let mut at = 0;
    loop {
        let data = match seek(from, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        at = seek(from, SeekFrom::Hole(data))?;
        let mut next = data;
        while next < at {
            let length = buffer
                .len()
                .min(usize::try_from(at - next).unwrap_or(usize::MAX));
            let part = &mut buffer[..length];
            from.read_exact_at(part, next)?;
            for run in runs(part, PAGE) {
                to.write_all_at(&part[run.clone()], next + run.start as u64)?;
            }
            next += length as u64;
        }
    }
}

/// Where there are pages with more than zeros in them.
fn runs(bytes: &[u8], page: usize) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (at, chunk) in bytes.chunks(page).enumerate() {
        if chunk.iter().all(|byte| *byte == 0) {
            continue;
        }
        let (start, end) = (at * page, at * page + chunk.len());
        match runs.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => runs.push(start..end),
        }
    }
    runs
}

/// Take away those that were not used for longest, until the others take no more
/// than this; but not the one called so.
fn trim(cache: &Cache, but: &str, keep: u64) {
    let mut all: Vec<(SystemTime, u64, String)> = paths(&cache.folder().join(KIND))
        .filter_map(|folder| {
            let files = paths(&folder).filter_map(|file| file.metadata().ok());
            let blocks = files.map(|stat| stat.blocks()).sum::<u64>();
            let key = folder.file_name()?.to_string_lossy().into_owned();
            // One that is being made is another run's.
            let made = !key.ends_with(cache::MAKING);
            made.then(|| (cache::last_used(&folder), blocks * BLOCK, key))
        })
        .collect();
    all.sort();
    let mut total: u64 = all.iter().map(|(_, bytes, _)| bytes).sum();
    for (_, bytes, key) in all {
        if total <= keep {
            return;
        }
        if key != but && cache.remove(KIND, &key).is_ok() {
            total -= bytes;
        }
    }
}

/// What is in a folder; in one that cannot be read, nothing.
fn paths(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = cache::entries(folder).unwrap_or_default();
    entries.into_iter().map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparse_copy_is_the_same_and_takes_no_more() {
        let from = memfd("from").unwrap();
        from.set_len(8 << 20).unwrap();
        from.write_all_at(&[1; 5000], 1 << 20).unwrap();
        from.write_all_at(&[0; 1 << 20], 2 << 20).unwrap();
        from.write_all_at(b"end", (8 << 20) - 3).unwrap();
        let to = tempfile::tempfile().unwrap();
        copy_sparse(&from, &to).unwrap();
        let whole = |file: &File| {
            let mut bytes = vec![0; 8 << 20];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        assert!(whole(&from) == whole(&to));
        let blocks = to.metadata().unwrap().blocks();
        assert!(blocks * 512 < 1 << 20, "{blocks} blocks");
    }

    #[test]
    fn the_least_used_go_first_and_the_last_stays() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        for (age, key) in [(3, "old"), (1, "new"), (2, "middle")] {
            let made = cache.artefact(KIND, key, 0, |folder| -> Result<(), cache::Error> {
                fs::write(folder.join(MEMORY), vec![1; 1 << 20]).unwrap();
                Ok(())
            });
            let stamp = made.unwrap().join(".complete");
            let used = SystemTime::now() - std::time::Duration::from_secs(age);
            let stamp = File::options().write(true).open(stamp).unwrap();
            stamp.set_modified(used).unwrap();
        }
        let left = || {
            let mut keys: Vec<_> = paths(&cache.folder().join(KIND))
                .map(|path| path.file_name().unwrap().to_owned())
                .collect();
            keys.sort();
            keys
        };
        trim(&cache, "new", 3 << 20);
        assert_eq!(left(), ["middle", "new"]);
        trim(&cache, "middle", 0);
        assert_eq!(left(), ["middle"]);
    }
}
