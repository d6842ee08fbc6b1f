//! Two processes that are killed at any moment, one that makes buffers and one
//! that maps and imports them: nothing of either remains.
//!
//! `DMASHARE_ROUNDS` says how often; 1000 times where it says nothing.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use dmashare::buffer::{Access, Buffer};
use dmashare::import::drm::Card;
use dmashare_tests::conformance::Verdict;
use dmashare_tests::held;
use drm::control::Device as _;
use libtest_mimic::Trial;
use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::device::{Alloc, BELOW_4G, CONTIGUOUS, Device, Made, PAGE, Range, WRITE_COMBINED};
use crate::forked::Forked;
use crate::gem::Vgem;
use crate::random::Random;
use crate::shown::totals;
use crate::{ensure, test, text};
use crate::{memfd, users};

pub(crate) fn trials() -> Vec<Trial> {
    vec![test("module::keeps_nothing_of_the_killed", killed)]
}

fn rounds() -> Result<u64, String> {
    match std::env::var("DMASHARE_ROUNDS") {
        Ok(rounds) => rounds.parse().map_err(text),
        Err(_) => Ok(1000),
    }
}

fn killed() -> Verdict {
    held::comes_back_to(0, users)?;
    // Found once: a search opens every card.
    let card = Card::find("vgem").map_err(text)?;
    let mut random = Random::new(1);
    for round in 0..rounds()? {
        let (ours, theirs) = UnixDatagram::pair().map_err(text)?;
        let seed = random.next();
        let makes = Forked::start(|| makes(&ours, Random::new(seed)))?;
        let uses = Forked::start(|| uses(&theirs, card.path(), Random::new(seed)))?;
        // Messages that neither took stay with the sockets.
        drop((ours, theirs));
        sleep(Duration::from_micros(random.below(8000)));
        let (first, second) = match round % 2 {
            0 => (makes, uses),
            _ => (uses, makes),
        };
        first.kill()?;
        sleep(Duration::from_micros(random.below(500)));
        second.kill()?;
        let ended = first.wait().and(second.wait());
        ended.map_err(|reason| format!("round {round}: {reason}"))?;
    }
    held::comes_back_to((0, 0), totals)?;
    held::comes_back_to(0, users)?;
    let info = Device::open()?.info().map_err(text)?;
    ensure((info.total_used, info.buffers) == (0, 0), || {
        format!("{info:?}")
    })
}

/// Makes buffers of all kinds, writes them and passes them on, until it is
/// killed or no one is left to take them.
fn makes(socket: &UnixDatagram, mut random: Random) -> Verdict {
    let device = Device::open()?;
    let memfd = memfd(64 * PAGE)?;
    loop {
        let pages = 1 + random.below(64);
        let alloc = Alloc::new(pages * PAGE);
        let made = match random.below(5) {
            0 => device.alloc(alloc.max_chunk(PAGE)),
            1 => device.alloc(alloc.flags(CONTIGUOUS)),
            2 => device.alloc(alloc.flags(WRITE_COMBINED)),
            3 => device.alloc(alloc.flags(BELOW_4G)),
            _ => {
                let range = Range::new(&memfd, 0, pages * PAGE);
                device.wrap(&[range, range])
            }
        };
        let buffer = made.map_err(text).and_then(Made::buffer)?;
        let mut mapping = buffer.map(Access::Write).map_err(text)?;
        let mut guard = mapping.access(Access::Write).map_err(text)?;
        guard.write(0, &pages).map_err(text)?;
        guard.finish().map_err(text)?;
        if !send(socket, &buffer)? {
            return Ok(());
        }
    }
}

/// Maps what comes, and imports it, until it is killed or no more comes.
fn uses(socket: &UnixDatagram, card: &Path, mut random: Random) -> Verdict {
    let vgem = Vgem::at(card)?;
    let mut kept = Vec::new();
    while let Some(fd) = receive(socket)? {
        let buffer = Buffer::from_fd(fd).map_err(text)?;
        let mut mapping = buffer.map(Access::Read).map_err(text)?;
        let guard = mapping.access(Access::Read).map_err(text)?;
        let pages: u64 = guard.read(0).map_err(text)?;
        ensure((1..=64).contains(&pages), || format!("{pages} pages"))?;
        guard.finish().map_err(text)?;
        let handle = vgem
            .prime_fd_to_buffer(buffer.fd().map_err(text)?)
            .map_err(text)?;
        // Some stay with a mapping, some with a GEM handle, some go at once.
        match random.below(4) {
            0 => kept.push(mapping),
            1 => {}
            _ => vgem.close_buffer(handle).map_err(text)?,
        }
        if random.below(8) == 0 {
            kept.clear();
        }
    }
    Ok(())
}

/// Whether there was someone to take it.
pub(crate) fn send(socket: &UnixDatagram, buffer: &Buffer) -> Result<bool, String> {
    let handles = [buffer.fd().map_err(text)?];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&handles)));
    let byte = [IoSlice::new(b"!")];
    Ok(sendmsg(socket, &byte, &mut control, SendFlags::NOSIGNAL).is_ok())
}

fn receive(socket: &UnixDatagram) -> Result<Option<OwnedFd>, String> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    if recvmsg(socket.as_fd(), &mut bytes, &mut control, flags).is_err() {
        return Ok(None);
    }
    let came = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut handles) => handles.next(),
        _ => None,
    });
    came.map(Some)
        .ok_or_else(|| "a message without a handle".to_owned())
}
