//! What a module's file says of itself: modinfo(8).

use std::fs::File;
use std::io::Read as _;

/// The parameters of the module of this release, where there is no file to ask.
const KNOWN: [&str; 7] = [
    "heap",
    "max_buffer_mb",
    "max_file_mb",
    "max_total_mb",
    "max_udmabuf_mb",
    "max_user_mb",
    "standard_nodes",
];

/// What matters for loading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Modinfo {
    /// The parameters that it takes.
    pub(super) parameters: Vec<String>,
    /// The release of the kernel that it was built for.
    pub(super) release: Option<String>,
}

impl Modinfo {
    /// What is known without a file.
    pub(super) fn known() -> Modinfo {
        Modinfo {
            parameters: KNOWN.map(str::to_owned).into(),
            release: None,
        }
    }

    /// Of a file; what is known of any where it cannot be read so, as when it is
    /// compressed.
    pub(super) fn of(mut file: &File) -> Modinfo {
        let mut module = Vec::new();
        // What could not be read is refused when it is loaded.
        let _ = file.read_to_end(&mut module);
        Modinfo::parse(&module).unwrap_or_else(Modinfo::known)
    }

    /// The section .modinfo is strings of the form NAME=VALUE with a NUL behind
    /// each, and nothing else in a module has these names in front.
    fn parse(module: &[u8]) -> Option<Modinfo> {
        let strings = || module.split(|byte| *byte == 0);
        let values = |name: &'static [u8]| {
            strings().filter_map(move |string| {
                let value = string.strip_prefix(name)?.strip_prefix(b"=")?;
                std::str::from_utf8(value).ok()
            })
        };
        // vermagic=RELEASE SMP preempt …
        let vermagic = values(b"vermagic").next()?;
        Some(Modinfo {
            // parmtype=NAME:TYPE
            parameters: values(b"parmtype")
                .filter_map(|value| Some(value.split_once(':')?.0.to_owned()))
                .collect(),
            release: vermagic.split_whitespace().next().map(str::to_owned),
        })
    }

    /// Refuses a parameter that it has not, with the one that was likely meant.
    pub(super) fn check(&self, parameter: &str) -> Result<(), String> {
        // The kernel takes both for the same.
        let asked = parameter.replace('-', "_");
        if self.parameters.contains(&asked) {
            return Ok(());
        }
        let nearest = self
            .parameters
            .iter()
            .min_by_key(|name| distance(name, &asked));
        let near = nearest.filter(|name| distance(name, &asked) <= 1 + asked.len() / 3);
        Err(match near {
            Some(name) => {
                format!("{parameter:?} is no parameter of the module; did you mean {name}?")
            }
            None => format!(
                "{parameter:?} is no parameter of the module; it has {}",
                self.parameters.join(", ")
            ),
        })
    }
}

/// How many letters have to be put in, taken out or changed: Levenshtein's.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (at, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, other) in to.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: &[u8] = b"\x7fELF\0\0version=0.1.0\0parm=heap:Add a heap\0parmtype=heap:bool\0\
        parmtype=max_buffer_mb:uint\0vermagic=6.1.0-18-amd64 SMP preempt mod_unload \0rest";

    #[test]
    fn a_file_says_what_it_takes_and_what_for() {
        let modinfo = Modinfo::parse(MODULE).unwrap();
        assert_eq!(modinfo.parameters, ["heap", "max_buffer_mb"]);
        assert_eq!(modinfo.release.as_deref(), Some("6.1.0-18-amd64"));
        assert_eq!(Modinfo::parse(b"\xfd7zXZ\0"), None);
        let empty = File::open("/dev/null").unwrap();
        assert_eq!(Modinfo::of(&empty), Modinfo::known());
    }

    #[test]
    fn a_slip_is_told_from_a_guess() {
        let modinfo = Modinfo::known();
        for right in ["heap", "standard-nodes", "max_file_mb"] {
            assert_eq!(modinfo.check(right), Ok(()));
        }
        for (wrong, meant) in [
            ("standard_node", "mean standard_nodes"),
            ("max_bufer_mb", "mean max_buffer_mb"),
            ("haep", "mean heap"),
            ("size_limit_mb", "heap, max_buffer_mb, "),
            ("", "it has"),
        ] {
            let said = modinfo.check(wrong).unwrap_err();
            assert!(said.contains(meant), "{wrong}: {said}");
        }
    }

    #[test]
    fn distances() {
        for (from, to, expected) in [
            ("", "", 0),
            ("", "ab", 2),
            ("kitten", "sitting", 3),
            ("ab", "ba", 2),
        ] {
            assert_eq!(distance(from, to), expected);
            assert_eq!(distance(to, from), expected);
        }
    }
}
