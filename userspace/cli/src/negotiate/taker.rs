//! The takers that can be named, a line each.

use std::path::PathBuf;

use dmashare::negotiate::Taker;

use super::form::Form;
use crate::failure::Failure;

/// What the command says of them.
pub(super) const HELP: &str = "\
Who takes the picture: cpu; peer, a process that hands it on; file:PATH, one described in JSON";

/// A taker as it is named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Cpu,
    Peer,
    File(PathBuf),
}

/// KIND or KIND:WHICH.
pub(super) fn parse(text: &str) -> Result<Named, String> {
    let (kind, which) = match text.split_once(':') {
        Some((kind, which)) => (kind, Some(which).filter(|which| !which.is_empty())),
        None => (text, None),
    };
    match (kind, which) {
        ("cpu", None) => Ok(Named::Cpu),
        ("peer", None) => Ok(Named::Peer),
        ("file", Some(path)) => Ok(Named::File(path.into())),
        _ => Err(format!(
            "{text:?} is no taker; write cpu, peer or file:PATH"
        )),
    }
}

impl Named {
    /// What it can take.
    pub(super) fn open(&self) -> Result<Taker, Failure> {
        match self {
            Named::Cpu => Ok(Taker::cpu()),
            Named::Peer => Ok(Taker::peer()),
            Named::File(path) => Form::read(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takers_are_named() {
        assert_eq!(parse("cpu"), Ok(Named::Cpu));
        assert_eq!(parse("file:a:b"), Ok(Named::File("a:b".into())));
        for text in ["", "cpus", "cpu:0", "file", "file:", ":cpu"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
