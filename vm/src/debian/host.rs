//! The few packages that the host itself must have, and their installation.

use std::io::{IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;

use rustix::process::geteuid;

use super::{Error, apt, run};
use crate::progress::{Progress, note, size};

/// Programs of the host that a VM takes, and the Debian package of each.
const NEEDED: [(&str, &str); 5] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("mkfs.erofs", "erofs-utils"),
    ("depmod", "kmod"),
    // Part of every Debian; asked for so that another host gets a clear word.
    ("apt-get", "apt"),
    ("dpkg-deb", "dpkg"),
];

/// Whether packages may be installed on the host.
///
/// ```
/// use dmashare_vm::debian::host::Consent;
///
/// // What a command does with its `--yes`:
/// assert_eq!(Consent::from_environment(true), Consent::Given);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// Install what is missing.
    Given,
    /// Ask the person at the terminal.
    Ask,
    /// Install nothing.
    Refused,
}

impl Consent {
    /// Given by `yes` (a `--yes` of the command line) or by root with `CI=true`;
    /// asked for where stdin and stderr are a terminal; else refused.
    #[must_use]
    pub fn from_environment(yes: bool) -> Self {
        let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
        if yes || (ci && geteuid().is_root()) {
            Self::Given
        } else if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
            Self::Ask
        } else {
            Self::Refused
        }
    }
}

/// The programs that this host lacks, by name.
///
/// ```
/// for program in dmashare_vm::debian::host::missing() {
///     println!("this host has no {program}");
/// }
/// ```
#[must_use]
pub fn missing() -> Vec<&'static str> {
    NEEDED
        .iter()
        .map(|(program, _)| *program)
        .filter(|program| !installed(program))
        .collect()
}

/// Sees to it that the host has what a VM takes: installs what is missing with
/// apt-get, as root or through sudo, after saying what it is and how big.
/// Nothing is removed or upgraded beyond what apt needs for that.
///
/// # Errors
/// [`Error::NotInstalled`] with the command to run, where there is no consent,
/// no right to install or no apt; [`Error::Program`] where apt-get fails.
///
/// ```no_run
/// // Not run with the crate's tests: may install QEMU.
/// use dmashare_vm::debian::host::{Consent, ensure};
///
/// ensure(Consent::from_environment(false))?;
/// # Ok::<(), dmashare_vm::debian::Error>(())
/// ```
pub fn ensure(consent: Consent) -> Result<(), Error> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let refusal = |more: &str| Error::NotInstalled {
        programs: missing.iter().map(ToString::to_string).collect(),
        advice: advice(&missing) + more,
    };
    if !installed("apt-get") {
        return Err(refusal(""));
    }
    let packages = packages(&missing);
    // Ask before anything is done as root, the update of apt's lists included.
    match consent {
        Consent::Refused => return Err(refusal(", or pass --yes to have it done")),
        Consent::Given => {}
        Consent::Ask => {
            let size = plan(&packages).map_or_else(|_| String::new(), |plan| format!(" ({plan})"));
            if !asked(&format!(
                "install {}{size} on this host?",
                packages.join(", ")
            )) {
                return Err(refusal(""));
            }
        }
    }
    let as_root = AsRoot::find().ok_or_else(|| refusal(": this user may not"))?;
    // Lists that are absent know no size; lists that are old name files that
    // the mirror no longer has. New lists answer both.
    if plan(&packages).is_err() || install(as_root, &packages).is_err() {
        let what = "updating this host's package lists";
        note(what);
        let mut progress = Progress::spinner(what);
        let said = run::run_with(as_root.apt_get().arg("update"), |_| progress.set(0))?;
        drop(progress);
        if !said.success {
            return Err(Error::Program {
                program: "apt-get update".to_owned(),
                said: said.reason(),
            });
        }
        plan(&packages)?;
        install(as_root, &packages)?;
    }
    match self::missing() {
        still if still.is_empty() => Ok(()),
        still => Err(Error::NotInstalled {
            advice: advice(&still),
            programs: still.iter().map(ToString::to_string).collect(),
        }),
    }
}

/// What to do about missing programs, in a line.
pub(super) fn advice(programs: &[&str]) -> String {
    let packages = packages(programs);
    let sudo = if geteuid().is_root() { "" } else { "sudo " };
    if packages.is_empty() {
        format!("install {}", programs.join(", "))
    } else if installed("apt-get") {
        format!(
            "run `{sudo}apt-get install --no-install-recommends {}`",
            packages.join(" ")
        )
    } else {
        format!(
            "this host has no apt: install what Debian calls {} with its own package manager",
            packages.join(", ")
        )
    }
}

fn packages(programs: &[&str]) -> Vec<&'static str> {
    NEEDED
        .iter()
        .filter(|(program, _)| programs.contains(program))
        .map(|(_, package)| *package)
        .collect()
}

fn installed(program: &str) -> bool {
    run::path()
        .split(':')
        .any(|folder| Path::new(folder).join(program).is_file())
}

/// How many packages apt would fetch for `packages`, and how much.
fn plan(packages: &[&str]) -> Result<String, Error> {
    let mut command = run::program("apt-get");
    command
        .args(INSTALL)
        .args(["-qq", "--print-uris", "-o", "Acquire::ForceHash=SHA256"])
        .args(packages);
    let uris = run::run(&mut command)?;
    let debs = apt::parse_uris(&uris).map_err(|line| Error::Program {
        program: "apt-get --print-uris".to_owned(),
        said: line,
    })?;
    Ok(format!(
        "{} packages to fetch, {}",
        debs.len(),
        size(debs.iter().map(|deb| deb.bytes).sum())
    ))
}

const INSTALL: [&str; 4] = ["install", "--yes", "--no-install-recommends", "--no-remove"];

fn install(as_root: AsRoot, packages: &[&str]) -> Result<(), Error> {
    note(&format!(
        "installing {} on this host: {}",
        packages.join(", "),
        plan(packages)?
    ));
    let mut command = as_root.apt_get();
    command
        .args(INSTALL)
        // Over stdout, since sudo closes every descriptor above stderr.
        .args(["-q", "-o", "APT::Status-Fd=1"])
        // Two runs at once: the second waits, as a person would.
        .args(["-o", "DPkg::Lock::Timeout=600"])
        .args(packages);
    let mut progress = Progress::percent("installing");
    let said = run::run_with(&mut command, |new| {
        if let Some(percent) = new.lines().rev().find_map(status_percent) {
            progress.set(percent);
        }
    })?;
    if said.success {
        return Ok(());
    }
    Err(Error::Program {
        program: "apt-get install".to_owned(),
        said: said.reason(),
    })
}

/// The percent done of a line of apt's status protocol
/// (`apt/README.progress-reporting`): fetching is its first half here,
/// installing its second.
fn status_percent(line: &str) -> Option<u64> {
    let mut fields = line.split(':');
    let half = match fields.next()? {
        "dlstatus" => 0,
        "pmstatus" => 50,
        _ => return None,
    };
    let percent: u64 = fields.nth(1)?.split('.').next()?.parse().ok()?;
    Some(half + percent.min(100) / 2)
}

#[derive(Debug, Clone, Copy)]
enum AsRoot {
    Already,
    Sudo,
}

impl AsRoot {
    fn find() -> Option<Self> {
        if geteuid().is_root() {
            return Some(Self::Already);
        }
        if !installed("sudo") {
            return None;
        }
        let mut check = run::program("sudo");
        // With a person there, sudo may ask for the password, on the terminal.
        match std::io::stdin().is_terminal() {
            true => check.arg("-v"),
            false => check.args(["-n", "true"]),
        };
        run::run(&mut check).ok().map(|_| Self::Sudo)
    }

    /// apt-get as root. It is not ended with us: a half-installed host is worse
    /// than one that installs a little longer.
    fn apt_get(self) -> std::process::Command {
        let mut command = match self {
            Self::Already => run::outliving("env"),
            Self::Sudo => {
                let mut sudo = run::outliving("sudo");
                sudo.args(["-n", "env"]);
                sudo
            }
        };
        // Out of reach of the terminal's Ctrl-C.
        command.process_group(0);
        command.args(["LC_ALL=C", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        command
    }
}

fn asked(question: &str) -> bool {
    eprint!("{question} [y/N] ");
    // A prompt that cannot be shown is answered all the same, or not at all.
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).is_ok()
        && matches!(answer.trim(), "y" | "Y" | "yes" | "Yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines_give_percents() {
        assert_eq!(
            status_percent("dlstatus:1:50.0000:Retrieving file 1 of 2"),
            Some(25)
        );
        assert_eq!(
            status_percent("pmstatus:kmod:66.6667:Unpacking kmod (amd64)"),
            Some(83)
        );
        assert_eq!(status_percent("pmstatus:x:100.0000:Done"), Some(100));
        assert_eq!(status_percent("pmerror:x:10:bad"), None);
        assert_eq!(status_percent("Setting up kmod (30) ..."), None);
        assert_eq!(status_percent("dlstatus"), None);
    }

    #[test]
    fn advice_names_packages_not_programs() {
        let advice = advice(&["mkfs.erofs", "depmod"]);
        assert!(advice.contains("erofs-utils"), "{advice}");
        assert!(advice.contains("kmod"), "{advice}");
    }
}
