//! `--copy-in` and `--copy-out`: files that the guest gets and gives.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use crate::cache::write_with;
use crate::{Error, Limits, Vm};

#[derive(Args)]
pub(super) struct Copies {
    /// A file of the host's that the guest is to have, with its permissions
    #[arg(long, value_name = "HOST:GUEST", value_parser = incoming)]
    copy_in: Vec<Incoming>,
    /// A regular file that the host is to have when the program has ended, with its
    /// permissions but for setuid, setgid and sticky bits; all of them have as much time
    /// together as the program has (--deadline)
    #[arg(long, value_name = "GUEST:HOST", value_parser = outgoing)]
    copy_out: Vec<Outgoing>,
    /// The most MiB that a file of --copy-out may have
    #[arg(long, value_name = "MIB", default_value = "1024")]
    copy_out_limit: u32,
}

#[derive(Clone)]
struct Incoming {
    host: PathBuf,
    guest: String,
}

#[derive(Clone)]
struct Outgoing {
    guest: String,
    host: PathBuf,
}

fn incoming(text: &str) -> Result<Incoming, String> {
    match text.rsplit_once(':') {
        Some((host, guest)) if !host.is_empty() && guest.starts_with('/') => Ok(Incoming {
            host: host.into(),
            guest: guest.into(),
        }),
        _ => Err("give it as HOST:GUEST, with the whole path in the guest".into()),
    }
}

fn outgoing(text: &str) -> Result<Outgoing, String> {
    match text.split_once(':') {
        Some((guest, host)) if guest.starts_with('/') && !host.is_empty() => Ok(Outgoing {
            guest: guest.into(),
            host: host.into(),
        }),
        _ => Err("give it as GUEST:HOST, with the whole path in the guest".into()),
    }
}

impl Copies {
    pub(super) fn copy_in(&self, vm: &Vm) -> Result<(), Error> {
        for Incoming { host, guest } in &self.copy_in {
            copy_in(vm, host, &within(guest, host))?;
        }
        Ok(())
    }

    pub(super) fn copy_out(&self, vm: &Vm, longest: Duration) -> Result<(), Error> {
        let began = Instant::now();
        for Outgoing { guest, host } in &self.copy_out {
            let host = match host.is_dir() {
                true => host.join(Path::new(guest).file_name().unwrap_or_default()),
                false => host.clone(),
            };
            let limits = Limits {
                bytes: u64::from(self.copy_out_limit) << 20,
                time: Some(longest.saturating_sub(began.elapsed())),
            };
            copy_out(vm, guest, &host, limits).map_err(|error| match error {
                Error::Io { what, source } if source.kind() == io::ErrorKind::FileTooLarge => {
                    let source =
                        io::Error::other(format!("{source}; --copy-out-limit raises that"));
                    Error::Io { what, source }
                }
                other => other,
            })?;
        }
        Ok(())
    }
}

/// A path that ends with a slash is the folder for it.
fn within(guest: &str, host: &Path) -> String {
    let name = host.file_name().unwrap_or_default().to_string_lossy();
    match guest.ends_with('/') {
        true => format!("{guest}{name}"),
        false => guest.to_owned(),
    }
}

/// Give the guest this file of the host's.
pub(super) fn copy_in(vm: &Vm, host: &Path, guest: &str) -> Result<(), Error> {
    let failed = || Error::io(host.to_string_lossy());
    let file = File::open(host).map_err(failed())?;
    let metadata = file.metadata().map_err(failed())?;
    if metadata.is_dir() {
        return Err(Error::Project(format!(
            "{} is a folder; the guest gets it with --share",
            host.display()
        )));
    }
    vm.write_file(guest, file, metadata.permissions().mode() & 0o7777)
}

/// Whole or not at all, with its permissions; into a device or a FIFO as it comes.
fn copy_out(vm: &Vm, guest: &str, host: &Path, limits: Limits) -> Result<(), Error> {
    let failed = |source| Error::io(host.to_string_lossy())(source);
    write_with(host, failed, |file| {
        // A device's permissions are its own.
        let is_file = file.metadata().map_err(failed)?.is_file();
        let permit = |file: &File, mode| match is_file {
            true => file.set_permissions(Permissions::from_mode(mode)),
            false => Ok(()),
        };
        // For its owner only, until it is known for whom else.
        permit(file, 0o600).map_err(failed)?;
        let mode = vm.read_file_within(guest, file, limits)?;
        permit(file, mode).map_err(failed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_pairs_of_paths() {
        let pair = incoming("a:b:/tmp/").ok().unwrap();
        assert_eq!(pair.host, Path::new("a:b"));
        assert_eq!(within(&pair.guest, &pair.host), "/tmp/a:b");
        assert_eq!(within("/tmp/c", &pair.host), "/tmp/c");
        let pair = outgoing("/tmp/c:a:b").ok().unwrap();
        assert_eq!(
            (pair.guest.as_str(), pair.host.as_path()),
            ("/tmp/c", Path::new("a:b"))
        );
        for wrong in ["", "a", "a:", ":/b", "a:b"] {
            assert!(incoming(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "/a", "/a:", ":b", "a:b"] {
            assert!(outgoing(wrong).is_err(), "{wrong}");
        }
    }
}
