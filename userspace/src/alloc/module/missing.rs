//! Help where a node of the module is missing, by the state of this system.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// What would bring this node of the module here.
pub(super) fn help(node: &str) -> String {
    System::this().help(node)
}

/// What our module does where the kernel has none of the standard nodes, to be
/// put behind what else would help; nothing where it cannot be loaded.
pub(in super::super) fn standard_nodes() -> &'static str {
    System::this().standard_nodes()
}

/// What is looked at.
struct System {
    /// `/`, but in tests.
    root: PathBuf,
    /// Of the running kernel: `uname -r`.
    release: String,
}

impl System {
    fn this() -> System {
        let release = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        System {
            root: "/".into(),
            release,
        }
    }

    fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    fn line(&self, path: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.root.join(path)).ok()?;
        Some(text.trim().to_owned())
    }

    fn help(&self, node: &str) -> String {
        if self.has("sys/module/dmashare") {
            return format!(
                "the module is loaded, but its node is missing here: mount devtmpfs on /dev, or \
                 hand {node} into this container"
            );
        }
        let gain = match self.has("dev/udmabuf") || self.has("dev/dma_heap") {
            true => "our kernel module would add contiguous memory and other shapes",
            false => "our kernel module would bring dma-bufs here",
        };
        if !self.has("proc/modules") {
            return format!("{gain}, but this kernel takes no modules (CONFIG_MODULES)");
        }
        let (how, signed) = match self.installed() {
            Some(file) => (
                "load it as root: `modprobe dmashare`".to_owned(),
                is_signed(&file),
            ),
            None => (self.how_to_build(), false),
        };
        match self.only_signed() {
            Some(because) if !signed => format!(
                "{gain}; {how}; {because} forbids unsigned modules: sign it with a key that the \
                 machine's owner enrolled (mokutil), as DKMS does"
            ),
            _ => format!("{gain}; {how}"),
        }
    }

    fn how_to_build(&self) -> String {
        const BUILD: &str = "build and load it: `dmashare module build`, then as root \
                             `dmashare module load`";
        let release = &self.release;
        let modules = format!("lib/modules/{release}");
        match self.has(&format!("{modules}/build/Makefile")) {
            true => BUILD.to_owned(),
            false => format!(
                "{BUILD}; that takes the kernel's headers (/{modules}/build is missing), of the \
                 package linux-headers-{release}"
            ),
        }
    }

    /// The module's file where modprobe finds it, or will after depmod.
    fn installed(&self) -> Option<PathBuf> {
        let folder = self.root.join("lib/modules").join(&self.release);
        let listed = std::fs::read_to_string(folder.join("modules.dep")).unwrap_or_default();
        // modules.dep(5): FILE: DEPENDENCY DEPENDENCY…
        let listed = listed.lines().find_map(|line| {
            let file = Path::new(line.split_once(':')?.0);
            let name = file.file_name()?.to_str()?.split_once('.')?;
            (name.0 == "dmashare" && name.1.starts_with("ko")).then(|| folder.join(file))
        });
        listed.filter(|file| file.exists())
    }

    /// What makes this kernel refuse modules without a signature.
    fn only_signed(&self) -> Option<&'static str> {
        let lockdown = self.line("sys/kernel/security/lockdown");
        let lockdown =
            lockdown.is_some_and(|modes| modes.contains('[') && !modes.contains("[none]"));
        let enforced = self.line("sys/module/module/parameters/sig_enforce");
        match lockdown {
            true => Some("the kernel's lockdown (Secure Boot)"),
            false => (enforced.as_deref() == Some("Y")).then_some("the kernel (sig_enforce)"),
        }
    }

    fn standard_nodes(&self) -> &'static str {
        let asked = self.line("sys/module/dmashare/parameters/standard_nodes");
        match asked.as_deref() {
            None if !self.has("proc/modules") => "",
            None => "; or our module offers it: `dmashare module load standard_nodes=1`",
            Some("Y" | "1") => {
                "; or look for the node that our module offers, loaded as it is with \
                                standard_nodes=1: mount devtmpfs on /dev, or hand it into this container"
            }
            Some(_) => {
                "; or load our module anew so that it offers it: `dmashare module unload`, \
                        `dmashare module load standard_nodes=1`"
            }
        }
    }
}

/// What sign-file puts at a module's end; of a compressed one it does not show.
const SIGNED: &[u8; 28] = b"~Module signature appended~\n";

fn is_signed(module: &Path) -> bool {
    let end = || {
        let mut file = File::open(module)?;
        file.seek(SeekFrom::End(-(SIGNED.len().cast_signed() as i64)))?;
        let mut end = [0; SIGNED.len()];
        file.read_exact(&mut end).map(|()| end)
    };
    end().is_ok_and(|end| end == *SIGNED)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Machine {
        system: System,
        _root: tempfile::TempDir,
    }

    impl Machine {
        /// A kernel that takes modules, and has these files.
        fn with(files: &[(&str, &[u8])]) -> Machine {
            let root = tempfile::tempdir().unwrap();
            for (path, content) in [&[("proc/modules", &b""[..])], files].concat() {
                let path = root.path().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, content).unwrap();
            }
            Machine {
                system: System {
                    root: root.path().to_owned(),
                    release: "6.1.0-18-amd64".to_owned(),
                },
                _root: root,
            }
        }

        fn says(&self, words: &[&str]) {
            let help = self.system.help("/dev/dmashare/memfd");
            for word in words {
                assert!(help.contains(word), "{word:?} is not in {help:?}");
            }
        }

        fn says_nothing_of(&self, word: &str) {
            let help = self.system.help("/dev/dmashare/memfd");
            assert!(!help.contains(word), "{word:?} is in {help:?}");
        }
    }

    const MODULES: &str = "lib/modules/6.1.0-18-amd64";

    #[test]
    fn loaded_without_a_node() {
        Machine::with(&[("sys/module/dmashare/version", b"0.1.0")]).says(&[
            "is loaded",
            "devtmpfs",
            "hand /dev/dmashare/memfd",
        ]);
    }

    #[test]
    fn installed() {
        let ko = format!("{MODULES}/updates/dkms/dmashare.ko");
        let dep = format!("{MODULES}/modules.dep");
        let list = b"kernel/a.ko:\nupdates/dkms/dmashare.ko: kernel/a.ko\n";
        let lockdown = (
            "sys/kernel/security/lockdown",
            &b"none [integrity] confidentiality\n"[..],
        );
        let plain = Machine::with(&[(&ko, b"\x7fELF"), (&dep, list)]);
        plain.says(&["modprobe dmashare", "bring dma-bufs"]);
        plain.says_nothing_of("sign");
        Machine::with(&[(&ko, b"\x7fELF"), (&dep, list), lockdown])
            .says(&["modprobe", "lockdown", "mokutil"]);
        let signed = [b"\x7fELF", &SIGNED[..]].concat();
        Machine::with(&[(&ko, &signed), (&dep, list), lockdown]).says_nothing_of("mokutil");
        // Another's name that begins alike, and a list that outlived its file.
        let other = b"extra/dmashare_other.ko:\nupdates/dkms/dmashare.ko.xz:\n";
        Machine::with(&[(&dep, other)]).says(&["module build"]);
    }

    #[test]
    fn to_be_built() {
        let build = format!("{MODULES}/build/Makefile");
        let ready = Machine::with(&[(&build, b""), ("dev/udmabuf", b"")]);
        ready.says(&[
            "dmashare module build",
            "dmashare module load",
            "contiguous",
        ]);
        ready.says_nothing_of("headers");
        Machine::with(&[]).says(&["linux-headers-6.1.0-18-amd64", "bring dma-bufs"]);
        Machine::with(&[
            (&build, b""),
            ("sys/module/module/parameters/sig_enforce", b"Y\n"),
        ])
        .says(&["sig_enforce", "mokutil"]);
        let open = [
            (
                "sys/kernel/security/lockdown",
                &b"[none] integrity confidentiality\n"[..],
            ),
            ("sys/module/module/parameters/sig_enforce", b"N\n"),
        ];
        Machine::with(&open).says_nothing_of("mokutil");
    }

    #[test]
    fn a_kernel_without_modules() {
        let machine = Machine::with(&[]);
        std::fs::remove_file(machine.system.root.join("proc/modules")).unwrap();
        machine.says(&["CONFIG_MODULES"]);
        machine.says_nothing_of("build");
        assert_eq!(machine.system.standard_nodes(), "");
    }

    #[test]
    fn the_standard_nodes() {
        let parameter = "sys/module/dmashare/parameters/standard_nodes";
        let says = |files: &[(&str, &[u8])], word: &str| {
            let help = Machine::with(files).system.standard_nodes();
            assert!(help.starts_with("; or ") && help.contains(word), "{help}");
        };
        says(&[], "module load standard_nodes=1");
        says(&[(parameter, b"N\n")], "module unload");
        says(&[(parameter, b"Y\n")], "devtmpfs");
    }
}
