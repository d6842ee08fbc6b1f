//! The test programs of a workspace.

use std::collections::HashMap;

use cargo_metadata::PackageId;
use cargo_metadata::camino::{Utf8Path, Utf8PathBuf};
use serde::Deserialize;

use crate::Error;
use crate::cargo_env::{self, Variables};
use crate::project::{Project, told_of};

/// A program that runs tests.
#[derive(Clone, Debug)]
pub(crate) struct TestProgram {
    /// The name of its target, with its package's where they differ.
    pub(crate) name: String,
    pub(crate) target: String,
    pub(crate) path: Utf8PathBuf,
    /// Its package's folder, where cargo would run it.
    pub(crate) folder: Utf8PathBuf,
    /// What cargo would set for it.
    pub(crate) env: Vec<(String, String)>,
    /// All that cargo would have it start with on the host, where that is known.
    pub(crate) host_env: Option<Variables>,
    /// Whether it is meant for the guest.
    pub(crate) guest: bool,
}

/// `[package.metadata.vm]`
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct PackageSettings {
    #[serde(default)]
    guest_tests: Vec<String>,
}

/// Build all of them; `cross` tells cargo for what.
pub(crate) fn test_programs(
    project: &Project,
    cross: &[String],
) -> Result<Vec<TestProgram>, Error> {
    let marked = guest_tests(project)?;
    let mut arguments = vec!["test", "--workspace", "--no-run"];
    arguments.extend(project.settings.cargo_args.iter().map(String::as_str));
    let mut programs = Vec::new();
    arguments.extend(cross.iter().map(String::as_str));
    for artifact in project.build("the tests", &arguments)? {
        if artifact.profile.test
            && let Some(path) = artifact.executable
            && let Some(package) = marked.get(&artifact.package_id)
        {
            let target = artifact.target.name;
            programs.push(TestProgram {
                name: name(&package.name, &target),
                // As the guest has it, where links are resolved.
                path: path.canonicalize_utf8().unwrap_or(path),
                folder: package.folder.clone(),
                env: package.env.clone(),
                host_env: None,
                guest: package.guest_tests.contains(&target),
                target,
            });
        }
    }
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    let told = cargo_env::of_tests(project, &arguments[3..])?;
    for program in &mut programs {
        if let Some(told) = told.get(program.path.as_std_path()) {
            program.env = cargo_env::texts(told.set.clone());
            program.host_env = Some(told.all.clone());
        }
    }
    Ok(programs)
}

fn name(package: &str, target: &str) -> String {
    match target.replace('_', "-") == package {
        true => package.to_owned(),
        false => format!("{package}/{target}"),
    }
}

fn resolved(folder: Option<&Utf8Path>) -> Utf8PathBuf {
    let folder = folder.unwrap_or(Utf8Path::new("/"));
    folder.canonicalize_utf8().unwrap_or(folder.to_owned())
}

struct Package {
    name: String,
    folder: Utf8PathBuf,
    env: Vec<(String, String)>,
    guest_tests: Vec<String>,
}

fn guest_tests(project: &Project) -> Result<HashMap<PackageId, Package>, Error> {
    let mut packages = HashMap::new();
    for package in project.metadata.workspace_packages() {
        let wrong =
            |what: String| Err(Error::Project(format!("{}: {what}", package.manifest_path)));
        let settings = match package.metadata.get("vm") {
            None => PackageSettings::default(),
            Some(value) => match PackageSettings::deserialize(value) {
                Ok(settings) => settings,
                Err(error) => return wrong(format!("[package.metadata.vm]: {error}")),
            },
        };
        // A misspelt name would let its tests run on the host, unnoticed.
        let is_test = |name: &&String| {
            let targets = &package.targets;
            targets.iter().any(|t| t.is_test() && t.name == **name)
        };
        if let Some(stray) = settings.guest_tests.iter().find(|name| !is_test(name)) {
            return wrong(format!(
                "guest-tests names {stray}, but there is no such test target"
            ));
        }
        let folder = resolved(package.manifest_path.parent());
        packages.insert(
            package.id.clone(),
            Package {
                name: package.name.to_string(),
                env: told_of(package, folder.as_str()),
                folder,
                guest_tests: settings.guest_tests,
            },
        );
    }
    Ok(packages)
}
