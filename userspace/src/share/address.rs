//! Where a listener is found.

use std::fmt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::SocketAddrUnix;

/// Where a [`Listener`](super::Listener) is found: at a path, or under an
/// abstract name (unix(7)).
///
/// An abstract name is no file: it needs no folder, ends with its listener, and
/// is that of the network namespace. Nothing says who may connect, so ask for a
/// [`Policy`](super::Policy) there.
///
/// In a string, a leading `@` makes an abstract name, as in `ss`(8); a file that
/// is called so can be had as `./@name`, or as a [`Path`].
///
/// ```
/// use dmashare::share::Address;
/// assert_eq!(Address::from("@frames"), Address::abstract_name("frames"));
/// assert_eq!(Address::from("/run/x").to_string(), "/run/x");
/// assert_eq!(Address::abstract_name("x").to_string(), "@x");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A path in the file system, of at most 107 bytes.
    Path(PathBuf),
    /// An abstract name, of at most 107 bytes of any value.
    Abstract(Vec<u8>),
}

impl Address {
    /// An abstract name.
    ///
    /// ```
    /// use dmashare::share::{Address, Listener, Socket};
    /// let name = format!("dmashare doc {}", std::process::id());
    /// let listener = Listener::bind(Address::abstract_name(&name))?;
    /// let here = Socket::connect(Address::abstract_name(&name))?;
    /// let there = listener.accept()?;
    /// # drop((here, there));
    /// # Ok::<(), dmashare::share::SocketError>(())
    /// ```
    pub fn abstract_name(name: impl AsRef<[u8]>) -> Address {
        Address::Abstract(name.as_ref().to_owned())
    }

    pub(super) fn to_kernel(&self) -> Result<SocketAddrUnix, Errno> {
        match self {
            Address::Path(path) => SocketAddrUnix::new(path.as_path()),
            // An empty one asks the kernel to choose a name (autobind).
            Address::Abstract(name) if name.is_empty() => Err(Errno::INVAL),
            Address::Abstract(name) => SocketAddrUnix::new_abstract_name(name),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Path(path) => path.display().fmt(f),
            Address::Abstract(name) => write!(f, "@{}", name.escape_ascii()),
        }
    }
}

impl From<&str> for Address {
    fn from(address: &str) -> Address {
        match address.strip_prefix('@') {
            Some(name) => Address::abstract_name(name),
            None => Address::Path(address.into()),
        }
    }
}

impl From<String> for Address {
    fn from(address: String) -> Address {
        Address::from(address.as_str())
    }
}

impl From<&String> for Address {
    fn from(address: &String) -> Address {
        Address::from(address.as_str())
    }
}

impl From<PathBuf> for Address {
    fn from(path: PathBuf) -> Address {
        Address::Path(path)
    }
}

impl From<&PathBuf> for Address {
    fn from(path: &PathBuf) -> Address {
        Address::Path(path.clone())
    }
}

impl From<&Path> for Address {
    fn from(path: &Path) -> Address {
        Address::Path(path.to_owned())
    }
}

impl From<&Address> for Address {
    fn from(address: &Address) -> Address {
        address.clone()
    }
}
