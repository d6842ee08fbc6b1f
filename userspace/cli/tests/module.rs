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
        write("source/Makefile", &makefile());
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

/// That of the module.
fn makefile() -> String {
    let kmod = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kmod/Makefile");
    std::fs::read_to_string(kmod).unwrap()
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

/// What `LLVM=1` selects.
const LLVM: [&str; 8] = [
    "clang",
    "ld.lld",
    "llvm-ar",
    "llvm-nm",
    "llvm-objcopy",
    "llvm-objdump",
    "llvm-readelf",
    "llvm-strip",
];

/// A kernel's build tree whose module is a list of what its make was given, and a
/// PATH on which there is nothing of LLVM but what is put there.
struct Clang {
    tree: Tree,
    config: &'static str,
}

impl Clang {
    fn new(config: &'static str, compiler: &str) -> Clang {
        let clang = Clang {
            tree: Tree::new(""),
            config,
        };
        clang.write(config, &format!("CONFIG_CC_IS_{compiler}=y\n"));
        clang.write(
            "kernel/Makefile",
            "modules:\n\t@echo LLVM=$(LLVM) CC=$(CC) from $(origin CC) > $(M)/dmashare.ko\n",
        );
        std::fs::create_dir(clang.path("bin")).unwrap();
        for name in ["make", "grep"] {
            let all = std::env::var_os("PATH").unwrap();
            let file = std::env::split_paths(&all)
                .map(|folder| folder.join(name))
                .find(|file| file.exists())
                .unwrap();
            std::os::unix::fs::symlink(file, clang.path("bin").join(name)).unwrap();
        }
        clang
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.tree.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// Puts all of LLVM there but `without`, with a suffix.
    fn install(&self, folder: &str, suffix: &str, without: &str) {
        for name in LLVM.iter().filter(|name| **name != without) {
            self.write(&format!("{folder}/{name}{suffix}"), "#!/bin/sh\n");
        }
    }

    /// Runs a program with this `LLVM` in its environment: what it said as an
    /// error, and what the kernel's make was given.
    fn run(&self, mut command: Command, llvm: Option<&str>) -> Result<String, String> {
        let built = self.path("source/dmashare.ko");
        let _ = std::fs::remove_file(&built);
        let _ = std::fs::remove_file(self.path("dmashare.ko"));
        command
            .current_dir(self.tree.0.path())
            .env("PATH", self.path("bin"))
            .env_remove("LLVM")
            .env_remove("MAKEFLAGS");
        if let Some(llvm) = llvm {
            command.env("LLVM", llvm);
        }
        let output = command.output().unwrap();
        if !output.status.success() {
            return Err(String::from_utf8(output.stderr).unwrap());
        }
        let built = [built, self.path("dmashare.ko")]
            .into_iter()
            .find(|file| file.exists());
        let text = std::fs::read_to_string(built.unwrap()).unwrap();
        Ok(text.trim().to_owned())
    }

    /// `make -C kmod`, with these arguments, as a user and as DKMS runs it.
    fn make(&self, arguments: &[&str], llvm: Option<&str>) -> Result<String, String> {
        let mut make = Command::new(self.path("bin/make"));
        make.args(["-C", "source"])
            .arg(format!("KDIR={}", self.path("kernel").display()))
            .args(arguments);
        self.run(make, llvm)
    }

    /// `dmashare module build`.
    fn build(&self, llvm: Option<&str>) -> Result<String, String> {
        let mut build = Command::new(env!("CARGO_BIN_EXE_dmashare"));
        build.args(["module", "build", "--source", "source"]);
        build.args(["--kernel-dir", "kernel"]);
        self.run(build, llvm)
    }

    /// Both ways: they are one.
    fn both(&self, llvm: Option<&str>) -> Result<String, String> {
        let made = self.make(&[], llvm);
        let built = self.build(llvm);
        match (&made, &built) {
            (Err(made), Err(built)) => {
                let why = made.lines().find(|line| line.contains("***")).unwrap();
                let why = why.split_once("***").unwrap().1;
                assert!(built.contains(why), "{built} should say {why}");
            }
            _ => assert_eq!(made, built, "{}", self.config),
        }
        made
    }
}

const CONFIGS: [&str; 2] = ["kernel/include/config/auto.conf", "kernel/.config"];

#[test]
fn clang_kernel_is_built_with_llvm() {
    if !has_make() {
        return;
    }
    for config in CONFIGS {
        let clang = Clang::new(config, "CLANG");
        clang.install("bin", "", "");
        clang.install("bin", "-19", "");
        clang.install("opt", "", "");
        let folder = format!("{}/", clang.path("opt").display());
        let by_default = "CC=cc from default";
        for (chosen, given) in [
            (None, "LLVM=1"),
            (Some(""), "LLVM=1"),
            (Some("-19"), "LLVM=-19"),
            (Some(folder.as_str()), &format!("LLVM={folder}")),
        ] {
            let given = Ok(format!("{given} {by_default}"));
            assert_eq!(clang.both(chosen), given);
            let argument = format!("LLVM={}", chosen.unwrap_or_default());
            assert_eq!(clang.make(&[&argument], None), given);
        }
        // DKMS names compiler and linker.
        let dkms = clang.make(&["CC=clang", "LD=ld.lld"], None);
        assert_eq!(dkms.unwrap(), "LLVM=1 CC=clang from command line");
    }
}

#[test]
fn missing_llvm_is_named_before_building() {
    if !has_make() {
        return;
    }
    let clang = Clang::new(CONFIGS[0], "CLANG");
    let none = clang.both(None).unwrap_err();
    for name in LLVM {
        assert!(none.contains(&format!("{name} (package ")), "{none}");
    }
    assert!(none.contains("clang (package clang)"), "{none}");
    assert!(none.contains("ld.lld (package lld)"), "{none}");
    assert!(none.contains("llvm-nm (package llvm)"), "{none}");

    clang.install("bin", "", "ld.lld");
    let linker = clang.both(None).unwrap_err();
    assert!(
        linker.contains("missing: ld.lld (package lld)."),
        "{linker}"
    );
    let version = clang.both(Some("-19")).unwrap_err();
    assert!(version.contains("clang-19 (package clang-19)"), "{version}");
    assert!(
        version.contains("llvm-nm-19 (package llvm-19)"),
        "{version}"
    );
    // One that DKMS names need not be LLVM's.
    assert!(clang.make(&["LD=grep"], None).is_ok());
    // What builds nothing needs none of it.
    clang.write(
        "kernel/Makefile",
        "clean:\n\t@echo cleaned > $(M)/dmashare.ko\n",
    );
    assert_eq!(clang.make(&["clean"], None).unwrap(), "cleaned");
}

#[test]
fn gcc_kernel_is_built_as_ever() {
    if !has_make() {
        return;
    }
    for config in CONFIGS {
        let gcc = Clang::new(config, "GCC");
        assert_eq!(gcc.both(None).unwrap(), "LLVM= CC=cc from default");
        // The user's choice reaches the kernel's Makefile.
        let chosen = gcc.make(&["LLVM=-19"], None).unwrap();
        assert_eq!(chosen, "LLVM=-19 CC=cc from default");
    }
}
