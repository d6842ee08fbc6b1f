//! Files in and out, and whom programs run as.

use std::io::{self, Read};
use std::path::Path;
use std::process::Command;

use dmashare_vm::{Error, Exit};

use super::boot;

#[test]
fn files_go_in_and_out_whole() {
    let vm = boot();
    // Larger than anything on the way.
    let content: Vec<u8> = (0..5_000_000u32).flat_map(u32::to_le_bytes).collect();
    vm.write_file("/new/folder/file", &content[..], 0o751)
        .unwrap();
    let mut back = Vec::new();
    assert_eq!(vm.read_file("/new/folder/file", &mut back).unwrap(), 0o751);
    assert!(back == content, "{} of {} bytes", back.len(), content.len());

    // Shorter than what was there, and empty.
    for text in ["short\n", ""] {
        vm.write_file("/new/folder/file", text.as_bytes(), 0o600)
            .unwrap();
        let mut back = Vec::new();
        assert_eq!(vm.read_file("/new/folder/file", &mut back).unwrap(), 0o600);
        assert_eq!(back, text.as_bytes());
    }

    let read = |path: &str| vm.read_file(path, &mut io::sink()).unwrap_err().to_string();
    assert!(
        read("/none").contains("/none: No such file"),
        "{}",
        read("/none")
    );
    assert!(read("/usr").contains("is a folder"), "{}", read("/usr"));
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("broken on purpose"))
        }
    }
    let error = vm.write_file("/half", Broken, 0o600).unwrap_err();
    assert!(error.to_string().contains("broken on purpose"), "{error}");

    // Not root, and yet with streams of its own.
    let script = "id -u; id -g; echo $HOME; echo told >/dev/stderr; cat /new/folder/file";
    let output = vm
        .command("sh")
        .args(["-c", script])
        .user("1234:56")
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"1234\n56\n/\n");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.starts_with("told\n") && said.contains("Permission denied"),
        "{said}"
    );
    assert_eq!(output.exit, Exit::Code(1));
    let error = vm.command("id").user("eve").output().unwrap_err();
    assert!(error.to_string().contains("no user eve"), "{error}");

    // A library that knows more than the guest's: what a newer host has.
    let folder = tempfile::tempdir().unwrap();
    let program = newer_than_the_guest(folder.path());
    let bytes = std::fs::read(program).unwrap();
    vm.write_file("/tmp/newer", &bytes[..], 0o755).unwrap();
    let error = vm.command("/tmp/newer").output().unwrap_err();
    assert!(matches!(error, Error::NotStarted { .. }), "{error}");
    assert!(
        error.to_string().contains("the guest has no GLIBC_2.99"),
        "{error}"
    );
    vm.power_off().unwrap();
}

/// A program that was linked against a libc of the future.
fn newer_than_the_guest(folder: &Path) -> std::path::PathBuf {
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("libc.c", "void from_the_future(void) {}");
    write("libc.map", "GLIBC_2.99 { global: from_the_future; };");
    write(
        "main.c",
        "void from_the_future(void); void _start(void) { from_the_future(); }",
    );
    let cc = |arguments: &[&str]| {
        let status = Command::new("cc")
            .args(arguments)
            .current_dir(folder)
            .status();
        assert!(status.expect("a C compiler").success(), "cc {arguments:?}");
    };
    cc(&[
        "-shared",
        "-nostdlib",
        "-fPIC",
        "-Wl,--version-script=libc.map,-soname=libc.so.6",
        "-o",
        "libfuture.so",
        "libc.c",
    ]);
    cc(&["-nostdlib", "-o", "newer", "main.c", "libfuture.so"]);
    folder.join("newer")
}
