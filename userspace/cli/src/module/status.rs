//! `dmashare module status`

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, read_to_string};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use dmashare::alloc::{self, AllocError, ModuleFeatures, ModuleInfo, ModuleMemory, Nodes};
use serde::Serialize;

use super::{BUFFERS, SYSFS, shown};
use crate::failure::Failure;
use crate::told;

/// State of the module on this system.
#[derive(Clone, Debug, Serialize)]
struct Status {
    loaded: bool,
    /// Release of the loaded module.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// Nodes below /dev/dmashare; none where the module is not loaded.
    nodes: Vec<Node>,
    /// Standard nodes that the module added to this kernel; none where no node of
    /// its own can be opened.
    added: Vec<&'static str>,
    /// None where no node can be opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Limits>,
    /// The file that lists the buffers, where this user may read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    list: Option<&'static str>,
    parameters: BTreeMap<String, String>,
    /// Open files and buffers that keep it from being unloaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    users: Option<u64>,
    /// What would bring the module here, where it is not loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// A node below /dev/dmashare.
#[derive(Clone, Debug, Serialize)]
struct Node {
    path: &'static str,
    /// Whether this user can open it.
    usable: bool,
    /// Its mode in octal, owner and group; none where there is no node.
    #[serde(skip_serializing_if = "Option::is_none")]
    access: Option<Access>,
    features: Vec<&'static str>,
    /// Why it cannot be used, and what would help.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// Who may open a node.
#[derive(Clone, Debug, Serialize)]
struct Access {
    mode: String,
    owner: String,
    group: String,
}

/// Limits, and what is used of them, in bytes.
#[derive(Clone, Debug, Serialize)]
struct Limits {
    buffers: u64,
    buffer_max: u64,
    file_max: u64,
    user_used: u64,
    user_max: u64,
    total_used: u64,
    total_max: u64,
    /// Of the module's /dev/udmabuf, which is counted apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    udmabuf_max: Option<u64>,
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
        let loaded = Path::new(SYSFS).exists();
        // Before this program opens a node itself.
        let users = shown("refcnt").and_then(|count| count.parse().ok());
        let module = alloc::Module::open();
        let examined = ModuleMemory::ALL.map(|memory| examine(memory, module.as_ref()));
        let info = examined.iter().find_map(|(_, info)| *info);
        let parameters = parameters();
        Status {
            loaded,
            version: shown("version"),
            nodes: match loaded || module.is_ok() {
                true => examined.map(|(node, _)| node).into(),
                false => Vec::new(),
            },
            added: info.map(added).unwrap_or_default(),
            limits: info.map(|info| limits(&info, &parameters)),
            list: File::open(BUFFERS).is_ok().then_some(BUFFERS),
            parameters,
            users,
            problem: module
                .err()
                .filter(|_| !loaded)
                .map(|error| error.to_string()),
        }
    }
}

/// A node, and its answer where it can be opened.
fn examine(
    memory: ModuleMemory,
    module: Result<&alloc::Module, &AllocError>,
) -> (Node, Option<ModuleInfo>) {
    let path = memory.node();
    let answer = match (module, memory) {
        (Ok(module), memory) => module.info(memory).map(Some).map_err(|e| e.to_string()),
        (Err(error), ModuleMemory::System) => Err(error.to_string()),
        // This program has no way to it but through the node for system memory.
        (Err(_), _) => File::open(path)
            .map(|_| None)
            .map_err(|error| format!("{path}: open: {error}")),
    };
    let (info, problem) = match answer {
        Ok(info) => (info, None),
        Err(problem) => (None, Some(problem)),
    };
    let node = Node {
        path,
        usable: problem.is_none(),
        access: access(path),
        features: info.map(features).unwrap_or_default(),
        problem,
    };
    (node, info)
}

fn access(path: &str) -> Option<Access> {
    let metadata = Path::new(path).metadata().ok()?;
    Some(Access {
        mode: format!("{:04o}", metadata.permissions().mode() & 0o7777),
        owner: name_of("/etc/passwd", metadata.uid()),
        group: name_of("/etc/group", metadata.gid()),
    })
}

/// The name of a user or group, or its number where the file has none:
/// passwd(5) and group(5) both begin with name:password:number.
fn name_of(file: &str, id: u32) -> String {
    let text = read_to_string(file).unwrap_or_default();
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    });
    found.unwrap_or_else(|| id.to_string())
}

fn features(info: ModuleInfo) -> Vec<&'static str> {
    let names = [
        (ModuleFeatures::ALLOC, "alloc"),
        (ModuleFeatures::WRAP, "wrap"),
        (ModuleFeatures::MAX_CHUNK, "max-chunk"),
        (ModuleFeatures::BELOW_4G, "below-4g"),
        (ModuleFeatures::WRITE_COMBINED, "write-combined"),
    ];
    let names = names.iter();
    let has = names.filter(|(feature, _)| info.features.contains(*feature));
    has.map(|(_, name)| *name).collect()
}

fn added(info: ModuleInfo) -> Vec<&'static str> {
    let names = [
        (Nodes::UDMABUF, "/dev/udmabuf"),
        (Nodes::DMA_HEAP, "/dev/dma_heap/system"),
        (Nodes::HEAP, "/dev/dma_heap/dmashare"),
    ];
    let has = names.iter().filter(|(node, _)| info.nodes.contains(*node));
    has.map(|(_, name)| *name).collect()
}

fn limits(info: &ModuleInfo, parameters: &BTreeMap<String, String>) -> Limits {
    let udmabuf_mb = parameters
        .get("max_udmabuf_mb")
        .and_then(|mb| mb.parse::<u64>().ok());
    Limits {
        buffers: info.buffers,
        buffer_max: info.buffer_max,
        file_max: info.file_max,
        user_used: info.user_used,
        user_max: info.user_max,
        total_used: info.total_used,
        total_max: info.total_max,
        udmabuf_max: udmabuf_mb
            .filter(|_| info.nodes.contains(Nodes::UDMABUF))
            .map(|mb| mb.saturating_mul(1 << 20)),
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
            (true, Some(version)) => format!("loaded, version {version}"),
        };
        write!(f, "module      {loaded}")?;
        for node in &self.nodes {
            write!(f, "\nnode        {node}")?;
        }
        if !self.added.is_empty() {
            write!(f, "\nadded       {}", self.added.join(", "))?;
        }
        if let Some(limits) = &self.limits {
            write!(f, "{limits}")?;
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

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path)?;
        if let Some(access) = &self.access {
            write!(f, ", {} {}:{}", access.mode, access.owner, access.group)?;
        }
        match &self.problem {
            None if self.features.is_empty() => f.write_str(", usable"),
            None => write!(f, ", usable: {}", self.features.join(" ")),
            // It names the node already.
            Some(problem) => write!(f, ", not usable: {problem}"),
        }
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\nbuffers     {}, with {} bytes of at most {}; this user's {} of at most {}",
            self.buffers, self.total_used, self.total_max, self.user_used, self.user_max
        )?;
        write!(
            f,
            "\nlimits      {} bytes a buffer, {} an open file",
            self.buffer_max, self.file_max
        )?;
        match self.udmabuf_max {
            Some(udmabuf) => write!(f, ", {udmabuf} in all buffers of /dev/udmabuf"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        let node = |path, usable: bool| Node {
            path,
            usable,
            access: Some(Access {
                mode: "0600".to_owned(),
                owner: "root".to_owned(),
                group: "root".to_owned(),
            }),
            features: if usable { vec!["alloc"] } else { vec![] },
            problem: (!usable).then(|| format!("{path}: open: refused; run as root")),
        };
        Status {
            loaded: true,
            version: Some("0.1.0".to_owned()),
            nodes: vec![
                node(ModuleMemory::System.node(), true),
                node(ModuleMemory::Contiguous.node(), false),
            ],
            added: vec!["/dev/udmabuf"],
            limits: Some(Limits {
                buffers: 1,
                buffer_max: 2,
                file_max: 3,
                user_used: 4,
                user_max: 5,
                total_used: 6,
                total_max: 7,
                udmabuf_max: Some(8),
            }),
            list: None,
            parameters: BTreeMap::new(),
            users: Some(9),
            problem: None,
        }
    }

    #[test]
    fn text_shows_access_and_limits() {
        let expected = "\
module      loaded, version 0.1.0
node        /dev/dmashare/system, 0600 root:root, usable: alloc
node        /dev/dmashare/contiguous, 0600 root:root, not usable: /dev/dmashare/contiguous: open: refused; run as root
added       /dev/udmabuf
buffers     1, with 6 bytes of at most 7; this user's 4 of at most 5
limits      2 bytes a buffer, 3 an open file, 8 in all buffers of /dev/udmabuf
users       9: open files, live buffers or its heap; this program not counted";
        assert_eq!(status().to_string(), expected);
    }

    #[test]
    fn json_shows_access_and_limits() {
        let json = serde_json::to_value(status()).unwrap();
        assert_eq!(json["nodes"][1]["access"]["mode"], "0600");
        assert_eq!(json["nodes"][1]["usable"], false);
        assert_eq!(json["limits"]["user_max"], 5);
        assert_eq!(json["limits"]["udmabuf_max"], 8);
    }

    #[test]
    fn ids_have_names() {
        assert_eq!(name_of("/etc/passwd", 0), "root");
        assert_eq!(name_of("/etc/group", u32::MAX), u32::MAX.to_string());
    }
}
