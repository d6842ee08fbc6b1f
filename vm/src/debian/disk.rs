//! What an image of a root is, found out by its content.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::Error;

/// The file systems that a root's image may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileSystem {
    Erofs,
    /// Of the family, which one driver mounts.
    Ext4,
    Squashfs,
}

/// What else an image may be: where its mark is, the mark, and what it is.
const OTHERS: [(u64, &[u8], &str); 12] = [
    (
        0,
        b"QFI\xfb",
        "a qcow2 image; `qemu-img convert -O raw` makes a plain one",
    ),
    (
        0,
        b"KDMV",
        "a VMDK image; `qemu-img convert -O raw` makes a plain one",
    ),
    (0, b"XFSB", "an xfs file system"),
    (0x10040, b"_BHRfS_M", "a btrfs file system"),
    (0x8001, b"CD001", "an ISO 9660 file system"),
    (0, b"\x1f\x8b", "compressed by gzip"),
    (0, b"\xfd7zXZ\0", "compressed by xz"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd"),
    (
        0,
        b"07070",
        "a cpio archive; unpack it, and give the folder",
    ),
    (
        257,
        b"ustar",
        "a tar archive; unpack it, and give the folder",
    ),
    (
        512,
        b"EFI PART",
        "a disk with partitions; give a file system alone",
    ),
    (
        510,
        b"\x55\xaa",
        "a disk with partitions, or a FAT file system; give a file system alone",
    ),
];

impl FileSystem {
    /// What is in `image`.
    ///
    /// # Errors
    /// [`Error::OwnRoot`] with what it is instead, or why it cannot be mounted
    /// as it is.
    pub(crate) fn of(image: &Path) -> Result<Self, Error> {
        let wrong = |problem: String| Error::OwnRoot {
            path: image.to_path_buf(),
            problem,
        };
        let file = File::open(image).map_err(|error| wrong(error.to_string()))?;
        let marked = |at: u64, mark: &[u8]| -> io::Result<bool> {
            let mut found = vec![0; mark.len()];
            match file.read_exact_at(&mut found, at) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
                read => read.map(|()| found == mark),
            }
        };
        let found = || -> io::Result<Result<Self, String>> {
            if marked(1024, &0xe0f5_e1e2_u32.to_le_bytes())? {
                return Ok(Ok(Self::Erofs));
            }
            if marked(0, b"hsqs")? {
                return Ok(Ok(Self::Squashfs));
            }
            if marked(1024 + 0x38, &0xef53_u16.to_le_bytes())? {
                // The bit RECOVER of s_feature_incompat: the guest only reads,
                // and so cannot replay the journal.
                let mut incompatible = [0];
                file.read_exact_at(&mut incompatible, 1024 + 0x60)?;
                return Ok(match incompatible[0] & 4 {
                    0 => Ok(Self::Ext4),
                    _ => Err(format!(
                        "an ext4 image that was not unmounted: run `e2fsck -f {}`",
                        image.display()
                    )),
                });
            }
            for (at, mark, what) in OTHERS {
                if marked(at, mark)? {
                    return Ok(Err(what.to_owned()));
                }
            }
            Ok(Err("no file system that is known here".to_owned()))
        };
        found()
            .map_err(|error| wrong(error.to_string()))?
            .map_err(|what| {
                wrong(format!(
                    "{what}; taken are a folder, and images of erofs, ext4 and squashfs"
                ))
            })
    }

    /// Its type for mount(2), which is the name of its module, too.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Erofs => "erofs",
            Self::Ext4 => "ext4",
            Self::Squashfs => "squashfs",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(marks: &[(usize, &[u8])]) -> Result<FileSystem, String> {
        let mut content = vec![0; 1 << 17];
        for (at, mark) in marks {
            content[*at..at + mark.len()].copy_from_slice(mark);
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        FileSystem::of(file.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn file_systems_are_known_by_their_marks() {
        assert_eq!(of(&[(1024, b"\xe2\xe1\xf5\xe0")]), Ok(FileSystem::Erofs));
        assert_eq!(of(&[(0, b"hsqs")]), Ok(FileSystem::Squashfs));
        assert_eq!(of(&[(1080, b"\x53\xef")]), Ok(FileSystem::Ext4));
        let open = of(&[(1080, b"\x53\xef"), (1120, b"\x46")]).unwrap_err();
        assert!(open.contains("run `e2fsck -f"), "{open}");
    }

    #[test]
    fn what_is_none_is_told_by_its_kind() {
        for (at, mark, what) in OTHERS {
            let error = of(&[(usize::try_from(at).unwrap(), mark)]).unwrap_err();
            assert!(error.contains(what), "{error}");
            assert!(error.contains("taken are a folder"), "{error}");
        }
        assert!(of(&[]).unwrap_err().contains("no file system"));
        let short = tempfile::NamedTempFile::new().unwrap();
        let error = FileSystem::of(short.path()).unwrap_err().to_string();
        assert!(error.contains("no file system"), "{error}");
        let missing = FileSystem::of(Path::new("/no/such/image"));
        assert!(missing.unwrap_err().to_string().contains("/no/such/image"));
    }
}
