//! What every taker of a buffer can take.
//!
//! A taker is whoever gets a buffer in the end: a plane of a display, a GPU, a
//! camera, the CPU, a process at the other end of a socket. Each says what it
//! can take as a [`Taker`], plain data that a driver, a file or a peer can be
//! the source of.

mod taker;

pub use taker::{Layout, Memory, Reach, Sync, Taker};
