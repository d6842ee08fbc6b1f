//! An open card, and the screens it has.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use drm::control::{Device as _, connector};
use drm::{ClientCapability, Device as _};
use rustix::fs::{fstat, minor};
use rustix::io::{FdFlags, fcntl_setfd};

use super::error::MODE_GETRESOURCES;
use super::gem::Counts;
use super::master::{Holders, Master, give_up};
use super::scanout::Shown;
use super::{DrmError, Mode};
use crate::alloc::node;

const DIRECTORY: &str = "/dev/dri";

/// An open primary node of a DRM device, such as /dev/dri/card0.
///
/// What was imported keeps the card open.
///
/// # DRM master
/// One open file of a card at a time is its DRM master and can show something.
/// The kernel makes that the first that opens the node, so [`open`](Card::open)
/// gives it up again at once: a card that is open to import or to be queried
/// keeps no compositor from it. A `Card` is master for as long as it has a
/// [`Scanout`](super::Scanout), and [`screens`](Card::screens) is for a moment
/// where no connector was probed yet. A card of [`from_fd`](Card::from_fd) is
/// left as it came: who opened it decides who is master.
///
/// ```no_run
/// // Not run: needs a DRM device.
/// use dmashare::import::drm::Card;
/// for node in Card::nodes()? {
///     println!("{}", Card::open(&node)?); // /dev/dri/card0 (bochs-drm)
/// }
/// # Ok::<(), dmashare::import::drm::DrmError>(())
/// ```
pub struct Card(pub(super) Arc<Inner>);

/// What framebuffers and scan-outs hold on to.
pub(super) struct Inner {
    file: OwnedFd,
    path: PathBuf,
    driver: String,
    atomic: bool,
    /// Whether this crate opened it, and so takes and gives up DRM master.
    ours: bool,
    pub(super) masters: Holders,
    /// Who holds which GEM handle: see `gem.rs`.
    pub(super) handles: Mutex<Counts>,
    /// What is shown, the latest last: see `scanout.rs`.
    pub(super) shown: Mutex<Vec<Shown>>,
}

/// A connector of a card, and what it can show.
///
/// ```no_run
/// // Not run: needs a DRM device.
/// use dmashare::import::drm::Card;
/// let card = Card::open("/dev/dri/card0")?;
/// for screen in card.screens()?.iter().filter(|screen| screen.connected) {
///     println!("{} likes {}", screen.name, screen.modes[0]);
/// }
/// # Ok::<(), dmashare::import::drm::DrmError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Screen {
    /// Type and number of the connector, such as `Virtual-1`.
    pub name: String,
    /// Whether something is connected.
    pub connected: bool,
    /// The modes it offers, the one it likes best first.
    pub modes: Vec<Mode>,
}

impl Card {
    /// The primary nodes that are there, in order.
    ///
    /// # Errors
    /// [`DrmError::Open`] where /dev/dri cannot be read, as without any DRM
    /// driver.
    ///
    /// ```no_run
    /// // Not run: needs a DRM device.
    /// # use dmashare::import::drm::Card;
    /// let first = &Card::nodes()?[0];
    /// # Ok::<(), dmashare::import::drm::DrmError>(())
    /// ```
    pub fn nodes() -> Result<Vec<PathBuf>, DrmError> {
        nodes("card")
    }

    /// The render nodes that are there, in order: of GPUs, for those who may
    /// not set modes. [`open`](Card::open) takes them as well, for
    /// [handles](Card::open_handle); they have no screens.
    ///
    /// # Errors
    /// Those of [`nodes`](Card::nodes).
    ///
    /// ```no_run
    /// // Not run: needs a DRM device.
    /// # use dmashare::import::drm::Card;
    /// for node in Card::render_nodes()? {
    ///     println!("{}", Card::open(&node)?); // /dev/dri/renderD128 (vgem)
    /// }
    /// # Ok::<(), dmashare::import::drm::DrmError>(())
    /// ```
    pub fn render_nodes() -> Result<Vec<PathBuf>, DrmError> {
        nodes("renderD")
    }

    /// Opens a card by its node.
    ///
    /// # Errors
    /// [`DrmError::Open`], and [`DrmError::Ioctl`] where it is no DRM device.
    ///
    /// ```
    /// use dmashare::import::drm::{Card, DrmError};
    /// let error = Card::open("/dev/dri/card999").unwrap_err();
    /// assert!(matches!(error, DrmError::Open { .. }));
    /// let error = Card::open("/dev/null").unwrap_err();
    /// assert!(matches!(error, DrmError::Ioctl { operation: "VERSION", .. }));
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<Card, DrmError> {
        let path = path.as_ref();
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.map_err(|source| DrmError::Open {
            path: path.to_owned(),
            source,
        })?;
        let card = Card::new(file.into(), path.to_owned(), true)?;
        // It fails where another is master, and on a render node.
        let _ = give_up(&card.0);
        Ok(card)
    }

    /// A card that someone else opened, as a session's daemon does for a
    /// compositor, which may then be DRM master without being root.
    ///
    /// Handles and events are those of the open file: another `Card`, or another
    /// library, on a duplicate of this fd would close and take those of this one.
    /// To show something, the open file must be DRM master when it is shown.
    ///
    /// # Errors
    /// [`DrmError::Ioctl`] where it is no DRM device.
    ///
    /// ```
    /// use dmashare::import::drm::{Card, DrmError};
    /// let file = std::fs::File::open("/dev/null")?;
    /// let error = Card::from_fd(file.into()).unwrap_err();
    /// assert!(error.to_string().starts_with("/dev/null: VERSION failed"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_fd(fd: OwnedFd) -> Result<Card, DrmError> {
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let path = fs::read_link(&link).unwrap_or(link.into());
        fcntl_setfd(&fd, FdFlags::CLOEXEC).map_err(|source| DrmError::Open {
            path: path.clone(),
            source: source.into(),
        })?;
        Card::new(fd, path, false)
    }

    fn new(file: OwnedFd, path: PathBuf, ours: bool) -> Result<Card, DrmError> {
        let mut inner = Inner {
            file,
            path,
            driver: String::new(),
            atomic: false,
            ours,
            masters: Holders::default(),
            handles: Mutex::default(),
            shown: Mutex::default(),
        };
        let version = inner.get_driver().map_err(inner.failed("VERSION"))?;
        inner.driver = version.name().to_string_lossy().into_owned();
        // For the kernel to tell of primary planes, and of properties of atomic
        // modesetting; refused where there is no screen, or none of that.
        let _ = inner.set_client_capability(ClientCapability::UniversalPlanes, true);
        let atomic = inner.set_client_capability(ClientCapability::Atomic, true);
        inner.atomic = atomic.is_ok();
        Ok(Card(Arc::new(inner)))
    }

    /// Opens the first card with this driver, as DRM_IOCTL_VERSION names it:
    /// `bochs-drm`, `cirrus`, `vgem`, `i915`.
    ///
    /// # Errors
    /// [`DrmError::NoCard`] with the cards that are there instead, and why any
    /// did not open.
    ///
    /// ```
    /// use dmashare::import::drm::{Card, DrmError};
    /// let error = Card::find("no-such-driver").unwrap_err();
    /// assert!(matches!(error, DrmError::NoCard { .. }));
    /// ```
    pub fn find(driver: &str) -> Result<Card, DrmError> {
        let mut found = Vec::new();
        // No /dev/dri is no card.
        for node in Card::nodes().unwrap_or_default() {
            match Card::open(&node) {
                Ok(card) if card.driver() == driver => return Ok(card),
                Ok(card) => found.push(card.to_string()),
                Err(error) => found.push(error.to_string()),
            }
        }
        Err(DrmError::NoCard {
            wanted: driver.to_owned(),
            found,
        })
    }

    /// The name of its driver, as DRM_IOCTL_VERSION gives it.
    ///
    /// ```no_run
    /// // Not run: needs a DRM device.
    /// # use dmashare::import::drm::Card;
    /// assert_eq!(Card::find("vgem")?.driver(), "vgem");
    /// # Ok::<(), dmashare::import::drm::DrmError>(())
    /// ```
    pub fn driver(&self) -> &str {
        self.0.driver()
    }

    /// The node it was opened by.
    ///
    /// ```no_run
    /// // Not run: needs a DRM device.
    /// # use dmashare::import::drm::Card;
    /// assert!(Card::find("vgem")?.path().starts_with("/dev/dri"));
    /// # Ok::<(), dmashare::import::drm::DrmError>(())
    /// ```
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Its connectors, as they were when they were last probed: by the kernel's
    /// console, by a compositor, or for [`show`](Card::show). While this card
    /// shows something, and where one was never probed and there is no other DRM
    /// master, they are probed anew, which on hardware can take some milliseconds
    /// each.
    ///
    /// # Errors
    /// [`DrmError::Ioctl`], as on a card without screens.
    ///
    /// ```no_run
    /// // Not run: needs a DRM device.
    /// # use dmashare::import::drm::Card;
    /// let screens = Card::find("bochs-drm")?.screens()?;
    /// assert_eq!(screens[0].name, "Virtual-1");
    /// # Ok::<(), dmashare::import::drm::DrmError>(())
    /// ```
    pub fn screens(&self) -> Result<Vec<Screen>, DrmError> {
        let mut connectors = self.0.connectors()?;
        let unknown = |connector: &connector::Info| {
            connector.state() == connector::State::Unknown && connector.modes().is_empty()
        };
        if connectors.iter().any(unknown)
            && let Ok(_master) = Master::take(&self.0)
        {
            connectors = self.0.connectors()?;
        }
        Ok(connectors.iter().map(Screen::from).collect())
    }
}

/// The nodes under /dev/dri that are called so, with a number.
fn nodes(name: &str) -> Result<Vec<PathBuf>, DrmError> {
    node::numbered(DIRECTORY, name).map_err(|source| DrmError::Open {
        path: DIRECTORY.into(),
        source,
    })
}

impl Inner {
    pub(super) fn driver(&self) -> &str {
        &self.driver
    }

    /// Whether this crate opened it.
    pub(super) fn is_ours(&self) -> bool {
        self.ours
    }

    /// Whether the driver has atomic modesetting, and offers it.
    pub(super) fn is_atomic(&self) -> bool {
        self.atomic
    }

    /// Whether it can have screens at all.
    pub(super) fn has_kms(&self) -> Result<(), DrmError> {
        let minor = fstat(&self.file).map(|stat| minor(stat.st_rdev));
        match minor {
            // The numbers from 128 on are render nodes (drm-uapi).
            Ok(128..) => Err(DrmError::RenderNode {
                node: self.to_string(),
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn connectors(&self) -> Result<Vec<connector::Info>, DrmError> {
        self.has_kms()?;
        let resources = self
            .resource_handles()
            .map_err(self.failed(MODE_GETRESOURCES))?;
        let connectors = resources.connectors().iter().map(|&handle| {
            self.get_connector(handle, true)
                .map_err(self.failed("MODE_GETCONNECTOR"))
        });
        connectors.collect()
    }

    /// Turns what an ioctl said into an error that names it and the card.
    pub(super) fn failed(&self, operation: &'static str) -> impl Fn(io::Error) -> DrmError {
        move |source| DrmError::Ioctl {
            operation,
            card: self.to_string(),
            source,
        }
    }
}

/// As libdrm does: the calls are interrupted by signals, and to be made again.
pub(super) fn again<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

impl From<&connector::Info> for Screen {
    fn from(connector: &connector::Info) -> Screen {
        Screen {
            name: connector.to_string(),
            connected: connector.state() == connector::State::Connected,
            modes: connector.modes().iter().map(Mode::from).collect(),
        }
    }
}

impl AsFd for Inner {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl drm::Device for Inner {}
impl drm::control::Device for Inner {}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.driver.as_str() {
            "" => write!(f, "{path}"),
            driver => write!(f, "{path} ({driver})"),
        }
    }
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Card({self})")
    }
}
