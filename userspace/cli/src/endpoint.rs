//! The socket that handles go through.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use dmashare::Errno;
use dmashare::share::{Address, Listener, Policy, Socket, SocketError, Transport};

use crate::failure::Failure;

/// Where the other end is, and how the two speak.
#[derive(Clone, Debug, Args)]
pub(crate) struct Endpoint {
    /// The socket: a path, or @NAME for an abstract name
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: String,
    /// Wait there for the other end (the default of read)
    #[arg(long, conflicts_with = "connect")]
    pub(crate) listen: bool,
    /// Connect to the other end (the default of write)
    #[arg(long)]
    pub(crate) connect: bool,
    /// Let any user be at the other end: not only this one and root
    #[arg(long)]
    pub(crate) anyone: bool,
    /// Speak as any C program does: all fds in one SCM_RIGHTS message with one byte of data
    #[arg(long)]
    pub(crate) plain: bool,
    /// The type of the socket [default: stream with --plain, seqpacket otherwise]
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    pub(crate) transport: Option<Type>,
    /// Give up after so long, such as 500ms or 10s [default: 5s to connect, never to wait]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
}

/// The types of socket that keep an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Type {
    /// `SOCK_SEQPACKET`
    Seqpacket,
    /// `SOCK_STREAM`
    Stream,
}

/// Whoever waits is started first; a script starts both at once.
const CONNECT: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(10);

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time; write 500ms, 10s or 2m");
    let unit = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (digits, unit) = text.split_at(unit);
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    let milliseconds = match unit {
        "ms" => Some(count),
        "s" => count.checked_mul(1000),
        "m" => count.checked_mul(60_000),
        _ => None,
    };
    milliseconds.map(Duration::from_millis).ok_or_else(wrong)
}

impl Endpoint {
    /// The connected socket; `listens` is what is done where nothing is said.
    pub(crate) fn open(&self, listens: bool) -> Result<Socket, Failure> {
        let address = Address::from(&self.socket);
        let transport = match (self.transport, self.plain) {
            (Some(Type::Stream), _) | (None, true) => Transport::Stream,
            (Some(Type::Seqpacket), _) | (None, false) => Transport::Packet,
        };
        let mut socket = match self.listen || (listens && !self.connect) {
            true => self.accept(address, transport)?,
            false => self.connect(&address, transport)?,
        };
        socket.set_timeout(self.timeout);
        Ok(socket)
    }

    /// The users who may be at the other end, whichever side listens: abstract
    /// names have no mode, and any user can be the first to listen at them, or
    /// below a folder that is open to all.
    fn policy(&self) -> Policy {
        match self.anyone {
            true => Policy::anyone(),
            false => Policy::same_user().or(Policy::root()),
        }
    }

    fn accept(&self, address: Address, transport: Transport) -> Result<Socket, Failure> {
        let mut listener = Listener::bind_with(address, transport)?;
        listener.set_policy(self.policy());
        let begun = Instant::now();
        loop {
            let left = self
                .timeout
                .map(|limit| limit.saturating_sub(begun.elapsed()));
            listener.set_timeout(left);
            match listener.accept() {
                Err(refused @ SocketError::Refused { .. }) => eprintln!("dmashare: {refused}"),
                Err(SocketError::Timeout { operation, .. }) => {
                    let after = self.timeout.unwrap_or_default();
                    return Err(SocketError::Timeout { operation, after }.into());
                }
                accepted => return Ok(accepted?),
            }
        }
    }

    fn connect(&self, address: &Address, transport: Transport) -> Result<Socket, Failure> {
        let limit = self.timeout.unwrap_or(CONNECT);
        let begun = Instant::now();
        loop {
            let left = limit.saturating_sub(begun.elapsed());
            let nobody = match Socket::connect_timeout(address.clone(), transport, left) {
                Err(
                    error @ SocketError::Os {
                        source: Errno::NOENT | Errno::CONNREFUSED,
                        ..
                    },
                ) => error,
                Err(SocketError::Timeout { operation, .. }) => SocketError::Timeout {
                    operation,
                    after: limit,
                },
                result => {
                    let socket = result?;
                    return match socket.check_peer(&self.policy()) {
                        Err(refused @ SocketError::Refused { .. }) => {
                            Err(Failure::failed(format!(
                                "{address}: {refused}: any user can be the first to listen at an \
                             address; choose another, or take any peer by --anyone"
                            )))
                        }
                        checked => Ok(checked.map(|()| socket)?),
                    };
                }
            };
            if begun.elapsed() >= limit {
                return Err(nobody.into());
            }
            std::thread::sleep(AGAIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "5", "s", "-1s", "1.5s", "1h", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
