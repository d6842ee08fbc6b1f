//! Owners that an object found by a name or a key may have.

use std::fmt;

/// The owners that an object found by a name or a key may have.
///
/// Any user can be the first to use a name in `/dev/shm` or a key, and then
/// reads what others write there. So opening one checks its owner, on the
/// object that was opened and not by its name once more.
///
/// ```
/// use dmashare::alloc::Owner;
/// assert!(Owner::Trusted.allows(0));
/// assert!(!Owner::User(1000).allows(0));
/// assert_eq!(Owner::User(1000).to_string(), "user 1000");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Owner {
    /// The effective user of this process, or root.
    #[default]
    Trusted,
    /// This user alone.
    User(u32),
    /// Any user. The caller trusts them all, or the content to none.
    Anyone,
}

impl Owner {
    /// The effective user of this process alone, without root.
    ///
    /// ```
    /// use dmashare::alloc::Owner;
    /// assert!(Owner::this_user().allows(rustix::process::geteuid().as_raw()));
    /// ```
    pub fn this_user() -> Owner {
        Owner::User(rustix::process::geteuid().as_raw())
    }

    /// Returns whether an object may belong to this user.
    pub fn allows(self, uid: u32) -> bool {
        match self {
            Owner::Trusted => uid == 0 || Owner::this_user().allows(uid),
            Owner::User(user) => uid == user,
            Owner::Anyone => true,
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, rustix::process::geteuid().as_raw()) {
            (Owner::Trusted, 0) => f.write_str("user 0"),
            (Owner::Trusted, uid) => write!(f, "user {uid} or 0"),
            (Owner::User(uid), _) => write!(f, "user {uid}"),
            (Owner::Anyone, _) => f.write_str("any user"),
        }
    }
}
