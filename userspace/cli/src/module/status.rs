//! `dmashare module status`

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::Path;

use dmashare::alloc::{self, ModuleInfo, Nodes, Shapes};
use serde::Serialize;

use super::{BUFFERS, SYSFS, shown};
use crate::failure::Failure;
use crate::told;

/// All there is to know of the module here.
#[derive(Clone, Debug, Serialize)]
struct Status {
    loaded: bool,
    /// Of the loaded module's interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// Of the interface that this program speaks.
    speaks: u32,
    /// How many open files and buffers keep it from being unloaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    users: Option<u64>,
    parameters: BTreeMap<String, String>,
    /// What it told of itself; none where it could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<Info>,
    /// Why it could not be asked, and what would help.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// The file that lists its buffers, where this user may read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    list: Option<&'static str>,
}

/// What the module tells of itself.
#[derive(Clone, Debug, Serialize)]
struct Info {
    shapes: Vec<&'static str>,
    nodes: Vec<&'static str>,
    buffers: u64,
    /// In bytes, as all that follow.
    total_used: u64,
    total_max: u64,
    file_max: u64,
    max_buffer: u64,
}

impl From<ModuleInfo> for Info {
    fn from(info: ModuleInfo) -> Info {
        let shapes = [
            (Shapes::CONTIGUOUS, "contiguous"),
            (Shapes::BELOW_4G, "below-4g"),
            (Shapes::WRITE_COMBINED, "write-combined"),
        ];
        let nodes = [
            (Nodes::UDMABUF, "/dev/udmabuf"),
            (Nodes::DMA_HEAP, "/dev/dma_heap/system"),
            (Nodes::HEAP, "/dev/dma_heap/dmashare"),
        ];
        let shapes = shapes
            .iter()
            .filter(|(shape, _)| info.shapes.contains(*shape));
        let nodes = nodes.iter().filter(|(node, _)| info.nodes.contains(*node));
        Info {
            shapes: shapes.map(|(_, name)| *name).collect(),
            nodes: ["/dev/dmashare"]
                .into_iter()
                .chain(nodes.map(|(_, name)| *name))
                .collect(),
            buffers: info.buffers,
            total_used: info.total_used,
            total_max: info.total_max,
            file_max: info.file_max,
            max_buffer: info.max_buffer,
        }
    }
}

pub(crate) fn run(json: bool) -> Result<(), Failure> {
    let status = Status::now();
    match json {
        true => told::json(&status),
        false => told::lines(&[status]),
    }
}

impl Status {
    fn now() -> Status {
        let asked = alloc::Module::open().and_then(|module| module.info());
        let (info, problem) = match asked {
            Ok(info) => (Some(info.into()), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Status {
            loaded: Path::new(SYSFS).exists(),
            version: shown("version"),
            speaks: alloc::Module::VERSION,
            users: shown("refcnt").and_then(|count| count.parse().ok()),
            parameters: parameters(),
            info,
            problem,
            list: File::open(BUFFERS).is_ok().then_some(BUFFERS),
        }
    }
}

fn parameters() -> BTreeMap<String, String> {
    let folder = Path::new(SYSFS).join("parameters");
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files
        .filter_map(|file| {
            let name = file.file_name().into_string().ok()?;
            let value = shown(&format!("parameters/{name}"))?;
            Some((name, value))
        })
        .collect()
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let loaded = match (self.loaded, &self.version) {
            (false, _) => "not loaded".to_owned(),
            (true, None) => "loaded".to_owned(),
            (true, Some(version)) => format!("loaded, version {version} of its interface"),
        };
        write!(
            f,
            "module      {loaded}; this program speaks {}",
            self.speaks
        )?;
        if let Some(info) = &self.info {
            write!(f, "\nnodes       {}", info.nodes.join(", "))?;
            write!(f, "\nshapes      {}", info.shapes.join(", "))?;
            write!(
                f,
                "\nbuffers     {}, with {} bytes of at most {}",
                info.buffers, info.total_used, info.total_max
            )?;
            write!(
                f,
                "\nlimits      {} bytes a buffer, {} an open file",
                info.max_buffer, info.file_max
            )?;
        }
        if let Some(list) = self.list {
            write!(f, "\nlist        {list}")?;
        }
        if !self.parameters.is_empty() {
            let parameters = self.parameters.iter();
            let parameters: Vec<String> = parameters
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            write!(f, "\nparameters  {}", parameters.join(" "))?;
        }
        if let Some(users) = self.users {
            write!(
                f,
                "\nusers       {users}: open files, live buffers or its heap; this program not counted"
            )?;
        }
        match &self.problem {
            Some(problem) => write!(f, "\nproblem     {problem}"),
            None => Ok(()),
        }
    }
}
