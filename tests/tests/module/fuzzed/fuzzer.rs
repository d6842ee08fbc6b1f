//! What a thread makes its calls with.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::raw::c_void;
use std::ptr::null_mut;

use rustix::io::Errno;

use super::arguments::Argument;
use crate::device::{MIB, Node, PAGE, last_errno, owned};
use crate::memfd;
use crate::random::Random;

/// A thread's nodes, and all that it has made.
pub(super) struct Fuzzer {
    pub(super) random: Random,
    /// The module's, in the order of [`Node::ALL`].
    pub(super) nodes: [File; 3],
    pub(super) udmabuf: Option<File>,
    pub(super) heaps: Vec<File>,
    pub(super) memfds: Vec<OwnedFd>,
    pub(super) dma_bufs: Vec<OwnedFd>,
    pub(super) fences: Vec<OwnedFd>,
    pub(super) mappings: Vec<(*mut c_void, usize)>,
    /// For arguments of any size.
    pub(super) scratch: Vec<u64>,
}

/// What a call cannot be made with, for want of a buffer or a node.
pub(super) const NOTHING_THERE: Errno = Errno::NODEV;

impl Fuzzer {
    pub(super) fn new(random: Random) -> Result<Fuzzer, String> {
        let [system, contiguous, memfd_node] = Node::ALL.map(Node::open);
        let heaps = ["/dev/dma_heap/system", "/dev/dma_heap/dmashare"];
        let memfds = (0..4).map(|pages| memfd((1 << (2 * pages)) * PAGE));
        Ok(Fuzzer {
            random,
            nodes: [system?, contiguous?, memfd_node?],
            udmabuf: File::open("/dev/udmabuf").ok(),
            heaps: heaps
                .iter()
                .filter_map(|heap| File::open(heap).ok())
                .collect(),
            memfds: memfds.collect::<Result<_, _>>()?,
            dma_bufs: Vec::new(),
            fences: Vec::new(),
            mappings: Vec::new(),
            scratch: vec![0; 0x4000 / 8],
        })
    }

    pub(super) fn node(&self, node: Node) -> i32 {
        let [system, contiguous, memfd] = &self.nodes;
        match node {
            Node::System => system,
            Node::Contiguous => contiguous,
            Node::Memfd => memfd,
        }
        .as_raw_fd()
    }

    pub(super) fn chance(&mut self, of: u64) -> bool {
        self.random.below(of) == 0
    }

    /// A number of bytes: of whole pages mostly, and not many.
    pub(super) fn size(&mut self) -> u64 {
        match self.random.below(16) {
            0 => self.random.next(),
            1 => 1 << self.random.below(64),
            2 => self.random.below(MIB),
            3 => MIB * self.random.below(12),
            _ => PAGE * self.random.below(65),
        }
    }

    pub(super) fn index(&mut self, length: usize) -> Result<usize, Errno> {
        match length {
            0 => Err(NOTHING_THERE),
            _ => Ok(usize::try_from(self.random.below(length as u64)).expect("an index")),
        }
    }

    /// Any handle that this thread has, or a number that may be another's.
    pub(super) fn handle(&mut self) -> i32 {
        let own = [&self.memfds, &self.dma_bufs, &self.fences];
        let own: Vec<i32> = own
            .iter()
            .flat_map(|all| all.iter())
            .map(AsRawFd::as_raw_fd)
            .collect();
        match self.random.below(8) {
            0 => -1,
            1 => self.random.bits().cast_signed(),
            _ => self.random.of(&own),
        }
    }

    pub(super) fn wrapped(&mut self) -> i32 {
        match self.chance(12) {
            true => self.handle(),
            false => {
                let at = self.index(self.memfds.len()).expect("there are some");
                self.memfds[at].as_raw_fd()
            }
        }
    }

    pub(super) fn bad_name(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..6].copy_from_slice(b"fuzzed");
        match self.random.below(4) {
            0 => bytes = [self.random.next().to_le_bytes()[0]; 32],
            1 => bytes[..8].copy_from_slice(&self.random.next().to_le_bytes()),
            _ => {}
        }
        bytes
    }

    /// Turns some bits of an argument, sometimes.
    pub(super) fn flip<T: Argument>(&mut self, argument: &mut T) {
        if !self.chance(4) {
            return;
        }
        let bytes = std::ptr::from_mut(argument).cast::<u8>();
        for _ in 0..=self.random.below(3) {
            let at = self.index(size_of::<T>()).expect("it has bytes");
            let bit = 1 << self.random.below(8);
            // SAFETY: within the argument, which is valid whatever its bits are.
            unsafe { *bytes.add(at) ^= bit };
        }
    }

    /// Makes a call, now and then with an address that is none.
    pub(super) fn call<T: Argument>(
        &mut self,
        node: i32,
        request: libc::Ioctl,
        argument: &mut T,
    ) -> Result<i32, Errno> {
        let at = match self.random.below(64) {
            0 => null_mut(),
            1 => std::ptr::without_provenance_mut(0x7fff_ffff_f000),
            _ => std::ptr::from_mut(argument).cast::<c_void>(),
        };
        // SAFETY: the request is that of this argument, or nothing is there.
        match unsafe { libc::ioctl(node, request, at) } {
            returned @ 0.. => Ok(returned),
            _ => Err(last_errno()),
        }
    }

    pub(super) fn keep(&mut self, fd: i32) {
        self.dma_bufs.push(owned(fd));
        if self.dma_bufs.len() > 16 {
            let _ = self.close();
        }
    }
}

impl Drop for Fuzzer {
    fn drop(&mut self) {
        while self.munmap().is_ok() {}
    }
}
