//! What the end-to-end tests of dmashare have in common.
//!
//! - [`conformance`]: what every way to allocate must do, as a list of checks.
//! - [`ways`]: these checks as tests, for each way that the machine has.
//! - [`peers`]: independent programs in C, a writer and a reader for each way.
//! - [`pairing`]: the command `dmashare` at one end and a peer at the other.
//! - [`command`]: the command as another process.
//! - [`guest`]: the machine that a test runs on.
//! - [`held`]: what a process holds, and who holds a dma-buf.
//! - [`uapi`]: the kernel module's header, as Rust.
//! - [`sync_calls`]: to see and refuse what a thread tells the exporter of a
//!   dma-buf, so that a kernel's rare answers can be tested every time.

pub mod command;
pub mod conformance;
pub mod guest;
pub mod held;
pub mod pairing;
pub mod peers;
pub mod sync_calls;
pub mod uapi;
pub mod ways;
