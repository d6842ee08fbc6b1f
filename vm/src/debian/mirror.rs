//! Which mirror the host's own apt uses, and what it trusts it by.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::{Error, run};

/// The keyring of Debian's archive, from the package debian-archive-keyring.
pub(super) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Suites by which a source of Debian proper is known where its name is not
/// the host's own codename.
const SUITES: [&str; 7] = [
    "stable",
    "oldstable",
    "testing",
    "unstable",
    "sid",
    "bookworm",
    "trixie",
];

/// A mirror of Debian, as apt is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mirror {
    /// The address, without a slash at its end: `http://HOST/debian`.
    pub(super) uri: String,
    /// Options of its source that go with it: `Signed-By`, `Trusted`.
    pub(super) options: BTreeMap<String, String>,
}

impl Mirror {
    /// The mirror at `uri`, trusted by Debian's own keys.
    pub(super) fn chosen(uri: &str) -> Self {
        Self {
            uri: uri.trim_end_matches('/').to_owned(),
            options: BTreeMap::new(),
        }
        .with_keyring()
    }

    /// The mirror that the host's apt uses for Debian proper (not for security
    /// or other updates).
    pub(super) fn of_host() -> Result<Self, Error> {
        let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let os = os_release(&os);
        let get = |name: &str| os.get(name).map_or("", String::as_str);
        if get("ID") != "debian" {
            return Err(Error::NoMirror {
                reason: format!("this host is not Debian but \"{}\"", get("ID")),
            });
        }
        let mut command = run::program("apt-get");
        // Answers from the sources alone, before any update too.
        command.args([
            "indextargets",
            "--no-release-info",
            "--format",
            "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(CREATED_BY)|$(SOURCESENTRY)",
        ]);
        let targets = run::run(&mut command)?;
        let target = choose(&targets, get("VERSION_CODENAME")).ok_or(Error::NoMirror {
            reason: "the host's apt sources name none".to_owned(),
        })?;
        let options = target
            .entry
            .rsplit_once(':')
            .and_then(|(file, line)| {
                let text = fs::read_to_string(file).ok()?;
                Some(source_options(Path::new(file), &text, line.parse().ok()?))
            })
            .unwrap_or_default();
        Ok(Self {
            uri: target.uri,
            options,
        }
        .with_keyring())
    }

    fn with_keyring(mut self) -> Self {
        if !self.options.contains_key("Signed-By") && Path::new(KEYRING).exists() {
            self.options.insert("Signed-By".into(), KEYRING.into());
        }
        self
    }
}

/// The `NAME=value` lines of os-release(5).
fn os_release(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
        .collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Target {
    uri: String,
    /// Where it is configured: `FILE:NUMBER`.
    entry: String,
}

/// Chooses among the lines of `apt-get indextargets`: Debian proper by the
/// host's codename, else by a suite's name.
fn choose(targets: &str, codename: &str) -> Option<Target> {
    let usable: Vec<(&str, Target)> = targets
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split('|').collect();
            let [uri, release, "main", "Packages", entry] = fields[..] else {
                return None;
            };
            let target = Target {
                uri: uri.trim_end_matches('/').to_owned(),
                entry: entry.to_owned(),
            };
            (!uri.starts_with("cdrom:")).then_some((release, target))
        })
        .collect();
    let by = |wanted: &dyn Fn(&str) -> bool| usable.iter().position(|(release, _)| wanted(release));
    let index = by(&|release| release == codename).or_else(|| by(&|r| SUITES.contains(&r)))?;
    usable.into_iter().nth(index).map(|(_, target)| target)
}

/// The options that a mirror is trusted by, from the source entry at `number`
/// of `file`: a line of a one-line `.list`, a stanza of a deb822 `.sources`
/// (sources.list(5)).
fn source_options(file: &Path, text: &str, number: usize) -> BTreeMap<String, String> {
    let options = if file.extension().is_some_and(|ext| ext == "sources") {
        stanzas(text)
            .into_iter()
            .nth(number.saturating_sub(1))
            .unwrap_or_default()
    } else {
        let line = text.lines().nth(number.saturating_sub(1)).unwrap_or("");
        let bracketed = line
            .split_once('[')
            .and_then(|(_, rest)| rest.split_once(']'))
            .map_or("", |(options, _)| options);
        bracketed
            .split_whitespace()
            .filter_map(|option| option.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    let mut kept = BTreeMap::new();
    for (name, value) in options {
        for wanted in ["Signed-By", "Trusted"] {
            if name.eq_ignore_ascii_case(wanted) {
                kept.insert(wanted.to_owned(), value.clone());
            }
        }
    }
    kept
}

/// The stanzas of a deb822 text: fields by name, continuation lines kept with
/// their indent, comments left out.
pub(super) fn stanzas(text: &str) -> Vec<BTreeMap<String, String>> {
    let mut stanzas = Vec::new();
    let mut stanza = BTreeMap::new();
    let mut last: Option<String> = None;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if line.trim().is_empty() {
            if !stanza.is_empty() {
                stanzas.push(std::mem::take(&mut stanza));
            }
            last = None;
        } else if line.starts_with([' ', '\t']) {
            if let Some(value) = last.as_ref().and_then(|name| stanza.get_mut(name)) {
                let value: &mut String = value;
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            stanza.insert(name.to_owned(), value.trim().to_owned());
            last = Some(name.to_owned());
        }
    }
    if !stanza.is_empty() {
        stanzas.push(stanza);
    }
    stanzas
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &str = "\
cdrom://[Debian GNU/Linux 12.0.0]/|bookworm|main|Packages|/etc/apt/sources.list:1
http://mirror.example/debian-security/|bookworm-security|main|Packages|/etc/apt/sources.list.d/debian.sources:2
http://mirror.example/debian/|bookworm|contrib|Packages|/etc/apt/sources.list.d/debian.sources:1
http://mirror.example/debian/|bookworm|main|DEP-11|/etc/apt/sources.list.d/debian.sources:1
http://mirror.example/debian/|bookworm|main|Packages|/etc/apt/sources.list.d/debian.sources:1
https://other.example/tool|nodistro|main|Packages|/etc/apt/sources.list.d/tool.list:1
";

    #[test]
    fn the_host_s_own_suite_is_chosen() {
        let target = choose(TARGETS, "bookworm").unwrap();
        assert_eq!(target.uri, "http://mirror.example/debian");
        assert_eq!(target.entry, "/etc/apt/sources.list.d/debian.sources:1");
    }

    #[test]
    fn a_suite_s_other_name_does_too() {
        let targets = "mirror+file:/etc/apt/mirrors.txt/|stable|main|Packages|x.list:3\n";
        let target = choose(targets, "trixie").unwrap();
        assert_eq!(target.uri, "mirror+file:/etc/apt/mirrors.txt");
    }

    #[test]
    fn neither_a_disc_nor_a_stranger_s_archive_is() {
        let lines: Vec<&str> = TARGETS.lines().collect();
        assert_eq!(choose(lines[0], "bookworm"), None);
        assert_eq!(choose(lines[5], "bookworm"), None);
        assert_eq!(choose("", "bookworm"), None);
    }

    #[test]
    fn options_come_from_either_form() {
        let list =
            "# one\ndeb [arch=amd64 signed-by=/k.gpg trusted=yes] http://m/debian stable main\n";
        let options = source_options(Path::new("x.list"), list, 2);
        assert_eq!(options["Signed-By"], "/k.gpg");
        assert_eq!(options["Trusted"], "yes");
        assert_eq!(options.len(), 2);

        let sources = "# c\n\nTypes: deb\nURIs: http://m/a\n\nTypes: deb\n# c\nsigned-by:\n -----BEGIN\n .\n key\nSuites: sid\n";
        let options = source_options(Path::new("x.sources"), sources, 2);
        assert_eq!(options["Signed-By"], "\n -----BEGIN\n .\n key");
        assert!(source_options(Path::new("x.sources"), sources, 1).is_empty());
        assert!(source_options(Path::new("x.sources"), sources, 9).is_empty());
    }

    #[test]
    fn a_chosen_mirror_has_no_slash_at_its_end() {
        assert_eq!(Mirror::chosen("http://m/debian/").uri, "http://m/debian");
    }

    #[test]
    fn os_release_may_be_quoted() {
        let os = os_release("ID=debian\nVERSION_CODENAME=\"bookworm\"\n");
        assert_eq!(os["ID"], "debian");
        assert_eq!(os["VERSION_CODENAME"], "bookworm");
    }
}
