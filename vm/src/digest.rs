//! Digests of files: of what is in them, and of what the kernel says of them.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// What is read and hashed at once; where all of it are zeros, that is not hashed.
const PAGE: usize = 64 << 10;

/// A file that is no folder.
#[derive(Debug)]
pub(crate) struct Item {
    /// Below the folder that is looked at.
    pub(crate) path: PathBuf,
    pub(crate) stat: Metadata,
}

/// The SHA-256 of all their names, types, modes and contents, in this folder. Links and
/// devices are not followed; neither is a file read that this user may not read.
///
/// # Errors
/// Those of reading, and of a file that changed its type meanwhile.
pub(crate) fn of_contents(folder: &Path, items: &[Item]) -> io::Result<String> {
    let mut hash = Sha256::new();
    for Item { path, stat } in items {
        part(&mut hash, path.as_os_str().as_encoded_bytes());
        part(&mut hash, &stat.mode().to_le_bytes());
        let whole = folder.join(path);
        if stat.file_type().is_symlink() {
            let target = std::fs::read_link(&whole)?;
            part(&mut hash, target.as_os_str().as_encoded_bytes());
        } else if stat.is_file() {
            let mut options = File::options();
            options.read(true).custom_flags(libc::O_NOFOLLOW);
            match options.open(&whole) {
                Ok(file) => content(&mut hash, file)?,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                Err(error) => return Err(error),
            }
        } else if stat.file_type().is_char_device() || stat.file_type().is_block_device() {
            part(&mut hash, &stat.rdev().to_le_bytes());
        }
    }
    Ok(hex(&hash.finalize()))
}

/// The SHA-256 of what changes whenever a file does, by whatever way: the kernel sets a
/// file's ctime, and no program does. With the host's boot, after which a disk may not
/// have what was written to it last.
pub(crate) fn of_metadata(boot: &str, items: &[Item]) -> String {
    let mut hash = Sha256::new();
    part(&mut hash, boot.as_bytes());
    for Item { path, stat } in items {
        part(&mut hash, path.as_os_str().as_encoded_bytes());
        for number in [stat.dev(), stat.ino(), stat.len(), u64::from(stat.mode())] {
            hash.update(number.to_le_bytes());
        }
        for time in [stat.ctime(), stat.ctime_nsec()] {
            hash.update(time.to_le_bytes());
        }
    }
    hex(&hash.finalize())
}

/// This boot of the host's. After another, a file may not have what was written
/// to it last, and the processor may be another one.
pub(crate) fn host_boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// The content with its holes left out: a guest's memory is mostly one.
fn content(hash: &mut Sha256, mut file: File) -> io::Result<()> {
    let end = file.metadata()?.len();
    part(hash, &end.to_le_bytes());
    let mut page = vec![0; PAGE];
    let mut at = 0;
    while at < end {
        at = match rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
            // Pages are counted from the beginning, wherever the data begins.
            Ok(data) => data / PAGE as u64 * PAGE as u64,
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        file.seek(SeekFrom::Start(at))?;
        let mut length = 0;
        while length < PAGE {
            match file.read(&mut page[length..])? {
                0 => break,
                more => length += more,
            }
        }
        if length == 0 {
            break;
        }
        if page[..length].iter().any(|byte| *byte != 0) {
            hash.update(at.to_le_bytes());
            part(hash, &page[..length]);
        }
        at += length as u64;
    }
    Ok(())
}

/// With its length, so that no two lists of parts read the same.
fn part(hash: &mut Sha256, bytes: &[u8]) {
    hash.update(bytes.len().to_le_bytes());
    hash.update(bytes);
}

fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn holes_do_not_change_a_digest() {
        let folder = tempfile::tempdir().unwrap();
        let digest = |name: &str| {
            let stat = folder.path().join(name).metadata().unwrap();
            let mut hash = Sha256::new();
            content(&mut hash, File::open(folder.path().join(name)).unwrap()).unwrap();
            (stat.blocks(), hex(&hash.finalize()))
        };
        let mut bytes = vec![0; 1 << 20];
        bytes[700_000..700_010].fill(1);
        std::fs::write(folder.path().join("whole"), &bytes).unwrap();
        let holes = File::create(folder.path().join("holes")).unwrap();
        holes.set_len(1 << 20).unwrap();
        holes.write_all_at(&[1; 10], 700_000).unwrap();
        holes.sync_all().unwrap();
        assert_eq!(digest("whole").1, digest("holes").1);
        bytes[700_000] = 2;
        std::fs::write(folder.path().join("other"), &bytes).unwrap();
        assert_ne!(digest("whole").1, digest("other").1);
        std::fs::write(folder.path().join("short"), &bytes[..1000]).unwrap();
        std::fs::write(folder.path().join("longer"), &bytes[..1001]).unwrap();
        assert_ne!(digest("short").1, digest("longer").1);
    }
}
