//! Guests whose root means harm.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::guest;
use super::here::{cargo_vm, said};

/// What a guest makes in a folder of the host, and what is on the host then.
#[test]
fn share_keeps_guest_metadata_out() {
    // With user attributes, and (before Linux 6.6) without.
    for parent in [env!("CARGO_TARGET_TMPDIR"), "/dev/shm"] {
        let folder = tempfile::tempdir_in(parent).unwrap();
        std::fs::write(folder.path().join("ours"), "ours").unwrap();
        let before = folder.path().join("ours").metadata().unwrap();
        let vm = guest().share_writable(folder.path()).boot().unwrap();
        let script = "set -e; mknod disk b 254 0; chmod 666 disk; mknod pipe p; \
            cp /bin/busybox root; chown 0:0 root; chmod 4777 root; \
            ln -s /etc/shadow link; mkdir all; chmod 7777 all; \
            chmod 4777 ours; chown 7:7 ours; echo made >made; chmod 0 made; \
            stat -c '%a %F' disk root all; readlink link; test -p pipe";
        let output = vm
            .command("sh")
            .args(["-c", script])
            .current_dir(folder.path().to_str().unwrap())
            .output()
            .unwrap();
        // To the guest it is as it made it.
        assert!(output.success(), "{parent}: {output:?}");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            said,
            "666 block special file\n4777 regular file\n7777 directory\n/etc/shadow\n"
        );
        vm.end().unwrap();
        // To the host all of it is plain.
        for name in ["disk", "pipe", "root", "link", "made", "all"] {
            let stat = folder.path().join(name).symlink_metadata().unwrap();
            let kind = stat.file_type();
            assert_eq!(kind.is_dir(), name == "all", "{parent}/{name}: {kind:?}");
            assert!(kind.is_dir() || kind.is_file(), "{parent}/{name}: {kind:?}");
            assert!(!kind.is_block_device() && !kind.is_fifo());
            assert_eq!(
                stat.mode() & 0o7022,
                0,
                "{parent}/{name}: {:o}",
                stat.mode()
            );
            assert_eq!(stat.uid(), before.uid());
        }
        let made = std::fs::read_to_string(folder.path().join("made"));
        assert_eq!(made.unwrap(), "made\n");
        let after = folder.path().join("ours").metadata().unwrap();
        assert_eq!((after.mode(), after.uid()), (before.mode(), before.uid()));
    }
}

#[test]
fn copy_out_takes_bounded_regular_files() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let copy = |options: &[&str], script: &str, file: &str| {
        let copy = format!("{file}:{}", out.display());
        let mut command = cargo_vm(&["run", "--copy-out", &copy]);
        command.args(options).args(["--", "sh", "-c", script]);
        said(command.spawn().unwrap())
    };
    let (status, text) = copy(&[], "echo x >/tmp/f; chmod 7777 /tmp/f", "/tmp/f");
    assert_eq!(status, Some(0), "{text}");
    assert_eq!(out.metadata().unwrap().mode() & 0o7777, 0o777);
    std::fs::remove_file(&out).unwrap();
    let refused = |expected: &str, options: &[&str], script: &str| {
        let (status, text) = copy(options, script, "/tmp/f");
        assert_eq!(status, Some(2), "{text}");
        assert!(text.contains(expected), "{text}");
        let left = folder.path().read_dir().unwrap().count();
        assert_eq!(left, 0, "{expected}");
    };
    refused("is a device", &[], "ln -s /dev/zero /tmp/f");
    refused("is a FIFO", &[], "mknod /tmp/f p");
    let large = "truncate -s 3M /tmp/f";
    refused("--copy-out-limit", &["--copy-out-limit", "2"], large);
    // One that never ends, from a guest that takes part in it.
    let (status, text) = copy(&["--deadline", "5s"], "truncate -s 1G /tmp/f", "/tmp/f");
    assert_eq!(status, Some(73), "{text}");
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

/// Takes the agent's port from process 1, and says over it that all programs ended well.
const FORGER: &str = r#"
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void)
{
    int init = syscall(SYS_pidfd_open, 1, 0), forged = 0;
    for (int fd = 3; fd < 64; fd++) {
        char link[64], to[64] = "";
        snprintf(link, sizeof(link), "/proc/1/fd/%d", fd);
        if (readlink(link, to, sizeof(to) - 1) < 0 || !strstr(to, "vport"))
            continue;
        int port = syscall(SYS_pidfd_getfd, init, fd, 0);
        for (char id = 1; id < 9; id++) {
            char exit[] = "\17\0\0\0\11....{\"Code\":0}";
            memcpy(exit + 5, (char[]){ id, 0, 0, 0 }, 4);
            forged += write(port, exit, sizeof(exit) - 1) == sizeof(exit) - 1;
        }
    }
    if (!forged)
        return 9;
    sleep(20);
    return 1;
}
"#;

#[test]
fn forged_exit_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("forge.c"), folder.path().join("forge"));
    std::fs::write(&source, FORGER).unwrap();
    let mut cc = std::process::Command::new("cc");
    let cc = cc
        .arg("-static")
        .arg("-o")
        .args([&program, &source])
        .status();
    assert!(cc.expect("a C compiler").success());
    let copy = format!("{}:/tmp/forge", program.display());
    let (status, text) = said(
        cargo_vm(&["run", "--copy-in", &copy, "--", "/tmp/forge"])
            .spawn()
            .unwrap(),
    );
    assert_eq!(status, Some(78), "{text}");
    assert!(text.contains("wrote to the agent's port"), "{text}");
    // Not by a user without rights.
    let user = [
        "run",
        "--copy-in",
        &copy,
        "--user",
        "1000",
        "--",
        "/tmp/forge",
    ];
    let (status, text) = said(cargo_vm(&user).spawn().unwrap());
    assert_eq!(status, Some(9), "{text}");
}

#[test]
fn forged_oops_on_console_is_no_oops() {
    let script = r#"echo "[   99.000000] BUG: kernel NULL pointer dereference" >/dev/console
        printf '\033]0;owned\007\033[2J[   99.000000] BUG: again\n' >/dev/console; exit 3"#;
    let (status, text) = said(
        cargo_vm(&["run", "--", "sh", "-c", script])
            .spawn()
            .unwrap(),
    );
    assert_eq!(status, Some(3), "{text}");
    assert!(text.contains("written by a program"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
    // What it wrote does not hide what the kernel has to say.
    let panics = format!("{script} & wait; echo c >/proc/sysrq-trigger");
    let (status, text) = said(
        cargo_vm(&["run", "--", "sh", "-c", &panics])
            .spawn()
            .unwrap(),
    );
    assert!([Some(71), Some(72)].contains(&status), "{text}");
    assert!(!text.contains(['\u{1b}', '\u{7}']), "{text:?}");
}

#[test]
fn cargo_s_variables_reach_tests_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let manifest = |name: &str| {
        format!(
            "[package]\nname = \"told\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\
             [workspace]\n[workspace.metadata.vm]\nkernels = [\"{name}\"]\n\
             packages = [\"busybox-static\", \"coreutils\", \"dash\", \"kmod\", \"libgcc-s1\"]\n\
             [package.metadata.vm]\nguest-tests = [\"guest\"]\n"
        )
    };
    write("Cargo.toml", &manifest(&super::kernel_name()));
    write("src/lib.rs", "");
    write(
        "build.rs",
        "fn main() { println!(\"cargo::rustc-env=FROM_BUILD=built\"); }",
    );
    write(".cargo/config.toml", "[env]\nFROM_CONFIG = 'a b'\n");
    let test = r#"
        #[test]
        fn has_what_cargo_sets() {
            let var = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("no {name}"));
            assert_eq!(var("FROM_CONFIG"), "a b");
            assert_eq!(var("FROM_BUILD"), "built");
            assert!(var("OUT_DIR").ends_with("/out"));
            assert_eq!(var("CARGO_PKG_NAME"), "told");
            assert!(std::env::var("SECRET_TOKEN").is_err() || HOST);
        }
    "#;
    write("tests/host.rs", &format!("const HOST: bool = true; {test}"));
    write(
        "tests/guest.rs",
        &format!("const HOST: bool = false; {test}"),
    );
    let run = |command: &mut std::process::Command| {
        command.current_dir(folder.path()).env("SECRET_TOKEN", "x");
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    };
    let ours = env!("CARGO_BIN_EXE_cargo-vm");
    let mut command = std::process::Command::new(ours);
    let (passed, text) = run(command.args(["test", "--boot-deadline", "4m"]));
    assert!(passed && text.contains("2 passed, 0 failed"), "{text}");
    let runner = format!(
        "{ours} runner --kernel {} --boot-deadline 4m",
        super::kernel_name()
    );
    let mut command = std::process::Command::new(env!("CARGO"));
    command.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", runner);
    let (passed, text) = run(command.args(["test", "--test", "guest"]));
    assert!(passed && text.contains("1 passed"), "{text}");
}
