//! Comments: kernel-doc taken apart, and its marks turned into rustdoc's.

use std::fmt::Write as _;

/// A comment's text, without its stars.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Comment {
    /// Whether it began with `/**`.
    pub(super) kernel_doc: bool,
    pub(super) lines: Vec<String>,
}

/// A kernel-doc comment, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KernelDoc {
    /// What it says that it documents.
    pub(super) subject: String,
    pub(super) brief: String,
    /// What it says of each `@name`, in its order.
    pub(super) members: Vec<(String, String)>,
    /// The text behind them, as it is.
    pub(super) body: Vec<String>,
}

impl KernelDoc {
    /// `None` where the first line is not `SUBJECT - what it is`.
    pub(super) fn of(comment: &Comment) -> Option<KernelDoc> {
        let mut lines = comment.lines.iter().skip_while(|line| line.is_empty());
        let (subject, brief) = lines.next()?.split_once(" - ")?;
        let mut doc = KernelDoc {
            subject: subject.trim().to_owned(),
            brief: brief.trim().to_owned(),
            ..KernelDoc::default()
        };
        for line in lines {
            let member = line.strip_prefix('@').and_then(|line| line.split_once(':'));
            if let Some((name, text)) = member {
                doc.members.push((name.to_owned(), text.trim().to_owned()));
            } else if line.starts_with('\t') && doc.body.is_empty() {
                // More of the member before.
                let (_, text) = doc.members.last_mut()?;
                let _ = write!(text, " {}", line.trim());
            } else {
                doc.body.push(line.clone());
            }
        }
        while doc.body.last().is_some_and(String::is_empty) {
            doc.body.pop();
        }
        Some(doc)
    }
}

/// `&struct dmashare_alloc`, `@size` and `DMASHARE_…` as the code that they are
/// in Rust.
pub(super) fn marked(text: &str) -> String {
    let mut marked = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after_word = marked.ends_with(|last: char| last.is_ascii_alphanumeric() || last == '_');
        let found = ["&struct dmashare_", "@", "DMASHARE_"]
            .into_iter()
            .filter(|_| !after_word)
            .find_map(|mark| Some((mark, rest.strip_prefix(mark)?)));
        let name = found.map(|(_, behind)| identifier(behind)).unwrap_or("");
        match found {
            Some((mark, behind)) if !name.is_empty() => {
                rest = &behind[name.len()..];
                let mut code = match mark {
                    "@" | "DMASHARE_" => name.to_owned(),
                    _ => camel(name),
                };
                // DMASHARE_ALLOC_* is all that begin so.
                if let Some(behind) = rest.strip_prefix('*').filter(|_| code.ends_with('_')) {
                    code.push('*');
                    rest = behind;
                }
                let _ = write!(marked, "`{code}`");
            }
            _ => {
                marked.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    marked
}

/// The C identifier at the start of this text, or nothing.
pub(super) fn identifier(text: &str) -> &str {
    let end = text.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    &text[..end.unwrap_or(text.len())]
}

/// `some_name` as `SomeName`.
pub(super) fn camel(name: &str) -> String {
    let mut camel = String::new();
    for word in name.split('_') {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

/// One paragraph in lines of at most this width, where its words let it.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.len() + 1 + word.len() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_become_code() {
        for (c, rust) in [
            ("@nodes of &struct dmashare_info.", "`nodes` of `Info`."),
            ("1 to DMASHARE_MAX_RANGES", "1 to `MAX_RANGES`"),
            (
                "me@home, X_DMASHARE_Y & @ all",
                "me@home, X_DMASHARE_Y & @ all",
            ),
            ("a_DMASHARE", "a_DMASHARE"),
            ("in: DMASHARE_ALLOC_*, *", "in: `ALLOC_*`, *"),
        ] {
            assert_eq!(marked(c), rust);
        }
        assert_eq!(camel("alloc_more_x"), "AllocMoreX");
    }

    #[test]
    fn words_are_wrapped_and_none_is_lost() {
        assert_eq!(
            wrapped("aa bb\tcc  dddddddd e", 5),
            ["aa bb", "cc", "dddddddd", "e"]
        );
    }

    #[test]
    fn kernel_doc_is_taken_apart() {
        let lines = [
            "struct a - what",
            "@x: one",
            "\ttwo",
            "@y: three",
            "",
            "More.",
            "",
        ];
        let comment = Comment {
            kernel_doc: true,
            lines: lines.map(str::to_owned).into(),
        };
        let doc = KernelDoc::of(&comment).unwrap();
        assert_eq!((&*doc.subject, &*doc.brief), ("struct a", "what"));
        let members = [("x", "one two"), ("y", "three")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(doc.members, members);
        assert_eq!(doc.body, ["", "More."]);
        assert_eq!(KernelDoc::of(&Comment::default()), None);
    }
}
