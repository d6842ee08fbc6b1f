//! What cargo and nextest set for the program that they run.
//!
//! There is no list of it: variables come from `[env]` in cargo's configuration, from
//! build scripts, from nextest's setup scripts. So it is found out what they had, and
//! what they gave on.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::Error;
use crate::project::{Project, cargo};

/// Variables by their names.
pub(crate) type Variables = BTreeMap<OsString, OsString>;

/// A process, as /proc tells of it.
struct Ancestor {
    pid: u32,
    parent: u32,
    /// Cargo, or one of its commands, as cargo-nextest is.
    is_cargo: bool,
}

impl Ancestor {
    fn find(pid: u32) -> Option<Ancestor> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may have spaces and parentheses in it.
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?;
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
        let name = program.as_deref().and_then(Path::file_name);
        Some(Ancestor {
            pid,
            parent: parent.parse().ok()?,
            is_cargo: name.is_some_and(|name| name.to_string_lossy().starts_with("cargo")),
        })
    }

    /// The parts of a file of it that ends each with a zero byte.
    fn parts(&self, file: &str) -> Vec<OsString> {
        let bytes = std::fs::read(format!("/proc/{}/{file}", self.pid)).unwrap_or_default();
        zero_ended(&bytes).collect()
    }

    /// What it was started with, which is not what it has set itself since.
    fn environment(&self) -> Variables {
        variables(self.parts("environ"))
    }

    /// Whether it does nothing but run us, as `cargo vm` does where that is an alias of
    /// `cargo run`: its last words are ours.
    fn launches_us(&self) -> bool {
        let ours: Vec<OsString> = std::env::args_os().skip(1).collect();
        self.is_cargo && !ours.is_empty() && self.parts("cmdline").ends_with(&ours)
    }
}

/// The environment that a runner's program is to have, and what cargo had itself, or
/// `None` where no cargo started us.
pub(crate) fn given() -> (Variables, Option<Variables>) {
    let mut given: Variables = std::env::vars_os().collect();
    let mut next = std::os::unix::process::parent_id();
    if let Some(parent) = Ancestor::find(next).filter(Ancestor::launches_us) {
        given = parent.environment();
        next = parent.parent;
    }
    // There may be a shell or two in between.
    while let Some(process) = Ancestor::find(next) {
        if process.is_cargo {
            return (given, Some(process.environment()));
        }
        next = process.parent;
    }
    (given, None)
}

/// Those of `given` that are not so in `before`.
pub(crate) fn set(given: Variables, before: &Variables) -> Variables {
    let is_set = |(name, value): &(OsString, OsString)| before.get(name) != Some(value);
    given.into_iter().filter(is_set).collect()
}

/// As text, which is what a guest's programs get.
pub(crate) fn texts(variables: Variables) -> Vec<(String, String)> {
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    variables.into_iter().filter_map(text).collect()
}

/// What cargo sets for one test program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    /// The folder that it runs in.
    pub(crate) folder: PathBuf,
    /// All of its environment.
    pub(crate) all: Variables,
    /// What cargo set of it.
    pub(crate) set: Variables,
}

/// Writes down what it is given instead of running the program.
const RECORDER: &str =
    r#"{ printf '%s\0%s\0' "$1" "$(pwd -P)"; cat /proc/$$/environ; } >"$VM_RECORD/$$""#;

/// Where the recorder writes.
const RECORD: &str = "VM_RECORD";

/// What `cargo test` with these arguments gives to each of the test programs, by their
/// paths with links resolved. They are built before, and do not run.
///
/// # Errors
/// [`Error::Project`] where cargo does not run them.
pub(crate) fn of_tests(
    project: &Project,
    arguments: &[&str],
) -> Result<HashMap<PathBuf, Given>, Error> {
    let config = |error| Error::Project(format!("cargo's configuration: {error}"));
    let cargos = cargo_config2::Config::load_with_cwd(project.folder()).map_err(config)?;
    let targets: [&str; 0] = [];
    let mut triples = cargos.build_target_for_cli(targets).map_err(config)?;
    triples.push(cargos.host_triple().map_err(config)?.to_owned());
    let asked = arguments.windows(2).filter(|pair| pair[0] == "--target");
    triples.extend(asked.map(|pair| pair[1].to_owned()));

    let folder = tempfile::tempdir().map_err(Error::io("make a temporary folder"))?;
    let mut cargo = cargo();
    // What another cargo has said of us is not to pass for what this one says.
    let (ours, before) = given();
    for (name, _) in before.map(|before| set(ours, &before)).unwrap_or_default() {
        if name.as_encoded_bytes().starts_with(b"CARGO_") || name == "OUT_DIR" {
            cargo.env_remove(name);
        }
    }
    cargo
        .args(["test", "--workspace", "--tests", "--quiet"])
        .args(arguments)
        .env(RECORD, folder.path());
    for triple in triples {
        let runner = ["/bin/sh", "-c", RECORDER, "record"];
        let runner: Vec<toml::Value> = runner.map(|word| word.into()).into();
        let runner = toml::Value::from(runner);
        cargo.args(["--config", &format!("target.{triple}.runner={runner}")]);
    }
    let before = with(&cargo);
    let output = cargo
        .current_dir(project.folder())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(|source| Error::Start {
            program: "cargo",
            source,
        })?;
    if !output.status.success() {
        return Err(Error::Project(format!(
            "cannot find out what cargo sets for the tests: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    read(folder.path(), &before).map_err(Error::io("read what cargo sets for the tests"))
}

/// The environment that a command starts with.
fn with(command: &std::process::Command) -> Variables {
    let mut all: Variables = std::env::vars_os().collect();
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => all.insert(name.to_owned(), value.to_owned()),
            None => all.remove(name),
        };
    }
    all
}

/// What the recorders wrote.
fn read(folder: &Path, before: &Variables) -> io::Result<HashMap<PathBuf, Given>> {
    let mut all = HashMap::new();
    for entry in std::fs::read_dir(folder)? {
        let bytes = std::fs::read(entry?.path())?;
        let mut parts = zero_ended(&bytes);
        let (Some(program), Some(folder)) = (parts.next(), parts.next()) else {
            return Err(io::Error::other("a record is cut short"));
        };
        let mut environment = variables(parts);
        environment.remove(OsStr::new(RECORD));
        let given = Given {
            // Cargo gives it relative to where it runs it, or whole.
            set: set(environment.clone(), before),
            all: environment,
            folder: PathBuf::from(folder),
        };
        let program = given.folder.join(program);
        all.insert(program.canonicalize()?, given);
    }
    Ok(all)
}

fn zero_ended(bytes: &[u8]) -> impl Iterator<Item = OsString> {
    let parts = bytes.split(|byte| *byte == 0);
    let parts: Vec<_> = parts
        .map(|part| OsString::from_vec(part.to_vec()))
        .collect();
    // After the last zero there is nothing.
    let whole = parts.len().saturating_sub(1);
    parts.into_iter().take(whole)
}

/// Of `NAME=VALUE` each.
fn variables(parts: impl IntoIterator<Item = OsString>) -> Variables {
    let pair = |part: OsString| {
        let bytes = part.into_vec();
        let at = bytes.iter().position(|byte| *byte == b'=')?;
        let value = bytes[at + 1..].to_vec();
        let name = bytes[..at].to_vec();
        Some((OsString::from_vec(name), OsString::from_vec(value)))
    };
    parts.into_iter().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_was_set() {
        let of = |pairs: &[(&str, &str)]| -> Variables {
            let pairs = pairs.iter();
            pairs
                .map(|(name, value)| (name.into(), value.into()))
                .collect()
        };
        let before = of(&[("PATH", "/bin"), ("TOKEN", "secret"), ("LEVEL", "1")]);
        let given = of(&[
            ("PATH", "/bin"),
            ("TOKEN", "secret"),
            ("LEVEL", "2"),
            ("NEW", ""),
        ]);
        assert_eq!(set(given, &before), of(&[("LEVEL", "2"), ("NEW", "")]));
    }

    #[test]
    fn what_a_process_was_given_is_read() {
        let mut command = std::process::Command::new("sleep");
        let mut child = command.arg("60").env("VM_TEST", "a=b\nc").spawn().unwrap();
        let process = loop {
            let process = Ancestor::find(child.id()).unwrap();
            // Before its exec it is what we are.
            if !process.parts("cmdline").is_empty() && process.parts("cmdline")[0] == "sleep" {
                break process;
            }
        };
        assert_eq!(process.parent, std::process::id());
        assert!(!process.is_cargo && !process.launches_us());
        let environment = process.environment();
        assert_eq!(environment[OsStr::new("VM_TEST")], "a=b\nc");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// A project whose only test looks at what cargo is to have set.
    fn project() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "Cargo.toml",
            "[package]\nname = \"told\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n",
        );
        write("src/lib.rs", "");
        write("tests/it.rs", "#[test] fn fails() { panic!(\"it ran\") }");
        write(
            "build.rs",
            "fn main() { println!(\"cargo::rustc-env=FROM_BUILD=built\"); }",
        );
        write(
            ".cargo/config.toml",
            "[env]\nFROM_CONFIG = 'a b'\nHERE = { value = 'x', relative = true }\n",
        );
        folder
    }

    #[test]
    fn cargo_s_words_to_tests_are_recorded() {
        let folder = project();
        let project = Project::at(folder.path()).unwrap();
        let given = of_tests(&project, &[]).unwrap();
        let test = given.iter().find(|(path, _)| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with("it-")
        });
        let (_, given) = test.expect("the test is recorded, and did not run");
        let set = |name: &str| given.set.get(OsStr::new(name)).and_then(|v| v.to_str());
        assert_eq!(set("FROM_CONFIG"), Some("a b"));
        assert_eq!(set("FROM_BUILD"), Some("built"));
        assert!(set("HERE").unwrap().ends_with("/x"));
        assert!(set("OUT_DIR").unwrap().ends_with("/out"));
        assert_eq!(set("CARGO_PKG_NAME"), Some("told"));
        assert_eq!(set("PATH"), None);
        assert!(given.all.contains_key(OsStr::new("PATH")));
        assert_eq!(given.folder, folder.path().canonicalize().unwrap());
    }
}
