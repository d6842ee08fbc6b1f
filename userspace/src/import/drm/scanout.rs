//! A framebuffer on a screen.
//!
//! A screen can be given another frame while it shows one, and the two can end
//! in any order. So a card has a list of what is shown, with what each of them
//! replaced: the latest puts that back, and one in the middle leaves it to the
//! next, as a node leaves a linked list.

use std::fmt;
use std::sync::{Arc, MutexGuard, PoisonError};

use drm::control::{ClipRect, Device as _, Mode as Timings, connector, crtc};

use super::atomic::Pipe;
use super::card::{Inner, again};
use super::error::{MODE_GETCRTC, MODE_GETRESOURCES, MODE_SETCRTC};
use super::framebuffer::Object;
use super::master::Master;
use super::{Card, DrmError, Framebuffer, Mode, Screen, mode};
use crate::fence::Fence;

/// By which of the kernel's two interfaces frames are brought to the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Method {
    /// MODE_ATOMIC: flips take a fence to wait for, and give one.
    Atomic,
    /// MODE_SETCRTC and MODE_PAGE_FLIP: the process does the waiting.
    Legacy,
}

/// Where and how to show a frame; what is not said, [`Card::show_as`] picks.
///
/// ```
/// use dmashare::import::drm::{Method, Show};
/// let show = Show::new().on("HDMI-A-1").at(60).by(Method::Legacy);
/// assert_ne!(show, Show::new());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Show {
    screen: Option<String>,
    refresh: Option<u32>,
    method: Option<Method>,
}

impl Show {
    /// On the first screen that has a mode of the frame's size, in the mode it
    /// likes best, atomically where the driver can.
    pub fn new() -> Show {
        Show::default()
    }

    /// On the connector of this name, such as `HDMI-A-1`.
    pub fn on(mut self, screen: impl Into<String>) -> Show {
        self.screen = Some(screen.into());
        self
    }

    /// In a mode with so many frames a second, rounded.
    pub fn at(mut self, refresh: u32) -> Show {
        self.refresh = Some(refresh);
        self
    }

    /// By this interface, or not at all.
    pub fn by(mut self, method: Method) -> Show {
        self.method = Some(method);
        self
    }
}

/// A framebuffer being shown; made by [`Card::show`].
///
/// On drop the screen goes back to what it showed before, or is turned off if
/// that was nothing; a flip that still waits for its fence is waited for. One that was replaced on its screen, by a later
/// [`Card::show`] or by another program, leaves the screen alone; so this moves
/// on to the next frame, and the last one dropped brings back what was there
/// before the first:
///
/// ```no_run
/// // Not run: needs a screen and imported dma-bufs.
/// # use dmashare::import::drm::{Card, DrmError, Framebuffer};
/// # fn f(card: &Card, frames: &[Framebuffer]) -> Result<(), DrmError> {
/// let mut scanout = card.show(&frames[0])?;
/// for frame in &frames[1..] {
///     scanout = card.show(frame)?;
/// }
/// # drop(scanout);
/// # Ok(()) }
/// ```
pub struct Scanout {
    // Alive as long as the screen shows it: removing a framebuffer that is
    // shown turns the screen off.
    pub(super) framebuffer: Arc<Object>,
    screen: String,
    mode: Mode,
    connector: connector::Handle,
    pub(super) crtc: crtc::Handle,
    /// Of atomic commits; `None` for the legacy interface.
    pub(super) pipe: Option<Pipe>,
    /// Of the last flip, until it is done.
    pub(super) pending: Option<Arc<Fence>>,
    /// What is known to fit into the display's memory, in bytes.
    pub(super) room: u64,
    /// Of its [`Shown`].
    number: u64,
    /// Given up after [`Drop`] has put back what was shown before.
    _master: Master,
}

/// What a scan-out replaced.
pub(super) struct Shown {
    /// Higher than those of all before it in the list.
    number: u64,
    /// The CRTC and what it showed.
    before: crtc::Info,
}

impl Card {
    /// Shows a framebuffer on the first connected screen that has a mode of
    /// exactly its size, and returns when it is on.
    ///
    /// A virtual screen (connector type `Virtual`, as of bochs) has no timing
    /// to keep to and shows any size that its memory holds.
    ///
    /// # Errors
    /// [`DrmError::NoScreen`], [`DrmError::NoMode`] with the modes that there
    /// are, [`DrmError::NoCrtc`], [`DrmError::OtherCard`],
    /// [`DrmError::Overrun`] where the kernel would write out of bounds, and
    /// [`DrmError::Ioctl`] where it is not DRM master: of SET_MASTER with `EBUSY`
    /// where another program is, and with `EACCES` where another was when the
    /// card was opened and this process is not root.
    ///
    /// ```no_run
    /// // Not run: needs a screen and an imported dma-buf.
    /// # use dmashare::import::drm::{Card, DrmError, Framebuffer};
    /// # fn f(card: &Card, framebuffer: &Framebuffer) -> Result<(), DrmError> {
    /// let scanout = card.show(framebuffer)?;
    /// println!("{scanout}"); // Virtual-1 at 1024x768@60
    /// # Ok(()) }
    /// ```
    pub fn show(&self, framebuffer: &Framebuffer) -> Result<Scanout, DrmError> {
        self.show_as(framebuffer, &Show::new())
    }

    /// Shows a framebuffer on the screen, in the mode and by the method asked
    /// for, and returns when it is on.
    ///
    /// # Errors
    /// Those of [`show`](Card::show), [`DrmError::NoSuchScreen`], and
    /// [`DrmError::NotAtomic`].
    ///
    /// ```no_run
    /// // Not run: needs a screen and an imported dma-buf.
    /// # use dmashare::import::drm::{Card, DrmError, Framebuffer, Method, Show};
    /// # fn f(card: &Card, framebuffer: &Framebuffer) -> Result<(), DrmError> {
    /// let show = Show::new().on("Virtual-1").by(Method::Legacy);
    /// let scanout = card.show_as(framebuffer, &show)?;
    /// assert_eq!(scanout.method(), Method::Legacy);
    /// # Ok(()) }
    /// ```
    pub fn show_as(&self, framebuffer: &Framebuffer, show: &Show) -> Result<Scanout, DrmError> {
        let card = &self.0;
        if !Arc::ptr_eq(card, &framebuffer.0.card) {
            return Err(DrmError::OtherCard {
                card: card.to_string(),
            });
        }
        let method = match (show.method, card.is_atomic()) {
            (Some(Method::Atomic), false) => {
                return Err(DrmError::NotAtomic {
                    card: card.to_string(),
                });
            }
            (Some(method), _) => method,
            (None, true) => Method::Atomic,
            (None, false) => Method::Legacy,
        };
        // Before the connectors, which are probed anew for a master.
        let master = Master::take(card)?;
        let connectors = card.connectors()?;
        let (connector, timings) = card.screen_for(&connectors, framebuffer.size(), show)?;
        let room = room_of(connector, &timings);
        card.keep_from_overrun(room, &framebuffer.0)?;
        // From here on no one else shows a frame: two could pick the same CRTC.
        let mut shown = card.shown();
        let crtc = card.crtc_for(connector, &connectors)?;
        let before = card.get_crtc(crtc).map_err(card.failed(MODE_GETCRTC))?;
        let pipe = match method {
            Method::Atomic => {
                let pipe = Pipe::new(card, connector.handle(), crtc)?;
                pipe.show(card, framebuffer.0.raw, timings)?;
                Some(pipe)
            }
            Method::Legacy => {
                again(|| {
                    card.set_crtc(
                        crtc,
                        Some(framebuffer.0.raw),
                        (0, 0),
                        &[connector.handle()],
                        Some(timings),
                    )
                })
                .map_err(card.failed(MODE_SETCRTC))?;
                None
            }
        };
        let number = shown.last().map_or(0, |latest| latest.number + 1);
        shown.push(Shown { number, before });
        Ok(Scanout {
            framebuffer: Arc::clone(&framebuffer.0),
            screen: connector.to_string(),
            mode: Mode::from(&timings),
            connector: connector.handle(),
            crtc,
            pipe,
            pending: None,
            room,
            number,
            _master: master,
        })
    }
}

impl Inner {
    /// Locked from looking at what a CRTC shows until it shows something else.
    pub(super) fn shown(&self) -> MutexGuard<'_, Vec<Shown>> {
        // A panic leaves no entry half-changed.
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first connected screen that shows this size as is asked, and its mode
    /// for it.
    fn screen_for<'a>(
        &self,
        connectors: &'a [connector::Info],
        size: (u32, u32),
        show: &Show,
    ) -> Result<(&'a connector::Info, Timings), DrmError> {
        let wanted = |connector: &&connector::Info| match &show.screen {
            Some(name) => connector.to_string() == *name,
            None => true,
        };
        if let Some(name) = &show.screen
            && !connectors.iter().any(|connector| wanted(&connector))
        {
            return Err(DrmError::NoSuchScreen {
                card: self.to_string(),
                wanted: name.clone(),
                found: connectors.iter().map(ToString::to_string).collect(),
            });
        }
        let connected = || {
            let all = connectors.iter().filter(wanted);
            all.filter(|connector| connector.state() == connector::State::Connected)
        };
        let listed = |connector: &'a connector::Info| {
            let mode = mode::of_size(connector.modes(), size, show.refresh)?;
            Some((connector, mode))
        };
        let made_up = |connector: &'a connector::Info| match connector.interface() {
            connector::Interface::Virtual => Some((connector, mode::made_up(size, show.refresh)?)),
            _ => None,
        };
        if let Some(found) = connected().find_map(listed) {
            return Ok(found);
        }
        if let Some(found) = connected().find_map(made_up) {
            return Ok(found);
        }
        Err(match connected().next().map(Screen::from) {
            None => DrmError::NoScreen {
                card: self.to_string(),
                connectors: connectors.len(),
            },
            Some(screen) => DrmError::NoMode {
                card: self.to_string(),
                size,
                refresh: show.refresh,
                screen: screen.name,
                modes: screen.modes,
            },
        })
    }

    /// Keeps bochs from a frame that it would write beyond its memory.
    ///
    /// It copies a frame there at the frame's own stride, having checked only
    /// that the mode fits: seen with Linux 7.2 to oops in memcpy_toio for
    /// 640x480 with a stride of 65536.
    pub(super) fn keep_from_overrun(
        &self,
        room: u64,
        framebuffer: &Object,
    ) -> Result<(), DrmError> {
        if self.driver() == "bochs-drm" && framebuffer.bytes > room {
            return Err(DrmError::Overrun {
                card: self.to_string(),
                bytes: framebuffer.bytes,
                room,
            });
        }
        Ok(())
    }

    /// The CRTC that drives this screen already, or one that is free to.
    fn crtc_for(
        &self,
        connector: &connector::Info,
        connectors: &[connector::Info],
    ) -> Result<crtc::Handle, DrmError> {
        let encoder = |handle| {
            self.get_encoder(handle)
                .map_err(self.failed("MODE_GETENCODER"))
        };
        if let Some(current) = connector.current_encoder()
            && let Some(crtc) = encoder(current)?.crtc()
        {
            return Ok(crtc);
        }
        let mut taken = Vec::new();
        for current in connectors
            .iter()
            .filter_map(|other| other.current_encoder())
        {
            taken.extend(encoder(current)?.crtc());
        }
        let resources = self
            .resource_handles()
            .map_err(self.failed(MODE_GETRESOURCES))?;
        for &handle in connector.encoders() {
            let possible = resources.filter_crtcs(encoder(handle)?.possible_crtcs());
            if let Some(free) = possible.into_iter().find(|crtc| !taken.contains(crtc)) {
                return Ok(free);
            }
        }
        Err(DrmError::NoCrtc {
            card: self.to_string(),
            screen: connector.to_string(),
        })
    }
}

/// What fits into the memory of a display with 4 bytes a pixel: what a mode
/// takes that it lists, or that was chosen and will be taken or refused.
fn room_of(connector: &connector::Info, chosen: &Timings) -> u64 {
    let fitting = connector.modes().iter().chain([chosen]).map(bytes_of);
    fitting.max().unwrap_or(0)
}

/// What a mode takes of the memory of a display with 4 bytes a pixel.
fn bytes_of(mode: &Timings) -> u64 {
    let (width, height) = mode.size();
    4 * u64::from(width) * u64::from(height)
}

impl Scanout {
    /// Has the screen show what was written into the frame since (DIRTYFB),
    /// and says whether the driver needs to be told.
    ///
    /// A driver that keeps a copy of the frame makes a new one now; others
    /// (`false`) scan out the memory itself, and there is nothing to do.
    ///
    /// # Errors
    /// [`DrmError::Ioctl`], as for one who is no longer DRM master.
    ///
    /// ```no_run
    /// // Not run: needs a screen.
    /// # use dmashare::import::drm::{DrmError, Scanout};
    /// # fn f(scanout: &Scanout) -> Result<(), DrmError> {
    /// let copied = scanout.flush()?;
    /// # Ok(()) }
    /// ```
    pub fn flush(&self) -> Result<bool, DrmError> {
        let card = &self.framebuffer.card;
        // All of it, in the 16 bits of drm_clip_rect. No rectangle would mean the
        // same, but the kernel wants a null pointer then, and the drm crate
        // gives the address of an empty slice.
        let edge = |pixels| u16::try_from(pixels).unwrap_or(u16::MAX);
        let (width, height) = self.framebuffer.size;
        let whole = ClipRect::new(0, 0, edge(width), edge(height));
        match card.dirty_framebuffer(self.framebuffer.raw, &[whole]) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => Ok(false),
            Err(error) => Err(card.failed("MODE_DIRTYFB")(error)),
        }
    }

    /// By which interface it is shown, and flipped.
    ///
    /// ```no_run
    /// // Not run: needs a screen.
    /// # use dmashare::import::drm::{Method, Scanout};
    /// # fn f(scanout: &Scanout) {
    /// assert_eq!(scanout.method(), Method::Atomic);
    /// # }
    /// ```
    pub fn method(&self) -> Method {
        match self.pipe {
            Some(_) => Method::Atomic,
            None => Method::Legacy,
        }
    }

    /// The name of the screen, such as `Virtual-1`.
    ///
    /// ```no_run
    /// // Not run: needs a screen.
    /// # fn f(scanout: &dmashare::import::drm::Scanout) {
    /// assert_eq!(scanout.screen(), "Virtual-1");
    /// # }
    /// ```
    pub fn screen(&self) -> &str {
        &self.screen
    }

    /// Whether no later one was shown on its screen.
    pub(super) fn is_latest(&self) -> bool {
        let shown = self.framebuffer.card.shown();
        let mut later = shown.iter().filter(|shown| shown.number > self.number);
        !later.any(|later| later.before.handle() == self.crtc)
    }

    /// Whether the screen still shows it: a later [`Card::show`] or another
    /// program can have replaced it (GETCRTC).
    ///
    /// # Errors
    /// [`DrmError::Ioctl`], as for a card that is gone.
    ///
    /// ```no_run
    /// // Not run: needs a screen and imported dma-bufs.
    /// # use dmashare::import::drm::{Card, DrmError, Framebuffer};
    /// # fn f(card: &Card, first: &Framebuffer, next: &Framebuffer) -> Result<(), DrmError> {
    /// let first = card.show(first)?;
    /// let next = card.show(next)?;
    /// assert!(!first.is_shown()? && next.is_shown()?);
    /// # Ok(()) }
    /// ```
    pub fn is_shown(&self) -> Result<bool, DrmError> {
        let card = &self.framebuffer.card;
        let now = card.get_crtc(self.crtc);
        let now = now.map_err(card.failed(MODE_GETCRTC))?.framebuffer();
        Ok(now == Some(self.framebuffer.raw))
    }

    /// The mode it is shown in.
    ///
    /// ```no_run
    /// // Not run: needs a screen.
    /// # fn f(scanout: &dmashare::import::drm::Scanout) {
    /// println!("{} Hz", scanout.mode().refresh);
    /// # }
    /// ```
    pub fn mode(&self) -> Mode {
        self.mode
    }
}

impl Drop for Scanout {
    fn drop(&mut self) {
        let card = &self.framebuffer.card;
        let mut shown = card.shown();
        let Some(before) = take(&mut shown, self.number) else {
            return;
        };
        if !self.is_shown().unwrap_or(false) {
            return;
        }
        if let (Some(framebuffer), Some(mode)) = (before.framebuffer(), before.mode()) {
            let position = before.position();
            let back = again(|| {
                card.set_crtc(
                    self.crtc,
                    Some(framebuffer),
                    position,
                    &[self.connector],
                    Some(mode),
                )
            });
            if back.is_ok() {
                return;
            }
        }
        // Who is no longer master has lost the screen already.
        let _ = again(|| card.set_crtc(self.crtc, None, (0, 0), &[], None));
    }
}

/// Takes one off the list: what it is to put back, or `None` where a later one
/// has replaced it and will do so.
fn take(shown: &mut Vec<Shown>, number: u64) -> Option<crtc::Info> {
    let at = shown.iter().position(|shown| shown.number == number)?;
    let Shown { before, .. } = shown.remove(at);
    let mut later = shown[at..].iter_mut();
    match later.find(|later| later.before.handle() == before.handle()) {
        Some(next) => {
            next.before = before;
            None
        }
        None => Some(before),
    }
}

impl fmt::Display for Scanout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.screen, self.mode)
    }
}

impl fmt::Debug for Scanout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scanout({self} on {})", self.framebuffer.card)
    }
}
