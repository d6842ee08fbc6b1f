//! `dmashare rm`: the end of what outlives its makers.

use clap::Subcommand;
use dmashare::alloc::Posix;

use crate::failure::Failure;
use crate::segment::Segment;

/// What has a name that stays.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Rm {
    /// A System V segment; its memory goes with the last who has it attached
    Sysv(Segment),
    /// A POSIX shared memory object; its memory goes with the last who has it open or mapped
    Posix {
        /// Its name, as in shm_open(3)
        #[arg(long)]
        name: String,
    },
}

pub(crate) fn run(rm: &Rm) -> Result<(), Failure> {
    match rm {
        Rm::Sysv(segment) => segment.remove(),
        Rm::Posix { name } => Posix::unlink(name).map_err(Failure::alloc),
    }
}
