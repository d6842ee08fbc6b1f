//! What must not compile, and what the compiler says then.
//!
//! Compilers word it differently, so that only the one that the expected texts
//! are from is asked; that they do not compile, the documentation tests show with
//! any. `TRYBUILD=overwrite` writes the texts of another one.

use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Completion, Trial};

/// The compiler of the expected texts.
const RUSTC: &str = "rustc 1.95.";

fn main() -> ExitCode {
    let trial = Trial::ignorable_test("what_must_not_compile", || {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let version = Command::new(rustc).arg("--version").output()?.stdout;
        let version = String::from_utf8_lossy(&version).trim().to_owned();
        if !version.starts_with(RUSTC) && std::env::var_os("TRYBUILD").is_none() {
            let reason = format!("this is {version}, and the texts are of {RUSTC}x");
            return Ok(Completion::ignored_with(reason));
        }
        // It panics at its end for all that compiled, or said something else.
        trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
        Ok(Completion::Completed)
    });
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}
