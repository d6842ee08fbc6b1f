//! The Rust side of the kernel module's interface is what its header says: made
//! from it, and laid out as a C compiler lays it out.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use dmashare_tests::uapi::to_rust;

/// The very file of the library, whose own modules are its own affair.
#[path = "../../userspace/src/sys/module/uapi.rs"]
mod uapi;

fn workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn header() -> String {
    std::fs::read_to_string(workspace("kmod/dmashare_uapi.h")).unwrap()
}

#[test]
fn the_rust_file_is_made_from_the_header() {
    let made = to_rust(&header()).unwrap_or_else(|error| panic!("kmod/dmashare_uapi.h: {error}"));
    let file = workspace("userspace/src/sys/module/uapi.rs");
    if std::env::var_os("DMASHARE_UPDATE").is_some() {
        std::fs::write(&file, made).unwrap();
        return;
    }
    let there = std::fs::read_to_string(&file).unwrap();
    let differ = made
        .lines()
        .zip(there.lines())
        .position(|(made, there)| made != there);
    assert!(
        made == there,
        "userspace/src/sys/module/uapi.rs is not what kmod/dmashare_uapi.h says, from line {} on: \
         run DMASHARE_UPDATE=1 cargo test -p dmashare-tests --test host_uapi, and see whether \
         what uses it still does the right thing",
        differ.unwrap_or(made.lines().count().min(there.lines().count())) + 1,
    );
}

/// Where Debian keeps asm/ for 64 bits. The kernel exports the same one for 32,
/// which the compiler would look for in a folder that few hosts have.
fn kernel_headers(compiler: &str) -> Vec<String> {
    let asked = Command::new(compiler).arg("-print-multiarch").output();
    let triple = asked.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    match triple {
        Ok(triple) if !triple.is_empty() => {
            vec!["-idirafter".to_owned(), format!("/usr/include/{triple}")]
        }
        _ => Vec::new(),
    }
}

/// Asserts each value of the Rust side in C, for pointers of this width.
/// `None` where this compiler cannot build for it.
fn compile(width: &str, more: &str) -> Option<Result<(), String>> {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("uapi.c");
    let run = |text: &str| {
        std::fs::write(&source, text).unwrap();
        Command::new(&compiler)
            .args(kernel_headers(&compiler))
            .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"])
            .arg(width)
            .arg("-I")
            .arg(workspace("kmod"))
            .arg(&source)
            .output()
            .unwrap_or_else(|error| panic!("{compiler}: {error}; install a C compiler"))
    };
    if !run("#include <stddef.h>\n#include <linux/ioctl.h>\n")
        .status
        .success()
    {
        return None;
    }
    let mut text = String::from("#include <stddef.h>\n#include \"dmashare_uapi.h\"\n");
    for (c, rust) in uapi::LAYOUT {
        let _ = writeln!(
            text,
            "_Static_assert({c} == {rust}u, \"{c} is {rust} in Rust\");"
        );
    }
    text.push_str(more);
    let output = run(&text);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Some(if output.status.success() {
        Ok(())
    } else {
        Err(said)
    })
}

#[test]
fn c_has_the_same_layout_and_numbers() {
    assert!(uapi::LAYOUT.len() > 10);
    compile("-m64", "")
        .expect("this compiler builds for 64 bits")
        .unwrap();
    match compile(
        "-m32",
        "_Static_assert(sizeof(void *) == 4, \"32 bits\");\n",
    ) {
        Some(same) => same.unwrap(),
        // No structure has a hole, or the reader would have refused it: its
        // fields lie where their sizes put them, wherever it is compiled.
        None => eprintln!("skipped: this C compiler has no headers for -m32"),
    }
}

/// A check that cannot fail would pass above, too.
#[test]
fn a_difference_would_be_seen() {
    let wrong = "_Static_assert(sizeof(struct dmashare_alloc) == 1, \"planted\");\n";
    let said = compile("-m64", wrong).unwrap().unwrap_err();
    assert!(said.contains("planted"), "{said}");
}

/// Each of these would be translated into something else than C has.
#[test]
fn what_is_not_understood_is_refused() {
    let header = header();
    let same = header.replace("BELOW_4G 0x8", "BELOW_4G (1 << 3)");
    let same = to_rust(&same).unwrap();
    assert!(same.contains("BELOW_4G: u32 = 1 << 3;"), "{same}");
    let structure = "struct dmashare_range {\n";
    for (from, to, problem) in [
        ("\t__s32 memfd;", "\tint memfd;", "not a type"),
        ("\t__s32 memfd;", "\t__u8 *memfd;", "not one name"),
        ("\t__s32 memfd;", "\t__s32 memfd : 3;", "not one name"),
        ("\t__s32 memfd;", "\t__s32 memfd[1];", "not one name"),
        (
            "\t__s32 memfd;\n\t__u32 reserved;",
            "\t__s32 memfd;\n\t__u64 reserved;",
            "a hole",
        ),
        ("\t__u64 offset;\n", "", "not what the comment"),
        (
            " * @offset: first",
            " * @place: first",
            "not what the comment",
        ),
        (
            structure,
            "struct __attribute__((packed)) dmashare_range {\n",
            "not struct",
        ),
        (structure, "union dmashare_range {\n", "not in the subset"),
        ("BELOW_4G 0x8", "BELOW_4G (1 << 32)", "neither a number"),
        ("BELOW_4G 0x8", "BELOW_4G (1 | 2)", "neither a number"),
        ("MAX_RANGES 1024", "MAX_RANGES 010", "neither a number"),
        (
            "MAX_RANGES 1024",
            "MAX_RANGES 4294967296",
            "neither a number",
        ),
        (
            "MAX_RANGES 1024",
            "MAX_RANGES \\\n\t1024",
            "goes on in the next",
        ),
        (
            "#define DMASHARE_MEMORY_CONTIGUOUS",
            "\n#define DMASHARE_MEMORY_CONTIGUOUS",
            "no plain comment",
        ),
        ("ALLOC_SIZE_V0 32", "ALLOC_SIZE_V0 33", "expected 1 to 32"),
        ("ALLOC_SIZE_V0 32", "ALLOC_SIZE_V0 0", "expected 1 to 32"),
        ("ALLOC_SIZE_V0 32", "WRAP_SIZE_V0 32", "ALLOC_SIZE_V0 here"),
        ("ALLOC_SIZE_V0 32", "ALLOC_LENGTH 32", "no plain comment"),
        (
            "/* Most ranges in one DMASHARE_IOCTL_WRAP. */",
            "#define DMASHARE_ALLOC_SIZE_V0 32",
            "no plain comment",
        ),
        (
            "_IO(DMASHARE_IOCTL_TYPE, 0x01)",
            "_IOR(DMASHARE_IOCTL_TYPE, 0x01, int)",
            "expected _IO(",
        ),
        (
            "_IO(DMASHARE_IOCTL_TYPE, 0x01)",
            "_IO(DMASHARE_IOCTL_TYPE, 0x101)",
            "8 bits second",
        ),
        (
            "_IO(DMASHARE_IOCTL_TYPE, 0x01)",
            "_IO(0xDA, 0x01)",
            "from above first",
        ),
        (
            "_IO(DMASHARE_IOCTL_TYPE, 0x01)",
            "_IO(DMASHARE_OTHER, 0x01)",
            "from above first",
        ),
        ("IOCTL_TYPE 0xDA", "IOCTL_TYPE 0x1DA", "8 bits from above"),
        (
            "#include <linux/types.h>",
            "#include <stdint.h>",
            "not in the subset",
        ),
        ("#include <linux/types.h>", "#if 1", "not in the subset"),
        (
            "#define DMASHARE_MAX_RANGES",
            "#define MAX_RANGES",
            "DMASHARE_",
        ),
        (
            "/**\n * DMASHARE_IOCTL_INFO",
            "/**\n * DMASHARE_IOCTL_OTHER",
            "no kernel-doc",
        ),
        ("#endif /*", "/*", "ends within"),
    ] {
        assert!(
            header.contains(from),
            "{from:?} is not in the header any more"
        );
        let error = to_rust(&header.replacen(from, to, 1)).expect_err(to);
        assert!(error.problem.contains(problem), "{to:?}: {error}");
    }
}
