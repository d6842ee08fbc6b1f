//! The few programs that a VM takes of the host, and how a host that lacks
//! them gets them.

use std::io::{IsTerminal, Write};
use std::os::unix::process::CommandExt;

use rustix::process::geteuid;

use super::tools::{self, installed, packages};
use super::{Debian, Error, apt, run};
use crate::Arch;
use crate::progress::{Progress, note, size};

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

/// The programs that this host lacks for guests of this architecture, by name.
///
/// ```
/// use dmashare_vm::{Arch, debian::host};
///
/// for program in host::missing(Arch::X86_64) {
///     println!("this host has no {program}");
/// }
/// ```
#[must_use]
pub fn missing(arch: Arch) -> Vec<&'static str> {
    tools::missing(arch)
}

/// Sees to it that there is what a VM takes, after saying what is fetched and
/// how big. What the host lacks is installed with apt-get, as root or through
/// sudo; nothing is removed or upgraded beyond what apt needs for that. Where
/// there is no consent or no right to install, or where apt would have to
/// remove packages, `debian`'s cache gets a copy, and the host stays as it is.
///
/// # Errors
/// [`Error::NotInstalled`] with the command to run, where there is no apt or
/// the host cannot run a copy; [`Error::Program`] where apt-get fails;
/// [`Error::Fetch`] where the copy cannot be had.
///
/// ```no_run
/// // Not run with the crate's tests: may install or fetch QEMU.
/// use dmashare_vm::cache::Cache;
/// use dmashare_vm::debian::Debian;
/// use dmashare_vm::debian::host::{Consent, ensure};
///
/// let debian = Debian::new(Cache::open()?, None);
/// ensure(&debian, Consent::from_environment(false))?;
/// # Ok::<(), dmashare_vm::debian::Error>(())
/// ```
pub fn ensure(debian: &Debian, consent: Consent) -> Result<(), Error> {
    let missing = missing(debian.arch);
    if missing.is_empty() {
        return Ok(());
    }
    // Without these two a copy cannot be fetched or unpacked either.
    if ["apt-get", "dpkg-deb"]
        .iter()
        .any(|tool| missing.contains(tool))
    {
        return Err(not_installed(&missing));
    }
    let packages = packages(&missing);
    if tools::there(debian, &packages) {
        return tools::bring(debian, &packages);
    }
    match install_or_not(consent, &packages)? {
        None => match self::missing(debian.arch) {
            still if still.is_empty() => Ok(()),
            still => Err(not_installed(&still)),
        },
        // A copy is amd64.
        Some(_) if !cfg!(target_arch = "x86_64") => Err(not_installed(&missing)),
        Some(hindrance) => {
            note(&format!(
                "{hindrance}: the cache gets a copy of {}",
                packages.join(", ")
            ));
            tools::bring(debian, &packages)
        }
    }
}

/// What keeps packages from being installed on the host.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Hindrance {
    #[error("nothing is installed on this host without --yes")]
    NoWord,
    #[error("apt would have to remove {}", .0.join(", "))]
    Removals(Vec<String>),
    #[error("nothing is installed on this host")]
    Declined,
    #[error("this user may not install packages")]
    NoRight,
}

/// The way to install, or why there is none. `removals` are what apt would
/// remove; `ask` and `right` are asked last: both may bother a person.
fn way<R>(
    consent: Consent,
    removals: Vec<String>,
    ask: impl FnOnce() -> bool,
    right: impl FnOnce() -> Option<R>,
) -> Result<R, Hindrance> {
    if consent == Consent::Refused {
        return Err(Hindrance::NoWord);
    }
    // No consent covers it.
    if !removals.is_empty() {
        return Err(Hindrance::Removals(removals));
    }
    if consent == Consent::Ask && !ask() {
        return Err(Hindrance::Declined);
    }
    right().ok_or(Hindrance::NoRight)
}

/// Installs `packages`, or says what keeps them from it.
fn install_or_not(consent: Consent, packages: &[&str]) -> Result<Option<Hindrance>, Error> {
    let removals = match consent {
        Consent::Refused => Vec::new(),
        // Without lists nothing is known yet: asked again when there are.
        _ => removals(packages).unwrap_or_default(),
    };
    let ask = || {
        let size = plan(packages).map_or_else(|_| String::new(), |plan| format!(" ({plan})"));
        asked(&format!(
            "install {}{size} on this host? Otherwise the cache gets a copy",
            packages.join(", ")
        ))
    };
    let as_root = match way(consent, removals, ask, AsRoot::find) {
        Ok(as_root) => as_root,
        Err(hindrance) => return Ok(Some(hindrance)),
    };
    // Lists that are absent know no size; lists that are old name files that
    // the mirror no longer has. New lists answer both.
    if plan(packages).is_err() || install(as_root, packages).is_err() {
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
        let removals = self::removals(packages)?;
        if !removals.is_empty() {
            return Ok(Some(Hindrance::Removals(removals)));
        }
        install(as_root, packages)?;
    }
    Ok(None)
}

fn not_installed(programs: &[&str]) -> Error {
    Error::NotInstalled {
        programs: programs.iter().map(ToString::to_string).collect(),
        advice: advice(programs),
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

/// What apt would remove to install `packages`.
fn removals(packages: &[&str]) -> Result<Vec<String>, Error> {
    let mut command = run::program("apt-get");
    // Not INSTALL: with --no-remove apt ends before it says what.
    command
        .args(["install", "--simulate", "--no-install-recommends"])
        .args(packages);
    Ok(parse_removals(&run::run(&mut command)?))
}

/// The lines `Remv NAME [VERSION]` of a simulation, `Purg` where apt is
/// configured so.
fn parse_removals(simulation: &str) -> Vec<String> {
    simulation
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            matches!(words.next()?, "Remv" | "Purg").then(|| words.next())?
        })
        .map(str::to_owned)
        .collect()
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

/// What the person at the terminal says to this, where only yes is yes.
pub(crate) fn asked(question: &str) -> bool {
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
    fn removals_are_read_from_a_simulation() {
        let simulation = "\
Reading package lists...
The following packages will be REMOVED:
  qemu-utils
Remv qemu-utils [1:10.0.2+ds-2]
Purg old-thing [1] []
Inst qemu-system-x86 (1:7.2 Debian:12 [amd64])
Conf qemu-system-x86 (1:7.2 Debian:12 [amd64])
";
        assert_eq!(parse_removals(simulation), ["qemu-utils", "old-thing"]);
        assert!(parse_removals("Inst kmod (30 Debian:12 [amd64])\n").is_empty());
    }

    #[test]
    fn nothing_is_installed_without_consent_or_at_a_cost() {
        let never = || -> bool { panic!("asked in vain") };
        let root = || Some("root");
        let no_one = || -> Option<&str> { panic!("rights looked for in vain") };
        let removed = || vec!["qemu-utils".to_owned()];

        assert_eq!(way(Consent::Given, vec![], never, root), Ok("root"));
        assert_eq!(way(Consent::Ask, vec![], || true, root), Ok("root"));
        let refused = way(Consent::Refused, vec![], never, no_one);
        assert_eq!(refused, Err(Hindrance::NoWord));
        let declined = way(Consent::Ask, vec![], || false, no_one);
        assert_eq!(declined, Err(Hindrance::Declined));
        let user = way(Consent::Given, vec![], never, || None::<&str>);
        assert_eq!(user, Err(Hindrance::NoRight));
        for consent in [Consent::Given, Consent::Ask] {
            let hindrance = way(consent, removed(), never, no_one).unwrap_err();
            assert_eq!(hindrance.to_string(), "apt would have to remove qemu-utils");
        }
    }

    #[test]
    fn advice_names_packages_not_programs() {
        let advice = advice(&["mkfs.erofs", "depmod"]);
        assert!(advice.contains("erofs-utils"), "{advice}");
        assert!(advice.contains("kmod"), "{advice}");
    }
}
