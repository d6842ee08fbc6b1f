//! `dmashare module load`

use std::ffi::CString;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use dmashare::Errno;
use rustix::fs::{Mode, OFlags};

use super::modinfo::Modinfo;
use super::refusal::{Loader, errno};
use super::{KO, SYSFS, shown};
use crate::failure::Failure;
use crate::told;

/// `dmashare module load`
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// The module's file [default: dmashare.ko in this folder, where `module build` puts it, else the installed one]
    #[arg(long, value_name = "KO")]
    file: Option<PathBuf>,
    /// Parameters, as `modinfo` and the man page dmashare(4) list them
    #[arg(value_name = "PARAM=VALUE", value_parser = parameter)]
    parameters: Vec<Parameter>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Parameter {
    name: String,
    value: String,
}

fn parameter(text: &str) -> Result<Parameter, String> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, value)| !name.is_empty() && !value.is_empty())
        .ok_or_else(|| format!("{text:?} is no parameter; write NAME=VALUE"))?;
    // The kernel takes one string of all of them, split by white space.
    match text
        .chars()
        .all(|letter| letter.is_ascii_graphic() && letter != '"')
    {
        true => Ok(Parameter {
            name: name.to_owned(),
            value: value.to_owned(),
        }),
        false => Err(format!(
            "{text:?} has something other than letters and digits in it"
        )),
    }
}

/// Where the module comes from.
enum Source {
    File(PathBuf, File),
    /// By modprobe, which finds it and minds /etc/modprobe.d.
    Installed,
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let source = match &options.file {
        Some(file) => Source::File(file.clone(), open(file)?),
        None => found_here()?,
    };
    let modinfo = match &source {
        Source::File(_, module) => Modinfo::of(module),
        Source::Installed => Modinfo::known(),
    };
    for parameter in &options.parameters {
        modinfo.check(&parameter.name).map_err(Failure::usage)?;
    }
    let parameters: Vec<String> = options
        .parameters
        .iter()
        .map(|Parameter { name, value }| format!("{name}={value}"))
        .collect();
    // Known before anyone has to be root.
    if Path::new(SYSFS).exists() {
        return Err(refused("the module", Errno::EXIST, &modinfo));
    }
    let from = match &source {
        Source::File(file, module) => {
            insert(file, module, &parameters.join(" "), &modinfo)?;
            file.display().to_string()
        }
        Source::Installed => {
            modprobe(&parameters, &modinfo)?;
            "the installed module".to_owned()
        }
    };
    let version = shown("version").unwrap_or_else(|| "unknown".to_owned());
    told::lines(&[format!("loaded {from}, version {version}")])
}

fn refused(what: &str, answer: Errno, modinfo: &Modinfo) -> Failure {
    let help = Loader::this().help(answer, modinfo);
    Failure::failed(format!("{what}: load: {answer}; {help}"))
}

/// What was built here; or else the installed one.
///
/// A folder such as /tmp can hold a file that anyone put there, and root is
/// about to run it in the kernel. What is checked is the open file, which is the
/// one to be loaded: its name can be another's by then.
fn found_here() -> Result<Source, Failure> {
    let file = Path::new(KO);
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let module = match rustix::fs::open(file, OFlags::RDONLY | flags, Mode::empty()) {
        Ok(module) => File::from(module),
        Err(Errno::NOENT) => return Ok(Source::Installed),
        Err(Errno::LOOP) => return Err(another()),
        Err(error) => return Err(unreadable(file, &error)),
    };
    let metadata = module.metadata()?;
    let trusted = [
        Some(0),
        Some(rustix::process::geteuid().as_raw()),
        invoker(),
    ];
    let others_may_write = metadata.mode() & 0o022 != 0;
    match metadata.is_file() && trusted.contains(&Some(metadata.uid())) && !others_may_write {
        true => Ok(Source::File(file.to_owned(), module)),
        false => Err(another()),
    }
}

fn another() -> Failure {
    Failure::failed(format!(
        "{KO} in this folder can be another's work; if you trust it, say --file {KO}"
    ))
}

fn open(file: &Path) -> Result<File, Failure> {
    File::open(file).map_err(|error| unreadable(file, &error))
}

fn unreadable(file: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::failed(format!(
        "{}: {error}; `dmashare module build` makes {KO} in the folder it is called in",
        file.display()
    ))
}

/// Who called sudo(8), if someone did.
fn invoker() -> Option<u32> {
    std::env::var("SUDO_UID").ok()?.parse().ok()
}

/// `MODULE_INIT_COMPRESSED_FILE` of linux/module.h.
const COMPRESSED: i32 = 4;

fn insert(file: &Path, module: &File, parameters: &str, modinfo: &Modinfo) -> Result<(), Failure> {
    let shown = file.display();
    let parameters = CString::new(parameters).expect("each was checked to have no NUL");
    let extension = file.extension().and_then(|extension| extension.to_str());
    let flags = match extension {
        Some("xz" | "zst" | "gz") => COMPRESSED,
        _ => 0,
    };
    rustix::system::finit_module(module, &parameters, flags)
        .map_err(|answer| refused(&shown.to_string(), answer, modinfo))
}

fn modprobe(parameters: &[String], modinfo: &Modinfo) -> Result<(), Failure> {
    let output = Command::new("modprobe")
        .args(["--first-time", "dmashare"])
        .args(parameters)
        .env("LC_ALL", "C")
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            return Err(Failure::failed(format!(
                "there is no {KO} in this folder, and no modprobe to find an installed one \
                 ({error}); build it by `dmashare module build`, or name it by --file"
            )));
        }
    };
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    if words.contains("not found in directory") {
        return Err(Failure::failed(format!(
            "there is no {KO} in this folder, and none is installed for this kernel, {}; build it \
             by `dmashare module build`, or name it by --file",
            super::release()
        )));
    }
    Err(match errno(&words) {
        Some(answer) => refused("the installed module", answer, modinfo),
        None => Failure::failed(words.trim().to_owned()),
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn parameters_are_names_with_values() {
        let parameter = |text| super::parameter(text).map(|p| (p.name, p.value));
        let heap = Ok(("heap".to_owned(), "1".to_owned()));
        assert_eq!(parameter("heap=1"), heap);
        for wrong in [
            "heap",
            "heap=",
            "=1",
            "heap=1 x=2",
            "heap=\"1\"",
            "heap=1\n",
            "heap=\0",
        ] {
            assert!(parameter(wrong).is_err(), "{wrong:?}");
        }
    }
}
