//! The machine that a test runs on.

use std::fs::{read_dir, read_to_string};
use std::sync::LazyLock;

/// Whether `cargo vm` booted this machine: it has a port to its agent.
///
/// ```
/// // The documentation's tests run on the host.
/// assert!(!dmashare_tests::guest::is_guest());
/// ```
pub fn is_guest() -> bool {
    let ports = read_dir("/sys/class/virtio-ports");
    let mut names = ports.into_iter().flatten().flatten().map(|port| {
        let name = read_to_string(port.path().join("name"));
        name.unwrap_or_default()
    });
    names.any(|name| name.trim_end() == dmashare_vm_init::PORT)
}

/// Major and minor version of the running kernel.
///
/// ```
/// assert!(dmashare_tests::guest::kernel_version() > (3, 0));
/// ```
pub fn kernel_version() -> (u32, u32) {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|number| number.parse().ok());
    next()
        .zip(next())
        .expect("a release starts with two numbers")
}

/// Whether the kernel has `/dev/udmabuf` and `/dev/dma_heap/system` of its own,
/// whatever our module adds: Debian's have since 6.12. It is asked for the function
/// that adds a heap, since the nodes do not tell whose they are.
///
/// ```
/// // Of the host nothing is known, but that it can be asked.
/// let _ = dmashare_tests::guest::kernel_has_nodes();
/// ```
pub fn kernel_has_nodes() -> bool {
    // Read once: that takes seconds under emulation.
    static HAS: LazyLock<bool> = LazyLock::new(|| {
        let symbols = read_to_string("/proc/kallsyms").unwrap_or_default();
        symbols
            .lines()
            .any(|line| line.split_whitespace().skip(2).eq(["dma_heap_add"]))
    });
    *HAS
}
