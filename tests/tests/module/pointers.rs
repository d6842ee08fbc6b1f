//! Arguments that are not the caller's memory, all of them or from some byte on,
//! or that can only be read.

use std::os::fd::OwnedFd;
use std::os::raw::c_void;
use std::ptr::null_mut;

use dmashare_tests::conformance::Verdict;
use libtest_mimic::Trial;
use rustix::fs::{SealFlags, fcntl_add_seals};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use crate::device::{
    ALLOC, Alloc, Argument, Device, INFO, Info, MAX_RANGES, Node, PAGE, QUERY, Query, Range, WRAP,
    WRITE_COMBINED, Wrap, ioctl, owned,
};
use crate::memfd;
use crate::refused::state;
use crate::{ensure, test, text};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("module::argument_at_wild_address_is_efault", wild_arguments),
        test("module::argument_cut_off_is_efault", cut_off),
        test("module::answer_halfway_unwritable_changes_nothing", halfway),
        test("module::request_read_only_succeeds", read_only),
        test("module::ranges_at_wild_address_are_efault", wild_ranges),
        test("module::argument_at_any_address_succeeds", any_address),
    ]
}

const NONE: MprotectFlags = MprotectFlags::empty();
const READ: MprotectFlags = MprotectFlags::READ;
const WRITE: MprotectFlags = MprotectFlags::READ.union(MprotectFlags::WRITE);

/// Two pages of memory, each with an access of its own.
struct Pages(*mut c_void);

impl Pages {
    fn new() -> Result<Pages, String> {
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping.
        let both = unsafe { mmap_anonymous(null_mut(), 2 * size(PAGE), prot, flags) };
        both.map(Pages).map_err(text)
    }

    fn protect(&self, first: MprotectFlags, second: MprotectFlags) -> Verdict {
        self.protect_page(0, first)?;
        self.protect_page(1, second)
    }

    fn protect_page(&self, number: usize, flags: MprotectFlags) -> Verdict {
        let page = size(PAGE);
        // SAFETY: the pages are ours, and are accessed through the methods only, which
        // make them accessible before.
        unsafe { mprotect(self.0.byte_add(number * page), page, flags) }.map_err(text)
    }

    /// The argument, with so many of its bytes on the first page, and its address.
    fn put<T: Copy>(&self, argument: &T, before: usize) -> Result<*mut c_void, String> {
        self.protect(WRITE, WRITE)?;
        let at = self.last(before);
        // SAFETY: there are this many bytes, or any number before them, up to the end
        // of the second page, since no argument is longer than a page.
        unsafe { at.cast::<T>().write_unaligned(*argument) };
        Ok(at)
    }

    /// The argument that lies there now.
    fn get<T: Argument>(&self, at: *mut c_void) -> Result<T, String> {
        self.protect(WRITE, WRITE)?;
        // SAFETY: `put` has put one there, and any bytes are a valid one.
        Ok(unsafe { at.cast::<T>().read_unaligned() })
    }

    /// The address of the last so many bytes of the first page.
    fn last(&self, bytes: usize) -> *mut c_void {
        // SAFETY: within the page.
        unsafe { self.0.byte_add(size(PAGE) - bytes) }
    }

    /// Leaves nothing behind the first page.
    fn unmap_second(&self) -> Verdict {
        // SAFETY: the page is ours, and nothing refers into it.
        unsafe { munmap(self.last(0), size(PAGE)) }.map_err(text)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the pages are ours, and nothing refers into them.
        unsafe { munmap(self.0, 2 * size(PAGE)) }.expect("they were mapped");
    }
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).expect("64 bits")
}

/// The nodes, with something for each request.
struct Arguments {
    device: Device,
    /// The wrap refers to them.
    _ranges: Box<[Range; 1]>,
    alloc: Alloc,
    wrap: Wrap,
    query: Query,
    memfd: OwnedFd,
    /// The query refers to it.
    _made: OwnedFd,
}

impl Arguments {
    fn new() -> Result<Arguments, String> {
        let device = Device::open()?;
        let memfd = memfd(PAGE)?;
        let ranges = Box::new([Range::new(&memfd, 0, PAGE)]);
        let made = device.alloc_fd(Alloc::new(PAGE)).map_err(text)?;
        Ok(Arguments {
            alloc: Alloc::new(PAGE),
            wrap: Wrap::new(&*ranges),
            query: Query::new(&made),
            device,
            _ranges: ranges,
            memfd,
            _made: made,
        })
    }

    /// That a call is EFAULT and takes nothing.
    fn faults(&self, what: &str, (node, request): Call, at: *mut c_void) -> Verdict {
        let before = state(&self.device)?;
        // SAFETY: the caller has put an argument of this request there, as far as there
        // is memory.
        let answer = unsafe { ioctl(self.device.node(node), request, at) };
        ensure(answer == Err(Errno::FAULT), || {
            format!("{what}, ioctl {request:#x} on {node:?}: {answer:?}, expected EFAULT")
        })?;
        let after = state(&self.device)?;
        ensure(after == before, || {
            format!("{what}: before {before:?}, after {after:?}")
        })
    }

    /// That a call with this argument at a boundary is EFAULT and leaves every byte.
    fn faults_at<T: Argument>(
        &self,
        call: Call,
        argument: &T,
        before: usize,
        (first, second): (MprotectFlags, MprotectFlags),
    ) -> Verdict {
        let pages = Pages::new()?;
        let what = format!("{before} bytes {first:?}, the others {second:?}");
        let at = pages.put(argument, before)?;
        pages.protect(first, second)?;
        self.faults(&what, call, at)?;
        let left: T = pages.get(at)?;
        ensure(left == *argument, || {
            format!("{what}: {left:?} is left of {argument:?}")
        })
    }

    fn fault_cut_off<T: Argument>(&self, call: Call, argument: &T) -> Verdict {
        let length = size_of::<T>();
        for before in [1, 3, 4, 7, 8, 12, 16, 20, length - 4, length - 1] {
            self.faults_at(call, argument, before, (WRITE, NONE))?;
            // With nothing behind it.
            let pages = Pages::new()?;
            let at = pages.put(argument, before)?;
            pages.unmap_second()?;
            self.faults(&format!("{before} bytes"), call, at)?;
        }
        Ok(())
    }

    /// That a call with this argument succeeds, and the argument after it.
    fn succeeds_at<T: Argument>(
        &self,
        (node, request): Call,
        argument: &T,
        before: usize,
        (first, second): (MprotectFlags, MprotectFlags),
    ) -> Result<T, String> {
        let pages = Pages::new()?;
        let at = pages.put(argument, before)?;
        pages.protect(first, second)?;
        // SAFETY: there is an argument of this request.
        let answer = unsafe { ioctl(self.device.node(node), request, at) };
        let returned = answer.map_err(|errno| {
            format!("{before} bytes {first:?}, the others {second:?}, {argument:?}: {errno}")
        })?;
        if request == ALLOC || request == WRAP {
            drop(owned(returned));
        }
        pages.get(at)
    }
}

type Call = (Node, libc::Ioctl);

const CALLS: [Call; 9] = [
    (Node::System, INFO),
    (Node::Contiguous, INFO),
    (Node::Memfd, INFO),
    (Node::System, QUERY),
    (Node::Contiguous, QUERY),
    (Node::Memfd, QUERY),
    (Node::System, ALLOC),
    (Node::Contiguous, ALLOC),
    (Node::Memfd, WRAP),
];

/// Addresses where no program has memory, the kernel's own among them.
const WILD: [usize; 7] = [
    0,
    8,
    0x1000,
    0x7fff_ffff_f000,
    0xdead_beef_0000_0000,
    0xffff_8880_0000_0000,
    usize::MAX - 4095,
];

fn wild_arguments() -> Verdict {
    let arguments = Arguments::new()?;
    let pages = Pages::new()?;
    pages.unmap_second()?;
    pages.protect_page(0, NONE)?;
    let wild = WILD.map(std::ptr::without_provenance_mut);
    for at in wild.into_iter().chain([pages.last(0), pages.0]) {
        for call in CALLS {
            arguments.faults(&format!("at {at:p}"), call, at)?;
        }
    }
    Ok(())
}

/// Wherever the memory ends: in the size, behind it, or before the last byte.
fn cut_off() -> Verdict {
    let arguments = Arguments::new()?;
    for call in CALLS {
        match call.1 {
            INFO => arguments.fault_cut_off(call, &Info::new())?,
            QUERY => arguments.fault_cut_off(call, &arguments.query)?,
            WRAP => arguments.fault_cut_off(call, &arguments.wrap)?,
            _ => arguments.fault_cut_off(call, &arguments.alloc)?,
        }
    }
    fcntl_add_seals(&arguments.memfd, SealFlags::WRITE)
        .map_err(|errno| format!("sealing the memfd after all failed: {errno}"))
}

/// They can be read to their end, so that it is the answer that fails: the bytes
/// that could be written are as before.
fn halfway() -> Verdict {
    let arguments = Arguments::new()?;
    let (info, query) = (Info::new(), arguments.query);
    for node in Node::ALL {
        for access in [(WRITE, READ), (READ, WRITE), (READ, READ)] {
            for before in [1, 3, 4, 5, 8, 12, 16, 24, 28, 31] {
                arguments.faults_at((node, INFO), &info, before, access)?;
                arguments.faults_at((node, QUERY), &query, before, access)?;
            }
            for before in [32, 40, 61, 80, 84, 87] {
                arguments.faults_at((node, INFO), &info, before, access)?;
            }
        }
        // Bytes that the module does not know are not written.
        let longer = Info { size: 96, ..info };
        let before = size_of::<Info>();
        let told = arguments.succeeds_at((node, INFO), &longer, before, (WRITE, READ))?;
        ensure(told.memory == node.memory(), || format!("{told:?}"))?;
        let longer = Query { size: 40, ..query };
        let before = size_of::<Query>();
        let told = arguments.succeeds_at((node, QUERY), &longer, before, (WRITE, READ))?;
        ensure(told.chunks == 1, || format!("{told:?}"))?;
    }
    Ok(())
}

/// ALLOC and WRAP write nothing: their argument may be a constant.
fn read_only() -> Verdict {
    let arguments = Arguments::new()?;
    let before = state(&arguments.device)?;
    for access in [(READ, READ), (WRITE, READ), (READ, WRITE), (WRITE, WRITE)] {
        for at in [4, 8, 17, 24] {
            let wrap = arguments.wrap;
            let left = arguments.succeeds_at((Node::Memfd, WRAP), &wrap, at, access)?;
            ensure(left == wrap, || format!("{left:?} is left of {wrap:?}"))?;
            for (node, alloc) in [
                (Node::System, arguments.alloc),
                (Node::System, Alloc::new(64 * PAGE).flags(WRITE_COMBINED)),
                (Node::Contiguous, Alloc::new(3 * PAGE)),
            ] {
                let left = arguments.succeeds_at((node, ALLOC), &alloc, at, access)?;
                ensure(left == alloc, || format!("{left:?} is left of {alloc:?}"))?;
            }
        }
    }
    let after = state(&arguments.device)?;
    ensure(after == before, || {
        format!("before {before:?}, after {after:?}")
    })
}

fn wild_ranges() -> Verdict {
    let device = Device::open()?;
    let memfd = memfd(PAGE)?;
    let good = Range::new(&memfd, 0, PAGE);
    let wrap = Wrap::new(&[good]);
    let refused = |what: &str, ranges: usize, count: usize| {
        let wrap = Wrap {
            ranges: ranges as u64,
            count: u32::try_from(count).map_err(text)?,
            ..wrap
        };
        let before = state(&device)?;
        let mut given = wrap;
        let answer = device.call(Node::Memfd, WRAP, &mut given);
        ensure(answer == Err(Errno::FAULT) && given == wrap, || {
            format!("ranges {what}: {answer:?}, expected EFAULT, and {given:?}")
        })?;
        let after = state(&device)?;
        ensure(after == before, || {
            format!("ranges {what}: before {before:?}, after {after:?}")
        })
    };
    for address in WILD {
        for count in [1, MAX_RANGES] {
            refused(&format!("at {address:#x}"), address, count)?;
        }
    }
    // The last of them is cut off, by all of it and by a byte.
    let pages = Pages::new()?;
    for missing in [1, size_of::<Range>()] {
        let at = pages.put(&[good; 3], 3 * size_of::<Range>() - missing)?;
        pages.protect(WRITE, NONE)?;
        let what = format!("without {missing} bytes");
        refused(&what, at.expose_provenance(), 3)?;
    }
    let at = pages.put(&good, size_of::<Range>())?;
    pages.protect(WRITE, NONE)?;
    refused("of which one is there", at.expose_provenance(), MAX_RANGES)
}

/// Up to the last byte of the memory, and where no structure would lie.
fn any_address() -> Verdict {
    let arguments = Arguments::new()?;
    let before = state(&arguments.device)?;
    let none = (WRITE, NONE);
    for more in [0, 1, 3, 7, 64] {
        for call @ (node, request) in CALLS {
            match request {
                INFO => {
                    let at = size_of::<Info>() + more;
                    let told = arguments.succeeds_at(call, &Info::new(), at, none)?;
                    ensure(told.memory == node.memory(), || format!("{told:?}"))?;
                }
                QUERY => {
                    let at = size_of::<Query>() + more;
                    let told = arguments.succeeds_at(call, &arguments.query, at, none)?;
                    ensure(told.length == PAGE, || format!("{told:?}"))?;
                }
                WRAP => {
                    let at = size_of::<Wrap>() + more;
                    arguments.succeeds_at(call, &arguments.wrap, at, none)?;
                }
                _ => {
                    let at = size_of::<Alloc>() + more;
                    arguments.succeeds_at(call, &arguments.alloc, at, none)?;
                }
            }
        }
    }
    let after = state(&arguments.device)?;
    ensure(after == before, || {
        format!("before {before:?}, after {after:?}")
    })
}
