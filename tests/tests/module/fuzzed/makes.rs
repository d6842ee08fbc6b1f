//! The calls that make a dma-buf.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

use super::arguments::{Create, Data, List};
use super::fuzzer::{Fuzzer, NOTHING_THERE};
use crate::device::{ALLOC, Alloc, INFO, Info, MIB, PAGE, Range, WRAP, Wrap, ioctl};

/// The kernel's own udmabuf has no limit from 7.3 on, and of 1 TiB its list of
/// pages is so long that the allocator warns.
const MOST_OF_UDMABUF: u64 = (1 << 32) - 1;

impl Fuzzer {
    pub(super) fn alloc(&mut self) -> Result<(), Errno> {
        let mut alloc = Alloc {
            flags: self.random.few(8),
            name: self.bad_name(),
            ..Alloc::new(self.size())
        };
        if alloc.flags & 1 == 0 {
            let chunks = [0, 0, PAGE, 2 * PAGE, 64 * PAGE, MIB, 1 << 40];
            alloc.max_chunk = self.random.of(&chunks);
        }
        self.flip(&mut alloc);
        self.call(self.device.as_raw_fd(), ALLOC, &mut alloc)?;
        self.keep(alloc.fd);
        Ok(())
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
            size: (1 + self.random.below(pages - offset)) * PAGE,
        };
        if self.chance(12) {
            range.memfd = self.wrapped();
            range.size = self.size();
        }
        range
    }

    pub(super) fn wrap(&mut self) -> Result<(), Errno> {
        let many = match self.chance(16) {
            true => self.random.below(1100),
            false => 1 + self.random.below(4),
        };
        let ranges: Vec<Range> = (0..many).map(|_| self.range()).collect();
        let mut wrap = Wrap {
            name: self.bad_name(),
            ..Wrap::new(&ranges)
        };
        self.flip(&mut wrap);
        self.call(self.device.as_raw_fd(), WRAP, &mut wrap)?;
        self.keep(wrap.fd);
        Ok(())
    }

    pub(super) fn info(&mut self) -> Result<(), Errno> {
        let mut info = Info::default();
        let node = self.device.as_raw_fd();
        self.call(node, INFO, &mut info).map(drop)
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
        create.range.size &= MOST_OF_UDMABUF;
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
            item.size &= MOST_OF_UDMABUF;
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
        let known = [ALLOC, WRAP, INFO, 0x4018_7542, 0x4008_7543, 0x4008_6200];
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
        let udmabuf = self.udmabuf.as_ref().unwrap_or(&self.device);
        let mut nodes = vec![self.device.as_fd(), udmabuf.as_fd()];
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
    [b'D', b'u', b'b'].contains(&kind)
}
