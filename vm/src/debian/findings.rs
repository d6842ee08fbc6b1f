//! What compilers, sparse, modpost and checkpatch say, read for what concerns a
//! module's own files.

use std::path::Path;

/// What was found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Findings {
    /// In the module's own files: each with its place first, and with the lines
    /// that explain it.
    pub own: Vec<String>,
    /// How many there were in the kernel's headers: nobody's to mend here.
    pub elsewhere: usize,
    /// Whether sparse stumbled over one of those: it keeps warnings to itself
    /// then, and there may be more.
    pub incomplete: bool,
}

/// What a line is to a finding.
enum Line {
    /// Its first.
    First,
    /// One more about it.
    More,
    /// None of its.
    Other,
}

/// Reads what `make` said when it built the module in `source_dir`, of `files`.
pub(super) fn of_build(log: &str, source_dir: &Path, files: &[String]) -> Findings {
    let mut findings = Findings::default();
    let mut open = false;
    for line in log.lines() {
        let own = own_place(line, source_dir, files);
        let told = ["warning: ", "error: "].iter().any(|w| line.contains(w));
        let is = match own {
            _ if line.contains("WARNING: modpost: ") || line.contains("ERROR: modpost: ") => {
                Line::First
            }
            Some(_) if told => Line::First,
            Some(_) => Line::More,
            // The code with its caret; not Kbuild's own list of what it does.
            None if line.starts_with(' ') && !is_step(line) => Line::More,
            None => {
                let elsewhere = told && place(line).is_some();
                findings.elsewhere += usize::from(elsewhere);
                findings.incomplete |= elsewhere && line.contains("error: ");
                Line::Other
            }
        };
        let text = own.map_or(line.to_owned(), |rest| {
            format!("{}/{rest}", source_dir.display())
        });
        open = add(&mut findings.own, open, &is, &text);
    }
    findings
}

/// Reads what `checkpatch.pl --emacs` said about files of `source_dir`.
pub(super) fn of_checkpatch(log: &str, source_dir: &Path, files: &[String]) -> Findings {
    let mut findings = Findings::default();
    let mut open = false;
    for line in log.lines() {
        let is = match own_place(line, source_dir, files) {
            Some(_) => Line::First,
            // It says its place twice.
            None if line.is_empty() || line.starts_with('#') => Line::Other,
            None => Line::More,
        };
        // The place is only said again: what follows is still of the same.
        let again = open && line.starts_with('#');
        let text = match is {
            Line::First => format!("{}/{line}", source_dir.display()),
            _ => line.to_owned(),
        };
        open = add(&mut findings.own, open, &is, &text) || again;
    }
    findings.own.retain(|finding| !is_of_version(finding));
    findings
}

/// The functions that gcc calls for a division or a remainder of 64-bit numbers
/// on 32-bit processors; kernels do not have them.
const DIVISION: [&str; 8] = [
    "__aeabi_ldivmod",
    "__aeabi_uldivmod",
    "__divdi3",
    "__divmoddi4",
    "__moddi3",
    "__udivdi3",
    "__udivmoddi4",
    "__umoddi3",
];

/// Adds to findings about a missing function for 64-bit divisions what to do.
pub(super) fn explain_division(findings: &mut Findings) {
    for finding in &mut findings.own {
        let is_missing = |name: &str| finding.contains(&format!("\"{name}\" ["));
        if DIVISION.iter().any(|name| is_missing(name)) {
            finding.push_str(
                "\n    64-bit division or remainder: use div_u64(), div64_u64() or \
                 div_u64_rem() of linux/math64.h",
            );
        }
    }
}

/// Whether it is about a condition on the kernel's version, which a module that
/// is not in the kernel cannot do without.
fn is_of_version(finding: &str) -> bool {
    finding.contains(":LINUX_VERSION_CODE:")
        || (finding.contains(":CONSTANT_COMPARISON:") && finding.contains("LINUX_VERSION_CODE"))
}

/// Adds a line to the last finding, or begins one; whether one is open.
fn add(all: &mut Vec<String>, open: bool, is: &Line, text: &str) -> bool {
    match (is, all.last_mut()) {
        (Line::First, _) => all.push(text.to_owned()),
        (Line::More, Some(last)) if open => {
            last.push('\n');
            last.push_str(text);
        }
        _ => return false,
    }
    true
}

/// The line without the folder before it, where it begins with a place in one of
/// the module's files.
fn own_place<'l>(line: &'l str, source_dir: &Path, files: &[String]) -> Option<&'l str> {
    let rest = line
        .strip_prefix(&*source_dir.to_string_lossy())
        .and_then(|rest| rest.strip_prefix('/'))
        .unwrap_or(line);
    let rest = rest.strip_prefix("./").unwrap_or(rest);
    let path = place(rest)?;
    files.iter().any(|file| file == path).then_some(rest)
}

/// The path of a line that begins with `PATH:NUMBER:`.
fn place(line: &str) -> Option<&str> {
    let (path, rest) = line.split_once(':')?;
    let (number, _) = rest.split_once(':')?;
    let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    (is_number && !path.starts_with(' ')).then_some(path)
}

/// `  CC [M]  main.o`
fn is_step(line: &str) -> bool {
    line.strip_prefix("  ")
        .and_then(|rest| rest.split_whitespace().next())
        .is_some_and(|word| word.len() > 1 && word.bytes().all(|b| b.is_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Vec<String> {
        vec!["main.c".to_owned(), "sub/a.h".to_owned()]
    }

    #[test]
    fn a_build_s_words_are_sorted_by_whose_files_they_are_about() {
        let log = "\
  CC [M]  main.o
In file included from main.c:3:
./include/linux/x.h:7:1: warning: 'static' is old
    7 | int static x;
main.c: In function 'f':
main.c:12:6: warning: unused variable 'x' [-Wunused-variable]
   12 |  int x;
      |      ^
  CHECK   main.c
/k/mod/main.c:20:9: warning: incorrect type in argument 1
/k/mod/main.c:20:9:    expected void *
/k/mod/sub/a.h:1:1: error: what is this
  MODPOST Module.symvers
WARNING: modpost: missing MODULE_DESCRIPTION() in main.o
";
        let findings = of_build(log, Path::new("/k/mod"), &files());
        assert_eq!(
            findings.own,
            [
                "/k/mod/main.c:12:6: warning: unused variable 'x' [-Wunused-variable]\n   \
                 12 |  int x;\n      |      ^",
                "/k/mod/main.c:20:9: warning: incorrect type in argument 1\n\
                 /k/mod/main.c:20:9:    expected void *",
                "/k/mod/sub/a.h:1:1: error: what is this",
                "WARNING: modpost: missing MODULE_DESCRIPTION() in main.o",
            ]
        );
        assert_eq!(findings.elsewhere, 1);
        assert!(!findings.incomplete);
    }

    #[test]
    fn missing_division_names_the_remedy() {
        let said = |function: &str| {
            let log = format!("ERROR: modpost: \"{function}\" [x.ko] undefined!\n");
            let mut findings = of_build(&log, Path::new("/k/mod"), &files());
            explain_division(&mut findings);
            findings.own.remove(0)
        };
        assert!(said("__udivdi3").contains("use div_u64()"));
        assert!(said("__aeabi_ldivmod").contains("linux/math64.h"));
        assert_eq!(
            said("my__udivdi3"),
            "ERROR: modpost: \"my__udivdi3\" [x.ko] undefined!"
        );
    }

    #[test]
    fn a_checker_that_stumbled_is_not_believed() {
        let log = "/usr/include/x.h:67:16: error: got __typeof_unqual__\n";
        let findings = of_build(log, Path::new("/k/mod"), &files());
        assert!(findings.own.is_empty() && findings.incomplete);
    }

    #[test]
    fn checkpatch_s_words_have_their_place_once() {
        let log = "\
main.c:4: CHECK:LINE_SPACING: Please don't use multiple blank lines
#4: FILE: main.c:4:
+
+

sub/a.h:1: WARNING:SPDX_LICENSE_TAG: Missing tag
#1: FILE: sub/a.h:1:
+int x;

main.c:9: WARNING:CONSTANT_COMPARISON: Comparisons should place the constant on the right
#9: FILE: main.c:9:
+#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
";
        let findings = of_checkpatch(log, Path::new("kmod"), &files());
        assert_eq!(
            findings.own,
            [
                "kmod/main.c:4: CHECK:LINE_SPACING: Please don't use multiple blank lines\n+\n+",
                "kmod/sub/a.h:1: WARNING:SPDX_LICENSE_TAG: Missing tag\n+int x;",
            ]
        );
    }
}
