//! Who may be at the other end.

use std::fmt;

use super::Peer;

/// Who may be at the other end of a connection: whoever one of its rules names.
///
/// A [`Listener`](super::Listener) asks it of those who connect. One who connects
/// asks it of the listener by [`Socket::check_peer`](super::Socket::check_peer).
///
/// ```
/// use dmashare::share::{Peer, Policy};
/// let policy = Policy::uid(1000).or(Policy::root());
/// let peer = Peer { pid: Some(4), uid: 0, gid: 0 };
/// assert!(policy.allows(&peer));
/// assert!(!policy.allows(&Peer { uid: 1001, ..peer }));
/// assert_eq!(policy.to_string(), "user 1000 or user 0");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Rule {
    Anyone,
    Uid(u32),
    Gid(u32),
    Pid(u32),
}

impl Policy {
    /// Whoever can connect: what a listener begins with.
    pub fn anyone() -> Policy {
        Rule::Anyone.into()
    }

    /// Processes of the user that this one runs as (its effective user id).
    ///
    /// ```
    /// use dmashare::share::{Policy, Socket};
    /// let (here, _there) = Socket::pair()?;
    /// here.check_peer(&Policy::same_user())?;
    /// # Ok::<(), dmashare::share::SocketError>(())
    /// ```
    pub fn same_user() -> Policy {
        Policy::uid(rustix::process::geteuid().as_raw())
    }

    /// Processes of user 0.
    pub fn root() -> Policy {
        Policy::uid(0)
    }

    /// Processes with this effective user id.
    pub fn uid(uid: u32) -> Policy {
        Rule::Uid(uid).into()
    }

    /// Processes with this effective group id. Who has it among the
    /// supplementary groups alone is not meant: the kernel does not tell.
    pub fn gid(gid: u32) -> Policy {
        Rule::Gid(gid).into()
    }

    /// The process that had this id when it connected. It is safe where its end
    /// is ours to know, as that of a child that we have not waited for: otherwise
    /// another process may have the id by now.
    pub fn pid(pid: u32) -> Policy {
        Rule::Pid(pid).into()
    }

    /// Whoever this policy allows, and whoever `other` does.
    #[must_use]
    pub fn or(mut self, other: Policy) -> Policy {
        self.rules.extend(other.rules);
        self
    }

    /// Whether this peer may be at the other end.
    pub fn allows(&self, peer: &Peer) -> bool {
        self.rules.iter().any(|rule| match *rule {
            Rule::Anyone => true,
            Rule::Uid(uid) => peer.uid == uid,
            Rule::Gid(gid) => peer.gid == gid,
            Rule::Pid(pid) => peer.pid == Some(pid),
        })
    }
}

impl From<Rule> for Policy {
    fn from(rule: Rule) -> Policy {
        Policy { rules: vec![rule] }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, rule) in self.rules.iter().enumerate() {
            if nth > 0 {
                write!(f, " or ")?;
            }
            match rule {
                Rule::Anyone => write!(f, "anyone"),
                Rule::Uid(uid) => write!(f, "user {uid}"),
                Rule::Gid(gid) => write!(f, "group {gid}"),
                Rule::Pid(pid) => write!(f, "process {pid}"),
            }?;
        }
        Ok(())
    }
}
