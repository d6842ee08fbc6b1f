//! The standard nodes, /dev/udmabuf and /dev/dma_heap/system, by the book of
//! their own headers: the kernel's on newer kernels, and our module's where
//! there were none. One table for both, so that a difference shows.

mod arguments;
mod descriptors;
mod heap;
mod mapping;
mod sync;
mod table;
mod udmabuf;

use std::fs::{File, OpenOptions, read_to_string};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use dmashare_tests::conformance::Verdict;
use libtest_mimic::Trial;
use rustix::io::Errno;

use crate::{ensure, skipped, test, text};

const UDMABUF: &str = "/dev/udmabuf";
const SYSTEM: &str = "/dev/dma_heap/system";
const PAGE: u64 = 4096;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        of(
            UDMABUF,
            "udmabuf_node::makes_what_it_should",
            udmabuf::makes,
        ),
        of(
            UDMABUF,
            "udmabuf_node::refuses_by_the_book",
            udmabuf::refuses,
        ),
        of(
            UDMABUF,
            "udmabuf_node::refuses_lists_by_the_book",
            udmabuf::lists,
        ),
        of(
            UDMABUF,
            "udmabuf_node::knows_two_calls",
            udmabuf::knows_two_calls,
        ),
        of(SYSTEM, "heap_node::makes_what_it_should", heap::makes),
        of(SYSTEM, "heap_node::refuses_by_the_book", heap::refuses),
        of(
            SYSTEM,
            "heap_node::takes_arguments_of_any_size",
            heap::any_size,
        ),
        of(SYSTEM, "heap_node::fd_mode_limits_mappings", heap::modes),
        of(SYSTEM, "heap_node::request_type_is_ignored", heap::any_type),
        of(
            SYSTEM,
            "heap_node::argument_is_copied_whole",
            arguments::heap_sizes,
        ),
        of(
            SYSTEM,
            "heap_node::argument_cut_short_faults",
            arguments::heap_edges,
        ),
        of(
            UDMABUF,
            "udmabuf_node::argument_cut_short_faults",
            arguments::udmabuf_edges,
        ),
        of(
            UDMABUF,
            "udmabuf_node::items_checked_in_order",
            udmabuf::order,
        ),
        of(
            UDMABUF,
            "udmabuf_node::unknown_flags_ignored",
            udmabuf::ignores,
        ),
        of(UDMABUF, "udmabuf_node::other_files_refused", udmabuf::files),
        of(
            UDMABUF,
            "udmabuf_node::large_buffer_as_newest",
            udmabuf::large,
        ),
        huge_pages_in_part(),
        of(
            UDMABUF,
            "udmabuf_node::live_memfd_stays_writable",
            udmabuf::seals_while_alive,
        ),
        of(
            UDMABUF,
            "udmabuf_node::no_free_fd_comes_last",
            descriptors::udmabuf_without_fds,
        ),
        of(
            SYSTEM,
            "heap_node::no_free_fd_comes_last",
            descriptors::heap_without_fds,
        ),
        of(
            UDMABUF,
            "udmabuf_node::node_has_no_other_calls",
            descriptors::of_udmabuf_node,
        ),
        of(
            SYSTEM,
            "heap_node::node_has_no_other_calls",
            descriptors::of_heap_node,
        ),
        of(
            UDMABUF,
            "udmabuf_node::buffer_has_its_fdinfo",
            descriptors::of_udmabuf_buffer,
        ),
        of(
            SYSTEM,
            "heap_node::buffer_has_its_fdinfo",
            descriptors::of_heap_buffer,
        ),
        of(UDMABUF, "udmabuf_node::end_needs_a_start", sync::udmabuf),
        of(SYSTEM, "heap_node::end_needs_no_start", sync::heap),
        of(
            UDMABUF,
            "udmabuf_node::mmap_by_the_table",
            mapping::of_udmabuf,
        ),
        of(SYSTEM, "heap_node::mmap_by_the_table", mapping::of_heap),
        of(
            SYSTEM,
            "heap_node::private_mapping_is_a_copy",
            mapping::private_is_a_copy,
        ),
        of(
            UDMABUF,
            "udmabuf_node::mapping_by_the_table",
            mapping::mapped_udmabuf,
        ),
        of(
            SYSTEM,
            "heap_node::mapping_by_the_table",
            mapping::mapped_heap,
        ),
        of(
            UDMABUF,
            "udmabuf_node::child_inherits_mapping",
            mapping::forked_udmabuf,
        ),
        of(
            SYSTEM,
            "heap_node::child_inherits_mapping",
            mapping::forked_heap,
        ),
    ]
}

/// A row for a node, where there is one.
fn of(node: &str, name: &str, check: fn() -> Verdict) -> Trial {
    match Path::new(node).exists() {
        true => test(name, check),
        false => skipped(
            name,
            format!("{node}: this kernel has none, nor has our module"),
        ),
    }
}

/// The kernel's own finds no huge pages where they lie in memory that is to stay
/// movable.
fn huge_pages_in_part() -> Trial {
    let name = "udmabuf_node::huge_pages_in_part";
    match crate::pins::has_movable_zone() {
        false => of(UDMABUF, name, udmabuf::huge_pages),
        true => skipped(
            name,
            "huge pages lie in memory that is set aside as movable",
        ),
    }
}

fn open(node: &str, write: bool) -> Result<File, String> {
    let file = OpenOptions::new().read(true).write(write).open(node);
    file.map_err(|error| format!("{node}: {error}"))
}

/// A call, with an argument as large as the node takes it to be.
fn call<T>(node: &File, request: libc::Ioctl, argument: &mut T) -> Result<i32, Errno> {
    let size = usize::try_from(request >> 16 & 0x3fff).expect("14 bits");
    assert!(size <= size_of::<T>(), "it could be written past its end");
    // SAFETY: all that the kernel writes is within the size that the request
    // tells, where any bytes are valid.
    let returned = unsafe { libc::ioctl(node.as_raw_fd(), request, std::ptr::from_mut(argument)) };
    match returned {
        0.. => Ok(returned),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).expect("the system's")),
    }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel made this handle for us, and nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// What its fdinfo calls the exporter.
fn exporter(fd: &OwnedFd) -> Result<String, String> {
    let info = read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).map_err(text)?;
    let name = info.lines().find_map(|line| line.strip_prefix("exp_name:"));
    Ok(name.ok_or("no dma-buf")?.trim().to_owned())
}

fn handles() -> Result<usize, String> {
    Ok(std::fs::read_dir("/proc/self/fd").map_err(text)?.count())
}

/// The fd that the next call to make one returns.
fn lowest_free_fd() -> Result<i32, String> {
    let spare = rustix::io::dup(rustix::stdio::stdin()).map_err(text)?;
    Ok(spare.as_raw_fd())
}

/// That a call fails with this errno and leaves no handle.
fn refused<T>(
    node: &File,
    what: &str,
    request: libc::Ioctl,
    mut argument: T,
    expected: Errno,
) -> Verdict {
    let before = handles()?;
    let answer = call(node, request, &mut argument);
    ensure(answer == Err(expected), || {
        format!("{what}: {answer:?}, expected {expected}")
    })?;
    let after = handles()?;
    ensure(after == before, || {
        format!("{what}: {before} handles before, {after} after")
    })
}
