//! `cargo vm kernel`: the kernels that there are, and what their names stand for.

use std::path::PathBuf;

use clap::Subcommand;

use super::{Processor, Sources, show, show_json, table};
use crate::debian::{
    self, Debian, Kernel, LOCK_FILE, Named, Root, is_path, named, remove_kernel, source,
};
use crate::progress::{note, size};
use crate::project::Project;
use crate::{Arch, Error};

/// The name of the project's root, for `lock`.
const ROOT: &str = "root";

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Show the names of kernels, and what each stands for
    List {
        #[command(flatten)]
        processor: Processor,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Fetch kernels (or build, or take over from a path), and print which they are
    Fetch {
        #[command(flatten)]
        processor: Processor,
        /// Fetch what Debian has now, and let the name stand for it from now on
        #[arg(long)]
        update: bool,
        /// Their names; default: those that the project's tests boot
        names: Vec<String>,
    },
    /// Pin kernels and the root, those for x86-64, to their packages, in the project's vm.lock
    Lock {
        /// To what Debian has now
        #[arg(long)]
        update: bool,
        /// Names of kernels of Debian's, and `root`; default: all of the project
        names: Vec<String>,
    },
    /// Remove kernels from the cache, with their packages and what was built for them
    Rm {
        #[command(flatten)]
        processor: Processor,
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Fetch a kernel's source, and print its folder
    Source {
        /// The series, as in the name of Debian's package linux-source-7.2
        #[arg(value_name = "X.Y")]
        version: String,
    },
    /// Build a kernel that checks itself (some 12 minutes on 2 processors), and print its file
    Build {
        /// debug, or a name of [workspace.metadata.vm.builds]
        #[arg(default_value = "debug")]
        name: String,
    },
}

pub(super) fn run(project: &Project, sources: &Sources, verb: &Verb) -> Result<u8, Error> {
    match verb {
        Verb::List { processor, json } => {
            let debian = sources.cache_only()?.for_arch(processor.arch);
            list(project, &debian, *json)
        }
        Verb::Rm { processor, names } => {
            let debian = sources.cache_only()?.for_arch(processor.arch);
            remove(project, &debian, names)
        }
        Verb::Fetch {
            processor,
            update,
            names,
        } => {
            let debian = sources.open_for(processor.arch)?;
            fetch(project, &debian, names, *update)
        }
        Verb::Lock { update, names } => lock(project, &sources.open()?, names, *update),
        Verb::Source { version } => {
            println!("{}", source(&sources.open()?, version)?.display());
            Ok(0)
        }
        Verb::Build { name } => {
            println!("{}", build(project, &sources.open()?, name)?.display());
            Ok(0)
        }
    }
}

fn list(project: &Project, debian: &Debian, json: bool) -> Result<u8, Error> {
    let debian = debian.clone().pinned(project.pins.clone());
    let settings = &project.settings;
    let builds: Vec<&str> = settings.builds.keys().map(String::as_str).collect();
    let mut names: Vec<String> = debian::known_names();
    names.extend(builds.iter().map(ToString::to_string));
    names.extend(project.pins.kernel_names().map(str::to_owned));
    names.extend(of_settings(project).map(str::to_owned));
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    if debian.arch() != Arch::HOST {
        names.retain(|name| !project.builds(name) && !is_path(name));
    }
    let known = names.iter().map(|name| named(&debian, name, &builds));
    let mut known: Vec<_> = known.collect::<Result<_, _>>()?;
    // Entries that have a name of their own stand for a kernel, too.
    for entry in settings.kernels.iter().filter(|e| e.name != e.kernel) {
        let of = known.iter().find(|kernel| kernel.name == entry.kernel);
        let name = entry.name.clone();
        known.extend(of.cloned().map(|of| Named { name, ..of }));
    }
    if json {
        show_json(&known);
        return Ok(0);
    }
    let mut rows = vec![["NAME", "KERNEL", "VERSION", "SUITE", "SIZE", ""].map(str::to_owned)];
    for kernel in known {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        rows.push([
            kernel.name,
            or_none(kernel.release),
            or_none(kernel.version),
            or_none(kernel.suite),
            match kernel.bytes {
                0 => "not fetched".into(),
                bytes => size(bytes),
            },
            if kernel.pinned { "pinned" } else { "" }.to_owned(),
        ]);
    }
    show(&table(&rows));
    Ok(0)
}

fn fetch(project: &Project, debian: &Debian, names: &[String], update: bool) -> Result<u8, Error> {
    let default = project.settings.default_kernels();
    let names = match names.is_empty() {
        true => &default,
        false => names,
    };
    for name in names.iter().map(|name| project.settings.kernel_of(name)) {
        let kernel = match update {
            true if project.pins_kernel(debian, name) => {
                return Err(Error::Project(format!(
                    "kernel {name} is pinned by {LOCK_FILE}; `cargo vm kernel lock --update {name}` moves it on"
                )));
            }
            true => updated(project, debian, name)?,
            false => project.kernel(debian, name)?,
        };
        println!("{name}: {}", kernel.identity());
    }
    Ok(0)
}

/// The kernels that the settings name, for tests and else.
fn of_settings(project: &Project) -> impl Iterator<Item = &str> {
    let settings = &project.settings;
    let tested = settings.kernels.iter().map(|entry| entry.kernel.as_str());
    tested.chain([settings.kernel_of(&settings.kernel)])
}

/// The kernel that Debian has under this name now.
fn updated(project: &Project, debian: &Debian, name: &str) -> Result<Kernel, Error> {
    if project.builds(name) || is_path(name) {
        return Err(Error::Project(format!(
            "kernel {name} is not one of Debian's packages: there is nothing to update or to pin"
        )));
    }
    let before = named(debian, name, &[])?;
    let kernel = Kernel::update(debian, name)?;
    if let (Some(release), Some(version)) = (before.release, before.version) {
        let (now, newer) = (&kernel.release, &kernel.package_version);
        if (&release, &version) != (now, newer) {
            note(&format!(
                "{name} was {release} ({version}), and is {now} ({newer}) now"
            ));
        }
    }
    Ok(kernel)
}

fn lock(project: &Project, debian: &Debian, names: &[String], update: bool) -> Result<u8, Error> {
    let settings = &project.settings;
    let mut wanted: Vec<&str> = names.iter().map(|name| settings.kernel_of(name)).collect();
    if wanted.is_empty() {
        wanted = of_settings(project)
            .filter(|name| !project.builds(name) && !is_path(name))
            .collect();
        if settings.root.is_none() {
            wanted.push(ROOT);
        }
    }
    wanted.sort_unstable();
    wanted.dedup();
    let mut pins = project.pins.clone();
    let packages = project.packages();
    for name in wanted {
        if name == ROOT {
            if update || !pins.has_root(&settings.suite, &packages) {
                match update {
                    true => Root::update(debian, &settings.suite, &packages)?,
                    false => Root::prepare(debian, &settings.suite, &packages)?,
                };
                pins.pin_root(debian, &settings.suite, &packages)?;
            }
            println!("{ROOT}: debian {}", settings.suite);
            continue;
        }
        if update || !pins.has_kernel(name) {
            let kernel = match update || project.builds(name) || is_path(name) {
                true => updated(project, debian, name)?,
                false => Kernel::prepare(debian, name)?,
            };
            pins.pin_kernel(debian, name)?;
            println!("{name}: {}", kernel.identity());
        } else {
            println!("{name}: {}", project.kernel(debian, name)?.identity());
        }
        // One by one: what is pinned stays so where the next cannot be had.
        pins.write(project.folder())?;
    }
    pins.write(project.folder())?;
    note(&format!(
        "written to {}",
        project.folder().join(LOCK_FILE).display()
    ));
    Ok(0)
}

fn remove(project: &Project, debian: &Debian, names: &[String]) -> Result<u8, Error> {
    let debian = debian.clone().pinned(project.pins.clone());
    let builds: Vec<&str> = project.settings.builds.keys().map(String::as_str).collect();
    for name in names.iter().map(|name| project.settings.kernel_of(name)) {
        let freed = remove_kernel(&debian, name, &builds)?;
        println!("{name}: {} freed", size(freed));
    }
    Ok(0)
}

fn build(project: &Project, debian: &Debian, name: &str) -> Result<PathBuf, Error> {
    let name = project.settings.kernel_of(name);
    if project.builds(name) {
        return Ok(project.kernel(debian, name)?.vmlinux);
    }
    let builds = project.settings.builds.keys();
    let known: String = builds.map(|name| format!(", {name}")).collect();
    Err(Error::Project(format!(
        "no kernel \"{name}\" to build; there is debug{known}; others are of [workspace.metadata.vm.builds.NAME]"
    )))
}
