//! Boot real kernels in QEMU and run programs there, on a machine that needs
//! neither KVM nor a GPU: see [`Accel`] for KVM where there is one of use.
//!
//! A [`Vm`] is a kernel (Debian's for x86-64 or arm64, one built from source, or
//! your own), a root (of Debian's packages, or your own), folders of the host at
//! their own paths, and an agent that runs programs and keeps their output apart.
//! Every wait has a deadline, and what went wrong in the guest (a panic, an oops,
//! a hang) is told apart from a program that failed: see [`Error`].
//!
//! ```no_run
//! // Not run with the crate's tests: fetches a kernel and boots it.
//! use dmashare_vm::Vm;
//!
//! let vm = Vm::builder().kernel("7.2").boot()?;
//! let output = vm.command("busybox").args(["uname", "-r"]).output()?;
//! assert!(output.stdout.starts_with(b"7.2"));
//! # Ok::<(), dmashare_vm::Error>(())
//! ```
//!
//! See [`Parts`] and [`Builder`] for what a guest can be, and [`project`] for what
//! `cargo vm` reads from a project's Cargo.toml.

mod accel;
mod arch;
mod builder;
pub mod cache;
mod cargo_env;
pub mod cli;
mod command;
mod command_line;
mod console;
mod cross;
pub mod debian;
mod digest;
mod display;
mod error;
mod fault;
mod files;
mod flow;
mod guest;
mod guest_options;
mod identity;
mod initramfs;
mod line;
mod loader;
mod parts;
mod plain;
mod progress;
pub mod project;
mod qemu;
mod qmp;
pub mod screen;
mod snapshot;
pub mod suite;
mod test_kernel;
mod vm;

pub use accel::Accel;
pub use arch::Arch;
pub use builder::Builder;
pub use command::{Command, Event, Output, Process, Signaller, Stdin};
pub use dmashare_vm_init::{Exit, MODULE_FILES, Ready, WindowSize};
pub use error::Error;
pub use files::Limits;
pub use guest_options::GuestOptions;
pub use parts::Parts;
pub use snapshot::Snapshot;
pub use vm::{Origin, Vm};
