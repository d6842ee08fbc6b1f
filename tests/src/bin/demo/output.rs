//! Where pictures are saved: whole, or not at all.

use std::io;
use std::path::{Path, PathBuf};

use dmashare_vm::{Error, screen};
use image::RgbImage;

/// A picture could not be saved.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}; {}choose another file with --output", path.display(), first(source))]
pub(crate) struct OutputError {
    path: PathBuf,
    source: io::Error,
}

/// What else can be done about it.
fn first(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free space there, or ",
        _ => "",
    }
}

/// A PNG file to be written.
pub(crate) struct Output(PathBuf);

impl Output {
    /// The file can be written, as far as one can know before.
    pub(crate) fn check(path: &Path) -> Result<Output, OutputError> {
        let output = Output(path.to_owned());
        if path.is_dir() {
            return Err(output.failed(io::ErrorKind::IsADirectory.into()));
        }
        // It has no name, so that nothing can stay behind.
        match tempfile::tempfile_in(output.folder()) {
            Ok(_) => Ok(output),
            Err(source) => Err(output.failed(source)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A file in the same folder, with this behind its name.
    pub(crate) fn beside(&self, suffix: &str) -> Output {
        let mut name = self.0.file_stem().unwrap_or_default().to_owned();
        name.push(suffix);
        name.push(".png");
        Output(self.0.with_file_name(name))
    }

    /// Writes the file, and gives it its name only when it is whole.
    pub(crate) fn save(&self, picture: &RgbImage) -> Result<(), OutputError> {
        screen::save(picture, &self.0).map_err(|error| match error {
            Error::Io { source, .. } => self.failed(source),
            other => self.failed(io::Error::other(other)),
        })
    }

    fn folder(&self) -> &Path {
        match self.0.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        }
    }

    fn failed(&self, source: io::Error) -> OutputError {
        OutputError {
            path: self.0.clone(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_picture_is_saved_whole() {
        let folder = tempfile::tempdir().unwrap();
        let output = Output::check(&folder.path().join("shown.png")).unwrap();
        let picture = RgbImage::from_pixel(3, 2, image::Rgb([1, 2, 3]));
        output.save(&picture).unwrap();
        output.save(&picture).unwrap();
        assert_eq!(image::open(output.path()).unwrap().into_rgb8(), picture);
        assert_eq!(
            output.beside("-diff").path(),
            folder.path().join("shown-diff.png")
        );
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_written_is_known_before() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Output::check(folder.path()).is_err());
        let error = Output::check(&folder.path().join("none/shown.png"));
        let message = error.err().unwrap().to_string();
        assert!(
            message.contains("No such file") && message.contains("--output"),
            "{message}"
        );
    }

    #[test]
    fn a_full_disk_is_told_with_what_to_do() {
        // Every write to it says that the disk is full.
        let mut file = std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let source = file.write_all(&[0]).unwrap_err();
        let message = Output("shown.png".into()).failed(source).to_string();
        assert!(
            message.contains("No space left") && message.contains("free space"),
            "{message}"
        );
    }
}
