//! Enough of the QEMU machine protocol to take a picture of the screen.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

/// QEMU answers at once or not at all; it can be slow to start on a busy host.
const ANSWER: Duration = Duration::from_secs(30);

/// A connection that has agreed on its capabilities.
pub(crate) struct Qmp {
    lines: BufReader<UnixStream>,
}

impl Qmp {
    pub(crate) fn connect(stream: UnixStream) -> io::Result<Qmp> {
        stream.set_read_timeout(Some(ANSWER))?;
        let mut qmp = Qmp {
            lines: BufReader::new(stream),
        };
        qmp.read()?; // The greeting.
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Run one command and wait for its answer.
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> io::Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.lines.get_mut(), "{request}")?;
        loop {
            let mut answer = self.read()?;
            if let Some(error) = answer.get("error") {
                return Err(io::Error::other(format!(
                    "QEMU: {command}: {}",
                    error["desc"]
                )));
            }
            // Anything else is an event that nobody here waits for.
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    fn read(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "QEMU has ended",
            ));
        }
        Ok(serde_json::from_str(&line)?)
    }
}
