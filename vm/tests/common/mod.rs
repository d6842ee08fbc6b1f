//! What several of these test programs take from the cache.

use std::sync::OnceLock;

use dmashare_vm::cli::Sources;
use dmashare_vm::debian::Debian;

/// What a guest needs to say something of itself.
pub(crate) const PACKAGES: [&str; 4] = ["busybox-static", "coreutils", "dash", "kmod"];

pub(crate) fn debian() -> &'static Debian {
    static DEBIAN: OnceLock<Debian> = OnceLock::new();
    DEBIAN.get_or_init(|| {
        Sources::default()
            .open()
            .expect("the host has what guests need")
    })
}

/// The kernel that guests of these tests have: 7.2, or what `VM_TEST_KERNEL` says.
pub(crate) fn kernel_name() -> String {
    std::env::var("VM_TEST_KERNEL").unwrap_or_else(|_| "7.2".into())
}
