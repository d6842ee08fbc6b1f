//! Entries of `kernels` in a project's settings.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use dmashare_vm::debian::{Kernel, LOCK_FILE, Root};
use serde_json::Value;
use tempfile::TempDir;

use common::{PACKAGES, debian, kernel_name};

/// A project with two test programs for the guest, and these entries.
fn project(kernels: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let manifest = format!(
        "[package]\nname = \"stranger\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n\
         [workspace.metadata.vm]\nkernel = \"strict\"\nkernels = [{kernels}]\n\
         packages = {PACKAGES:?}\n[package.metadata.vm]\nguest-tests = [\"one\", \"two\"]\n"
    );
    let write = |file: &str, text: &str| {
        let file = folder.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    };
    write("Cargo.toml", &manifest);
    write("src/lib.rs", "");
    write(
        "tests/one.rs",
        "#[test]\nfn is_strict() {\n\
         let line = std::fs::read_to_string(\"/proc/cmdline\").unwrap();\n\
         assert!(line.ends_with(\" test.word=1\\n\"), \"{line}\");\n\
         let memory = std::fs::read_to_string(\"/proc/meminfo\").unwrap();\n\
         let total = memory.split_whitespace().nth(1).unwrap();\n\
         assert!(total.parse::<u64>().unwrap() < 640 << 10, \"{memory}\");\n}\n",
    );
    write("tests/two.rs", "#[test]\nfn does_not_run() { panic!() }\n");
    folder
}

/// The entries of such a project: one that runs, and one that has to be named.
fn entries() -> String {
    let kernel = kernel_name();
    format!(
        "{{ kernel = \"{kernel}\", name = \"strict\", append = \"test.word=1\", memory = 640, \
         guest-tests = [\"one\"] }}, \
         {{ kernel = \"{kernel}\", name = \"named\", default = false, guest-tests = [\"three\"] }}"
    )
}

/// `cargo vm` in the project in `folder`, whose mirror cannot be reached.
fn cargo_vm(folder: &Path, arguments: &[&str]) -> Output {
    // Both in the cache, by the same names as in the project.
    Kernel::prepare(debian(), &kernel_name()).unwrap();
    Root::prepare(debian(), "trixie", &PACKAGES).unwrap();
    Command::new(env!("CARGO_BIN_EXE_cargo-vm"))
        .args(["--mirror", "http://127.0.0.1:9/debian"])
        .args(arguments)
        .current_dir(folder)
        .env_remove("CARGO_TARGET_DIR")
        .output()
        .unwrap()
}

fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = cargo_vm(folder, arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    error
}

#[test]
fn entry_runs_its_programs_and_reports_its_name() {
    let project = project(&entries());
    let folder = project.path();
    let ran = cargo_vm(folder, &["test", "--guest-only", "--cold"]);
    let shown = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success(), "{shown}");
    assert!(
        shown.contains("ok    strict stranger/one is_strict"),
        "{shown}"
    );
    let read = |file: &str| fs::read_to_string(folder.join("target/vm").join(file)).unwrap();
    let results: Value = serde_json::from_str(&read("results.json")).unwrap();
    let [kernel] = results["kernels"].as_array().unwrap().as_slice() else {
        panic!("{results}");
    };
    assert_eq!(kernel["name"], "strict");
    assert_eq!(kernel["kernel"], kernel_name());
    assert_eq!(kernel["append"], "test.word=1");
    let [test] = results["tests"].as_array().unwrap().as_slice() else {
        panic!("{results}");
    };
    assert_eq!(
        (&test["kernel"], &test["test"]),
        (&"strict".into(), &"is_strict".into())
    );
    assert!(read("junit.xml").contains("name=\"strict stranger/one\""));
    assert!(read("strict/dmesg.txt").contains("test.word=1"));

    // What is not there to run is no success.
    let error = refused(folder, &["test", "--guest-only", "--kernel", "named"]);
    assert!(
        error.contains("kernel named: `guest-tests` names three: "),
        "{error}"
    );
}

#[test]
fn entry_name_stands_for_its_kernel() {
    let project = project(&entries());
    let folder = project.path();
    let run = cargo_vm(folder, &["run", "--cold", "--", "cat", "/proc/cmdline"]);
    let line = String::from_utf8(run.stdout).unwrap();
    assert!(line.ends_with(" test.word=1\n"), "{line}");

    let locked = cargo_vm(folder, &["kernel", "lock", "named"]);
    assert!(locked.status.success(), "{locked:?}");
    let name = kernel_name();
    let pins = fs::read_to_string(folder.join(LOCK_FILE)).unwrap();
    assert!(pins.contains(&format!("name = \"{name}\"")), "{pins}");
    assert!(!pins.contains("named"), "{pins}");
    let identity = Kernel::prepare(debian(), &name).unwrap().identity();
    for arguments in [&["kernel", "fetch"][..], &["kernel", "fetch", "strict"]] {
        let fetched = cargo_vm(folder, arguments);
        let fetched = String::from_utf8(fetched.stdout).unwrap();
        assert_eq!(fetched, format!("{name}: {identity}\n"));
    }
    let error = refused(folder, &["kernel", "fetch", "--update", "strict"]);
    assert!(
        error.contains(&format!("kernel {name} is pinned")),
        "{error}"
    );
    let listed = cargo_vm(folder, &["kernel", "list", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let pinned = listed.as_array().unwrap().iter();
    let pinned = pinned.filter(|kernel| kernel["pinned"] == true);
    let names: Vec<&str> = pinned
        .map(|kernel| kernel["name"].as_str().unwrap())
        .collect();
    for name in [&name, "strict", "named"] {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[test]
fn malformed_entry_is_refused() {
    for (entry, expected) in [
        (
            "{ kernel = \"7.2\", apend = \"\" }",
            "unknown field `apend`",
        ),
        (
            "{ kernel = \"7.2\", append = \"quiet\" }",
            "reserved kernel parameter \"quiet\"",
        ),
        (
            "\"7.2\", { kernel = \"7.2\", memory = 640 }",
            "two entries have the name \"7.2\"",
        ),
    ] {
        let error = refused(project(entry).path(), &["kernel", "list"]);
        let place = "cargo vm: Cargo.toml: [workspace.metadata.vm]: kernels: ";
        assert!(
            error.starts_with(place) && error.contains(expected),
            "{error}"
        );
    }
}
