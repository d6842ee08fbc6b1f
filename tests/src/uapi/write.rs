//! What a header declares, as a Rust file, formatted as rustfmt has it.

use std::fmt::Write as _;

use super::comment::{KernelDoc, camel, marked, wrapped};
use super::read::{Constant, Field, Header, Item};

const WIDTH: usize = 76;

/// What the file begins with, before what the header says of itself.
const ABOUT: &str = "\
//! Made from `kmod/dmashare_uapi.h`; do not edit. Change that, and run
//! `DMASHARE_UPDATE=1 cargo test -p dmashare-tests --test host_uapi`.
//!
";

const HEAD: &str = "
#![allow(dead_code, reason = \"it is all of the header, used here or not\")]
#![allow(
    clippy::cast_possible_truncation,
    reason = \"the type of an ioctl was checked to have 8 bits\"
)]

#[cfg(test)]
use std::mem::offset_of;

use rustix::ioctl::{Opcode, opcode};
";

pub(super) fn rust(header: &Header) -> String {
    let mut rust = ABOUT.to_owned();
    lines(
        &mut rust,
        "//!",
        header.about.iter().map(|line| listed(&marked(line))),
    );
    rust.push_str(HEAD);
    for item in &header.items {
        rust.push('\n');
        write_item(&mut rust, item);
    }
    layout(&mut rust, header);
    rust
}

fn lines(rust: &mut String, prefix: &str, lines: impl IntoIterator<Item = String>) {
    for line in lines {
        let line = format!("{prefix} {line}");
        let _ = writeln!(rust, "{}", line.trim_end());
    }
}

/// A line of a table, whose columns are set apart by tabs, as an item of a list:
/// rustdoc would take it for a program.
fn listed(line: &str) -> String {
    match line.strip_prefix('\t') {
        None => line.to_owned(),
        Some(row) => {
            let columns = row.split('\t').filter(|column| !column.is_empty());
            format!("* {}", columns.collect::<Vec<_>>().join(": "))
        }
    }
}

/// Of a constant or a remark.
fn plain(rust: &mut String, prefix: &str, comment: &[String]) {
    lines(rust, prefix, comment.iter().map(|line| marked(line)));
}

/// Of a structure or an ioctl.
fn documented(rust: &mut String, doc: &KernelDoc) {
    lines(rust, "///", wrapped(&sentence(&doc.brief), WIDTH));
    plain(rust, "///", &doc.body);
}

fn write_item(rust: &mut String, item: &Item) {
    match item {
        Item::Remark(remark) => plain(rust, "//", remark),
        Item::Constants { docs, constants } => {
            // Of several it describes no one alone.
            plain(rust, if constants.len() == 1 { "///" } else { "//" }, docs);
            for constant in constants {
                write_constant(rust, constant);
            }
        }
        Item::Struct {
            name,
            doc,
            fields,
            first_size,
        } => {
            documented(rust, doc);
            rust.push_str("#[repr(C)]\n#[derive(Clone, Copy, Debug, Default)]\n");
            let _ = writeln!(rust, "pub(crate) struct {} {{", camel(name));
            for (field, (_, said)) in fields.iter().zip(&doc.members) {
                lines(rust, "    ///", wrapped(&sentence(said), WIDTH - 4));
                let _ = writeln!(rust, "    pub(crate) {}: {},", field.name, field.kind);
            }
            rust.push_str("}\n");
            if let Some(constant) = first_size {
                let _ = writeln!(
                    rust,
                    "\n/// Bytes of the first version of `{}`.",
                    camel(name)
                );
                write_constant(rust, constant);
            }
        }
        Item::Ioctl {
            name,
            doc,
            kind,
            number,
        } => {
            documented(rust, doc);
            let _ = writeln!(
                rust,
                "pub(crate) const {name}: Opcode = opcode::none({kind} as u8, {number});"
            );
        }
    }
}

fn write_constant(rust: &mut String, Constant { name, value }: &Constant) {
    let _ = writeln!(rust, "pub(crate) const {name}: u32 = {value};");
}

/// With a capital and a full stop, which kernel-doc leaves out.
fn sentence(text: &str) -> String {
    let text = marked(text);
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    let end = if text.ends_with('.') { "" } else { "." };
    first.into_iter().collect::<String>() + letters.as_str() + end
}

/// Everything whose value C and Rust can each tell, to be compared.
fn layout(rust: &mut String, header: &Header) {
    rust.push_str(
        "\n/// Each of the above as an expression in C, and what it is here: the test\n\
         /// `host_uapi` has a C compiler check them.\n\
         #[cfg(test)]\n#[rustfmt::skip]\n\
         pub(crate) const LAYOUT: &[(&str, usize)] = &[\n",
    );
    let number = |rust: &mut String, name: &str| {
        let _ = writeln!(rust, "    (\"DMASHARE_{name}\", {name} as usize),");
    };
    for item in &header.items {
        match item {
            Item::Remark(_) => {}
            Item::Constants { constants, .. } => {
                constants
                    .iter()
                    .for_each(|constant| number(rust, &constant.name));
            }
            Item::Ioctl { name, .. } => number(rust, name),
            Item::Struct {
                name,
                fields,
                first_size,
                ..
            } => {
                let (c, here) = (format!("struct dmashare_{name}"), camel(name));
                let _ = writeln!(rust, "    (\"sizeof({c})\", size_of::<{here}>()),");
                for Field { name, .. } in fields {
                    let _ = writeln!(
                        rust,
                        "    (\"offsetof({c}, {name})\", offset_of!({here}, {name})),"
                    );
                }
                if let Some(constant) = first_size {
                    number(rust, &constant.name);
                }
            }
        }
    }
    rust.push_str("];\n");
}
