//! `dmashare module` on a machine without the module: what it says, and what it
//! builds. Loading it takes a guest.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

fn run(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dmashare"))
        .arg("module")
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

/// What it says where it ends with this status; and it prints nothing then.
fn says(folder: &Path, arguments: &[&str], status: i32) -> String {
    let output = run(folder, arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
    assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
    said
}

fn prints(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn is_loaded() -> bool {
    Path::new("/sys/module/dmashare").exists()
}

#[test]
fn the_status_is_told_with_what_would_help() {
    let folder = TempDir::new().unwrap();
    let json: Value = serde_json::from_str(&prints(folder.path(), &["status", "--json"])).unwrap();
    assert_eq!(json["loaded"], is_loaded());
    let text = prints(folder.path(), &["status"]);
    if !is_loaded() {
        assert!(text.starts_with("module      not loaded"), "{text}");
        assert!(
            json["problem"]
                .as_str()
                .unwrap()
                .contains("/dev/dmashare/system: open: "),
            "{json}"
        );
        assert!(text.contains("our kernel module would"), "{text}");
    }
}

/// A file that says of itself what a module does, and is none.
const FAKE: &[u8] =
    b"\x7fELF\0parmtype=max_buffer_mb:uint\0parmtype=colour:uint\0vermagic=1.2.3 SMP \0";

#[test]
fn what_cannot_be_loaded() {
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    if is_loaded() {
        assert!(says(path, &["load"], 1).contains("loaded already"));
        return;
    }
    let none = says(path, &["load"], 1);
    assert!(
        none.contains("module build") && none.contains("--file"),
        "{none}"
    );
    let missing = says(path, &["load", "--file", "none.ko"], 1);
    assert!(
        missing.contains("none.ko") && missing.contains("module build"),
        "{missing}"
    );

    std::fs::write(path.join("fake.ko"), FAKE).unwrap();
    let load = |parameters: &[&str], status| {
        says(
            path,
            &[&["load", "--file", "fake.ko"], parameters].concat(),
            status,
        )
    };
    // The file's own parameters are what counts.
    let slip = load(&["max_bufer_mb=4"], 2);
    assert!(slip.contains("did you mean max_buffer_mb"), "{slip}");
    assert!(load(&["heap=1"], 2).contains("it has max_buffer_mb, colour"));
    assert!(load(&["colour"], 2).contains("NAME=VALUE"));
    // The kernel's own word, whatever it is for this user: never a success.
    let refused = load(&["colour=3"], 1);
    assert!(refused.contains("fake.ko: load: "), "{refused}");

    let unload = says(path, &["unload"], 1);
    let reasons = ["not loaded", "run as root", "takes no modules"];
    assert!(
        reasons.iter().any(|reason| unload.contains(reason)),
        "{unload}"
    );
}

/// A `dmashare.ko` that anyone may have put there is not loaded unasked.
#[test]
fn anothers_file_is_not_loaded() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    if is_loaded() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let ko = folder.path().join("dmashare.ko");
    std::fs::write(&ko, FAKE).unwrap();
    std::fs::set_permissions(&ko, PermissionsExt::from_mode(0o666)).unwrap();
    assert!(says(folder.path(), &["load"], 1).contains("--file dmashare.ko"));
    std::fs::set_permissions(&ko, PermissionsExt::from_mode(0o644)).unwrap();
    assert!(says(folder.path(), &["load"], 1).contains("dmashare.ko: load: "));
    std::fs::rename(&ko, folder.path().join("other.ko")).unwrap();
    symlink("other.ko", &ko).unwrap();
    assert!(says(folder.path(), &["load"], 1).contains("--file dmashare.ko"));
}

/// A source of the module, and of a kernel the part of its Makefile that
/// builds a module: here of one file that is compiled, or not.
struct Tree(TempDir);

impl Tree {
    fn new(c: &str) -> Tree {
        let folder = TempDir::new().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("source/dmashare_uapi.h", "");
        write("source/main.c", c);
        write("source/part/part.h", "int part;\n");
        write("source/stale.o", "of another kernel");
        write(
            "kernel/Makefile",
            "modules:\n\t@echo building in $(M)\n\t@test ! -e $(M)/stale.o\n\
             \t$(CC) -c -o $(M)/dmashare.ko $(M)/main.c\n",
        );
        write("output/.keep", "");
        Tree(folder)
    }

    fn build(&self, more: &[&str]) -> Output {
        let trees = ["build", "--source", "source", "--kernel-dir", "kernel"];
        run(self.0.path(), &[&trees, more].concat())
    }

    fn has(&self, path: &str) -> bool {
        self.0.path().join(path).exists()
    }
}

fn has_make() -> bool {
    let there = Command::new("make").arg("--version").output().is_ok();
    if !there {
        eprintln!("skipped: there is no make here");
    }
    there
}

#[test]
fn a_build_leaves_the_module_and_nothing_else() {
    if !has_make() {
        return;
    }
    let tree = Tree::new("#include \"part/part.h\"\n");
    let built = tree.build(&["--output", "output"]);
    assert!(built.status.success(), "{built:?}");
    assert_eq!(
        String::from_utf8_lossy(&built.stdout),
        "output/dmashare.ko\n"
    );
    // make's own chatter would hide it.
    assert_eq!(String::from_utf8_lossy(&built.stderr), "");
    assert!(tree.has("output/dmashare.ko") && !tree.has("source/dmashare.ko"));
    let here = tree.build(&[]);
    assert_eq!(String::from_utf8_lossy(&here.stdout), "./dmashare.ko\n");
    assert!(tree.has("dmashare.ko"));
}

#[test]
fn a_build_that_fails_shows_what_the_compiler_said() {
    if !has_make() {
        return;
    }
    let tree = Tree::new("int main(void) { return planted_error; }\n");
    let output = tree.build(&[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty() && !tree.has("dmashare.ko"));
    assert!(said.contains("planted_error"), "{said}");
    let last = said.lines().last().unwrap();
    assert!(
        last.starts_with("dmashare: make made no dmashare.ko"),
        "{last}"
    );
}

#[test]
fn what_is_missing_for_a_build_is_named() {
    let tree = Tree::new("");
    let path = tree.0.path();
    let build = |arguments: &[&str], status| says(path, &[&["build"], arguments].concat(), status);
    let source = build(&["--source", "kernel"], 2);
    assert!(source.contains("dmashare_uapi.h"), "{source}");
    let kernel = build(&["--source", "source", "--kernel-dir", "output"], 2);
    assert!(
        kernel.contains("output") && kernel.contains("Makefile"),
        "{kernel}"
    );
    let output = [
        "--source",
        "source",
        "--kernel-dir",
        "kernel",
        "--output",
        "none",
    ];
    assert!(build(&output, 2).contains("none"));
    if !Path::new(concat!("/usr/src/dmashare-", env!("CARGO_PKG_VERSION"))).exists() {
        let none = build(&["--kernel-dir", "kernel"], 1);
        assert!(
            none.contains("/usr/src/dmashare-") && none.contains("--source"),
            "{none}"
        );
    }
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    if !Path::new("/lib/modules")
        .join(&*release)
        .join("build/Makefile")
        .exists()
    {
        let headers = build(&["--source", "source"], 1);
        assert!(
            headers.contains(&format!("linux-headers-{release}")),
            "{headers}"
        );
    }
}
