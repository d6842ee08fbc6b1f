//! The demo's run in the guest, and what the host sees of it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cargo_metadata::camino::Utf8Path;
use dmashare_cli::demo::report::{self, Actor, Report, Step};
use dmashare_vm::project::Project;
use dmashare_vm::{Error, Event, Exit, Stdin, Vm};
use image::RgbImage;

use crate::Failure;

/// Folders that the guest has of its own: the host's in their place would take
/// its programs and devices away.
const OF_THE_GUEST: [&str; 11] = [
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr",
];

/// The picture's file, where the guest is to find it.
pub(crate) struct Input(PathBuf);

impl Input {
    /// The file by its real path, if a guest can have its folder.
    pub(crate) fn new(path: &Path) -> Result<Input, Failure> {
        let real = path.canonicalize();
        let real =
            real.map_err(
                |source| dmashare_cli::demo::picture::PictureError::Unreadable {
                    path: path.to_owned(),
                    source,
                },
            )?;
        let folder = real.parent().unwrap_or(Path::new("/"));
        let is_needed = |own| folder == Path::new("/") || folder.starts_with(own);
        match OF_THE_GUEST.into_iter().any(is_needed) {
            true => Err(Failure::Folder {
                folder: folder.to_owned(),
                name: crate::display(path),
            }),
            false => Ok(Input(real)),
        }
    }

    /// Its folder, if the guest does not have it with the workspace.
    pub(crate) fn folder_beyond(&self, project: &Project) -> Option<&Path> {
        match self.0.starts_with(project.folder()) {
            true => None,
            false => self.0.parent(),
        }
    }
}

/// The demo, to be run in a guest.
pub(crate) struct Demo<'a> {
    pub(crate) program: &'a Utf8Path,
    pub(crate) input: Option<&'a Input>,
    pub(crate) deadline: Duration,
}

impl Demo<'_> {
    /// Runs it to its end; what the screen showed when the demo said so.
    pub(crate) fn run(&self, vm: &Vm, report: &mut Report) -> Result<RgbImage, Failure> {
        let mut arguments = vec!["--hold"];
        if let Some(Input(path)) = self.input {
            let path = path.to_str().ok_or_else(|| Failure::Folder {
                folder: path.clone(),
                name: "a file whose name is not UTF-8".to_owned(),
            })?;
            arguments.extend(["--input", path]);
        }
        let mut screen = None;
        let last_words = self.follow(vm, &arguments, report, |event, hold, report| {
            if let report::Event::Shown { .. } = event {
                screen = Some(screendump(vm, report)?);
                *hold = None;
            }
            Ok(())
        })?;
        screen.ok_or(Failure::Guest(last_words))
    }

    /// Runs it with these arguments; `look` sees each event, and the standard
    /// input of the program, as long as which is there the demo may go on. What
    /// it said on standard error, after a good end.
    pub(crate) fn follow(
        &self,
        vm: &Vm,
        arguments: &[&str],
        report: &mut Report,
        mut look: impl FnMut(&report::Event, &mut Option<Stdin>, &mut Report) -> Result<(), Failure>,
    ) -> Result<String, Failure> {
        let command = vm
            .command(self.program.as_str())
            .args(["demo", "--json"])
            .args(arguments.iter().copied())
            .deadline(self.deadline);
        let process = command.spawn()?;
        let mut stdin = Some(process.stdin());
        let mut told = Lines::default();
        let mut complaints = Vec::new();
        let mut failed = None;
        let exit = loop {
            match process.next_event()? {
                Event::Stderr(bytes) => complaints.extend(bytes),
                Event::Exit(exit) => break exit,
                Event::Stdout(bytes) => {
                    for event in told.push(&bytes) {
                        let event = event?;
                        look(&event, &mut stdin, report)?;
                        match event {
                            report::Event::Failed { message, .. } => failed = Some(message),
                            // The verdict is the host's.
                            report::Event::Verdict { .. } | report::Event::Shown { .. } => {}
                            other => report.tell(other)?,
                        }
                    }
                }
            }
        };
        drop(stdin);
        let complaints = String::from_utf8_lossy(&complaints);
        match exit {
            Exit::Code(0) => Ok(complaints.trim().to_owned()),
            exit => {
                let last_words = || format!("{exit:?} {}", complaints.trim());
                Err(Failure::Guest(failed.unwrap_or_else(last_words)))
            }
        }
    }
}

/// What QEMU says that the screen shows.
pub(crate) fn screendump(vm: &Vm, report: &mut Report) -> Result<RgbImage, Failure> {
    let started = Instant::now();
    let screen = vm.screenshot()?;
    let bytes = u64::from(screen.width()) * u64::from(screen.height()) * 3;
    let step = Step::done(Actor::Host, "screendump", "QEMU", started, bytes);
    report.step(step.copies(Some(1), "QEMU's, of the display's memory"))?;
    Ok(screen)
}

/// Events out of bytes that come as they like.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    /// The events that these bytes complete.
    fn push(&mut self, bytes: &[u8]) -> Vec<Result<report::Event, Error>> {
        self.0.extend(bytes);
        let whole = self.0.iter().rposition(|byte| *byte == b'\n');
        let rest = self.0.split_off(whole.map_or(0, |end| end + 1));
        let whole = std::mem::replace(&mut self.0, rest);
        let mut whole = whole.as_slice();
        let next = || report::read(&mut whole).transpose();
        let events = std::iter::from_fn(next).map(|event| {
            event.map_err(|source| Error::Io {
                what: "read what the demo tells".into(),
                source,
            })
        });
        events.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_may_come_in_pieces() {
        let mut lines = Lines::default();
        let shown = |width| report::Event::Shown { width, height: 1 };
        let mut bytes = Vec::new();
        for width in [1, 2, 3] {
            report::write(&mut bytes, &shown(width)).unwrap();
        }
        let mut events = Vec::new();
        for piece in bytes.chunks(7) {
            events.extend(lines.push(piece).into_iter().map(Result::unwrap));
        }
        assert_eq!(events, [shown(1), shown(2), shown(3)]);
        assert!(lines.push(b"no event\n")[0].is_err());
    }

    #[test]
    fn the_guests_own_folders_are_not_replaced() {
        for path in ["/etc/passwd", "/usr/bin/env", "/proc/self/status"] {
            assert!(Input::new(path.as_ref()).is_err(), "{path}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Input::new(file.path()).is_ok());
    }
}
