//! What a kernel is configured with: lines of `CONFIG_NAME=value`, as in
//! `.config`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The values that are asked for, by their names.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Config(BTreeMap<String, String>);

impl Config {
    /// Adds the lines of `text`; the last line for a name counts.
    ///
    /// `Err` is a line that is none.
    pub(super) fn add(&mut self, text: &str) -> Result<(), String> {
        for line in text.lines().map(str::trim) {
            let (name, value) = match line.strip_prefix("# ") {
                // How .config says no.
                Some(rest) => match rest.strip_suffix(" is not set") {
                    Some(name) if is_name(name) => (name, "n"),
                    _ => continue,
                },
                None if line.is_empty() || line.starts_with('#') => continue,
                None => match line.split_once('=') {
                    Some((name, value)) if is_name(name) => (name, value),
                    _ => return Err(line.to_owned()),
                },
            };
            self.0.insert(name.to_owned(), value.to_owned());
        }
        Ok(())
    }

    /// The lines, each name once, in the order of the names.
    pub(super) fn text(&self) -> String {
        self.0
            .iter()
            .fold(String::new(), |mut text, (name, value)| {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{name}={value}");
                text
            })
    }

    /// The value of `CONFIG_name`: `y`, `m`, a number or a text; `n` where it
    /// has none.
    pub(super) fn value(&self, name: &str) -> &str {
        let value = self.0.get(&format!("CONFIG_{name}"));
        value.map_or("n", String::as_str)
    }

    /// Whether `CONFIG_name` is `y`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.value(name) == "y"
    }

    /// What of it did not come out as asked, in the words `NAME=value (is
    /// other)`, in `dotconfig`, the `.config` that Kconfig made of it.
    pub(super) fn missed(&self, dotconfig: &str) -> Vec<String> {
        let mut came = Config::default();
        // It has no other lines.
        let _ = came.add(dotconfig);
        let is = |name: &str| came.0.get(name).map_or("n", String::as_str);
        self.0
            .iter()
            .filter(|(name, value)| is(name) != value.as_str())
            .map(|(name, value)| format!("{name}={value} (is {})", is(name)))
            .collect()
    }
}

fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.strip_prefix("CONFIG_")
        .is_some_and(|rest| !rest.is_empty() && rest.chars().all(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let mut config = Config::default();
        config.add(text).unwrap();
        config
    }

    #[test]
    fn the_last_line_counts() {
        let mut base = config("# words\n\nCONFIG_A=y\nCONFIG_B=m\nCONFIG_S=\"a b\"\n");
        base.add("# CONFIG_A is not set\nCONFIG_B=y\n").unwrap();
        assert_eq!(base.text(), "CONFIG_A=n\nCONFIG_B=y\nCONFIG_S=\"a b\"\n");
    }

    #[test]
    fn what_is_no_line_is_told() {
        for wrong in ["A=y", "CONFIG_=y", "CONFIG_A", "CONFIG_A B=y"] {
            assert_eq!(Config::default().add(wrong), Err(wrong.to_owned()));
        }
    }

    #[test]
    fn what_did_not_come_out_is_told() {
        let asked = config("CONFIG_A=y\nCONFIG_B=n\nCONFIG_C=y\nCONFIG_D=m\nCONFIG_E=n");
        let came = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_D=y\n";
        assert_eq!(
            asked.missed(came),
            ["CONFIG_C=y (is n)", "CONFIG_D=m (is y)"]
        );
    }

    #[test]
    fn the_debug_kernels_own_is_in_form() {
        config(include_str!("debug.config"));
    }
}
