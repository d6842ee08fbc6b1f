//! `cargo vm run` and `runner`: programs in the guest as if they ran here.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use super::{children, kernel_name, runs, wait_until};

pub(super) fn cargo_vm(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-vm"));
    let (verb, rest) = arguments.split_first().unwrap();
    command
        .args([verb, "--kernel", &kernel_name(), "--boot-deadline", "4m"])
        .args(rest)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Started, and its program's first line awaited.
fn started(arguments: &[&str], first: &str) -> (Child, impl BufRead + use<>) {
    started_with(&mut cargo_vm(arguments), first)
}

pub(super) fn started_with(command: &mut Command, first: &str) -> (Child, impl BufRead + use<>) {
    let mut child = command.spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line.trim_end(), first);
    (child, stdout)
}

pub(super) fn qemu_of(child: &Child) -> Vec<u32> {
    let is_qemu = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|name| name.starts_with("qemu-system"))
    };
    children(child.id()).into_iter().filter(is_qemu).collect()
}

pub(super) fn kill(signal: &str, pid: u32) {
    let status = Command::new("kill")
        .args([signal, &pid.to_string()])
        .status();
    assert!(status.unwrap().success());
}

pub(super) fn said(mut child: Child) -> (Option<i32>, String) {
    let mut text = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    (child.wait().unwrap().code(), text)
}

#[test]
fn a_signal_is_the_program_s() {
    let script = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 1; done";
    let (child, mut stdout) = started(&["run", "--", "sh", "-c", script], "ready");
    let qemu = qemu_of(&child);
    assert_eq!(qemu.len(), 1);
    kill("-TERM", child.id());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "caught\n");
    assert_eq!(said(child).0, Some(9));
    assert!(!runs(qemu[0]));
}

#[test]
fn a_second_signal_ends_what_is_deaf_to_the_first() {
    let script = "trap '' TERM; echo ready; while :; do sleep 1; done";
    let (child, _stdout) = started(&["run", "--", "sh", "-c", script], "ready");
    let qemu = qemu_of(&child);
    kill("-TERM", child.id());
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(runs(qemu[0]), "the first one is the program's alone");
    kill("-TERM", child.id());
    assert_eq!(said(child).0, Some(128 + 15));
    wait_until("QEMU ends", || !runs(qemu[0]));
}

#[test]
fn a_reader_that_goes_ends_the_writer() {
    let (child, stdout) = started(&["run", "--", "yes"], "y");
    drop(stdout);
    let (status, text) = said(child);
    assert_eq!(status, Some(128 + 13), "{text}");
}

#[test]
fn a_qemu_that_is_killed_is_no_pass() {
    let (child, _stdout) = started(&["run", "--", "sh", "-c", "echo ready; sleep 50"], "ready");
    kill("-KILL", qemu_of(&child)[0]);
    let (status, text) = said(child);
    assert_eq!(status, Some(74), "{text}");
    assert!(
        text.contains("QEMU ended under the guest: signal: 9"),
        "{text}"
    );
}

#[test]
fn a_full_disk_of_the_host_s_is_told_and_hides_nothing() {
    let full = |script: &str| {
        let arguments = ["run", "--dmesg", "/dev/full", "--", "sh", "-c", script];
        said(cargo_vm(&arguments).spawn().unwrap())
    };
    let (status, text) = full("true");
    assert_eq!(status, Some(2), "{text}");
    assert!(
        text.contains("/dev/full: No space left on device"),
        "{text}"
    );
    let (status, text) = full("echo c > /proc/sysrq-trigger");
    assert_eq!(status, Some(71), "{text}");
}

#[test]
fn files_are_copied_with_their_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script");
    std::fs::write(&script, "#!/bin/sh\nchmod 640 \"$0\"\nexit 3\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o750)).unwrap();
    let copy_in = format!("{}:/tmp/new/", script.display());
    let copy_out = format!("/tmp/new/script:{}", folder.path().join("back").display());
    let dmesg = folder.path().join("dmesg");
    let child = cargo_vm(&["run", "--copy-in", &copy_in, "--copy-out", &copy_out])
        .args(["--dmesg", dmesg.to_str().unwrap(), "--", "/tmp/new/script"])
        .spawn();
    let (status, text) = said(child.unwrap());
    assert_eq!(status, Some(3), "{text}");
    let back = folder.path().join("back");
    assert_eq!(
        std::fs::read(&back).unwrap(),
        std::fs::read(&script).unwrap()
    );
    let mode = back.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
    let dmesg = std::fs::read_to_string(dmesg).unwrap();
    assert!(dmesg.contains("Linux version"), "{dmesg}");
}

#[test]
fn appended_words_reach_command_line() {
    let words = [
        "run",
        "--cold",
        "--append",
        "test.word=1",
        "--append",
        "test.word=2",
    ];
    let mut command = cargo_vm(&words);
    let output = command.args(["--", "cat", "/proc/cmdline"]).output();
    let line = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(line.ends_with(" test.word=1 test.word=2\n"), "{line}");
}

#[test]
fn appended_reserved_word_is_refused() {
    for verb in ["run", "runner", "shell", "test", "bench"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-vm"));
        command.args([verb, "--append", "a=1 quiet"]);
        if verb.starts_with("run") {
            command.args(["--", "true"]);
        }
        let output = command.output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{verb}: {error}");
        assert!(
            error.contains("reserved kernel parameter \"quiet\": "),
            "{error}"
        );
    }
}

/// What `runner` is given below: only in a guest does it pass.
#[test]
#[ignore = "for the guest alone"]
fn in_the_guest() {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(name, "guest\n");
    assert_eq!(std::env::var("CARGO_PKG_NAME").unwrap(), "dmashare-vm");
    assert_eq!(std::env::var("RUST_GIVEN").unwrap(), "given");
    assert_eq!(std::env::var("OTHER").unwrap(), "other");
    let here = std::env::current_dir().unwrap();
    assert_eq!(here.to_str().unwrap(), env!("CARGO_MANIFEST_DIR"));
    assert!(here.join("Cargo.toml").exists());
    let scratch = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(scratch.join("from-the-guest"), "here").unwrap();
}

#[test]
fn a_test_program_runs_in_the_guest() {
    let ours = std::env::current_exe().unwrap();
    let run = |test: &str| {
        let mut command = cargo_vm(&["runner", "--env", "OTHER"]);
        command
            .arg(&ours)
            .args([test, "--exact", "--ignored"])
            .env("RUST_GIVEN", "given")
            .env("OTHER", "other");
        command.output().unwrap()
    };
    let scratch = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("from-the-guest");
    let _ = std::fs::remove_file(&scratch);
    let output = run("here::in_the_guest");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success() && out.contains("1 passed"),
        "{out}{err}"
    );
    assert_eq!(std::fs::read_to_string(&scratch).unwrap(), "here");
    std::fs::remove_file(&scratch).unwrap();
}

/// What crates for temporary files do.
#[test]
#[ignore = "for the guest alone"]
fn removed_in_the_guest() {
    use std::fs::{File, Permissions};
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::PermissionsExt;
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("removed");
    let mut options = File::options();
    let options = options.read(true).write(true).create_new(true);
    let mut file = options.open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file.write_all(b"removed").unwrap();
    file.set_len(3).unwrap();
    file.set_permissions(Permissions::from_mode(0o640)).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 3);
    let again = format!("/proc/self/fd/{}", file.as_raw_fd());
    assert_eq!(std::fs::read_to_string(again).unwrap(), "rem");
    assert!(path.with_file_name("of-the-host").exists());
    std::fs::write(path.with_file_name("of-the-guest"), "").unwrap();
}

#[test]
fn removed_file_works_in_memory() {
    let scratch = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(scratch.join("of-the-host"), "").unwrap();
    let ours = std::env::current_exe().unwrap();
    let run = |options: &[&str]| {
        let mut command = cargo_vm(&["runner"]);
        let command = command.args(options).arg(&ours);
        command.args(["here::removed_in_the_guest", "--exact", "--ignored"]);
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    };
    let (out, err) = run(&["--tmpdir-in-memory"]);
    assert!(out.contains("1 passed"), "{out}{err}");
    assert!(!scratch.join("of-the-guest").exists());
    // Otherwise it is said before the tests run.
    let (_, err) = run(&[]);
    assert!(err.contains("--tmpdir-in-memory"), "{err}");
    for name in ["of-the-host", "of-the-guest", "removed"] {
        let _ = std::fs::remove_file(scratch.join(name));
    }
}
