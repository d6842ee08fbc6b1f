//! Kernels and roots of the user's own, and those that `vm.lock` pins.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use dmashare_vm::debian::{Kernel, LOCK_FILE, Root, build_module};
use dmashare_vm::{Builder, Error, Vm};

use common::{PACKAGES, debian, kernel_name};

/// One of Debian's, to be taken apart.
fn stock() -> Kernel {
    Kernel::prepare(debian(), &kernel_name()).expect("a kernel")
}

/// With patience: three guests one after the other, and others may run beside.
fn guest(kernel: Kernel, root: &Path) -> Builder {
    Builder::new(kernel, root).boot_deadline(Duration::from_secs(180))
}

fn says(vm: &Vm, script: &str) -> String {
    let output = vm.command("sh").args(["-c", script]).output().unwrap();
    assert!(output.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Makes of a stock kernel the tree that it was built in.
fn build_tree(stock: &Kernel, tree: &Path) {
    let installed = stock.modules.join("lib/modules").join(&stock.release);
    let order = fs::read_to_string(installed.join("modules.order")).unwrap();
    let mut built = String::new();
    for line in order.lines() {
        let below = line.strip_prefix("kernel/").unwrap();
        let packed = ["ko.xz", "ko"]
            .map(|extension| installed.join(line).with_extension(extension))
            .into_iter()
            .find(|file| file.exists());
        // A whole tree costs time, and proves no more.
        let wanted = [
            "virtio",
            "9p",
            "erofs",
            "overlay",
            "net/",
            "lib/",
            "crypto/crc32",
            "fs/fscache",
            "fs/netfs",
            "block/loop",
        ];
        if let Some(packed) = packed.filter(|_| wanted.iter().any(|part| below.contains(part))) {
            let name = below.split_once(".ko").map_or(below, |(stem, _)| stem);
            let file = tree.join(format!("{name}.ko"));
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            let data = fs::read(&packed).unwrap();
            let mut plain = Vec::new();
            match data.starts_with(b"\x7fELF") {
                true => plain = data,
                false => {
                    let mut reader = lzma_rust2::XzReader::new(data.as_slice(), false);
                    std::io::copy(&mut reader, &mut plain).unwrap();
                }
            }
            fs::write(&file, plain).unwrap();
            built.push_str(&format!("{name}.o\n"));
        }
    }
    fs::write(tree.join("modules.order"), built).unwrap();
    for name in ["modules.builtin", "modules.builtin.modinfo"] {
        fs::copy(installed.join(name), tree.join(name)).unwrap();
    }
    fs::copy(&stock.vmlinux, tree.join("vmlinux")).unwrap();
    fs::write(tree.join("Makefile"), "").unwrap();
    let config = [
        "9P_FS",
        "EROFS_FS",
        "NET_9P_VIRTIO",
        "OVERLAY_FS",
        "VIRTIO_BLK",
    ]
    .map(|name| format!("CONFIG_{name}=m\n"))
    .into_iter()
    .chain(["VIRTIO_CONSOLE", "VIRTIO_PCI"].map(|name| format!("CONFIG_{name}=m\n")))
    .chain(
        [
            "BINFMT_ELF",
            "BLK_DEV_INITRD",
            "DEVTMPFS",
            "PCI",
            "PROC_FS",
            "SERIAL_8250_CONSOLE",
            "SYSFS",
            "TMPFS",
            "UNIX98_PTYS",
        ]
        .map(|name| format!("CONFIG_{name}=y\n")),
    );
    fs::write(tree.join(".config"), config.collect::<String>()).unwrap();
}

#[test]
fn a_kernel_boots_from_the_tree_it_was_built_in() {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("linux");
    build_tree(&stock(), &tree);
    let kernel = Kernel::prepare(debian(), &tree.to_string_lossy()).unwrap();
    assert_eq!(kernel.release, stock().release);
    assert!(
        kernel.identity().ends_with("linux)"),
        "{}",
        kernel.identity()
    );
    let again = Kernel::of_path(debian(), &tree).unwrap();
    assert_eq!(again.package_version, kernel.package_version);

    let root = Root::prepare(debian(), "trixie", &PACKAGES).unwrap();
    let own_root = folder.path().join("root");
    fs::create_dir_all(own_root.join("bin")).unwrap();
    let vm = guest(kernel.clone(), &root.image)
        .module("loop", "")
        .share_writable(&own_root)
        .boot()
        .unwrap();
    assert_eq!(says(&vm, "uname -r").trim(), kernel.release);
    assert!(says(&vm, "lsmod").contains("loop"));
    let copy = format!("cp /usr/bin/busybox {}/bin/busybox", own_root.display());
    says(&vm, &copy);
    // Modes that a guest gives to files of a writable share stay in the guest.
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(own_root.join("bin/busybox"), executable).unwrap();
    // Its disks are not taken from under it.
    let key = kernel.modules.file_name().unwrap().to_string_lossy();
    assert!(!debian().cache().discard("own", &key).unwrap());
    vm.power_off().unwrap();

    // The tree changes: it is another kernel, which lacks something.
    fs::write(tree.join(".config"), "CONFIG_VIRTIO_BLK=m\n").unwrap();
    let lacks = Kernel::of_path(debian(), &tree).unwrap_err().to_string();
    assert!(
        lacks.contains("lacks") && lacks.contains("CONFIG_DEVTMPFS"),
        "{lacks}"
    );

    // Nor was it ever built for modules of others.
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oops");
    let unbuilt = build_module(debian(), &kernel, &source).unwrap_err();
    assert!(
        unbuilt
            .to_string()
            .contains("has no include/config/auto.conf: run `make -C"),
        "{unbuilt}"
    );
    assert!(debian().cache().discard("own", &key).unwrap());

    own_roots(&own_root);
}

/// Boots the root in `folder`, which has busybox, as a folder and as an image.
fn own_roots(folder: &Path) {
    symlink("busybox", folder.join("bin/sh")).unwrap();
    let root = Root::of_path(debian(), folder).unwrap();
    let boot = |image: &Path| guest(stock(), image).boot().unwrap();
    let vm = boot(&root.image);
    let mounted = "busybox grep ' / ' /proc/mounts; echo word > /file && busybox cat /file";
    let said = says(&vm, mounted);
    assert!(
        said.starts_with("overlay / overlay rw") && said.ends_with("word\n"),
        "{said}"
    );
    let found = says(&vm, "busybox ls /lib/modules");
    assert_eq!(found.trim(), stock().release);
    drop(vm);

    fs::write(folder.join("bin/needs-a-loader"), LOADERLESS).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(folder.join("bin/needs-a-loader"), executable).unwrap();
    let changed = Root::of_path(debian(), folder).unwrap();
    assert_ne!(changed.image, root.image);
    for image in [&root.image, &changed.image] {
        let key = image.parent().unwrap().file_name().unwrap();
        let key = key.to_string_lossy();
        if image == &changed.image {
            let vm = boot(image);
            let error = vm.command("needs-a-loader").output().unwrap_err();
            assert!(matches!(error, Error::NotStarted { .. }), "{error}");
            assert!(error.to_string().contains("loader is missing"), "{error}");
        }
        assert!(debian().cache().discard("root", &key).unwrap());
    }

    let image = folder.with_extension("ext4");
    let made = Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-d"])
        .args([folder, &image])
        .arg("16M")
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .status();
    match made {
        Ok(status) => assert!(status.success(), "mke2fs: {status}"),
        Err(error) => {
            eprintln!("an ext4 root is not tested here: mke2fs: {error}");
            return;
        }
    }
    let root = Root::of_path(debian(), &image).unwrap();
    assert_eq!(root.image, image.canonicalize().unwrap());
    let said = says(&boot(&root.image), mounted);
    assert!(said.ends_with("word\n"), "{said}");
}

/// A script of an interpreter that there is not.
const LOADERLESS: &str = "#!/no/such/interpreter\n";

/// `cargo vm` in the project in `folder`, whose mirror cannot be reached.
fn cargo_vm(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cargo-vm"))
        .args(["--mirror", "http://127.0.0.1:9/debian"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

#[test]
fn what_is_pinned_is_had_from_the_cache() {
    // Both in the cache, by the same names as below.
    let name = kernel_name();
    stock();
    Root::prepare(debian(), "trixie", &PACKAGES).unwrap();
    let project = tempfile::tempdir().unwrap();
    let manifest = format!(
        "[package]\nname = \"stranger\"\nversion = \"0.1.0\"\n[workspace]\n[workspace.metadata.vm]\n\
         kernel = \"{name}\"\nkernels = [\"{name}\"]\npackages = {PACKAGES:?}\n"
    );
    fs::create_dir(project.path().join("src")).unwrap();
    fs::write(project.path().join("src/lib.rs"), "").unwrap();
    fs::write(project.path().join("Cargo.toml"), manifest).unwrap();

    let locked = cargo_vm(project.path(), &["kernel", "lock"]);
    assert!(locked.status.success(), "{locked:?}");
    let file = project.path().join(LOCK_FILE);
    let text = fs::read_to_string(&file).unwrap();
    assert!(
        text.contains(&stock().release) && !text.contains("://"),
        "{text}"
    );
    let fetched = cargo_vm(project.path(), &["kernel", "fetch"]);
    let identity = format!("{name}: {}\n", stock().identity());
    assert_eq!(String::from_utf8_lossy(&fetched.stdout), identity);
    let listed = cargo_vm(project.path(), &["kernel", "list", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    for kernel in listed.as_array().unwrap() {
        assert_eq!(kernel["pinned"], kernel["name"] == *name, "{kernel}");
    }

    let moved = cargo_vm(project.path(), &["kernel", "fetch", "--update", &name]);
    let why = String::from_utf8_lossy(&moved.stderr);
    assert_eq!(moved.status.code(), Some(2));
    assert!(
        why.contains(&format!("kernel lock --update {name}")),
        "{why}"
    );
}
