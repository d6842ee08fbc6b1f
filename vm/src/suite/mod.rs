//! `cargo vm test`: a project's tests on the host, then those marked for the
//! guest on each kernel.

mod build;
mod guest;
mod host;
mod jobs;
mod junit;
mod libtest;
mod program;
mod report;
mod results;
mod table;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::debian::Debian;
use crate::project::{Project, TestKernel};
use crate::{Arch, Builder, Error, GuestOptions, cli, cross};

use build::TestProgram;
use guest::Guests;
use host::HostProcess;
use report::Report;
use results::Results;

/// How long a test program may take where nothing is said, as the command line
/// gives it.
pub(crate) const DEADLINE: &str = "30m";

/// What to run, and for how long.
///
/// ```
/// use dmashare_vm::suite::Options;
///
/// let options = Options {
///     kernels: vec!["6.12".into(), "7.2".into()],
///     guest_only: true,
///     ..Options::default()
/// };
/// assert_eq!(options.deadline.as_secs(), 30 * 60);
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    /// The kernels to boot, or names of entries of the project's kernels; none: the
    /// settings' default ones.
    pub kernels: Vec<String>,
    /// Leave out the tests of the host.
    pub guest_only: bool,
    /// Run only tests whose name contains this.
    pub filter: Option<String>,
    /// How long one test program may take; 30 minutes by default.
    pub deadline: Duration,
    /// How many kernels run side by side; `None`: as many as the machine has
    /// processors and memory for.
    pub jobs: Option<usize>,
    /// Where the results go as JUnit's XML; `None`: `vm/junit.xml` in the target
    /// folder.
    pub junit: Option<PathBuf>,
    /// Where they go as JSON; `None`: `vm/results.json` in the target folder.
    pub json: Option<PathBuf>,
    /// A row for every test in the table at the end, and not only for those that
    /// did not pass on all kernels.
    pub table: bool,
    /// What the guests are to have beside what the settings say.
    pub guest: GuestOptions,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            kernels: Vec::new(),
            guest_only: false,
            filter: None,
            deadline: cli::duration(DEADLINE).expect("it is a time"),
            jobs: None,
            junit: None,
            json: None,
            table: false,
            guest: GuestOptions::default(),
        }
    }
}

/// Run them, and print a line a test as they end, then a table and a summary.
/// Without `debian` there are no guests, and only the host's tests run.
/// Guests of another architecture than the host's run what is built for them, and
/// the host nothing.
///
/// Returns the exit status: 0 where all passed, 1 where a test failed, 77 where a
/// signal killed a test program, and that of [`Error::exit_status`] where a guest
/// came to a bad end.
///
/// # Errors
/// What kept the tests from being built or a guest from being made, and results
/// that could not be written.
pub fn run(project: &Project, debian: Option<&Debian>, options: &Options) -> Result<u8, Error> {
    let settings = &project.settings;
    let kernels = match options.kernels.is_empty() {
        true => {
            let entries = settings.kernels.iter().filter(|entry| entry.default);
            once_each(entries.map(|entry| &entry.name))
        }
        false => once_each(&options.kernels),
    };
    // What cannot be had is known before anything runs, and what is fetched does
    // not count against a test's deadline.
    let arch = debian.map_or(Arch::HOST, Debian::arch);
    let cross = cross::arguments(project, arch)?;
    let folder = project.target_folder().join("vm");
    let mut guests = Vec::new();
    if let Some(debian) = debian {
        let folders = folders(&kernels, arch)?;
        for (kernel, logs) in kernels.into_iter().zip(folders) {
            let builder = project.guest_with(debian, kernel, true, &options.guest)?;
            guests.push(OneKernel {
                name: kernel,
                entry: settings.test_kernel(kernel),
                builder,
                folder: folder.join(logs),
                programs: Vec::new(),
            });
        }
    }
    let programs = build::test_programs(project, &cross)?;
    for kernel in &mut guests {
        kernel.programs = selected(kernel.entry, &programs)?;
    }
    let report = Report::new();
    // What is built for another architecture does not run here.
    if !options.guest_only && arch == Arch::HOST {
        on_the_host(project, options, &programs, &report);
    }
    in_guests(&guests, options, &report);
    let kernels: Vec<&str> = guests.iter().map(|kernel| kernel.name).collect();
    let results = report.finish(&kernels);
    if kernels.len() > 1 || (options.table && !kernels.is_empty()) {
        println!("\n{}", table::table(&results, &kernels, options.table));
    }
    println!("{}", report::summary(&results));
    let status = results.status();
    match (status, write(&results, options, &folder)) {
        (0, Err(error)) => Err(error),
        // What the tests found is the greater news.
        (status, Err(error)) => {
            eprintln!("cargo vm: {error}");
            Ok(status)
        }
        (status, Ok(())) => Ok(status),
    }
}

fn on_the_host(project: &Project, options: &Options, programs: &[TestProgram], report: &Report) {
    let place = report.place("host");
    let next = HostProcess::next_event;
    for program in programs.iter().filter(|p| !p.guest) {
        place.running(&program.name, "");
        let process = HostProcess::start(program, options);
        program::follow(report, &place, &program.name, process, next);
    }
    if let Some(process) = HostProcess::doc_tests(project, options) {
        place.running("doc", "");
        program::follow(report, &place, "doc", process, next);
    }
}

struct OneKernel<'a> {
    name: &'a str,
    /// What the settings say of it.
    entry: Option<&'a TestKernel>,
    builder: Builder,
    /// Where the logs go.
    folder: PathBuf,
    /// What runs there.
    programs: Vec<&'a TestProgram>,
}

/// The programs to run in the guest of this entry; without one, all that are marked.
fn selected<'p>(
    entry: Option<&TestKernel>,
    programs: &'p [TestProgram],
) -> Result<Vec<&'p TestProgram>, Error> {
    let marked = programs.iter().filter(|program| program.guest);
    let Some((entry, wanted)) = entry.and_then(|e| Some((e, e.guest_tests.as_ref()?))) else {
        return Ok(marked.collect());
    };
    if let Some(stray) = wanted
        .iter()
        .find(|name| !marked.clone().any(|program| program.target == **name))
    {
        return Err(Error::Project(format!(
            "kernel {}: `guest-tests` names {stray}: expected a test target that a package's \
             [package.metadata.vm] marks for the guest",
            entry.name
        )));
    }
    let wanted = marked.filter(|program| wanted.contains(&program.target));
    Ok(wanted.collect())
}

/// Several kernels at a time.
fn in_guests(kernels: &[OneKernel<'_>], options: &Options, report: &Report) {
    let builders = kernels.iter().map(|kernel| &kernel.builder);
    let jobs = options.jobs.unwrap_or_else(|| jobs::fitting(builders));
    jobs::side_by_side(jobs, kernels, |kernel| {
        let guests = Guests {
            builder: &kernel.builder,
            options,
            report,
            place: report.place(kernel.name),
            folder: kernel.folder.clone(),
            running: None,
            boots: Vec::new(),
        };
        guests.run(&kernel.programs);
    });
}

/// As they came, but no kernel twice.
fn once_each<'a>(kernels: impl IntoIterator<Item = &'a String>) -> Vec<&'a str> {
    let mut seen = HashSet::new();
    let kernels = kernels.into_iter().map(String::as_str);
    kernels.filter(|kernel| seen.insert(*kernel)).collect()
}

/// The names of the folders in which each kernel's logs go.
fn folders(kernels: &[&str], arch: Arch) -> Result<Vec<String>, Error> {
    let mut taken = HashMap::new();
    let mut names = Vec::new();
    for kernel in kernels {
        let name = file_name(kernel, arch);
        if let Some(other) = taken.insert(name.clone(), kernel) {
            return Err(Error::Project(format!(
                "the logs of kernels {other} and {kernel} would both go to vm/{name} in the \
                 target folder; test one at a time"
            )));
        }
        names.push(name);
    }
    Ok(names)
}

/// A kernel's name, which can be a path, as the name of a folder.
fn file_name(kernel: &str, arch: Arch) -> String {
    let name = kernel.trim_matches('/').replace(['/', ':'], "-");
    name + arch.suffix()
}

fn write(results: &Results, options: &Options, folder: &Path) -> Result<(), Error> {
    let file = |given: &Option<PathBuf>, name: &str| match given {
        Some(file) => file.clone(),
        None => folder.join(name),
    };
    let json = results.write_json(&file(&options.json, "results.json"));
    junit::write(results, &file(&options.junit, "junit.xml"))?;
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_asked_for_twice_runs_once() {
        let kernels = ["7.2", "6.12", "7.2"].map(str::to_owned);
        assert_eq!(once_each(&kernels), ["7.2", "6.12"]);
    }

    #[test]
    fn entry_selects_its_guest_tests() {
        let program = |target: &str, guest| TestProgram {
            name: format!("package/{target}"),
            target: target.into(),
            path: "/program".into(),
            folder: "/".into(),
            env: Vec::new(),
            host_env: None,
            guest,
        };
        let programs = ["guest", "module", "host"].map(|name| program(name, name != "host"));
        let of = |tests: Option<&str>| {
            let entry = TestKernel {
                guest_tests: tests.map(|name| vec![name.into()]),
                ..TestKernel::from("7.2")
            };
            let programs = selected(Some(&entry), &programs);
            let programs = programs.map_err(|error| error.to_string())?;
            Ok(programs.iter().map(|p| p.target.clone()).collect())
        };
        let named = |names: &[&str]| Ok(names.iter().map(ToString::to_string).collect());
        assert_eq!(
            of(None),
            named(&["guest", "module"]) as Result<Vec<_>, String>
        );
        assert_eq!(of(Some("module")), named(&["module"]));
        for stray in ["modul", "host"] {
            let error = of(Some(stray)).unwrap_err();
            assert!(error.contains(&format!("7.2: `guest-tests` names {stray}: ")));
        }
        assert_eq!(selected(None, &programs).unwrap().len(), 2);
    }

    #[test]
    fn each_kernel_has_a_folder_of_its_own() {
        let of = |kernels: &[&str], arch| folders(kernels, arch).map_err(|e| e.to_string());
        let names = of(&["6.12", "debian:sid", "/boot/x"], Arch::X86_64);
        assert_eq!(names.unwrap(), ["6.12", "debian-sid", "boot-x"]);
        assert_eq!(of(&["6.12"], Arch::Aarch64).unwrap(), ["6.12-arm64"]);
        let error = of(&["6.12", "a:b", "a/b"], Arch::X86_64).unwrap_err();
        assert!(
            error.contains("a:b and a/b would both go to vm/a-b"),
            "{error}"
        );
    }
}
