//! `dmashare write`, `read` and `rm` as people call them: what they print, how
//! they end, and what they leave behind.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dmashare"));
    command.args(arguments);
    command
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

/// What it prints, where it succeeds.
fn prints(arguments: &[&str]) -> String {
    let output = run(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    assert_eq!(said, "", "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What it says in one line, where it ends with this status; and it prints
/// nothing then.
fn says(arguments: &[&str], status: i32) -> String {
    let output = run(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    said
}

/// A POSIX name of this test's own, gone with this.
struct Name(String);

impl Name {
    fn new(test: &str) -> Name {
        Name(format!("/dmashare-cli-{test}-{}", std::process::id()))
    }

    fn file(&self) -> std::path::PathBuf {
        Path::new("/dev/shm").join(&self.0[1..])
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.file());
    }
}

#[test]
fn posix_from_its_making_to_its_end() {
    let name = Name::new("posix");
    let of = ["--name", &name.0];
    let line = prints(
        &[
            &["write", "posix", "--size", "10000", "--text", "hello"],
            &of[..],
        ]
        .concat(),
    );
    assert!(
        line.contains(", 12288 bytes") && line.contains("text \"hello\""),
        "{line}"
    );
    assert!(name.file().exists());
    assert_eq!(
        prints(&[&["read", "posix", "--bytes", "5"], &of[..]].concat()),
        "hello"
    );
    let hex = prints(&[&["read", "posix", "--bytes", "5", "--hex"], &of[..]].concat());
    assert_eq!(
        hex,
        "00000000  68 65 6c 6c 6f                                   |hello|\n"
    );
    let json = prints(&[&["read", "posix", "--json"], &of[..]].concat());
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["size"], 12288); // whole pages
    assert_eq!(json[0]["text"], "hello");
    let far = says(
        &[
            &["read", "posix", "--offset", "12287", "--bytes", "2"],
            &of[..],
        ]
        .concat(),
        2,
    );
    assert!(far.contains("12288 bytes"), "{far}");
    assert_eq!(prints(&[&["rm", "posix"], &of[..]].concat()), "");
    assert!(!name.file().exists());
    for gone in [["rm", "posix"], ["read", "posix"]] {
        let said = says(&[&gone[..], &of[..]].concat(), 1);
        assert!(
            said.contains(&name.0) && said.lines().count() == 1,
            "{said}"
        );
    }
}

#[test]
fn sysv_from_its_making_to_its_end() {
    let folder = TempDir::new().unwrap();
    let of = ["--path", folder.path().to_str().unwrap()];
    let json = prints(
        &[
            &["write", "sysv", "--size", "4M", "--fill", "0x41", "--json"],
            &of[..],
        ]
        .concat(),
    );
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["buffers"][0]["size"], 4 << 20);
    assert!(json["key"].as_str().unwrap().starts_with("0x"), "{json}");
    assert_eq!(
        prints(&[&["read", "sysv", "--bytes", "4"], &of[..]].concat()),
        "AAAA"
    );
    // The same key again is the same segment, unless it is too small.
    prints(&[&["write", "sysv", "--size", "1M", "--fill", "B"], &of[..]].concat());
    assert_eq!(
        prints(&[&["read", "sysv", "--bytes", "1"], &of[..]].concat()),
        "B"
    );
    let small = says(&[&["write", "sysv", "--size", "5M"], &of[..]].concat(), 1);
    assert!(small.contains("rm sysv"), "{small}");
    prints(&[&["rm", "sysv"], &of[..]].concat());
    for gone in [["rm", "sysv"], ["read", "sysv"]] {
        let said = says(&[&gone[..], &of[..]].concat(), 1);
        assert!(said.lines().count() == 1, "{said}");
    }
}

#[test]
fn what_cannot_be_is_wrong_usage() {
    let posix = ["write", "posix", "--name", "/dmashare-cli-wrong"];
    for (more, word) in [
        (&["--size", "4 apples"][..], "size"),
        (&["--size", "0"], "0 bytes"),
        (&["--size", "4K", "--fill", "AB"], "byte"),
        (
            &["--size", "4K", "--fill", "A", "--text", "B"],
            "cannot be used",
        ),
        (&["--size", "2", "--text", &"x".repeat(4096)], "longer"),
        (
            &["--size", "4K", "--input", "/no/such/file"],
            "/no/such/file",
        ),
        (&[], "--size"),
    ] {
        let said = says(&[&posix[..], more].concat(), 2);
        assert!(said.contains(word), "{more:?}: {said}");
    }
    assert!(!Path::new("/dev/shm/dmashare-cli-wrong").exists());
    let seal = [
        "write", "memfd", "--socket", "/s", "--size", "4K", "--seal", "walrus",
    ];
    assert!(says(&seal, 2).contains("future-write"));
    let many = [
        "write", "memfd", "--socket", "/s", "--size", "4K", "--count", "2", "--input", "-",
    ];
    assert!(says(&many, 2).contains("standard input"));
    let hex = ["read", "posix", "--name", "/x", "--hex"];
    assert!(says(&hex, 2).contains("--bytes"));
    let name = ["read", "posix", "--name", "/a/b"];
    assert!(says(&name, 2).contains("/a/b"));
}

#[test]
fn nobody_at_the_other_end() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("socket");
    let to = ["--socket", socket.to_str().unwrap(), "--timeout", "100ms"];
    let write = says(
        &[&["write", "memfd", "--size", "4K", "--plain"], &to[..]].concat(),
        1,
    );
    assert!(write.contains("connect"), "{write}");
    let read = says(&[&["read", "fd", "--plain"], &to[..]].concat(), 1);
    assert!(read.contains("100ms"), "{read}");
    assert!(!socket.exists());
}

/// `dmashare read … | head -c 1` is no failure.
#[test]
fn a_reader_that_has_enough() {
    let name = Name::new("enough");
    prints(&[
        "write", "posix", "--name", &name.0, "--size", "8M", "--fill", "A",
    ]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command(&["read", "posix", "--name", &name.0, "--bytes", "8M"])
        .stdout(writer)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn input_goes_in_as_it_is() {
    let name = Name::new("input");
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let mut child = command(&[
        "write", "posix", "--name", &name.0, "--size", "100000", "--input", "-",
    ])
    .stdin(Stdio::piped())
    .stdout(Stdio::null())
    .spawn()
    .unwrap();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    assert!(child.wait().unwrap().success());
    let read = run(&["read", "posix", "--name", &name.0, "--bytes", "100000"]);
    assert_eq!(read.stdout, bytes);
}

#[test]
fn explained_by_the_systems_own_figures() {
    let name = Name::new("explain");
    let said = prints(&[
        "write",
        "posix",
        "--name",
        &name.0,
        "--size",
        "96M",
        "--fill",
        "A",
        "--explain",
    ]);
    let shmem = said.lines().find(|line| line.contains("Shmem")).unwrap();
    let change = shmem.split_whitespace().rev().nth(1).unwrap();
    // The tests beside this one make and free 8 MiB each: never so much at once.
    let change: i64 = change.parse().unwrap();
    assert!(change >= 48 << 10, "{said}");
    assert!(said.contains("buff/cache"), "{said}");
}

/// Whose key file is gone: by its key or id, as ipcs(1) lists them.
#[test]
fn segment_without_key_file_is_removed() {
    for by_key in [true, false] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "").unwrap();
        let path = path.to_str().unwrap();
        let write = [
            "write", "sysv", "--path", path, "--size", "4K", "--text", "hi", "--json",
        ];
        let json: Value = serde_json::from_str(&prints(&write)).unwrap();
        std::fs::remove_file(path).unwrap();
        let gone = says(&["rm", "sysv", "--path", path], 1);
        assert!(gone.contains("--key") && gone.contains("ipcs -m"), "{gone}");
        let of = match by_key {
            true => ["--key", json["key"].as_str().unwrap()],
            false => ["--id", json["buffers"][0]["name"].as_str().unwrap()],
        };
        assert_eq!(
            prints(&[&["read", "sysv", "--bytes", "2"], &of[..]].concat()),
            "hi"
        );
        prints(&[&["rm", "sysv"], &of[..]].concat());
        let said = says(&[&["rm", "sysv"], &of[..]].concat(), 1);
        assert!(said.contains(of[1]), "{said}");
    }
    for wrong in [
        &["--key", "0"][..],
        &["--key", "x"],
        &[],
        &["--key", "1", "--id", "1"],
    ] {
        says(&[&["rm", "sysv"], wrong].concat(), 2);
    }
}

#[test]
fn name_without_size_says_what_to_do() {
    let name = Name::new("empty");
    std::fs::write(name.file(), "").unwrap();
    let remove = format!("`dmashare rm posix --name {}`", name.0);
    let write = ["write", "posix", "--name", &name.0, "--size", "4K"];
    for command in [&write[..], &["read", "posix", "--name", &name.0]] {
        let said = says(command, 1);
        assert!(
            said.contains("has no size") && said.contains(&remove),
            "{said}"
        );
    }
}

/// What nobody was told of does not stay; what was there before does.
#[test]
fn nothing_stays_that_cannot_be_shown() {
    let name = Name::new("full");
    let folder = TempDir::new().unwrap();
    let path = folder.path().to_str().unwrap();
    let posix = ["write", "posix", "--name", &name.0, "--size", "4K"];
    let sysv = ["write", "sysv", "--path", path, "--size", "4K"];
    let full = |arguments: &[&str]| {
        let full = std::fs::File::create("/dev/full").unwrap();
        let output = command(arguments).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    };
    for more in [&[][..], &["--json"], &["--explain"]] {
        full(&[&posix[..], more].concat());
        assert!(!name.file().exists());
        full(&[&sysv[..], more].concat());
        says(&["read", "sysv", "--path", path], 1);
    }
    prints(&posix);
    full(&posix);
    assert!(name.file().exists());
}
