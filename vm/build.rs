//! Builds the guest's init and embeds it: whoever links this crate can boot a
//! guest without a file beside the program.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=init");
    // Its profile, lints and the versions of what it is made of, in a workspace.
    for file in ["../Cargo.toml", "../Cargo.lock"] {
        if Path::new(file).exists() {
            println!("cargo::rerun-if-changed={file}");
        }
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let target = env::var("TARGET").expect("cargo sets TARGET");
    let build_dir = out.join("init");
    let status = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"))
        .args(["build", "--release", "--bin", "vm-init"])
        .args(["--manifest-path", "init/Cargo.toml", "--target", &target])
        .arg("--target-dir")
        .arg(&build_dir)
        // Static, since it runs before there is a root file system.
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        // Those of a surrounding `cargo clippy` would make this a check.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status()
        .expect("cargo starts");
    assert!(
        status.success(),
        "the guest's init does not build; see above"
    );
    let init = build_dir.join(target).join("release/vm-init");
    println!("cargo::rustc-env=VM_INIT={}", init.display());
}
