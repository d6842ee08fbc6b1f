//! Arguments that are not the caller's memory, all of them or from some byte on.

use std::os::fd::{FromRawFd, OwnedFd};
use std::os::raw::c_void;
use std::ptr::null_mut;

use dmashare_tests::conformance::Verdict;
use libtest_mimic::Trial;
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use crate::device::{
    ALLOC, Alloc, Argument, CONTIGUOUS, Device, INFO, Info, MAX_RANGES, PAGE, Range, WRAP,
    WRITE_COMBINED, Wrap, ioctl,
};
use crate::memfd;
use crate::refused::state;
use crate::{ensure, test, text};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("module::refuses_wild_arguments", wild_arguments),
        test("module::refuses_arguments_with_a_hole", holes),
        test("module::refuses_read_only_arguments", read_only),
        test("module::refuses_wild_ranges", wild_ranges),
        test("module::takes_arguments_at_any_address", any_address),
    ]
}

/// A page of memory, with nothing behind it.
struct Cliff(*mut c_void);

impl Cliff {
    fn new() -> Result<Cliff, String> {
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: new mappings, and the second page of them is ours to take away.
        unsafe {
            let both = mmap_anonymous(null_mut(), 2 * size(PAGE), prot, flags).map_err(text)?;
            munmap(both.byte_add(size(PAGE)), size(PAGE)).map_err(text)?;
            Ok(Cliff(both))
        }
    }

    /// Where the last so many bytes of it are.
    fn last(&self, bytes: usize) -> *mut c_void {
        // SAFETY: within the page, since no argument is as long.
        unsafe { self.0.byte_add(size(PAGE) - bytes) }
    }

    /// The argument, as much as there is room for, and where it is.
    fn put<T: Argument>(&self, argument: &T, bytes: usize) -> *mut c_void {
        let at = self.last(bytes);
        let from = std::ptr::from_ref(argument).cast::<u8>();
        let length = bytes.min(size_of::<T>());
        // SAFETY: both have these bytes, of a structure without padding.
        unsafe { from.copy_to(at.cast(), length) };
        at
    }

    fn protect(&self, flags: MprotectFlags) -> Verdict {
        // SAFETY: the page is ours, and is read and written through `put` only.
        unsafe { mprotect(self.0, size(PAGE), flags) }.map_err(text)
    }
}

impl Drop for Cliff {
    fn drop(&mut self) {
        // SAFETY: the page is ours, and nothing refers into it.
        unsafe { munmap(self.0, size(PAGE)) }.expect("it was mapped");
    }
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).expect("64 bits")
}

/// That each call with an argument at this address is EFAULT, and takes nothing.
fn faults(device: &Device, what: &str, requests: &[libc::Ioctl], at: *mut c_void) -> Verdict {
    let before = state(device)?;
    for request in requests {
        // SAFETY: the caller has put nothing where the call could write but an
        // argument for it.
        let answer = unsafe { ioctl(device, *request, at) };
        ensure(answer == Err(Errno::FAULT), || {
            format!("{what}, ioctl {request:#x}: {answer:?}, expected EFAULT")
        })?;
        let after = state(device)?;
        ensure(after == before, || {
            format!("{what}: before {before:?}, after {after:?}")
        })?;
    }
    Ok(())
}

const ALL: [libc::Ioctl; 3] = [ALLOC, WRAP, INFO];

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
    let device = Device::open()?;
    for address in WILD {
        let at = std::ptr::without_provenance_mut(address);
        faults(&device, &format!("at {address:#x}"), &ALL, at)?;
    }
    let gone = Cliff::new()?;
    let at = gone.last(0);
    faults(&device, "behind a mapping", &ALL, at)?;
    gone.protect(MprotectFlags::empty())?;
    faults(&device, "in memory of no access", &ALL, gone.0)
}

fn holes() -> Verdict {
    let device = Device::open()?;
    let memfd = memfd(PAGE)?;
    let ranges = [Range::new(&memfd, 0, PAGE)];
    let cliff = Cliff::new()?;
    for bytes in [1, 4, 8, 24, 28, 40, size_of::<Wrap>() - 1] {
        let what = format!("{bytes} bytes before a hole");
        let at = cliff.put(&Alloc::new(PAGE), bytes);
        faults(&device, &what, &[ALLOC], at)?;
        let at = cliff.put(&Wrap::new(&ranges), bytes);
        faults(&device, &what, &[WRAP], at)?;
        faults(&device, &what, &[INFO], cliff.last(bytes))?;
    }
    Ok(())
}

/// They can be read, so that the memory is taken before the answer fails.
fn read_only() -> Verdict {
    let device = Device::open()?;
    let memfd = memfd(PAGE)?;
    let ranges = [Range::new(&memfd, 0, PAGE)];
    let cliff = Cliff::new()?;
    for alloc in [
        Alloc::new(PAGE),
        Alloc::new(3 * PAGE).flags(CONTIGUOUS),
        Alloc::new(64 * PAGE).flags(WRITE_COMBINED),
        Alloc::new(PAGE).name(b"never seen"),
    ] {
        cliff.protect(MprotectFlags::READ | MprotectFlags::WRITE)?;
        let at = cliff.put(&alloc, size_of::<Alloc>());
        cliff.protect(MprotectFlags::READ)?;
        faults(&device, &format!("{alloc:?} read-only"), &[ALLOC], at)?;
    }
    cliff.protect(MprotectFlags::READ | MprotectFlags::WRITE)?;
    let at = cliff.put(&Wrap::new(&ranges), size_of::<Wrap>());
    cliff.protect(MprotectFlags::READ)?;
    faults(&device, "ranges, read-only", &[WRAP], at)?;
    faults(&device, "read-only", &[INFO], cliff.last(size_of::<Info>()))?;
    rustix::fs::fcntl_add_seals(&memfd, rustix::fs::SealFlags::WRITE)
        .map_err(|errno| format!("sealing the memfd after all failed: {errno}"))
}

fn wild_ranges() -> Verdict {
    let device = Device::open()?;
    let memfd = memfd(PAGE)?;
    let good = Range::new(&memfd, 0, PAGE);
    let refused = |what: &str, wrap: Wrap| {
        let before = state(&device)?;
        let mut given = wrap;
        let answer = device.call(WRAP, &mut given);
        ensure(answer == Err(Errno::FAULT) && given == wrap, || {
            format!("ranges {what}: {answer:?}, expected EFAULT, and {given:?}")
        })?;
        let after = state(&device)?;
        ensure(after == before, || {
            format!("ranges {what}: before {before:?}, after {after:?}")
        })
    };
    let wrap = Wrap::new(&[good]);
    for address in WILD {
        for count in [1, 1024] {
            let ranges = address as u64;
            let what = format!("at {address:#x}");
            refused(
                &what,
                Wrap {
                    ranges,
                    count,
                    ..wrap
                },
            )?;
        }
    }
    // The last of them is cut off, by all of it and by a byte.
    let cliff = Cliff::new()?;
    for missing in [1, size_of::<Range>()] {
        let bytes = 3 * size_of::<Range>() - missing;
        // As many as there are: they are good.
        let room = std::slice::from_ref(&good).repeat(3);
        let at = cliff.last(bytes);
        // SAFETY: the page has room for this many bytes of the three ranges.
        unsafe { room.as_ptr().cast::<u8>().copy_to(at.cast(), bytes) };
        let ranges = at.expose_provenance() as u64;
        let what = format!("without {missing} bytes");
        refused(
            &what,
            Wrap {
                ranges,
                count: 3,
                ..wrap
            },
        )?;
    }
    let many = u32::try_from(MAX_RANGES).map_err(text)?;
    let ranges = cliff.last(size_of::<Range>()).expose_provenance() as u64;
    refused(
        "of which one is there",
        Wrap {
            ranges,
            count: many,
            ..wrap
        },
    )
}

/// Up to the last byte of the memory, and where no structure would lie.
fn any_address() -> Verdict {
    let device = Device::open()?;
    let memfd = memfd(PAGE)?;
    let ranges = [Range::new(&memfd, 0, PAGE)];
    let cliff = Cliff::new()?;
    let before = state(&device)?;
    for more in [0, 1, 3, 7, 64] {
        let at = cliff.put(&Alloc::new(PAGE), size_of::<Alloc>() + more);
        close(made_at(&device, ALLOC, at)?, 24);
        let at = cliff.put(&Wrap::new(&ranges), size_of::<Wrap>() + more);
        close(made_at(&device, WRAP, at)?, 20);
        made_at(&device, INFO, cliff.last(size_of::<Info>() + more))?;
    }
    let after = state(&device)?;
    ensure(after == before, || {
        format!("before {before:?}, after {after:?}")
    })
}

fn made_at(device: &Device, request: libc::Ioctl, at: *mut c_void) -> Result<*mut c_void, String> {
    // SAFETY: the caller has put an argument for it there.
    let answer = unsafe { ioctl(device, request, at) };
    answer.map_err(|errno| format!("ioctl {request:#x} at {at:p}: {errno}"))?;
    Ok(at)
}

/// Closes the handle that a call wrote at this offset of its argument.
fn close(argument: *mut c_void, offset: usize) {
    // SAFETY: the kernel wrote the number there, of a handle that is ours.
    drop(unsafe { OwnedFd::from_raw_fd(argument.byte_add(offset).cast::<i32>().read_unaligned()) });
}
