//! The System V segment that `read` and `rm` are called for.

use std::path::PathBuf;

use clap::Args;
use dmashare::Errno;
use dmashare::alloc::{AllocError, Key, Owner, SysV};
use dmashare::buffer::Buffer;

use crate::failure::Failure;

/// How it is found.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Segment {
    /// The file that its key ftok(PATH, 0) was made of
    #[arg(long)]
    path: Option<PathBuf>,
    /// Its key, as `ipcs -m` shows it
    #[arg(long, value_parser = key)]
    key: Option<Key>,
    /// Its id, the shmid of `ipcs -m`
    #[arg(long)]
    id: Option<i32>,
}

/// A segment that was named on the command line.
#[derive(Clone, Copy, Debug)]
enum Named {
    Key(Key),
    Id(i32),
}

/// A key: digits, or 0x and hexadecimal digits.
fn key(text: &str) -> Result<Key, String> {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).map(u32::cast_signed).ok(),
        None => (text.parse::<i32>().ok()).or(text.parse().map(u32::cast_signed).ok()),
    };
    let number = number.ok_or_else(|| {
        format!("invalid key {text:?}: expected digits, or 0x and up to eight hexadecimal digits")
    })?;
    Key::new(number).ok_or_else(|| {
        "invalid key 0: it is IPC_PRIVATE, which any number of segments have; use --id".to_owned()
    })
}

impl Segment {
    fn named(&self) -> Result<Named, Failure> {
        match (&self.path, self.key, self.id) {
            (_, Some(key), _) => Ok(Named::Key(key)),
            (_, _, Some(id)) => Ok(Named::Id(id)),
            (Some(path), ..) => Key::of_path(path, 0).map(Named::Key).map_err(gone),
            (None, None, None) => Err(Failure::usage("expected --path, --key or --id")),
        }
    }

    /// The segment, which `owner` owns and made.
    pub(crate) fn open(&self, owner: Owner) -> Result<Result<Buffer, AllocError>, Failure> {
        Ok(match self.named()? {
            Named::Key(key) => SysV::open_owned(key, owner),
            Named::Id(id) => SysV::open_id(id, owner),
        })
    }

    pub(crate) fn remove(&self) -> Result<(), Failure> {
        match self.named()? {
            Named::Key(key) => SysV::remove(key),
            Named::Id(id) => SysV::remove_id(id),
        }
        .map_err(Failure::alloc)
    }
}

/// Why there is no key of a file.
fn gone(error: AllocError) -> Failure {
    match error {
        AllocError::Os {
            source: Errno::NOENT,
            ..
        } => Failure::failed(format!(
            "{error}; where the file is gone, use --key or --id, which `ipcs -m` lists"
        )),
        error => Failure::alloc(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_as_ipcs_shows_them() {
        for (text, number) in [
            ("0x0000002a", 42),
            ("42", 42),
            ("-1", -1),
            ("0xffffffff", -1),
            ("4294967295", -1),
        ] {
            assert_eq!(key(text), Ok(Key::new(number).unwrap()), "{text}");
        }
        for text in ["", "0", "0x0", "0x", "0x1ffffffff", "x", "1.5"] {
            assert!(key(text).is_err(), "{text}");
        }
    }
}
