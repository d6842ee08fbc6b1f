//! The initramfs: our init, its orders, and the modules it loads first.
//!
//! Written anew for every cold boot into memory, in the kernel's own format
//! (Documentation/driver-api/early-userspace/buffer-format.rst, "newc").

use dmashare_vm_init::{BOOT_FILE, Boot};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;

/// An archive with this init, these orders, and these files.
pub(crate) fn build<'a>(
    init: &[u8],
    boot: &Boot,
    files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Vec<u8> {
    let mut archive = Vec::new();
    for directory in ["/proc", "/sys", "/dev", "/root", "/modules"] {
        entry(&mut archive, directory, DIRECTORY, &[]);
    }
    entry(&mut archive, "/init", PROGRAM, init);
    let orders = serde_json::to_vec(boot).expect("orders have a JSON form");
    entry(&mut archive, BOOT_FILE, FILE, &orders);
    for (name, content) in files {
        entry(&mut archive, name, FILE, content);
    }
    entry(&mut archive, "TRAILER!!!", 0, &[]);
    archive
}

fn entry(archive: &mut Vec<u8>, name: &str, mode: u32, content: &[u8]) {
    let name = name.trim_start_matches('/');
    let size = u32::try_from(content.len()).expect("a file of an initramfs is below 4 GiB");
    let name_size = u32::try_from(name.len() + 1).expect("a short name");
    // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor,
    // rdevmajor, rdevminor, namesize, check
    let fields = [0, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
    archive.extend(b"070701");
    for field in fields {
        archive.extend(format!("{field:08x}").bytes());
    }
    archive.extend(name.bytes());
    archive.push(0);
    pad(archive);
    archive.extend(content);
    pad(archive);
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}
