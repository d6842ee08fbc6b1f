//! The command `dmashare`, and the parts of its demo that a check of the
//! result from outside needs: what is drawn ([`demo::scene`]) and what is told
//! ([`demo::report`]).

mod bench;
mod bytes;
mod cli;
mod content;
pub mod demo;
mod endpoint;
mod explain;
mod failure;
mod line;
mod module;
mod negotiate;
pub mod probe;
mod read;
mod rm;
mod segment;
mod size;
mod table;
mod told;
mod write;

pub use cli::main;
