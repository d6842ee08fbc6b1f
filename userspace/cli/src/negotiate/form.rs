//! A taker in JSON: as it is read from a file, and as `--json` prints it.

use std::fs;
use std::path::{Path, PathBuf};

use dmashare::frame::{Fourcc, INVALID, LINEAR};
use dmashare::negotiate::{Layout, Memory, Reach, Sync, Taker};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// What is left out narrows nothing.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Form {
    name: String,
    /// "XR24" is linear; "XR24:0x100000000000001" and "XR24:implicit" are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    layouts: Option<Vec<String>>,
    /// The smallest and the largest.
    #[serde(default = "any")]
    width: (u32, u32),
    #[serde(default = "any")]
    height: (u32, u32),
    #[serde(default = "one")]
    stride_align: u32,
    #[serde(default = "one")]
    offset_align: u32,
    #[serde(default = "one")]
    rows_align: u32,
    #[serde(default)]
    contiguous: bool,
    #[serde(default)]
    below_4g: bool,
    #[serde(default)]
    memory: Whose,
    #[serde(default = "cpu")]
    sync: Vec<By>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Whose {
    #[default]
    Any,
    DmaBuf,
    Own {
        node: PathBuf,
        why: String,
    },
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum By {
    Cpu,
    Implicit,
    SyncFile,
}

const BY: [(Sync, By); 3] = [
    (Sync::CPU, By::Cpu),
    (Sync::IMPLICIT, By::Implicit),
    (Sync::SYNC_FILE, By::SyncFile),
];

fn any() -> (u32, u32) {
    (1, u32::MAX)
}

fn one() -> u32 {
    1
}

fn cpu() -> Vec<By> {
    vec![By::Cpu]
}

impl Form {
    /// The taker that this file describes.
    pub(super) fn read(path: &Path) -> Result<Taker, Failure> {
        let wrong = |why: String| Failure::usage(format!("{}: {why}", path.display()));
        let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let form: Form = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        form.taker().map_err(wrong)
    }

    fn taker(self) -> Result<Taker, String> {
        let mut taker = Taker::new(self.name);
        let layouts = self.layouts.map(|layouts| {
            let layouts = layouts.iter().map(|text| layout(text));
            layouts.collect::<Result<_, _>>()
        });
        taker.layouts = layouts.transpose()?;
        taker.width = self.width.0..=self.width.1;
        taker.height = self.height.0..=self.height.1;
        taker.stride_align = self.stride_align;
        taker.offset_align = self.offset_align;
        taker.rows_align = self.rows_align;
        taker.contiguous = self.contiguous;
        taker.reach = match self.below_4g {
            true => Reach::Below4G,
            false => Reach::All,
        };
        taker.memory = match self.memory {
            Whose::Any => Memory::Any,
            Whose::DmaBuf => Memory::AnyDmaBuf,
            Whose::Own { node, why } => Memory::Own { node, why },
        };
        let flags = self.sync.iter().map(|by| match by {
            By::Cpu => Sync::CPU,
            By::Implicit => Sync::IMPLICIT,
            By::SyncFile => Sync::SYNC_FILE,
        });
        taker.sync = flags.collect();
        Ok(taker)
    }

    pub(super) fn of(taker: &Taker) -> Form {
        let layouts = taker.layouts.as_ref();
        Form {
            name: taker.name.clone(),
            layouts: layouts.map(|layouts| layouts.iter().map(text).collect()),
            width: (*taker.width.start(), *taker.width.end()),
            height: (*taker.height.start(), *taker.height.end()),
            stride_align: taker.stride_align,
            offset_align: taker.offset_align,
            rows_align: taker.rows_align,
            contiguous: taker.contiguous,
            below_4g: taker.reach == Reach::Below4G,
            memory: match &taker.memory {
                Memory::AnyDmaBuf => Whose::DmaBuf,
                Memory::Own { node, why } => Whose::Own {
                    node: node.clone(),
                    why: why.clone(),
                },
                _ => Whose::Any,
            },
            sync: BY
                .iter()
                .filter(|(flag, _)| taker.sync.contains(*flag))
                .map(|(_, by)| *by)
                .collect(),
        }
    }
}

/// Four characters, or fewer with spaces behind them; or the number in hex, for
/// codes that are none.
pub(super) fn fourcc(text: &str) -> Result<Fourcc, String> {
    let wrong = || format!("{text:?} is no format; write the code of drm_fourcc.h, such as XR24");
    if let Some(number) = number(text) {
        return u32::try_from(number).map(Fourcc).map_err(|_| wrong());
    }
    let mut code = [b' '; 4];
    let field = code.get_mut(..text.len()).ok_or_else(wrong)?;
    field.copy_from_slice(text.as_bytes());
    match code[0] != b' ' && code.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        true => Ok(Fourcc::new(code)),
        false => Err(wrong()),
    }
}

/// FOURCC, or FOURCC:MODIFIER.
fn layout(text: &str) -> Result<Layout, String> {
    let (code, modifier) = match text.rsplit_once(':') {
        None => (text, LINEAR),
        Some((code, "linear")) => (code, LINEAR),
        Some((code, "implicit")) => (code, INVALID),
        Some((code, modifier)) => (
            code,
            number(modifier).ok_or_else(|| {
                format!("{modifier:?} is no modifier; write linear, implicit or 0x and digits")
            })?,
        ),
    };
    let fourcc = fourcc(code)?;
    Ok(Layout { fourcc, modifier })
}

/// What [`layout`] reads.
pub(super) fn text(layout: &Layout) -> String {
    match layout.modifier {
        LINEAR => layout.fourcc.to_string(),
        other => format!("{}:{}", layout.fourcc, modifier(other)),
    }
}

/// A modifier in a word.
pub(super) fn modifier(modifier: u64) -> String {
    match modifier {
        LINEAR => "linear".to_owned(),
        INVALID => "implicit".to_owned(),
        other => format!("{other:#x}"),
    }
}

fn number(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x")?;
    let all = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    all.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_read_as_they_are_written() {
        for written in [
            "XR24",
            "R8  ",
            "NV12:implicit",
            "AR24:0x100000000000001",
            "0x00000007",
        ] {
            assert_eq!(text(&layout(written).unwrap()), written);
        }
        assert_eq!(layout("R8"), layout("R8  :linear"));
        for wrong in [
            "",
            "XR24:",
            "XR24:tiled",
            "XRGB8888",
            "XR24:0x",
            "XR24:0x+1",
            "0x100000000",
        ] {
            assert!(layout(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_taker_is_read_as_it_is_printed() {
        let mut taker = Taker::cpu();
        taker.width = 16..=4096;
        (taker.stride_align, taker.rows_align) = (64, 16);
        (taker.contiguous, taker.reach) = (true, Reach::Below4G);
        taker.memory = Memory::Own {
            node: "/dev/dri/card1".into(),
            why: "no PRIME".into(),
        };
        taker.sync = Sync::IMPLICIT | Sync::SYNC_FILE;
        for taker in [taker, Taker::peer()] {
            let json = serde_json::to_string(&Form::of(&taker)).unwrap();
            let form: Form = serde_json::from_str(&json).unwrap();
            assert_eq!(form.taker(), Ok(taker), "{json}");
        }
    }
}
