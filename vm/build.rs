//! Builds the guest's init and embeds it: whoever links this crate can boot a
//! guest without a file beside the program. Its source goes with it, for guests
//! of other architectures than ours: see `src/debian/init.rs`.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cargo_metadata::{Dependency, DependencyKind, MetadataCommand};

const MANIFEST: &str = "init/Cargo.toml";

fn main() {
    println!("cargo::rerun-if-changed=init");
    // Its profile, lints and the versions of what it is made of, in a workspace.
    for file in ["../Cargo.toml", LOCK] {
        if Path::new(file).exists() {
            println!("cargo::rerun-if-changed={file}");
        }
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let target = env::var("TARGET").expect("cargo sets TARGET");
    let build_dir = out.join("init");
    let status = cargo()
        .args(["build", "--release", "--bin", "vm-init"])
        .args(["--manifest-path", MANIFEST, "--target", &target])
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
    let source = source(&out.join("init-source"));
    println!("cargo::rustc-env=VM_INIT_SOURCE={}", source.display());
}

fn cargo() -> Command {
    Command::new(env::var_os("CARGO").expect("cargo sets CARGO"))
}

/// The versions of everything in the workspace.
const LOCK: &str = "../Cargo.lock";

/// Makes `folder` what a package needs to be built outside of this workspace,
/// beside its source: a manifest that inherits nothing, and a lock file of the
/// same versions.
fn source(folder: &Path) -> PathBuf {
    let metadata = MetadataCommand::new()
        .manifest_path(MANIFEST)
        .no_deps()
        .exec()
        .expect("the init's manifest can be read");
    let package = metadata
        .packages
        .iter()
        .find(|package| package.name.as_str() == "dmashare-vm-init")
        .expect("the init is a package of its workspace");
    let mut manifest = format!(
        "[package]\nname = \"{}\"\nversion = \"{}\"\nedition = \"{}\"\n\n\
         [[bin]]\nname = \"vm-init\"\npath = \"src/main.rs\"\n\n[workspace]\n\n[dependencies]\n",
        package.name, package.version, package.edition
    );
    let normal = |dependency: &&Dependency| dependency.kind == DependencyKind::Normal;
    for dependency in package.dependencies.iter().filter(normal) {
        // Writing to a String cannot fail.
        let _ = writeln!(
            manifest,
            "{} = {{ version = \"{}\", default-features = {}, features = {:?} }}",
            dependency.name, dependency.req, dependency.uses_default_features, dependency.features
        );
    }
    let write = |name: &str, text: &[u8]| {
        let file = folder.join(name);
        let parent = file.parent().expect("it is in a folder");
        fs::create_dir_all(parent).expect("the folder can be made");
        fs::write(&file, text).expect("a file of the output folder can be written");
        file
    };
    let manifest = write("Cargo.toml", manifest.as_bytes());
    // Of the source, only its names: they tell cargo what there is to build.
    for name in ["src/main.rs", "src/lib.rs"] {
        write(name, b"");
    }
    if Path::new(LOCK).exists() {
        write("Cargo.lock", &fs::read(LOCK).expect("it is there"));
    }
    // Takes out of the lock file what only the rest of the workspace needs.
    let status = cargo()
        .args(["metadata", "--format-version=1", "--offline"])
        .args(["--filter-platform", &env::var("TARGET").unwrap_or_default()])
        .arg("--manifest-path")
        .arg(&manifest)
        .stdout(Stdio::null())
        .status()
        .expect("cargo starts");
    assert!(
        status.success(),
        "the init's lock file cannot be made; see above"
    );
    folder.to_path_buf()
}
