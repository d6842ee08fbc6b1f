//! `drm/drm.h`: which driver a node belongs to.

use std::ffi::{c_char, c_int};
use std::os::fd::BorrowedFd;
use std::ptr;

use rustix::io::Result;
use rustix::ioctl::{self, Opcode, Updater, opcode};

/// `struct drm_version`.
#[repr(C)]
struct Version {
    version: [c_int; 3],
    name_len: usize,
    name: *mut c_char,
    date_len: usize,
    date: *mut c_char,
    desc_len: usize,
    desc: *mut c_char,
}

const VERSION: Opcode = opcode::read_write::<Version>(b'd', 0x00);

/// `DRM_IOCTL_VERSION`: the name of the driver, and nothing else.
pub(crate) fn driver(node: BorrowedFd<'_>) -> Result<String> {
    let mut name = [0_u8; 64];
    let mut request = Version {
        version: [0; 3],
        name_len: name.len(),
        name: name.as_mut_ptr().cast(),
        date_len: 0,
        date: ptr::null_mut(),
        desc_len: 0,
        desc: ptr::null_mut(),
    };
    // SAFETY: the opcode reads and writes one `Version`, and of the name at most
    // the length given there.
    unsafe { ioctl::ioctl(node, Updater::<VERSION, Version>::new(&mut request))? };
    let name = &name[..request.name_len.min(name.len())];
    Ok(String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn layout_is_that_of_the_header() {
        assert_eq!(VERSION, 0xc040_6400);
    }
}
