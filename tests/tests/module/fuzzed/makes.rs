//! The calls that make a dma-buf.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

use super::arguments::{Create, Data, List};
use super::fuzzer::{Fuzzer, NOTHING_THERE};
use crate::device::{
    ALLOC, Alloc, INFO, Info, MIB, Node, PAGE, QUERY, Query, Range, WRAP, Wrap, ioctl,
};

/// The kernel's own udmabuf has no limit from 7.3 on, and of 1 TiB its list of
/// pages is so long that the allocator warns.
const MOST_OF_UDMABUF: u64 = (1 << 32) - 1;

impl Fuzzer {
    pub(super) fn alloc(&mut self) -> Result<(), Errno> {
        let mut alloc = Alloc::new(self.size())
            .flags(self.random.few(4))
            .fd_flags(self.fd_flags());
        let node = self
            .random
            .of(&[Node::System, Node::System, Node::Contiguous]);
        if node == Node::System || self.chance(16) {
            let chunks = [0, 0, PAGE, 2 * PAGE, 64 * PAGE, MIB, 1 << 40];
            alloc.max_chunk = self.random.of(&chunks);
        }
        self.flip(&mut alloc);
        let fd = self.call(self.node(node), ALLOC, &mut alloc)?;
        self.keep(fd);
        Ok(())
    }

    /// Those that mappings need, mostly.
    fn fd_flags(&mut self) -> i32 {
        match self.chance(8) {
            true => self
                .random
                .of(&[0, 1, 2, 3, libc::O_CLOEXEC, libc::O_NONBLOCK]),
            false => libc::O_RDWR | libc::O_CLOEXEC,
        }
    }

    /// A part of a memfd, past its end at times.
    pub(super) fn range(&mut self) -> Range {
        let at = self.index(self.memfds.len()).expect("there are some");
        let pages = 1 << (2 * at);
        let offset = self.random.below(pages);
        let mut range = Range {
            memfd: self.memfds[at].as_raw_fd(),
            reserved: 0,
            offset: offset * PAGE,
            length: (1 + self.random.below(pages - offset)) * PAGE,
        };
        if self.chance(12) {
            range.memfd = self.wrapped();
            range.length = self.size();
        }
        range
    }

    pub(super) fn wrap(&mut self) -> Result<(), Errno> {
        let many = match self.chance(16) {
            true => self.random.below(1100),
            false => 1 + self.random.below(4),
        };
        let ranges: Vec<Range> = (0..many).map(|_| self.range()).collect();
        let mut wrap = Wrap::new(&ranges).fd_flags(self.fd_flags());
        self.flip(&mut wrap);
        let fd = self.call(self.node(Node::Memfd), WRAP, &mut wrap)?;
        self.keep(fd);
        Ok(())
    }

    pub(super) fn info(&mut self) -> Result<(), Errno> {
        let mut info = Info::new();
        self.flip(&mut info);
        let node = self.random.of(&Node::ALL);
        self.call(self.node(node), INFO, &mut info).map(drop)
    }

    /// Of any dma-buf, the standard nodes' too, or of what is none.
    pub(super) fn query(&mut self) -> Result<(), Errno> {
        let fd = match self.chance(4) {
            true => self.handle(),
            false => self.dma_buf()?,
        };
        let mut query = Query {
            fd,
            ..Query::new(&self.memfds[0])
        };
        self.flip(&mut query);
        let node = self.random.of(&Node::ALL);
        self.call(self.node(node), QUERY, &mut query).map(drop)
    }

    pub(super) fn udmabuf(&mut self) -> Result<(), Errno> {
        let node = self.udmabuf.as_ref().ok_or(NOTHING_THERE)?.as_raw_fd();
        let range = self.range();
        let mut create = Create {
            range: Range {
                // Its flags are there.
                reserved: self.random.few(2),
                ..range
            },
        };
        self.flip(&mut create);
        create.range.length &= MOST_OF_UDMABUF;
        let fd = self.call(node, 0x4018_7542, &mut create)?;
        self.keep(fd);
        Ok(())
    }

    pub(super) fn udmabuf_list(&mut self) -> Result<(), Errno> {
        let node = self.udmabuf.as_ref().ok_or(NOTHING_THERE)?.as_raw_fd();
        let mut list = List {
            flags: 1,
            count: 1 + self.random.few(4),
            items: [Range::new(&self.memfds[0], 0, PAGE); 4],
        };
        for at in 0..4 {
            list.items[at] = self.range();
        }
        self.flip(&mut list);
        // What is behind the items would be read where it is.
        list.count = list.count.min(4);
        for item in &mut list.items {
            item.length &= MOST_OF_UDMABUF;
        }
        let fd = self.call(node, 0x4008_7543, &mut list)?;
        self.keep(fd);
        Ok(())
    }

    pub(super) fn heap(&mut self) -> Result<(), Errno> {
        let at = self.index(self.heaps.len())?;
        let node = self.heaps[at].as_raw_fd();
        let mut data = Data {
            len: self.size(),
            fd: 0,
            fd_flags: (libc::O_RDWR | libc::O_CLOEXEC).cast_unsigned(),
            heap_flags: 0,
        };
        self.flip(&mut data);
        // The kernel's own heap has no limit, and would take all there is.
        data.len %= 4 * MIB;
        self.call(node, 0xc018_4800, &mut data)?;
        self.keep(data.fd.cast_signed());
        Ok(())
    }

    /// A number near to one that a node knows, or to none.
    pub(super) fn any_ioctl(&mut self) -> Result<(), Errno> {
        let known = [
            INFO,
            ALLOC,
            WRAP,
            QUERY,
            0x4018_7542,
            0x4008_7543,
            0x4008_6200,
        ];
        let request = match self.random.below(4) {
            0 => libc::Ioctl::from(self.random.bits()),
            1 => self.random.of(&known) ^ 1 << self.random.below(8),
            _ => self.random.of(&known) ^ 1 << (16 + self.random.below(14)),
        };
        for at in 0..self.scratch.len().min(64) {
            self.scratch[at] = self.random.next() >> self.random.below(64);
        }
        if known.contains(&request) || !is_ours(request) {
            return Err(Errno::NOTTY);
        }
        let mut nodes: Vec<_> = self.nodes.iter().map(AsFd::as_fd).collect();
        nodes.extend(self.udmabuf.as_ref().map(AsFd::as_fd));
        nodes.extend(self.dma_bufs.last().map(AsFd::as_fd));
        let node = self.random.of(&nodes);
        // SAFETY: no node writes more than the 14 bits of its request's size,
        // which the scratch has, and those that read addresses are not called.
        unsafe { ioctl(node, request, self.scratch.as_mut_ptr().cast()) }.map(drop)
    }
}

/// Of one of the three interfaces; what else a node may know, all files know.
fn is_ours(request: libc::Ioctl) -> bool {
    let kind = u8::try_from(request >> 8 & 0xff).expect("8 bits");
    [0xda, b'u', b'b'].contains(&kind)
}
