//! The buffers between two processes, at either end.
//!
//! Without copies both ends have the same memory, and a frame goes over by the
//! number of its buffer. With copies, to compare with, a memfd lies between: the
//! sender copies a frame into it, and the receiver out of it into a buffer of
//! its own, as with any pipe.

use dmashare::alloc::{Allocate, Memfd, Request, allocate};
use dmashare::buffer::{Access, Buffer};
use dmashare::fence;
use dmashare::share::{Frame, Socket};

use super::super::DemoError;
use super::link::{self, Colors, LinkError, Say, Stamp};
use super::tally::Tally;
use super::wait::is_readable;

/// A buffer, and the frame that it has room for.
pub(super) type Slot = (Frame, Buffer);

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// The end that frames go out from.
pub(super) struct Outlet {
    socket: Socket,
    /// What frames are made in.
    slots: Vec<Slot>,
    /// What the other end has, where that is a copy.
    copies: Option<Vec<Slot>>,
    /// Whether it is ours, and not the other end's.
    free: Vec<bool>,
}

impl Outlet {
    /// Passes the buffers on.
    pub(super) fn open(
        socket: Socket,
        slots: Vec<Slot>,
        colors: Colors,
        copy: bool,
    ) -> Result<Outlet, LinkError> {
        let copies = copy
            .then(|| between(&slots))
            .transpose()
            .map_err(LinkError::at("allocate"))?;
        let clone = |slots: &[Slot]| -> Result<Vec<Slot>, Failed> {
            let cloned = slots
                .iter()
                .map(|(frame, buffer)| Ok((frame.clone(), buffer.try_clone()?)));
            cloned.collect()
        };
        let passed = clone(copies.as_ref().unwrap_or(&slots)).map_err(LinkError::at("pass on"))?;
        link::send(&socket, &Say::Pool(passed, colors))?;
        Ok(Outlet {
            socket,
            free: vec![true; slots.len()],
            slots,
            copies,
        })
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// One that is free, if there is any.
    pub(super) fn free_slot(&self) -> Option<usize> {
        self.free.iter().position(|free| *free)
    }

    /// Gives the frame in this slot to the other end.
    pub(super) fn send(&mut self, stamp: Stamp) -> Result<(), LinkError> {
        if let Some(copies) = &self.copies {
            copy(&self.slots[stamp.slot], &copies[stamp.slot]).map_err(LinkError::at("copy"))?;
        }
        self.free[stamp.slot] = false;
        let sent = fence::now();
        link::send(&self.socket, &Say::Frame(Stamp { sent, ..stamp }))
    }

    /// Waits until the other end says that a slot is free: which, and whether its
    /// frame was used.
    pub(super) fn freed(&mut self) -> Result<(usize, bool), LinkError> {
        match link::receive(&self.socket)? {
            Say::Free { slot, used } if self.free.get(slot) == Some(&false) => {
                self.free[slot] = true;
                Ok((slot, used))
            }
            Say::Free { slot, .. } => Err(LinkError::Slot(slot)),
            _ => Err(LinkError::Garbled),
        }
    }
}

/// The end that frames come in at.
pub(super) struct Inlet {
    socket: Socket,
    /// What comes over.
    slots: Vec<Slot>,
    /// What the frames are used in, where that is a copy.
    copies: Option<Vec<Slot>>,
    colors: Colors,
    /// Whether it has a frame, and is ours.
    full: Vec<bool>,
}

impl Inlet {
    /// Waits for the buffers.
    pub(super) fn open(socket: Socket, copy: bool) -> Result<Inlet, LinkError> {
        let Say::Pool(slots, colors) = link::receive(&socket)? else {
            return Err(LinkError::Garbled);
        };
        let copies = match copy {
            true => Some(own(&slots).map_err(LinkError::at("allocate"))?),
            false => None,
        };
        Ok(Inlet {
            socket,
            full: vec![false; slots.len()],
            slots,
            copies,
            colors,
        })
    }

    /// What frames are to be used in.
    pub(super) fn slots(&self) -> &[Slot] {
        self.copies.as_ref().unwrap_or(&self.slots)
    }

    /// How their YUV is to be read.
    pub(super) fn colors(&self) -> Colors {
        self.colors
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The newest of the frames that have come, and of `held`, which came before;
    /// those before it are given back.
    pub(super) fn newest(
        &mut self,
        mut held: Option<Stamp>,
        came: &mut Tally,
    ) -> Result<Option<Stamp>, LinkError> {
        while is_readable(&self.socket)? {
            let stamp = self.receive()?;
            came.count(fence::now().saturating_sub(stamp.sent));
            if let Some(older) = held.replace(stamp) {
                came.drop(1);
                self.free(older.slot, false)?;
            }
        }
        Ok(held)
    }

    fn receive(&mut self) -> Result<Stamp, LinkError> {
        match link::receive(&self.socket)? {
            Say::Frame(stamp) if self.full.get(stamp.slot) == Some(&false) => {
                self.full[stamp.slot] = true;
                Ok(stamp)
            }
            Say::Frame(stamp) => Err(LinkError::Slot(stamp.slot)),
            _ => Err(LinkError::Garbled),
        }
    }

    /// Has the frame where it is to be used.
    pub(super) fn take(&self, stamp: &Stamp) -> Result<(), DemoError> {
        match &self.copies {
            Some(copies) => {
                copy(&self.slots[stamp.slot], &copies[stamp.slot]).map_err(DemoError::at("copy"))
            }
            None => Ok(()),
        }
    }

    /// Gives the slot back, its frame used or passed over.
    pub(super) fn free(&mut self, slot: usize, used: bool) -> Result<(), LinkError> {
        self.full[slot] = false;
        link::send(&self.socket, &Say::Free { slot, used })
    }
}

/// What a device makes of each slot.
pub(super) fn each<T, E>(
    slots: &[Slot],
    step: &'static str,
    import: impl Fn(&Slot) -> Result<T, E>,
) -> Result<Vec<T>, DemoError>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let imported: Result<Vec<T>, E> = slots.iter().map(import).collect();
    imported.map_err(DemoError::at(step))
}

/// Memory to copy into, and out of.
fn between(slots: &[Slot]) -> Result<Vec<Slot>, Failed> {
    let memfds = slots.iter().map(|(frame, buffer)| {
        let request = Request::new(buffer.size()).named("demo copies");
        Ok((frame.clone(), Memfd::new().allocate(&request)?))
    });
    memfds.collect()
}

/// Memory that a device takes, of the same layout.
fn own(slots: &[Slot]) -> Result<Vec<Slot>, Failed> {
    let owned = slots.iter().map(|(frame, buffer)| {
        let request = Request::new(buffer.size())
            .named("demo copies")
            .for_device();
        Ok((frame.clone(), allocate(&request)?.buffer))
    });
    owned.collect()
}

/// Row by row, so that a row is still in the cache when it is written: what
/// memcpy does, once.
fn copy((frame, from): &Slot, (_, to): &Slot) -> Result<(), Failed> {
    let mut source = from.map(Access::Read)?;
    let source = source.access(Access::Read)?;
    let mut target = to.map(Access::Write)?;
    let mut target = target.access(Access::Write)?;
    for plane in 0..frame.planes.len() {
        let rows = frame.rows(plane)?;
        let mut row = vec![0; usize::try_from(rows.row)?];
        for number in 0..u64::from(rows.count) {
            let at = rows.offset + number * u64::from(rows.stride);
            source.read_at(at, &mut row)?;
            target.write_at(at, &row)?;
        }
    }
    source.finish()?;
    target.finish()?;
    Ok(())
}
