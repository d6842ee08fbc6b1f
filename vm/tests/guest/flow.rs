//! Input that nobody reads, output that nobody takes, and signals all the while.

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use dmashare_vm::{Event, Exit};

use super::guest;
use super::here::{cargo_vm, kill, qemu_of, said, started_with};
use super::{runs, wait_until};

/// More than there is room for on the way.
const MUCH: usize = 8 << 20;

#[test]
fn input_that_is_not_read_holds_up_nothing_else() {
    let mut command = cargo_vm(&["run", "--", "sh", "-c", "echo ready; exec sleep 100"]);
    let (mut child, _stdout) = started_with(command.stdin(Stdio::piped()), "ready");
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&vec![1; MUCH]));
    // As much as there is room for is on its way.
    std::thread::sleep(Duration::from_secs(1));
    assert!(!writer.is_finished());
    kill("-TERM", child.id());
    let (status, text) = said(child);
    assert_eq!(status, Some(128 + 15), "{text}");
    assert!(writer.join().unwrap().is_err(), "nobody has read it");
}

#[test]
fn a_reader_that_goes_ends_a_writer_that_reads_nothing() {
    let mut command = cargo_vm(&["run", "--", "yes"]);
    let (mut child, stdout) = started_with(command.stdin(Stdio::piped()), "y");
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&vec![1; MUCH]));
    drop(stdout);
    let (status, text) = said(child);
    assert_eq!(status, Some(128 + 13), "{text}");
    let _ = writer.join().unwrap();
}

#[test]
fn output_that_is_not_read_has_a_deadline() {
    // Where nobody reads it, and where somebody does all the time.
    for reads in [false, true] {
        let mut command = cargo_vm(&["run", "--deadline", "12s", "--", "yes"]);
        let (child, mut stdout) = started_with(&mut command, "y");
        let began = Instant::now();
        if reads {
            std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
        }
        let (status, text) = said(child);
        assert_eq!(status, Some(73), "{text}");
        assert!(began.elapsed() < Duration::from_secs(60));
    }
}

#[test]
fn what_was_said_in_time_is_read_at_leisure() {
    let mut command = cargo_vm(&["run", "--deadline", "12s", "--", "sh", "-c"]);
    command.arg("echo ready; head -c 200000 /dev/zero");
    let (child, mut stdout) = started_with(&mut command, "ready");
    std::thread::sleep(Duration::from_secs(15));
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len(), 200_000);
    let (status, text) = said(child);
    assert_eq!(status, Some(0), "{text}");
}

#[test]
fn a_signal_after_the_end_of_the_program_ends_us() {
    let folder = tempfile::tempdir().unwrap();
    let long = format!("/tmp/zeros:{}", folder.path().join("zeros").display());
    let script = "truncate -s 1G /tmp/zeros; echo ready";
    let mut command = cargo_vm(&["run", "--copy-out", &long, "--", "sh", "-c", script]);
    let (mut child, _stdout) = started_with(&mut command, "ready");
    let qemu = qemu_of(&child);
    // The copying has begun, and takes long.
    wait_until("a file is copied", || {
        let mut files = folder.path().read_dir().unwrap().flatten();
        files.any(|file| file.metadata().is_ok_and(|stat| stat.len() > 0))
    });
    assert!(child.try_wait().unwrap().is_none());
    kill("-TERM", child.id());
    let (status, text) = said(child);
    assert_eq!(status, Some(128 + 15), "{text}");
    wait_until("QEMU ends", || !runs(qemu[0]));
}

#[test]
fn a_program_that_nobody_follows_goes_on() {
    let vm = guest().boot().unwrap();
    let script = "head -c 3000000 /dev/zero; echo done >/tmp/done";
    drop(vm.command("sh").args(["-c", script]).spawn().unwrap());
    let wait = "until [ -e /tmp/done ]; do sleep 0.1; done";
    let process = vm.command("sh").args(["-c", wait]).spawn().unwrap();
    // Its end is told as often as one asks.
    for _ in 0..2 {
        assert_eq!(process.next_event().unwrap(), Event::Exit(Exit::Code(0)));
    }
}

#[test]
fn a_guest_reaches_itself_and_sees_what_is_shared_within() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let vm = guest()
        .share(&inner)
        .share_writable(folder.path())
        .boot()
        .unwrap();
    let script = "touch $1/outer && ! touch $1/inner/file && ping -c 1 127.0.0.1";
    let path = folder.path().to_str().unwrap();
    let output = vm.command("busybox").args(["sh", "-c", script, "sh", path]);
    let output = output.output().unwrap();
    assert!(output.success(), "{output:?}");
    assert!(folder.path().join("outer").exists());
}

#[test]
fn output_is_sent_in_large_pieces() {
    const BYTES: usize = 20_000_000;
    let vm = guest().boot().unwrap();
    let began = Instant::now();
    let count = BYTES.to_string();
    let process = vm.command("head").args(["-c", &count, "/dev/zero"]);
    let process = process.spawn().unwrap();
    let (mut bytes, mut pieces) = (0, 0);
    while let Event::Stdout(piece) = process.next_event().unwrap() {
        bytes += piece.len();
        pieces += 1;
    }
    let took = began.elapsed();
    assert_eq!(bytes, BYTES);
    assert!(bytes / pieces > 20 << 10, "{pieces} pieces");
    // Two seconds where nothing else runs.
    assert!(took < Duration::from_secs(10), "{took:?}");
}
