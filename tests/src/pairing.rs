//! The command `dmashare` at one end and a C program at the other, for each way
//! and in both directions; and the command at both ends.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::command::dmashare;
use crate::conformance::{Check, Verdict};
use crate::held;
use crate::peers::Peers;

/// How long two processes may take to find each other.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is left out of [`pairing`] here, and why.
pub fn left_out(dma_heap: bool) -> Vec<(&'static str, &'static str)> {
    let mut left_out = Vec::new();
    if !is_root() {
        left_out.push(("another_users_object", "only root can make one"));
    }
    if !dma_heap {
        left_out.push(("dmabuf", "this machine has no /dev/dma_heap/system"));
    }
    left_out
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The checks; `dma_heap` says whether this machine has `/dev/dma_heap/system`,
/// which the C programs for dma-bufs use.
pub fn pairing(dma_heap: bool) -> Vec<Check> {
    type Function = fn() -> Verdict;
    let mut checks: Vec<(&'static str, Function)> = vec![
        ("sysv_from_c", sysv_from_c),
        ("sysv_to_c", sysv_to_c),
        ("posix_from_c", posix_from_c),
        ("posix_to_c", posix_to_c),
        ("memfd_from_c", memfd_from_c),
        ("memfd_to_c", memfd_to_c),
        ("ours_to_ours", ours_to_ours),
    ];
    if is_root() {
        checks.push(("another_users_object", another_users_object));
    }
    if dma_heap {
        checks.push(("dmabuf_from_c", dmabuf_from_c));
        checks.push(("dmabuf_to_c", dmabuf_to_c));
    }
    checks
        .into_iter()
        .map(|(name, check)| {
            let run = move || {
                let before = held::by_name()?;
                check()?;
                held::comes_back_to(before, held::by_name)
            };
            (name, Box::new(run) as Box<dyn Fn() -> Verdict + Send>)
        })
        .collect()
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// What a command that succeeds prints.
fn output_of(mut command: Command) -> Result<Vec<u8>, String> {
    let output = command.output().map_err(text)?;
    succeeded(&command, output)
}

fn succeeded(command: &Command, output: Output) -> Result<Vec<u8>, String> {
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(format!(
            "{command:?}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

/// A command that fails, with this status.
fn fails(mut command: Command, status: i32) -> Verdict {
    let output = command.output().map_err(text)?;
    match output.status.code() == Some(status) {
        true => Ok(()),
        false => Err(format!("{command:?}: {}, not {status}", output.status)),
    }
}

fn equal(what: &str, found: &[u8], expected: &[u8]) -> Verdict {
    match found == expected {
        true => Ok(()),
        false => Err(format!(
            "{what}: {:?}, expected {:?}",
            String::from_utf8_lossy(found),
            String::from_utf8_lossy(expected)
        )),
    }
}

fn peers() -> Result<Peers, String> {
    Peers::unpack().map_err(text)
}

/// Both ends at once: the one that waits first, the other when it does.
fn both(mut waits: Command, mut connects: Command, socket: &Path) -> Result<[Vec<u8>; 2], String> {
    let waiting = waits
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(text)?;
    let mut waiting = Ended(Some(waiting));
    let begun = Instant::now();
    while !socket.as_os_str().is_empty() && !socket.exists() {
        if begun.elapsed() > PATIENCE {
            return Err(format!("{waits:?} does not listen"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let sent = connects.output().map_err(text)?;
    let sent = succeeded(&connects, sent)?;
    let child = waiting.0.take().ok_or("it has ended")?;
    let received = child.wait_with_output().map_err(text)?;
    Ok([succeeded(&waits, received)?, sent])
}

/// A child that does not outlive a failed test.
struct Ended(Option<Child>);

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn path(path: &Path) -> Result<&str, String> {
    path.to_str()
        .ok_or_else(|| "a path that is not UTF-8".to_owned())
}

fn sysv_from_c() -> Verdict {
    let peers = peers()?;
    let file = path(peers.folder())?;
    let mut writer = peers.command("sysv_writer");
    writer.args([file, "4194304", "A"]);
    output_of(writer)?;
    let read = output_of(dmashare(&["read", "sysv", "--path", file, "--bytes", "4"]))?;
    equal("read", &read, b"AAAA")?;
    let last = [
        "read", "sysv", "--path", file, "--offset", "4194300", "--bytes", "4",
    ];
    equal("the last bytes", &output_of(dmashare(&last))?, b"AAAA")?;
    let remove = ["rm", "sysv", "--path", file];
    output_of(dmashare(&remove))?;
    fails(dmashare(&remove), 1)
}

fn sysv_to_c() -> Verdict {
    let peers = peers()?;
    let file = path(peers.folder())?;
    let write = [
        "write", "sysv", "--path", file, "--size", "4M", "--fill", "A",
    ];
    output_of(dmashare(&write))?;
    let mut reader = peers.command("sysv_reader");
    reader.args([file, "4194304"]);
    equal("read by C", &output_of(reader)?, &vec![b'A'; 4 << 20])?;
    output_of(dmashare(&["rm", "sysv", "--path", file])).map(drop)
}

/// A name of this test's own.
fn name(of: &str) -> String {
    format!("/dmashare-pairing-{of}-{}", std::process::id())
}

fn posix_from_c() -> Verdict {
    let (peers, name) = (peers()?, name("from-c"));
    let mut writer = peers.command("posix_writer");
    writer.args([&name, "4194304", "B"]);
    output_of(writer)?;
    let read = output_of(dmashare(&[
        "read", "posix", "--name", &name, "--bytes", "4",
    ]))?;
    equal("read", &read, b"BBBB")?;
    let remove = ["rm", "posix", "--name", &name];
    output_of(dmashare(&remove))?;
    fails(dmashare(&remove), 1)
}

fn posix_to_c() -> Verdict {
    let (peers, name) = (peers()?, name("to-c"));
    let write = [
        "write", "posix", "--name", &name, "--size", "4M", "--fill", "B",
    ];
    output_of(dmashare(&write))?;
    let mut reader = peers.command("posix_reader");
    reader.args([&name, "4194304"]);
    equal("read by C", &output_of(reader)?, &vec![b'B'; 4 << 20])?;
    output_of(dmashare(&["rm", "posix", "--name", &name])).map(drop)
}

/// A C program sends to `dmashare read fd --plain`.
fn from_c(program: &str, arguments: &[&str], expected: &[&str]) -> Verdict {
    let peers = peers()?;
    let socket = peers.folder().join("socket");
    let mut writer = peers.command(program);
    writer.arg(&socket).args(arguments);
    let reader = dmashare(&["read", "fd", "--socket", path(&socket)?, "--plain"]);
    let [read, _] = both(reader, writer, &socket)?;
    let read = String::from_utf8(read).map_err(text)?;
    for part in expected {
        if !read.contains(part) {
            return Err(format!("{part:?} is not in {read:?}"));
        }
    }
    Ok(())
}

/// `dmashare write … --plain` sends to a C program.
fn to_c(program: &str, write: &[&str], expected: &str) -> Verdict {
    let peers = peers()?;
    let socket = peers.folder().join("socket");
    let mut reader = peers.command(program);
    reader.arg(&socket);
    let mut writer = dmashare(write);
    writer.args(["--plain", "--socket"]).arg(&socket);
    // The writer waits for whoever listens by itself.
    let [read, _] = both(reader, writer, Path::new(""))?;
    equal("read by C", &read, expected.as_bytes())
}

fn memfd_from_c() -> Verdict {
    let expected = [
        "fd 0: memfd",
        "fd 1: memfd",
        "4194304 bytes",
        "no seals",
        "\"hello\"",
    ];
    from_c("memfd_writer", &["2", "4194304", "hello"], &expected)
}

fn memfd_to_c() -> Verdict {
    let write = [
        "write", "memfd", "--count", "2", "--size", "4M", "--text", "hello",
    ];
    to_c("memfd_reader", &write, "4194304 hello\n4194304 hello\n")
}

fn dmabuf_from_c() -> Verdict {
    let expected = ["fd 0: dma-buf", "4194304 bytes", "\"hello\""];
    from_c("dmabuf_writer", &["4194304", "hello"], &expected)
}

fn dmabuf_to_c() -> Verdict {
    let write = [
        "write", "dmabuf", "--count", "2", "--size", "4M", "--text", "hello",
    ];
    to_c("dmabuf_reader", &write, "4194304 hello\n4194304 hello\n")
}

/// In our format: either end listens, over either type, at a path and at an
/// abstract name.
fn ours_to_ours() -> Verdict {
    let folder = tempfile::tempdir().map_err(text)?;
    let at_a_path = folder.path().join("socket");
    let abstract_name = format!("@{}", name("ours"));
    for socket in [path(&at_a_path)?, &abstract_name] {
        for transport in ["seqpacket", "stream"] {
            let write = [
                "write", "memfd", "--count", "3", "--size", "64K", "--text", "hello", "--seal",
                "write", "--socket", socket, "--type", transport,
            ];
            let read = ["read", "fd", "--socket", socket, "--type", transport];
            for writer_listens in [false, true] {
                let (mut writer, mut reader) = (dmashare(&write), dmashare(&read));
                let [received, sent] = match writer_listens {
                    false => both(reader, writer, Path::new(""))?,
                    true => {
                        writer.arg("--listen");
                        reader.arg("--connect");
                        let [sent, received] = both(writer, reader, Path::new(""))?;
                        [received, sent]
                    }
                };
                // Since 6.3 a memfd that cannot be executed has a seal for that.
                let plain = |told: Vec<u8>| {
                    let told = String::from_utf8_lossy(&told).replace(" exec,", ",");
                    told.into_bytes()
                };
                let line =
                    "memfd /memfd:dmashare, 65536 bytes, seals shrink grow write, text \"hello\"";
                let lines = (0..3).map(|fd| format!("fd {fd}: {line}\n"));
                equal(
                    "read",
                    &plain(received),
                    lines.collect::<String>().as_bytes(),
                )?;
                let lines = format!("{line}\n").repeat(3);
                equal("written", &plain(sent), lines.as_bytes())?;
            }
        }
    }
    Ok(())
}

/// Who was there first reads along: nothing is written for another user.
fn another_users_object() -> Verdict {
    let name = name("foreign");
    let file = Path::new("/dev/shm").join(&name[1..]);
    std::fs::write(&file, [0; 4096]).map_err(text)?;
    let checked = std::os::unix::fs::chown(&file, Some(65534), Some(65534))
        .map_err(text)
        .and_then(|()| {
            let write = [
                "write", "posix", "--name", &name, "--size", "4K", "--text", "secret",
            ];
            fails(dmashare(&write), 1)?;
            equal(
                "the object",
                &std::fs::read(&file).map_err(text)?,
                &[0; 4096],
            )
        });
    std::fs::remove_file(&file).map_err(text)?;
    checked
}
