//! `cargo vm kernel`: a kernel's source.

use clap::Subcommand;

use crate::Error;
use crate::debian::{Debian, source};

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Fetch a kernel's source, and print its folder
    Source {
        /// The series, as in the name of Debian's package linux-source-7.2
        #[arg(value_name = "X.Y")]
        version: String,
    },
}

pub(super) fn run(debian: &Debian, verb: &Verb) -> Result<u8, Error> {
    let Verb::Source { version } = verb;
    println!("{}", source(debian, version)?.display());
    Ok(0)
}
