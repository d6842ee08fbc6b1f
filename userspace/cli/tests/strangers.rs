//! `dmashare write`, `read` and `rm` where another user was there first.

#[path = "../../tests/common/user.rs"]
mod user;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use libtest_mimic::{Arguments, Completion, Trial};
use user::{STRANGER, as_user, needs_root};

fn main() {
    let tests: &[(&str, fn())] = &[
        ("posix_symlink_is_not_written", posix_symlink_is_not_written),
        (
            "posix_strangers_object_is_not_read",
            posix_strangers_object_is_not_read,
        ),
    ];
    let trials = tests.iter().map(|&(name, test)| {
        Trial::ignorable_test(name, move || Ok::<Completion, _>(needs_root(test)))
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

fn run(arguments: &[&str]) -> Output {
    // What waits for a stranger is ended.
    Command::new("timeout")
        .args(["20", env!("CARGO_BIN_EXE_dmashare")])
        .args(arguments)
        .output()
        .unwrap()
}

/// What it prints, where it succeeds.
fn prints(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What it says, where it fails.
fn fails(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// A name in `/dev/shm` that is free again at its end, whoever took it.
struct Name(String);

impl Name {
    fn new(test: &str) -> Name {
        Name(format!(
            "/dmashare-cli-strangers-{test}-{}",
            std::process::id()
        ))
    }

    fn path(&self) -> PathBuf {
        Path::new("/dev/shm").join(&self.0[1..])
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.path());
    }
}

fn posix_symlink_is_not_written() {
    let (precious, link) = (Name::new("precious"), Name::new("link"));
    std::fs::write(precious.path(), [b'x'; 4096]).unwrap();
    as_user(STRANGER, || {
        std::os::unix::fs::symlink(precious.path(), link.path()).unwrap();
    });
    let write = [
        "write", "posix", "--name", &link.0, "--size", "4K", "--text", "evil",
    ];
    let said = fails(&write);
    assert!(said.contains("symbolic link"), "{said}");
    assert_eq!(std::fs::read(precious.path()).unwrap(), [b'x'; 4096]);
    fails(&["read", "posix", "--name", &link.0, "--anyone"]);
    prints(&["rm", "posix", "--name", &link.0]);
    assert!(precious.path().exists());
}

fn posix_strangers_object_is_not_read() {
    let name = Name::new("theirs");
    as_user(STRANGER, || {
        std::fs::write(name.path(), [b'x'; 4096]).unwrap()
    });
    let read = ["read", "posix", "--name", &name.0, "--bytes", "1"];
    let said = fails(&read);
    assert!(
        said.contains("user 65534") && said.contains("--anyone"),
        "{said}"
    );
    assert_eq!(prints(&[&read[..], &["--anyone"]].concat()), "x");
    let write = [
        "write", "posix", "--name", &name.0, "--size", "4K", "--text", "secret",
    ];
    assert!(fails(&write).contains("user 65534"));
    assert_eq!(std::fs::read(name.path()).unwrap(), [b'x'; 4096]);
}
