//! `dmashare rm`: the end of what outlives its makers.

use std::path::PathBuf;

use clap::Subcommand;
use dmashare::alloc::{Key, Posix, SysV};

use crate::failure::Failure;

/// What has a name that stays.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Rm {
    /// The System V segment with the key ftok(PATH, 0); its memory goes with the last who has it attached
    Sysv {
        /// The file that the key was made of
        #[arg(long)]
        path: PathBuf,
    },
    /// A POSIX shared memory object; its memory goes with the last who has it open or mapped
    Posix {
        /// Its name, as in shm_open(3)
        #[arg(long)]
        name: String,
    },
}

pub(crate) fn run(rm: &Rm) -> Result<(), Failure> {
    match rm {
        Rm::Sysv { path } => Key::of_path(path, 0)
            .and_then(SysV::remove)
            .map_err(Failure::alloc),
        Rm::Posix { name } => Posix::unlink(name).map_err(Failure::alloc),
    }
}
