//! What a command prints when it is done.

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;

use crate::failure::Failure;

/// One JSON value, on a line.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value)?;
    lines(&[text])
}

/// Each on a line.
pub(crate) fn lines(values: &[impl Display]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    for value in values {
        writeln!(out, "{value}").map_err(Failure::output)?;
    }
    Ok(())
}
