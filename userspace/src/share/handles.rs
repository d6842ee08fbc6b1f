//! One sendmsg(2) and one recvmsg(2) with the handles they carry.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::codec::MAX_HANDLES;

/// Space for the handles of one message.
const SPACE: usize = cmsg_space!(ScmRights(MAX_HANDLES));

/// Space for what else the kernel puts ahead of them where the socket comes from
/// elsewhere, and has it asked for: the sender's credentials, its security
/// label, the time. Without it there would be none left for many handles.
const MORE_SPACE: usize = 512;

/// What one recvmsg(2) gave.
pub(super) struct Received {
    /// The bytes; in a datagram those that were sent, not those that fitted.
    pub(super) len: usize,
    /// All handles that came: what is not given out is closed on drop.
    pub(super) handles: Vec<OwnedFd>,
    /// Whether handles got lost.
    pub(super) lost: bool,
}

/// Sends without waiting: the number of bytes that the socket took. The
/// handles go with the first of them; there are at most [`MAX_HANDLES`].
pub(super) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    handles: &[BorrowedFd<'_>],
) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !handles.is_empty() {
        let fits = control.push(SendAncillaryMessage::ScmRights(handles));
        assert!(fits, "the callers let no more handles pass");
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    retry_on_intr(|| sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags))
}

/// Reads without waiting, and leaves all that is read: how many bytes are there
/// up to the first that has handles, it included, and whether it has some.
pub(super) fn peek(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<(usize, bool), Errno> {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let peeked = retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(&mut *bytes)];
        // No room for handles: none is made.
        recvmsg(
            socket,
            &mut parts,
            &mut RecvAncillaryBuffer::default(),
            flags,
        )
    })?;
    Ok((peeked.bytes, peeked.flags.contains(ReturnFlags::CTRUNC)))
}

/// Receives without waiting.
pub(super) fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<Received, Errno> {
    let mut space = [MaybeUninit::uninit(); SPACE + MORE_SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    // TRUNC gives the length of a datagram that was sent, not the length that
    // fits; a UNIX stream takes no notice of it.
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::TRUNC | RecvFlags::DONTWAIT;
    let mut receive = || {
        retry_on_intr(|| {
            let mut parts = [IoSliceMut::new(&mut *bytes)];
            recvmsg(socket, &mut parts, &mut control, flags)
        })
    };
    let received = match receive() {
        // A peer that leaves without reading all that we sent has the kernel
        // say so once, and for datagrams ahead of what the peer sent before.
        Err(Errno::CONNRESET) => receive(),
        received => received,
    }?;
    // All of them before anything is judged. There can be more than was asked
    // for, since the kernel fills the space up to its alignment.
    let handles = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(handles) => Some(handles),
            _ => None,
        })
        .flatten()
        .collect();
    Ok(Received {
        len: received.bytes,
        handles,
        lost: received.flags.contains(ReturnFlags::CTRUNC),
    })
}
