//! The header, line by line, into what it declares.

use super::comment::{Comment, KernelDoc, identifier};

/// A line that is outside of the subset of C that is read here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}: {text:?}")]
pub struct UapiError {
    /// Which line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: String,
    /// The line.
    pub text: String,
}

/// What a header declares.
#[derive(Debug, Default)]
pub(super) struct Header {
    /// What is said of all of it.
    pub(super) about: Vec<String>,
    pub(super) items: Vec<Item>,
}

#[derive(Debug)]
pub(super) enum Item {
    /// A comment by itself.
    Remark(Vec<String>),
    /// `#define DMASHARE_NAME value`, one or more lines behind one comment.
    Constants {
        docs: Vec<String>,
        constants: Vec<Constant>,
    },
    /// `struct dmashare_name { … };`
    Struct {
        name: String,
        doc: KernelDoc,
        fields: Vec<Field>,
        /// `#define DMASHARE_NAME_SIZE_V0 bytes`, the next behind it.
        first_size: Option<Constant>,
    },
    /// `#define DMASHARE_IOCTL_NAME _IO(DMASHARE_…, number)`
    Ioctl {
        name: String,
        doc: KernelDoc,
        /// The constant that is its type.
        kind: String,
        number: String,
    },
}

#[derive(Debug)]
pub(super) struct Constant {
    pub(super) name: String,
    /// As written; Rust writes it so, too.
    pub(super) value: String,
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: String,
    /// The type in Rust.
    pub(super) kind: &'static str,
}

/// The prefixes of all that such a header declares.
const UPPER: &str = "DMASHARE_";
const LOWER: &str = "dmashare_";

/// The end of the constant that has the bytes of a structure's first version.
const SIZE_V0: &str = "_SIZE_V0";

const TYPES: [(&str, &str, u64); 8] = [
    ("__u64", "u64", 8),
    ("__s64", "i64", 8),
    ("__u32", "u32", 4),
    ("__s32", "i32", 4),
    ("__u16", "u16", 2),
    ("__s16", "i16", 2),
    ("__u8", "u8", 1),
    ("__s8", "i8", 1),
];

type Read<T> = Result<T, UapiError>;

pub(super) fn header(text: &str) -> Read<Header> {
    let mut reader = Reader {
        lines: text.lines().collect(),
        at: 0,
        guard: None,
        closed: false,
        comment: None,
        header: Header::default(),
    };
    while reader.at < reader.lines.len() {
        reader.item()?;
    }
    match reader.closed && reader.comment.is_none() {
        true => Ok(reader.header),
        false => reader.refuse("it ends within the include guard, or in a comment"),
    }
}

struct Reader<'t> {
    lines: Vec<&'t str>,
    /// The line that is read next, from 0.
    at: usize,
    /// The name of the include guard, once it is open.
    guard: Option<&'t str>,
    closed: bool,
    /// The comment right before.
    comment: Option<Comment>,
    header: Header,
}

impl<'t> Reader<'t> {
    fn refuse<T>(&self, problem: impl Into<String>) -> Read<T> {
        let at = self.at.min(self.lines.len().saturating_sub(1));
        Err(UapiError {
            line: at + 1,
            problem: problem.into(),
            text: self.lines.get(at).copied().unwrap_or("").to_owned(),
        })
    }

    fn line(&self) -> &'t str {
        self.lines.get(self.at).copied().unwrap_or("")
    }

    fn item(&mut self) -> Read<()> {
        let line = self.line();
        if self.closed && !line.is_empty() {
            return self.refuse("something behind the include guard");
        }
        if line.ends_with('\\') {
            return self.refuse("a line that goes on in the next");
        }
        if line.is_empty() {
            self.remark()?;
        } else if line.starts_with("/*") {
            self.remark()?;
            return self.read_comment();
        } else if let Some(name) = line.strip_prefix("#ifndef ") {
            self.remark()?;
            if self.guard.replace(name).is_some() {
                return self.refuse("a condition beyond the include guard");
            }
        } else if self.guard.is_none() {
            return self.refuse("no include guard before it");
        } else if let Some(define) = line.strip_prefix("#define ") {
            self.define(define)?;
        } else if ["#include <linux/ioctl.h>", "#include <linux/types.h>"].contains(&line) {
            self.remark()?;
        } else if line == "#endif" || line.starts_with("#endif /*") {
            self.remark()?;
            self.closed = true;
        } else if let Some(name) = line.strip_prefix("struct ") {
            return self.structure(name);
        } else {
            return self.refuse("not in the subset of C that is read here");
        }
        self.at += 1;
        Ok(())
    }

    /// The comment before belongs to nothing in particular.
    fn remark(&mut self) -> Read<()> {
        match self.comment.take() {
            None => {}
            Some(comment) if comment.kernel_doc => {
                return self.refuse("the kernel-doc comment before it documents nothing");
            }
            // Of the Rust file the crate's own licence speaks.
            Some(comment) if comment.lines[0].starts_with("SPDX-License-Identifier:") => {}
            Some(comment) if self.guard.is_none() => self.header.about.extend(comment.lines),
            Some(comment) => self.header.items.push(Item::Remark(comment.lines)),
        }
        Ok(())
    }

    fn read_comment(&mut self) -> Read<()> {
        let mut comment = Comment {
            kernel_doc: self.line().starts_with("/**"),
            lines: Vec::new(),
        };
        let begin = if comment.kernel_doc { "/**" } else { "/*" };
        let mut rest = self.line().strip_prefix(begin).unwrap_or("");
        loop {
            let (text, ends) = match rest.split_once("*/") {
                Some((text, "")) => (text.trim_end(), true),
                Some(_) => return self.refuse("something behind a comment"),
                None => (rest, false),
            };
            let text = text.strip_prefix(' ').unwrap_or(text);
            let first_or_last = comment.lines.is_empty() || ends;
            if !text.is_empty() || !first_or_last {
                comment.lines.push(text.to_owned());
            }
            self.at += 1;
            if ends {
                break;
            }
            rest = match self.line().strip_prefix(" *") {
                // The slash of the end, whose star is gone.
                Some("/") => "*/",
                Some(rest) => rest,
                None => return self.refuse("a line of a comment without a star"),
            };
        }
        if comment.lines.is_empty() {
            self.at -= 1;
            return self.refuse("an empty comment");
        }
        self.comment = Some(comment);
        Ok(())
    }

    fn define(&mut self, define: &'t str) -> Read<()> {
        let name = identifier(define);
        let value = define[name.len()..].trim();
        if value.is_empty() {
            self.remark()?;
            return match self.guard == Some(name) {
                true => Ok(()),
                false => self.refuse("a name without a value"),
            };
        }
        let Some(short) = name.strip_prefix(UPPER) else {
            return self.refuse(format!("a name that does not begin with {UPPER}"));
        };
        match value.strip_prefix("_IO") {
            Some(ioctl) => self.ioctl(name, short, ioctl),
            None => self.constant(short, value),
        }
    }

    fn constant(&mut self, name: &str, value: &str) -> Read<()> {
        let bit = value
            .strip_prefix("(1 << ")
            .and_then(|value| value.strip_suffix(')'));
        let value = match bit {
            Some(bit) if number(bit).is_some_and(|bit| bit < 32) => format!("1 << {bit}"),
            None if number(value).is_some_and(|value| value <= u64::from(u32::MAX)) => {
                value.to_owned()
            }
            _ => return self.refuse("neither a number of 32 bits nor (1 << one of them)"),
        };
        let constant = Constant {
            name: name.to_owned(),
            value,
        };
        if let Some(comment) = self.comment.take() {
            if comment.kernel_doc {
                return self.refuse("no plain comment right before it");
            }
            self.header.items.push(Item::Constants {
                docs: comment.lines,
                constants: vec![constant],
            });
            return Ok(());
        }
        // Without a comment it belongs to the line before, which ended an item.
        let is_size = name.ends_with(SIZE_V0);
        let behind_empty_line = self.at == 0 || self.lines[self.at - 1].is_empty();
        match self.header.items.last_mut() {
            Some(Item::Constants { constants, .. }) if !is_size && !behind_empty_line => {
                constants.push(constant);
            }
            Some(Item::Struct {
                name: structure,
                fields,
                first_size,
                ..
            }) if is_size => {
                let wanted = format!("{}{SIZE_V0}", structure.to_uppercase());
                let now: u64 = fields.iter().map(Field::size).sum();
                let first = number(&constant.value);
                if first_size.is_some() || constant.name != wanted {
                    return self.refuse(format!("expected one {UPPER}{wanted} here"));
                }
                if first.is_none_or(|first| first == 0 || first > now) {
                    return self.refuse(format!("expected 1 to {now}, the bytes of the structure"));
                }
                *first_size = Some(constant);
            }
            _ => return self.refuse("no plain comment right before it"),
        }
        Ok(())
    }

    fn ioctl(&mut self, name: &str, short: &str, ioctl: &str) -> Read<()> {
        let parts = ioctl
            .strip_prefix('(')
            .and_then(|rest| rest.strip_suffix(')')?.split_once(", "));
        let Some((kind, at)) = parts else {
            return self.refuse("expected _IO(DMASHARE_…, number)");
        };
        let byte = |value: u64| value <= 255;
        let Some(kind) = kind
            .strip_prefix(UPPER)
            .filter(|kind| self.value(kind).is_some_and(byte))
        else {
            return self.refuse("expected a constant of 8 bits from above first");
        };
        if !number(at).is_some_and(byte) {
            return self.refuse("expected a number of 8 bits second");
        }
        let item = Item::Ioctl {
            doc: self.kernel_doc(name)?,
            name: short.to_owned(),
            kind: kind.to_owned(),
            number: at.to_owned(),
        };
        self.header.items.push(item);
        Ok(())
    }

    /// The kernel-doc comment right before, which has to be of this.
    fn kernel_doc(&mut self, subject: &str) -> Read<KernelDoc> {
        let comment = self.comment.take().filter(|comment| comment.kernel_doc);
        match comment.as_ref().and_then(KernelDoc::of) {
            Some(doc) if doc.subject == subject => Ok(doc),
            _ => self.refuse(format!(
                "no kernel-doc comment of {subject} right before it"
            )),
        }
    }

    fn structure(&mut self, rest: &str) -> Read<()> {
        let name = rest.strip_suffix(" {").unwrap_or("");
        let Some(short) = name
            .strip_prefix(LOWER)
            .filter(|_| name == identifier(name))
        else {
            return self.refuse(format!("not struct {LOWER}… {{"));
        };
        let doc = self.kernel_doc(&format!("struct {name}"))?;
        let mut fields = Vec::new();
        let (mut end, mut widest) = (0, 1);
        loop {
            self.at += 1;
            if self.line() == "};" {
                break;
            }
            let field = self.field(&mut end, &mut widest)?;
            let place = fields.len();
            if doc.members.get(place).map(|(name, _)| name) != Some(&field.name) {
                return self.refuse("not what the comment describes in this place");
            }
            fields.push(field);
        }
        if fields.len() != doc.members.len() || fields.is_empty() {
            return self.refuse("less than the comment describes");
        }
        // Such bytes would go to the kernel as they were, and be 4 bytes longer
        // on some machines than on others.
        if end % widest != 0 {
            return self.refuse("a hole at the end; name it reserved");
        }
        self.at += 1;
        self.header.items.push(Item::Struct {
            name: short.to_owned(),
            doc,
            fields,
            first_size: None,
        });
        Ok(())
    }

    /// A field, and where the structure ends so far.
    fn field(&self, end: &mut u64, widest: &mut u64) -> Read<Field> {
        let words = self.line().strip_prefix('\t');
        let words = words.and_then(|line| line.strip_suffix(';')?.split_once(' '));
        let Some((c, declared)) = words else {
            return self.refuse("not a field: a tab, a type, a name and a semicolon");
        };
        let Some((_, kind, size)) = TYPES.into_iter().find(|(known, ..)| *known == c) else {
            return self.refuse("not a type of linux/types.h whose width is fixed");
        };
        if declared.is_empty() || declared != identifier(declared) {
            return self.refuse("not one name");
        }
        if !end.is_multiple_of(size) {
            return self.refuse("a hole before this field; name it reserved");
        }
        *end += size;
        *widest = size.max(*widest);
        Ok(Field {
            name: declared.to_owned(),
            kind,
        })
    }

    /// The value of a constant from above, where it is a plain number.
    fn value(&self, wanted: &str) -> Option<u64> {
        let constants = self.header.items.iter().filter_map(|item| match item {
            Item::Constants { constants, .. } => Some(constants),
            _ => None,
        });
        let mut constants = constants.flatten();
        number(&constants.find(|constant| constant.name == wanted)?.value)
    }
}

impl Field {
    /// Its bytes.
    fn size(&self) -> u64 {
        let known = TYPES.into_iter().find(|(_, kind, _)| *kind == self.kind);
        known.map_or(0, |(.., size)| size)
    }
}

/// A number as C and Rust both write it: decimal without a zero in front, which
/// C would take for octal, or hexadecimal.
fn number(text: &str) -> Option<u64> {
    let digits = |text: &str, radix| {
        let all = text.chars().all(|digit| digit.is_digit(radix));
        u64::from_str_radix(text, radix).ok().filter(|_| all)
    };
    match text.strip_prefix("0x") {
        Some(hexadecimal) => digits(hexadecimal, 16),
        None if text.len() > 1 && text.starts_with('0') => None,
        None => digits(text, 10),
    }
}
