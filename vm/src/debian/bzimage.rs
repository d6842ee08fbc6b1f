//! The ELF kernel inside a bzImage.
//!
//! QEMU starts an uncompressed `vmlinux` by its PVH note, past the firmware and
//! the kernel's own unpacking, which emulation makes slow. Debian ships only the
//! bzImage; the ELF is in there, compressed, where the setup header says
//! (Documentation/arch/x86/boot.rst, "payload_offset").

use std::io::{self, Read};

/// Offsets in the setup header, which begins at 0x1f1 of the file.
const SETUP_SECTS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const KERNEL_VERSION: usize = 0x20e;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// The first protocol version that has a payload's place.
const HAS_PAYLOAD: u16 = 0x208;

/// The compressed kernel within a bzImage.
fn payload(image: &[u8]) -> Result<&[u8], String> {
    let bytes = |offset: usize, length: usize| {
        image
            .get(offset..offset + length)
            .ok_or_else(|| "too short for a kernel image".to_owned())
    };
    let number = |offset: usize| -> Result<usize, String> {
        let field = bytes(offset, 4)?;
        let number = field
            .iter()
            .rev()
            .fold(0, |n, byte| n << 8 | u64::from(*byte));
        usize::try_from(number).map_err(|_| "a number beyond this machine's".to_owned())
    };
    if bytes(MAGIC, 4)? != b"HdrS" {
        return Err("no bzImage: the setup header is missing".to_owned());
    }
    let version = bytes(VERSION, 2)?;
    if u16::from_le_bytes([version[0], version[1]]) < HAS_PAYLOAD {
        return Err("a bzImage of a boot protocol before 2.08".to_owned());
    }
    let setup_sectors = match bytes(SETUP_SECTS, 1)?[0] {
        // "for backwards compatibility, if the field contains 0, the real
        // value is 4"
        0 => 4,
        sectors => usize::from(sectors),
    };
    // Sums of 32-bit numbers: they cannot overflow the 64 bits of usize.
    let start = (setup_sectors + 1) * 512 + number(PAYLOAD_OFFSET)?;
    bytes(start, number(PAYLOAD_LENGTH)?)
}

/// Unpacks the `vmlinux` of a bzImage: an ELF file, followed by what the kernel
/// appends for its own use.
pub(super) fn vmlinux(image: &[u8]) -> Result<Vec<u8>, String> {
    let vmlinux = decompress(payload(image)?).map_err(|error| format!("its kernel: {error}"))?;
    if !vmlinux.starts_with(b"\x7fELF") {
        return Err("its kernel is no ELF file".to_owned());
    }
    Ok(vmlinux)
}

/// Whether this is a bzImage: the file's name tells nothing.
pub(super) fn is_one(image: &[u8]) -> bool {
    image.get(MAGIC..MAGIC + 4) == Some(b"HdrS")
}

/// What `uname -r` says in the kernel of a bzImage: the first word of the text
/// that the setup header points to ("kernel_version").
pub(super) fn release(image: &[u8]) -> Option<&str> {
    let field = image.get(KERNEL_VERSION..KERNEL_VERSION + 2)?;
    // "offset from the beginning of the file less 0x200"
    let start = 0x200 + usize::from(u16::from_le_bytes([field[0], field[1]]));
    let text = image.get(start..)?.split(|byte| *byte == 0).next()?;
    let release = std::str::from_utf8(text).ok()?.split(' ').next()?;
    (start > 0x200 && !release.is_empty()).then_some(release)
}

/// Decompresses by the magic number; what follows the first stream (a bzImage
/// ends in the size of the kernel) is left. Data without a known magic number is
/// returned as it is if it is ELF.
pub(super) fn decompress(data: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    match data {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            ruzstd::decoding::StreamingDecoder::new(data)
                .map_err(io::Error::other)?
                .read_to_end(&mut out)?;
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            lzma_rust2::XzReader::new(data, false).read_to_end(&mut out)?;
        }
        [0x1f, 0x8b, ..] => {
            flate2::read::GzDecoder::new(data).read_to_end(&mut out)?;
        }
        [0x7f, b'E', b'L', b'F', ..] => out.extend_from_slice(data),
        other => {
            let magic = other.get(..4).unwrap_or(other);
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "compressed in a way this crate does not know (it begins with {magic:02x?})"
                ),
            ));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bzImage of nothing but the header and `payload`.
    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 3 * 512];
        image[SETUP_SECTS] = 1;
        image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        image[VERSION..VERSION + 2].copy_from_slice(&0x20f_u16.to_le_bytes());
        image[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&512_u32.to_le_bytes());
        let length = u32::try_from(payload.len()).unwrap();
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&length.to_le_bytes());
        image.extend_from_slice(payload);
        image
    }

    /// `printf '\x7fELF hello' | zstd`, then the size that the kernel appends.
    const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd\x04\x58\x51\x00\x00\x7fELF hello\
        \x4d\x1f\x87\x8c\x0a\x00\x00\x00";

    /// The same by `xz --check=crc32 --x86 --lzma2=preset=0`, as the kernel
    /// builds 6.1.
    const XZ: &[u8] = b"\xfd7zXZ\x00\x00\x01\x69\x22\xde\x36\x02\x01\x04\x00\x21\x01\
        \x0c\x00\xd6\x7c\x18\xaf\x01\x00\x09\x7fELF hello\x00\x00\x00\x67\x33\xba\xde\
        \x00\x01\x1e\x0a\xea\x63\x12\x14\x90\x42\x99\x0d\x01\x00\x00\x00\x00\x01YZ\
        \x0a\x00\x00\x00";

    /// The same by `gzip -n`, as the kernel's default configuration has it.
    const GZIP: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\x77\xf5\x71\x53\
        \xc8\x48\xcd\xc9\xc9\x07\x00\x67\x33\xba\xde\x0a\x00\x00\x00\x0a\x00\x00\x00";

    #[test]
    fn the_release_is_where_the_header_says() {
        let mut image = image(b"");
        assert!(is_one(&image) && !is_one(b"HdrS"));
        assert_eq!(release(&image), None);
        image[KERNEL_VERSION] = 0x90;
        let text = b"7.2.13-mine (me@here) #1 SMP\0";
        image[0x290..0x290 + text.len()].copy_from_slice(text);
        assert_eq!(release(&image), Some("7.2.13-mine"));
    }

    #[test]
    fn the_payload_is_found() {
        assert_eq!(payload(&image(b"payload")), Ok(&b"payload"[..]));
    }

    #[test]
    fn what_is_no_bzimage_is_refused() {
        assert!(payload(b"short").is_err());
        assert!(payload(&[0; 4096]).unwrap_err().contains("setup header"));
        let mut old = image(b"");
        old[VERSION] = 7;
        assert!(payload(&old).unwrap_err().contains("2.08"));
        let mut cut = image(b"payload");
        cut.truncate(cut.len() - 1);
        assert!(payload(&cut).is_err());
        let mut beyond = image(b"payload");
        beyond[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].fill(0xff);
        beyond[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].fill(0xff);
        assert!(payload(&beyond).is_err());
    }

    #[test]
    fn each_compression_is_undone_and_what_follows_left() {
        for compressed in [ZSTD, XZ, GZIP] {
            assert_eq!(vmlinux(&image(compressed)).unwrap(), b"\x7fELF hello");
        }
    }

    #[test]
    fn damage_is_told() {
        for compressed in [ZSTD, XZ, GZIP] {
            let cut = &compressed[..compressed.len() / 2];
            assert!(vmlinux(&image(cut)).unwrap_err().starts_with("its kernel:"));
        }
        let error = vmlinux(&image(b"\x02!L\x18rest")).unwrap_err();
        assert!(error.contains("[02, 21, 4c, 18]"), "{error}");
    }
}
