//! The guest kernel's command line: the VM's own words, and those of a project.

use crate::{Arch, Error};

/// Only what is wrong goes to the console: a serial line costs time under
/// emulation. An oops, and a warning too, ends the guest, so that it is found
/// and not waited for.
const WORDS: &str = "loglevel=5 panic=-1 oops=panic panic_on_warn=1 \
    mitigations=off rdinit=/init";

/// `COMMAND_LINE_SIZE` of x86-64 and of arm64, with the NUL at the end. A kernel
/// drops what is longer without a word.
const SIZE: usize = 2048;

const CONSOLE: &str = "the VM reads the kernel's messages, warnings included, from its serial \
    line (`ignore_loglevel` shows more of them)";
const END: &str = "the VM detects a panic, an oops or a warning by the end of the guest";
const INIT: &str = "the guest's init is the VM's agent";

/// Parameters that the VM's verdicts depend on, and why.
const RESERVED: [(&str, &str); 14] = [
    (
        "--",
        "the kernel passes the words after it to init, the VM's agent",
    ),
    ("console", CONSOLE),
    ("console_msg_format", CONSOLE),
    ("init", INIT),
    ("kernel.printk", CONSOLE),
    ("loglevel", CONSOLE),
    ("oops", END),
    ("panic", END),
    ("panic_on_oops", END),
    ("panic_on_warn", END),
    ("printk", CONSOLE),
    ("printk.time", CONSOLE),
    ("quiet", CONSOLE),
    ("rdinit", INIT),
];

/// Checks words to append to the command line, as an option and the settings have them.
pub(crate) fn check(words: &str) -> Result<(), String> {
    if let Some(control) = words.chars().find(|c| c.is_control()) {
        return Err(format!(
            "invalid kernel command line {words:?}: expected words with spaces between them, \
             found the control character {control:?}"
        ));
    }
    if !words.matches('"').count().is_multiple_of(2) {
        return Err(format!(
            "invalid kernel command line {words:?}: expected a closing double quote"
        ));
    }
    for word in split(words) {
        let name = parameter(word);
        if let Some((_, why)) = RESERVED.iter().find(|(reserved, _)| *reserved == name) {
            return Err(format!(
                "reserved kernel parameter {word:?}: {why}; leave it out"
            ));
        }
    }
    Ok(())
}

/// The whole command line: the VM's words, the parameters of modules that are built
/// in, and the words to append, which win over both.
pub(crate) fn whole(arch: Arch, built_in: &str, append: &[String]) -> Result<String, Error> {
    let mut line = format!("{} {WORDS}{built_in}", arch.kernel_words());
    for words in append {
        check(words).map_err(Error::Project)?;
        line.push(' ');
        line.push_str(words.trim());
    }
    match line.len() < SIZE {
        true => Ok(line),
        false => Err(Error::Project(format!(
            "the kernel's command line would have {} bytes: expected at most {}; append {} fewer, \
             or shorten the parameters of modules that are built in",
            line.len(),
            SIZE - 1,
            line.len() + 1 - SIZE,
        ))),
    }
}

/// Words with white space between them, but for that between double quotes.
pub(crate) fn split(words: &str) -> Vec<&str> {
    let mut quoted = false;
    let parts = words.split(|c: char| {
        quoted ^= c == '"';
        c.is_whitespace() && !quoted
    });
    parts.filter(|word| !word.is_empty()).collect()
}

/// The name of a word's parameter, as the kernel compares it: `-` is `_`, and a
/// `sysctl.kernel.` parameter is the one of that name.
fn parameter(word: &str) -> String {
    let name = word.trim_start_matches('"');
    if name == "--" {
        return name.into();
    }
    let name = name.split(['=', '"']).next().unwrap_or_default();
    let name = name.replace('-', "_").replace('/', ".");
    match name.strip_prefix("sysctl.kernel.") {
        Some(name) => name.into(),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(append: &[&str]) -> Result<String, String> {
        let append: Vec<String> = append.iter().map(ToString::to_string).collect();
        whole(Arch::X86_64, " vgem.x=1", &append).map_err(|error| {
            assert_eq!(error.exit_status(), 2);
            error.to_string()
        })
    }

    #[test]
    fn words_split_outside_of_quotes() {
        assert_eq!(split(" a=1  b=\"x y\" c "), ["a=1", "b=\"x y\"", "c"]);
        assert!(split("").is_empty());
    }

    #[test]
    fn appended_words_come_last() {
        let given = line(&["mitigations=auto ", "a=\"b c\""]).unwrap();
        let own = " rdinit=/init vgem.x=1 mitigations=auto a=\"b c\"";
        assert!(given.starts_with("console=ttyS0 ") && given.ends_with(own));
    }

    #[test]
    fn reserved_parameters_are_refused() {
        for word in [
            "console=tty0",
            "\"panic=5\"",
            "panic-on-warn=0",
            "quiet",
            "loglevel=3",
            "printk.time=0",
            "sysctl.kernel.printk=1",
            "sysctl/kernel/panic_on_oops=0",
            "rdinit=/bin/sh",
            "--",
        ] {
            let error = line(&[&format!("swiotlb=force {word}")]).unwrap_err();
            let shown = format!("reserved kernel parameter {word:?}: ");
            assert!(error.starts_with(&shown), "{error}");
        }
        for word in [
            "panic_print=1",
            "sysctl.vm.panic_on_oom=1",
            "x=quiet",
            "--x",
        ] {
            assert!(line(&[word]).is_ok(), "{word}");
        }
    }

    #[test]
    fn malformed_words_are_refused() {
        for (words, expected) in [
            ("a\0b", "control character '\\0'"),
            ("a\nb", "control character '\\n'"),
            ("a=\"b", "closing double quote"),
        ] {
            let error = line(&[words]).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn overlong_line_is_refused() {
        let room = SIZE - 2 - line(&[]).unwrap().len();
        assert_eq!(line(&[&"x".repeat(room)]).unwrap().len(), SIZE - 1);
        let error = line(&[&"x".repeat(room + 3)]).unwrap_err();
        assert!(error.contains("would have 2050 bytes: expected at most 2047"));
        assert!(error.contains("append 3 fewer"), "{error}");
    }
}
