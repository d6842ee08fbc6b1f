//! What was decided once: which packages at which versions a thing is made of.
//!
//! Kept in the cache as a small JSON file, so that a second run asks neither
//! apt nor the network, and two runs a month apart use the same kernel. Taken
//! back only where a package is missing from the cache and the mirror no longer
//! has it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::apt::Lists;
use super::root::digest;
use super::{Debian, Error};
use crate::cache;

/// Where plans are, in the cache.
const FOLDER: &str = "plans";

/// What the names begin with of the files beside them that name projects.
const PROJECT: &str = "project-";

/// What the lists of a suite and apt's index of them take, told when they do
/// not fit.
const LISTS_NEED: u64 = 150_000_000;

/// The file of the plan called `name`.
fn file(debian: &Debian, name: &str) -> PathBuf {
    debian
        .cache
        .folder()
        .join(FOLDER)
        .join(format!("{name}.json"))
}

/// The plan called `name`, where one was made.
pub(super) fn recorded<P: DeserializeOwned>(debian: &Debian, name: &str) -> Option<P> {
    let text = fs::read(file(debian, name)).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Makes `what` by the plan called `name`: the recorded one, or one that
/// `decide` makes from apt's lists, or from fresh ones where the mirror has
/// moved on.
pub(super) fn follow<P: Serialize + DeserializeOwned, T>(
    debian: &Debian,
    name: &str,
    what: &str,
    decide: impl Fn(Lists) -> Result<P, Error>,
    make: impl Fn(&P) -> Result<T, Error>,
) -> Result<T, Error> {
    try_follow(debian, name, decide, make)
        .map_err(|error| debian.cache.explain(what, LISTS_NEED, error))
}

fn try_follow<P: Serialize + DeserializeOwned, T>(
    debian: &Debian,
    name: &str,
    decide: impl Fn(Lists) -> Result<P, Error>,
    make: impl Fn(&P) -> Result<T, Error>,
) -> Result<T, Error> {
    if let Some(plan) = recorded(debian, name) {
        match make(&plan) {
            Err(Error::Fetch { .. }) => {}
            made => return made,
        }
    }
    // Decided anew, and once more from fresh lists where the mirror no longer
    // has what the lists of this day say.
    let plan = decide(Lists::Recent)?;
    let (plan, made) = match make(&plan) {
        Err(Error::Fetch { .. }) => {
            let plan = decide(Lists::Fresh)?;
            let made = make(&plan)?;
            (plan, made)
        }
        made => (plan, made?),
    };
    record(debian, name, &plan)?;
    Ok(made)
}

/// As [`follow`], but by what the mirror has at this moment, whatever was
/// decided before.
pub(super) fn renew<P: Serialize + DeserializeOwned, T>(
    debian: &Debian,
    name: &str,
    what: &str,
    decide: impl Fn(Lists) -> Result<P, Error>,
    make: impl Fn(&P) -> Result<T, Error>,
) -> Result<T, Error> {
    let renewed = || {
        let plan = decide(Lists::Fresh)?;
        let made = make(&plan)?;
        record(debian, name, &plan)?;
        Ok(made)
    };
    renewed().map_err(|error| debian.cache.explain(what, LISTS_NEED, error))
}

/// Forgets the plan called `name`.
pub(super) fn forget(debian: &Debian, name: &str) -> Result<(), Error> {
    Ok(cache::remove(&file(debian, name))?)
}

/// The names of all plans.
pub(super) fn names(debian: &Debian) -> Result<Vec<String>, Error> {
    let folder = debian.cache.folder().join(FOLDER);
    let names = cache::entries(&folder)?
        .into_iter()
        .filter_map(|(name, _)| name.strip_suffix(".json").map(str::to_owned));
    Ok(names.collect())
}

/// Notes that the project in `folder` has pins: they are of use, whichever project
/// the cache is cleaned from.
pub(super) fn note_project(debian: &Debian, folder: &Path) -> Result<(), Error> {
    let all = debian.cache.folder().join(FOLDER);
    let name = digest(&folder.to_string_lossy());
    let file = all.join(format!("{PROJECT}{name}"));
    if file.exists() {
        return Ok(());
    }
    fs::create_dir_all(&all).map_err(cache::Error::io("make the folder", &all))?;
    Ok(cache::write(&file, folder.as_os_str().as_bytes())?)
}

/// The folders of the projects that have pins; those that are gone are forgotten.
pub(super) fn projects(debian: &Debian) -> Result<Vec<PathBuf>, Error> {
    let mut folders = Vec::new();
    for (name, file) in cache::entries(&debian.cache.folder().join(FOLDER))? {
        if !name.starts_with(PROJECT) {
            continue;
        }
        let folder = fs::read(&file).map_err(cache::Error::io("read", &file))?;
        let folder = PathBuf::from(OsString::from_vec(folder));
        match folder.is_dir() {
            true => folders.push(folder),
            false => cache::remove(&file)?,
        }
    }
    Ok(folders)
}

fn record<P: Serialize>(debian: &Debian, name: &str, plan: &P) -> Result<(), Error> {
    let file = file(debian, name);
    let text = serde_json::to_vec_pretty(plan)
        .map_err(|error| cache::Error::io("write", &file)(error.into()))?;
    let folder = debian.cache.folder().join(FOLDER);
    fs::create_dir_all(&folder).map_err(cache::Error::io("make the folder", &folder))?;
    // Another run may write the same plan at this moment.
    let _lock = debian.cache.lock("plans")?;
    Ok(cache::write(&file, &text)?)
}
