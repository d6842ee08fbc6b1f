//! `cargo vm cache`: what the cache holds, and what of it may go.

use std::io::IsTerminal;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{show, show_json, table};
use crate::Error;
use crate::cache::Size;
use crate::debian::host::asked;
use crate::debian::{Debian, clean, stale};
use crate::progress::size;
use crate::project::Project;

/// Folders of many small things, each shown as one.
const TOGETHER: [&str; 4] = ["apt", "debs", "locks", "plans"];

#[derive(Args)]
pub(super) struct Options {
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Remove what no name of a kernel or root stands for any more: superseded kernels and
    /// roots, their compilers and modules, packages that are unpacked, what was not used for 30
    /// days
    Clean {
        /// Say what would be removed, and remove nothing
        #[arg(long)]
        dry_run: bool,
        /// Remove everything; asks, unless there is --yes
        #[arg(long)]
        all: bool,
    },
}

pub(super) fn run(
    project: &Project,
    debian: &Debian,
    yes: bool,
    options: &Options,
) -> Result<u8, Error> {
    // What this project pins is of use.
    let debian = &debian.clone().pinned(project.pins.clone());
    match options.verb {
        None => list(debian, options.json),
        Some(Verb::Clean { dry_run, all }) => {
            let entries = stale(debian, all)?;
            if options.json {
                show_json(&entries.iter().map(value).collect::<Vec<_>>());
            }
            if all && !dry_run && !yes {
                agreed(debian, &entries)?;
            }
            remove(debian, &entries, dry_run, options.json)
        }
    }
}

fn list(debian: &Debian, json: bool) -> Result<u8, Error> {
    let sizes = debian.cache().sizes().map_err(crate::debian::Error::from)?;
    if json {
        show_json(&sizes.iter().map(value).collect::<Vec<_>>());
        return Ok(0);
    }
    let total = sizes.iter().map(|entry| entry.bytes).sum();
    let mut rows = vec![["KIND", "KEY", "SIZE", "USED"].map(str::to_owned)];
    rows.extend(together(&sizes).iter().map(row));
    let folder = debian.cache().folder().display();
    show(&format!("{}{} in {folder}\n", table(&rows), size(total)));
    Ok(0)
}

fn remove(debian: &Debian, entries: &[Size], dry_run: bool, json: bool) -> Result<u8, Error> {
    let mut freed = Vec::new();
    let mut used = Vec::new();
    for entry in entries {
        // The programs that a running guest is run by go with it.
        let needed = entry.kind == "tools" && !used.is_empty();
        match dry_run || (!needed && clean(debian, entry)?) {
            true => freed.push(entry.clone()),
            false => used.push(entry.clone()),
        }
    }
    if json {
        return Ok(0);
    }
    let mut text = table(&together(&freed).iter().map(row).collect::<Vec<_>>());
    for entry in used {
        text.push_str(&format!(
            "{} {} is in use, and stays\n",
            entry.kind, entry.key
        ));
    }
    let total = size(freed.iter().map(|entry| entry.bytes).sum());
    let done = if dry_run { "would be freed" } else { "freed" };
    show(&format!("{text}{total} {done}\n"));
    Ok(0)
}

/// Asks before everything goes.
fn agreed(debian: &Debian, entries: &[Size]) -> Result<(), Error> {
    let total = size(entries.iter().map(|entry| entry.bytes).sum());
    let folder = debian.cache().folder().display();
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Error::Project(format!(
            "--all removes {total} in {folder}; say --yes, too, where there is no terminal to ask on"
        )));
    }
    match asked(&format!("remove {total} in {folder}?")) {
        true => Ok(()),
        false => Err(Error::Project("nothing was removed".into())),
    }
}

/// The same with one entry for all that is in folders of many small things.
fn together(sizes: &[Size]) -> Vec<Size> {
    let mut rows: Vec<Size> = Vec::new();
    for entry in sizes {
        match rows.last_mut() {
            Some(last) if last.kind == entry.kind && TOGETHER.contains(&entry.kind.as_str()) => {
                last.bytes += entry.bytes;
                last.last_used = last.last_used.max(entry.last_used);
                last.key.clear();
            }
            _ => rows.push(entry.clone()),
        }
    }
    rows
}

fn row(entry: &Size) -> [String; 4] {
    let age = SystemTime::now().duration_since(entry.last_used);
    [
        entry.kind.clone(),
        entry.key.clone(),
        size(entry.bytes),
        ago(age.map_or(0, |age| age.as_secs())),
    ]
}

fn value(entry: &Size) -> serde_json::Value {
    let since = entry.last_used.duration_since(SystemTime::UNIX_EPOCH);
    json!({
        "kind": entry.kind,
        "key": entry.key,
        "bytes": entry.bytes,
        "last_used": since.map_or(0, |since| since.as_secs()),
    })
}

/// How long ago, in the largest unit of which there is one.
fn ago(seconds: u64) -> String {
    let units = [(24 * 3600, "day"), (3600, "hour"), (60, "minute")];
    let unit = units.iter().find(|(length, _)| seconds >= *length);
    match unit {
        None => "now".to_owned(),
        Some((length, name)) => match seconds / length {
            1 => format!("1 {name} ago"),
            number => format!("{number} {name}s ago"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_people_say_them() {
        assert_eq!(ago(59), "now");
        assert_eq!(ago(60), "1 minute ago");
        assert_eq!(ago(2 * 3600 + 1), "2 hours ago");
        assert_eq!(ago(400 * 24 * 3600), "400 days ago");
    }

    #[test]
    fn many_packages_are_one_row() {
        let entry = |kind: &str, key: &str, bytes| Size {
            kind: kind.into(),
            key: key.into(),
            bytes,
            last_used: SystemTime::UNIX_EPOCH,
        };
        let sizes = [
            entry("debs", "a", 1),
            entry("debs", "b", 2),
            entry("kernel", "c", 4),
            entry("kernel", "d", 8),
        ];
        let rows = together(&sizes);
        assert_eq!(rows.len(), 3);
        assert_eq!((rows[0].key.as_str(), rows[0].bytes), ("", 3));
    }
}
