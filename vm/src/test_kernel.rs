//! Entries of `kernels` in a project's settings.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use crate::{Builder, command_line};

/// A kernel that `cargo vm test` boots, and the guest it boots in: an entry of
/// [`kernels`](crate::project::Settings::kernels).
///
/// In Cargo.toml it is the kernel's name, or a table with these keys.
///
/// ```
/// use dmashare_vm::project::TestKernel;
///
/// let plain = TestKernel::from("7.2");
/// assert_eq!((plain.name.as_str(), plain.default), ("7.2", true));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestKernel {
    /// The name in `--kernel` and in the results. Without one: the kernel's, and the
    /// words of `append`, with `+` between them.
    pub name: String,
    /// The kernel.
    pub kernel: String,
    /// Words for its command line: see [`Builder::append`].
    pub append: String,
    /// Memory in MiB.
    pub memory: Option<u32>,
    /// The number of processors.
    pub cpus: Option<u32>,
    /// The test targets to run, of those that packages mark for the guest; `None`:
    /// all of them.
    pub guest_tests: Option<Vec<String>>,
    /// Whether it runs where `--kernel` names none: `true` where it does not say.
    pub default: bool,
}

impl From<&str> for TestKernel {
    fn from(kernel: &str) -> TestKernel {
        TestKernel {
            name: kernel.into(),
            kernel: kernel.into(),
            append: String::new(),
            memory: None,
            cpus: None,
            guest_tests: None,
            default: true,
        }
    }
}

/// The table of Cargo.toml.
#[derive(serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Table {
    kernel: String,
    name: Option<String>,
    #[serde(default)]
    append: String,
    memory: Option<u32>,
    cpus: Option<u32>,
    guest_tests: Option<Vec<String>>,
    default: Option<bool>,
}

impl TryFrom<Table> for TestKernel {
    type Error = String;

    fn try_from(table: Table) -> Result<TestKernel, String> {
        command_line::check(&table.append)?;
        let name = table.name.unwrap_or_else(|| {
            let words = table.append.split_whitespace();
            let words = std::iter::once(table.kernel.as_str()).chain(words);
            words.collect::<Vec<_>>().join("+")
        });
        let apart = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ',' | '/');
        if name.is_empty() || name.contains(apart) {
            return Err(format!(
                "invalid name {name:?} of kernel {:?}: expected no comma, slash or white space; \
                 set `name`",
                table.kernel
            ));
        }
        if table.guest_tests.as_ref().is_some_and(Vec::is_empty) {
            return Err(format!(
                "{name}: `guest-tests` is empty; name a test target, or leave it out for all"
            ));
        }
        Ok(TestKernel {
            name,
            kernel: table.kernel,
            append: table.append,
            memory: table.memory,
            cpus: table.cpus,
            guest_tests: table.guest_tests,
            default: table.default.unwrap_or(true),
        })
    }
}

impl<'de> Deserialize<'de> for TestKernel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TestKernel, D::Error> {
        struct NameOrTable;

        impl<'de> Visitor<'de> for NameOrTable {
            type Value = TestKernel;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a kernel's name, or a table with `kernel`")
            }

            fn visit_str<E>(self, kernel: &str) -> Result<TestKernel, E> {
                Ok(kernel.into())
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TestKernel, A::Error> {
                let wrong = |error: String| A::Error::custom(format!("kernels: {error}"));
                Table::deserialize(MapAccessDeserializer::new(map))
                    .map_err(|error| wrong(error.to_string()))?
                    .try_into()
                    .map_err(wrong)
            }
        }

        deserializer.deserialize_any(NameOrTable)
    }
}

impl TestKernel {
    /// The same guest with what this entry says, beside its kernel.
    pub(crate) fn apply(&self, mut builder: Builder) -> Builder {
        if !self.append.is_empty() {
            builder = builder.append(&self.append);
        }
        if let Some(memory) = self.memory {
            builder = builder.memory_mib(memory);
        }
        if let Some(cpus) = self.cpus {
            builder = builder.cpus(cpus);
        }
        builder
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(value: Value) -> Result<TestKernel, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn entry_is_name_or_table() {
        assert_eq!(read(json!("../linux")), Ok("../linux".into()));
        let strict = json!({
            "kernel": "7.2", "name": "strict", "append": "swiotlb=force", "memory": 1536,
            "cpus": 2, "guest-tests": ["module"], "default": false
        });
        let expected = TestKernel {
            name: "strict".into(),
            kernel: "7.2".into(),
            append: "swiotlb=force".into(),
            memory: Some(1536),
            cpus: Some(2),
            guest_tests: Some(vec!["module".into()]),
            default: false,
        };
        assert_eq!(read(strict), Ok(expected));
    }

    #[test]
    fn default_name_has_appended_words() {
        let name = |append: &str| {
            read(json!({"kernel": "7.2", "append": append}))
                .unwrap()
                .name
        };
        assert_eq!(name(""), "7.2");
        assert_eq!(name("a=1  b"), "7.2+a=1+b");
    }

    #[test]
    fn malformed_entry_is_refused() {
        for (entry, expected) in [
            (json!(7.2), "expected a kernel's name, or a table"),
            (
                json!({"kernel": "7.2", "apend": ""}),
                "kernels: unknown field `apend`",
            ),
            (json!({"name": "strict"}), "missing field `kernel`"),
            (
                json!({"kernel": "7.2", "append": "quiet"}),
                "parameter \"quiet\"",
            ),
            (
                json!({"kernel": "7.2", "append": "a=1,2"}),
                "invalid name \"7.2+a=1,2\"",
            ),
            (json!({"kernel": "../linux"}), "set `name`"),
            (
                json!({"kernel": "7.2", "name": "a b"}),
                "invalid name \"a b\"",
            ),
            (
                json!({"kernel": "7.2", "guest-tests": []}),
                "7.2: `guest-tests` is empty",
            ),
        ] {
            let error = read(entry).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
