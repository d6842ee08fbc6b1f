//! Which modules to load, in which order: what modprobe(8) reads from the files
//! that depmod(8) wrote.

use std::collections::{BTreeMap, BTreeSet};

/// What depmod and the kernel's build say about a kernel's modules. Names are
/// as `lsmod` shows them, with `_` for `-`.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Path below the modules' folder, and the names it depends on.
    modules: BTreeMap<String, (String, Vec<String>)>,
    /// Soft dependencies: what to load before, where it is there.
    before: BTreeMap<String, Vec<String>>,
    /// Other names of modules, those with wildcards left out.
    aliases: BTreeMap<String, Vec<String>>,
    builtin: BTreeSet<String>,
}

/// The texts that an [`Index`] is read from: files of a kernel's modules folder
/// (modules.dep(5), modprobe.d(5), the kernel's Documentation/kbuild).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Texts<'a> {
    /// `modules.dep`.
    pub(super) dep: &'a str,
    /// `modules.softdep`.
    pub(super) softdep: &'a str,
    /// `modules.alias`.
    pub(super) alias: &'a str,
    /// `modules.builtin.modinfo`: `NAME.field=value`, each ended by a zero byte.
    /// Unlike `modules.builtin` it has what can only be built in, too.
    pub(super) builtin: &'a str,
}

impl Index {
    pub(super) fn parse(texts: Texts) -> Self {
        let Texts {
            dep,
            softdep,
            alias,
            builtin,
        } = texts;
        let modules = dep
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(path, needs)| {
                // A line has all dependencies, the indirect ones too: the one
                // to be loaded first stands last.
                let needs = needs.split_whitespace().rev().map(name).collect();
                (name(path), (path.to_owned(), needs))
            })
            .collect();
        let mut before: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in softdep.lines() {
            let mut words = line.split_whitespace();
            let (Some("softdep"), Some(module)) = (words.next(), words.next()) else {
                continue;
            };
            before.entry(name(module)).or_default().extend(
                words
                    .skip_while(|word| *word != "pre:")
                    .skip(1)
                    .take_while(|word| *word != "post:")
                    .map(name),
            );
        }
        let mut aliases: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in alias.lines().filter(|line| !line.contains('*')) {
            let mut words = line.split_whitespace().skip(1);
            if let (Some(alias), Some(module)) = (words.next(), words.next()) {
                aliases.entry(name(alias)).or_default().push(name(module));
            }
        }
        Self {
            modules,
            before,
            aliases,
            builtin: builtin
                .split('\0')
                .filter_map(|field| field.split_once('.'))
                .map(|(module, _)| name(module))
                .collect(),
        }
    }

    /// Whether there is no module to load.
    pub(super) fn is_empty(&self) -> bool {
        self.modules.is_empty()
    }

    /// Whether there is a module called so, or it is built in.
    pub(super) fn has(&self, wanted: &str) -> bool {
        let module = name(wanted);
        self.modules.contains_key(&module) || self.builtin.contains(&module)
    }

    /// Whether it is built in: there is no file of it to load.
    pub(crate) fn is_built_in(&self, wanted: &str) -> bool {
        let module = name(wanted);
        self.builtin.contains(&module) && !self.modules.contains_key(&module)
    }

    /// The first of `names` (`cirrus|cirrus-qemu`) that there is.
    pub(super) fn first<'n>(&self, names: &'n str) -> Option<&'n str> {
        names.split('|').map(str::trim).find(|name| self.has(name))
    }

    /// The paths of `wanted` and of what they need, each once, in an order in
    /// which they load. Those built in need none. Of names with `|` between
    /// them, the first is wanted that there is.
    ///
    /// `Err` has the name that is not known.
    pub(super) fn load_order(&self, wanted: &[&str]) -> Result<Vec<String>, String> {
        let mut order = Order {
            index: self,
            seen: BTreeSet::new(),
            paths: Vec::new(),
        };
        for wanted in wanted {
            let found = self.first(wanted).ok_or_else(|| (*wanted).to_owned())?;
            order.add(&name(found));
        }
        Ok(order.paths)
    }

    /// Names of modules that `wanted` may have been meant to be, at most five.
    pub(super) fn close_to(&self, wanted: &str) -> Vec<&str> {
        let wanted = name(wanted);
        let mut close: Vec<(usize, &str)> = self
            .modules
            .keys()
            .map(|known| {
                let inside = known.contains(&wanted) || wanted.contains(known.as_str());
                let distance = distance(known, &wanted);
                (distance, inside, known.as_str())
            })
            .filter(|(distance, inside, _)| *distance <= 2 || (*inside && wanted.len() > 2))
            .map(|(distance, _, known)| (distance, known))
            .collect();
        close.sort_unstable();
        close.into_iter().take(5).map(|(_, known)| known).collect()
    }
}

struct Order<'a> {
    index: &'a Index,
    seen: BTreeSet<String>,
    paths: Vec<String>,
}

impl Order<'_> {
    fn add(&mut self, module: &str) {
        // A circle of soft dependencies ends here, too.
        if !self.seen.insert(module.to_owned()) {
            return;
        }
        for before in self.index.before.get(module).into_iter().flatten() {
            // It can name a service, such as crc32c: every module that has it.
            for module in self.index.aliases.get(before).into_iter().flatten() {
                self.add(module);
            }
            self.add(before);
        }
        // One that is built in, or a soft dependency that is not there.
        let Some((path, needs)) = self.index.modules.get(module) else {
            return;
        };
        for need in needs {
            self.add(need);
        }
        self.paths.push(path.clone());
    }
}

/// A module's name from its path or from a name with dashes:
/// `kernel/drivers/gpu/drm/drm-buddy.ko.xz` is `drm_buddy`.
pub(super) fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.split_once(".ko").map_or(file, |(stem, _)| stem);
    stem.replace('-', "_")
}

/// How many letters to change, add or take away to get from `a` to `b`
/// (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let changed = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = changed.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/drm/bochs.ko.xz: kernel/drm/drm_vram_helper.ko.xz kernel/drm/drm-kms.ko.xz kernel/drm/drm.ko.xz
kernel/drm/drm_vram_helper.ko.xz: kernel/drm/drm-kms.ko.xz kernel/drm/drm.ko.xz
kernel/drm/drm-kms.ko.xz: kernel/drm/drm.ko.xz
kernel/drm/drm.ko.xz:
kernel/fs/btrfs.ko: kernel/lib/xor.ko
kernel/lib/xor.ko:
kernel/crypto/crc32c_generic.ko:
";
    const SOFTDEP: &str = "\
# Soft dependencies extracted from modules themselves.
softdep btrfs pre: crc32c absent post: drm
softdep crc32c_generic pre: btrfs
";

    const ALIAS: &str = "\
# Aliases extracted from modules themselves.
alias crc32c crc32c_generic
alias pci:v00001234d00001111sv*sd*bc*sc*i* bochs
";
    const BUILTIN: &str = "loop.license=GPL\0loop.parm=max_part:partitions. Default is 0.\0";

    fn index() -> Index {
        Index::parse(Texts {
            dep: DEP,
            softdep: SOFTDEP,
            alias: ALIAS,
            builtin: BUILTIN,
        })
    }

    #[test]
    fn dependencies_come_first() {
        assert_eq!(
            index().load_order(&["bochs", "loop", "drm-kms"]).unwrap(),
            [
                "kernel/drm/drm.ko.xz",
                "kernel/drm/drm-kms.ko.xz",
                "kernel/drm/drm_vram_helper.ko.xz",
                "kernel/drm/bochs.ko.xz"
            ]
        );
    }

    #[test]
    fn soft_dependencies_come_before_and_may_be_absent_or_circular() {
        assert_eq!(
            index().load_order(&["btrfs"]).unwrap(),
            [
                "kernel/crypto/crc32c_generic.ko",
                "kernel/lib/xor.ko",
                "kernel/fs/btrfs.ko"
            ]
        );
    }

    #[test]
    fn an_unknown_name_is_told_with_what_is_close() {
        let index = index();
        assert_eq!(index.load_order(&["drm", "botchs"]), Err("botchs".into()));
        assert_eq!(index.close_to("botchs"), ["bochs"]);
        assert_eq!(index.close_to("drm-vram"), ["drm", "drm_vram_helper"]);
        assert!(index.close_to("zzzzzzzz").is_empty());
    }

    #[test]
    fn of_alternatives_the_first_that_there_is() {
        let index = index();
        assert_eq!(index.first("qxl|drm-kms|drm"), Some("drm-kms"));
        assert_eq!(index.first("qxl | loop"), Some("loop"));
        assert_eq!(index.first("qxl|"), None);
        assert_eq!(
            index.load_order(&["qxl|drm"]).unwrap(),
            ["kernel/drm/drm.ko.xz"]
        );
        assert_eq!(index.load_order(&["qxl|cirrus"]), Err("qxl|cirrus".into()));
        assert!(index.is_built_in("loop") && !index.is_built_in("drm"));
    }

    #[test]
    fn distances() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
