//! Programs as other processes, which end with whoever started them.

use std::fs::{File, create_dir_all, read_to_string};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::inside::text;

/// Long enough for the slowest start of a program under emulation; a test that
/// waits for ever is worse than one that fails.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The plugins that are wanted, of some hundred: GStreamer looks into each that
/// it finds before it does anything.
const PLUGINS: [&str; 7] = [
    "coreelements",
    "unixfd",
    "video4linux2",
    "videoconvertscale",
    "videofilter",
    "videorate",
    "videotestsrc",
];

/// A program that runs.
pub(crate) struct Launched {
    child: Child,
    name: String,
    said: PathBuf,
}

impl Launched {
    /// Starts it; what it says goes to a file in this folder.
    pub(crate) fn start(mut command: Command, folder: &Path) -> Result<Launched, String> {
        let name = command.get_program().to_string_lossy().into_owned();
        let said = folder.join(format!("{}.said", name.replace('/', "_")));
        let into = File::create(&said).map_err(text)?;
        let child = command
            .env("HOME", folder)
            .env("XDG_RUNTIME_DIR", folder)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(into.try_clone().map_err(text)?)
            .stderr(into)
            .spawn()
            .map_err(|error| format!("{name}: {error}"))?;
        Ok(Launched { child, name, said })
    }

    /// A pipeline of gst-launch-1.0.
    pub(crate) fn pipeline(words: &str, folder: &Path) -> Result<Launched, String> {
        let mut command = Command::new("gst-launch-1.0");
        command
            .arg("-q")
            .args(words.split_whitespace())
            .env("GST_PLUGIN_SYSTEM_PATH_1_0", plugins()?)
            .env("GST_REGISTRY", std::env::temp_dir().join("gst-registry"))
            .env("GST_REGISTRY_FORK", "no");
        Launched::start(command, folder)
    }

    /// What it has said so far.
    pub(crate) fn words(&self) -> String {
        let said = read_to_string(&self.said).unwrap_or_default();
        format!("{} says: {}", self.name, said.trim())
    }

    pub(crate) fn is_running(&mut self) -> Result<bool, String> {
        Ok(self.child.try_wait().map_err(text)?.is_none())
    }

    /// Its end, which is near.
    pub(crate) fn end(&mut self) -> Result<ExitStatus, String> {
        let begun = Instant::now();
        loop {
            match self.child.try_wait().map_err(text)? {
                Some(status) => return Ok(status),
                None if begun.elapsed() > LONG => {
                    return Err(format!("it does not end; {}", self.words()));
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Its end, which is to be a good one.
    pub(crate) fn succeeds(&mut self) -> Result<(), String> {
        let status = self.end()?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("{status}; {}", self.words())),
        }
    }

    /// Ends it as it is, by SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<(), String> {
        self.child.kill().map_err(text)?;
        self.child.wait().map_err(text)?;
        Ok(())
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder with the wanted plugins alone.
fn plugins() -> Result<PathBuf, String> {
    let folder = std::env::temp_dir().join("gst-plugins");
    if !folder.exists() {
        create_dir_all(&folder).map_err(text)?;
        for name in PLUGINS {
            let file = format!("libgst{name}.so");
            let whole = format!("/usr/lib/x86_64-linux-gnu/gstreamer-1.0/{file}");
            symlink(whole, folder.join(file)).map_err(text)?;
        }
    }
    Ok(folder)
}
