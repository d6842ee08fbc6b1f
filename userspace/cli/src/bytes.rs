//! Bytes out of any buffer, without a fall into a hole that a peer makes.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use dmashare::buffer::{Access, Buffer, Kind};

use crate::failure::Failure;

const BLOCK: u64 = 1 << 20;

/// Gives the bytes `offset..offset + len` to `each`, a block at a time.
pub(crate) fn each(
    buffer: &Buffer,
    offset: u64,
    len: u64,
    mut each: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let end = offset.checked_add(len).filter(|end| *end <= buffer.size());
    let end = end.ok_or_else(|| {
        Failure::usage(format!(
            "{}: {len} bytes at {offset} are more than its {} bytes",
            buffer.name(),
            buffer.size()
        ))
    })?;
    let mut block = vec![0; usize::try_from(len.min(BLOCK))?];
    let mut at = offset;
    // One mapping and one access for all of it, where a mapping is safe.
    let mapping = match buffer.kind() {
        kind if kind.is_fixed() && len > 0 => Some(buffer.map(Access::Read)?),
        _ => None,
    };
    let mut mapping = mapping;
    let guard = mapping
        .as_mut()
        .map(|m| m.access(Access::Read))
        .transpose()?;
    while at < end {
        let part = &mut block[..usize::try_from((end - at).min(BLOCK))?];
        match &guard {
            Some(guard) => guard.read_at(at, part)?,
            None => read(buffer, at, part)?,
        }
        each(part)?;
        at += part.len() as u64;
    }
    match guard {
        Some(guard) => Ok(guard.finish()?),
        None => Ok(()),
    }
}

/// By read(2), from memory that others can make smaller.
fn read(buffer: &Buffer, mut at: u64, mut into: &mut [u8]) -> Result<(), Failure> {
    while !into.is_empty() {
        let len = buffer.read_at(at, into)?;
        if len == 0 {
            let line = format!("{}: someone made it smaller meanwhile", buffer.name());
            return Err(Failure::failed(line));
        }
        at += len as u64;
        into = &mut into[len..];
    }
    Ok(())
}

/// The text up to the first NUL, of what is UTF-8 in the first 4096 bytes;
/// `None` where it is empty, or none.
pub(crate) fn text(buffer: &Buffer) -> Result<Option<String>, Failure> {
    // Neither a file to read, nor safe to map.
    if buffer.kind() == Kind::HugeTlb && buffer.segment().is_some() {
        return Ok(None);
    }
    let mut start = Vec::new();
    let len = buffer.size().min(4096);
    each(buffer, 0, len, |block| {
        start.extend_from_slice(block);
        Ok(())
    })?;
    start.truncate(
        start
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(start.len()),
    );
    Ok(String::from_utf8(start)
        .ok()
        .filter(|text| !text.is_empty()))
}

/// As they are, to standard output.
pub(crate) fn raw(buffer: &Buffer, offset: u64, len: u64) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    each(buffer, offset, len, |block| {
        out.write_all(block).map_err(Failure::output)
    })?;
    out.flush().map_err(Failure::output)
}

/// For people: 16 bytes a line, with their place.
pub(crate) fn hex(buffer: &Buffer, offset: u64, len: u64) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut at = offset;
    each(buffer, offset, len, |block| {
        // A block is a whole number of lines, but for the last one.
        for line in block.chunks(16) {
            out.write_all(dump(at, line).as_bytes())
                .map_err(Failure::output)?;
            at += line.len() as u64;
        }
        Ok(())
    })?;
    out.flush().map_err(Failure::output)
}

/// At most 16 bytes, as hexdump(1) shows them.
fn dump(at: u64, bytes: &[u8]) -> String {
    let mut line = format!("{at:08x} ");
    for byte in bytes {
        let _ = write!(line, " {byte:02x}");
    }
    let gap = (16 - bytes.len()) * 3;
    let shown = bytes.iter().map(|byte| match byte {
        b' '..=b'~' => char::from(*byte),
        _ => '.',
    });
    let _ = writeln!(line, "{:gap$}  |{}|", "", shown.collect::<String>());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_has_both_columns() {
        let line = dump(32, b"A\0z");
        let expected = format!("00000020  41 00 7a{:39}  |A.z|\n", "");
        assert_eq!(line, expected);
        assert_eq!(
            dump(0, &[b'B'; 16]).len(),
            "00000000 ".len() + 48 + 2 + 18 + 1
        );
    }
}
