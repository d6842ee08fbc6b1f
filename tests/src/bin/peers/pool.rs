//! Buffers with a picture of ours, lent to GStreamer.

use std::time::{Duration, Instant};

use dmashare::alloc::{Allocate, Request};
use dmashare::buffer::{Access, Buffer};
use dmashare::frame::Frame;
use dmashare::share::gstreamer::{Sink, SinkEvent, Stamp};

use crate::inside::{ensure, text};
use crate::launch::{LONG, Launched};

/// As many as are asked for, each with its number as the id.
pub(crate) struct Pool {
    pub(crate) frame: Frame,
    pub(crate) buffers: Vec<Buffer>,
    free: Vec<usize>,
    /// How often each was lent.
    pub(crate) lent: Vec<usize>,
}

impl Pool {
    pub(crate) fn new(way: &dyn Allocate, frame: &Frame, count: usize) -> Result<Pool, String> {
        let size = frame.size_of_buffer(0).map_err(text)?;
        let request = match way.way().for_devices() {
            true => Request::new(size).named("peers").for_device(),
            false => Request::new(size).named("peers"),
        };
        let buffers = (0..count).map(|_| way.allocate(&request).map_err(text));
        Ok(Pool {
            frame: frame.clone(),
            buffers: buffers.collect::<Result<_, _>>()?,
            free: (0..count).rev().collect(),
            lent: vec![0; count],
        })
    }

    /// Whether nothing is lent.
    pub(crate) fn is_whole(&self) -> bool {
        self.free.len() == self.buffers.len()
    }

    /// Waits until a client is there: its program starts.
    pub(crate) fn meet(sink: &mut Sink, program: &mut Launched) -> Result<(), String> {
        sink.set_timeout(Some(Duration::from_millis(200)));
        let begun = Instant::now();
        loop {
            match sink.event() {
                Ok(SinkEvent::Connected(_)) => break,
                Ok(other) => return Err(format!("{other:?}")),
                Err(_) if begun.elapsed() < LONG && program.is_running()? => {}
                Err(error) => return Err(format!("{error}; {}", program.words())),
            }
        }
        sink.set_timeout(Some(LONG));
        Ok(())
    }

    /// What has come back; gives other events to whom it may concern.
    fn take(&mut self, event: SinkEvent) -> Result<Option<SinkEvent>, String> {
        match event {
            SinkEvent::Free(id) => {
                let id = usize::try_from(id).map_err(text)?;
                ensure(!self.free.contains(&id), || format!("{id} came twice"))?;
                self.free.push(id);
                Ok(None)
            }
            other => Ok(Some(other)),
        }
    }

    /// Fills a free buffer with these rows, of no padding, and lends it; waits
    /// for one that is free.
    pub(crate) fn lend(&mut self, sink: &mut Sink, rows: &[u8]) -> Result<(), String> {
        let id = loop {
            if let Some(id) = self.free.pop() {
                break id;
            }
            let event = sink.event().map_err(text)?;
            if let Some(other) = self.take(event)? {
                return Err(format!("{other:?}"));
            }
        };
        self.fill(id, rows)?;
        self.lent[id] += 1;
        let stamp = Stamp {
            duration: Some(Duration::from_millis(10)),
            ..Stamp::now()
        };
        let buffers = [&self.buffers[id]];
        let clients = sink.send(id as u64, &self.frame, &buffers, &stamp);
        ensure(clients.map_err(text)? == 1, || "no client".to_owned())
    }

    fn fill(&self, id: usize, rows: &[u8]) -> Result<(), String> {
        let mut mapping = self.buffers[id].map(Access::Write).map_err(text)?;
        let mut guard = mapping.access(Access::Write).map_err(text)?;
        let place = self.frame.rows(0).map_err(text)?;
        guard.write_rows(place, rows).map_err(text)?;
        guard.finish().map_err(text)
    }

    /// Waits until the client is gone, and all are free.
    pub(crate) fn gather(&mut self, sink: &mut Sink) -> Result<(), String> {
        let mut gone = false;
        while !(gone && self.is_whole()) {
            let event = sink.event().map_err(text)?;
            gone |= matches!(self.take(event)?, Some(SinkEvent::Gone { .. }));
        }
        ensure(sink.clients() == 0, || "a client is left".to_owned())
    }

    /// Hears what is there to be heard within this time.
    pub(crate) fn hear(&mut self, sink: &mut Sink, time: Duration) -> Result<(), String> {
        sink.set_timeout(Some(time));
        while let Ok(event) = sink.event() {
            if let Some(other) = self.take(event)? {
                return Err(format!("{other:?}"));
            }
        }
        sink.set_timeout(Some(LONG));
        Ok(())
    }
}
