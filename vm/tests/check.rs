//! What `cargo vm module check` reports; without a guest.

use std::path::Path;
use std::process::Command;

use dmashare_vm::cache::Cache;
use dmashare_vm::cli::Sources;
use dmashare_vm::debian::{Debian, Kernel, check_module, check_module_32_bit};

/// Of a suite whose armhf kernels are as old as its amd64 ones.
const KERNEL: &str = "6.12";

/// Nobody answers there.
const NO_MIRROR: &str = "http://127.0.0.1:9/debian";

fn source() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/narrow"))
}

#[test]
fn faults_of_32_bit_are_reported() {
    let debian = Sources::default().open().unwrap();
    let kernel = Kernel::prepare(&debian, KERNEL).unwrap();
    let wide = check_module(&debian, &kernel, source()).unwrap();
    assert_eq!(wide.own, [""; 0], "with 64 bits");

    let (release, narrow) = check_module_32_bit(&debian, &kernel, source()).unwrap();
    assert!(
        release.starts_with("6.12.") && release.ends_with("-armmp"),
        "{release}"
    );
    let [shift, division] = &narrow.own[..] else {
        panic!("two findings: {narrow:?}");
    };
    assert!(shift.contains("narrow.c:9:"), "{shift}");
    assert!(shift.contains("[-Wshift-count-overflow]"), "{shift}");
    assert!(division.contains("__aeabi_uldivmod"), "{division}");
    assert!(division.contains("use div_u64()"), "{division}");

    // All of it is in the cache by now.
    let offline = Debian::new(Cache::open().unwrap(), Some(NO_MIRROR.to_owned()));
    let again = check_module_32_bit(&offline, &kernel, source()).unwrap();
    assert_eq!(again, (release, narrow));
    command_reports_them();
}

/// A project with this module, and no mirror.
fn command_reports_them() {
    let project = tempfile::tempdir().unwrap();
    let manifest = format!(
        "[package]\nname = \"stranger\"\nversion = \"0.1.0\"\n[workspace]\n\
         [workspace.metadata.vm]\nkernels = [\"{KERNEL}\"]\nmodule = {:?}\n",
        source()
    );
    std::fs::create_dir(project.path().join("src")).unwrap();
    std::fs::write(project.path().join("src/lib.rs"), "").unwrap();
    std::fs::write(project.path().join("Cargo.toml"), manifest).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_cargo-vm"))
        .args(["--mirror", NO_MIRROR, "module", "check"])
        .current_dir(project.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said.contains("ok    kernel 6.12."), "{said}");
    assert!(said.contains("FAIL  32-bit kernel 6.12."), "{said}");
}
