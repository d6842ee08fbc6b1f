//! What the guest's dynamic loader says of a program that it cannot start, turned
//! into what to do about it.

use dmashare_vm_init::Exit;

/// The loader speaks first, and in one line each.
const HEAD: usize = 4096;

/// The statuses that glibc's loader ends with.
const STATUSES: [i32; 2] = [1, 127];

/// The first words on a program's standard error, as long as they can be the
/// loader's.
pub(crate) struct Complaint {
    program: String,
    head: Vec<u8>,
}

impl Complaint {
    pub(crate) fn of(program: &str) -> Complaint {
        Complaint {
            program: program.to_owned(),
            head: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let room = HEAD - self.head.len();
        self.head.extend(&bytes[..bytes.len().min(room)]);
    }

    /// Why it did not start, if it was the loader that ended it.
    pub(crate) fn meaning(&self, exit: &Exit) -> Option<String> {
        if !matches!(exit, Exit::Code(status) if STATUSES.contains(status)) {
            return None;
        }
        let head = String::from_utf8_lossy(&self.head);
        // A program's own words do not begin with its path as we gave it.
        let said = head.strip_prefix(&self.program)?.strip_prefix(": ")?;
        let missing = said
            .lines()
            .filter_map(|line| line.split_once("version `")?.1.split_once("' not found"))
            .map(|(version, _)| version)
            .max_by_key(|version| numbers(version));
        if let Some(version) = missing {
            return Some(format!(
                "it was built on a newer system than the guest's: the guest has no {version}; \
                 choose a newer `suite` in [workspace.metadata.vm], or build it statically, for \
                 a musl target"
            ));
        }
        let library = said
            .strip_prefix("error while loading shared libraries: ")?
            .split_once(':')?
            .0;
        Some(format!(
            "the guest has no {library}; add the package that has it to `packages` in \
             [workspace.metadata.vm]"
        ))
    }
}

/// `GLIBC_2.38` is after `GLIBC_2.4`.
fn numbers(version: &str) -> Vec<u32> {
    let digits = version.split(|c: char| !c.is_ascii_digit());
    digits.filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(said: &str, status: i32) -> Option<String> {
        let mut complaint = Complaint::of("/t/prog");
        complaint.push(said.as_bytes());
        complaint.meaning(&Exit::Code(status))
    }

    #[test]
    fn knows_the_loader_by_its_words() {
        let old = "/t/prog: /lib/libc.so.6: version `GLIBC_2.4' not found (required by /t/prog)\n\
                   /t/prog: /lib/libc.so.6: version `GLIBC_2.39' not found (required by /t/prog)\n";
        assert!(meaning(old, 1).unwrap().contains("no GLIBC_2.39;"));
        let lacks = "/t/prog: error while loading shared libraries: libegl.so.1: cannot open \
                     shared object file: No such file or directory\n";
        assert!(meaning(lacks, 127).unwrap().contains("no libegl.so.1;"));
    }

    #[test]
    fn a_program_s_own_words_are_its_own() {
        for said in [
            "",
            "usage: version `GLIBC_2.39' not found",
            "/t/prog: no such option\n",
        ] {
            assert_eq!(meaning(said, 1), None, "{said}");
        }
        let lacks = "/t/prog: error while loading shared libraries: a.so: gone\n";
        assert_eq!(meaning(lacks, 0), None);
    }
}
