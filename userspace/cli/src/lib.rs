//! The command `dmashare`, and the parts of its demo that a check of the
//! result from outside needs: what is drawn ([`demo::scene`]) and what is told
//! ([`demo::report`]).

mod cli;
pub mod demo;
pub mod probe;
mod table;

pub use cli::main;
