//! The takers as a table.

use dmashare::negotiate::{Memory, Reach, Sync, Taker};

use super::form;

/// The most formats or modifiers that a cell names.
const NAMED: usize = 6;

/// A row for each.
pub(super) fn of(takers: &[Taker]) -> String {
    let header = [
        "Taker",
        "Formats",
        "Modifiers",
        "Multiples of",
        "Memory",
        "Waits by",
    ];
    let mut table = crate::table::new(header);
    for taker in takers {
        table.add_row([
            taker.name.clone(),
            formats(taker),
            modifiers(taker),
            multiples(taker),
            memory(taker),
            waits(taker),
        ]);
    }
    table.to_string()
}

fn formats(taker: &Taker) -> String {
    let layouts = taker.best_first();
    layouts.map_or("any".to_owned(), |layouts| {
        let formats = layouts.iter().map(|layout| layout.fourcc.to_string());
        few(formats.map(|code| code.trim_end().to_owned()))
    })
}

fn modifiers(taker: &Taker) -> String {
    let layouts = taker.best_first();
    layouts.map_or("any".to_owned(), |layouts| {
        few(layouts.iter().map(|layout| form::modifier(layout.modifier)))
    })
}

/// Each once, in the order in which they come first.
fn few(words: impl Iterator<Item = String>) -> String {
    let mut once: Vec<String> = Vec::new();
    for word in words {
        if !once.contains(&word) {
            once.push(word);
        }
    }
    let more = once.len().saturating_sub(NAMED);
    once.truncate(NAMED);
    match more {
        0 => once.join(" "),
        more => format!("{} and {more} more", once.join(" ")),
    }
}

fn multiples(taker: &Taker) -> String {
    let aligned = [
        ("stride", taker.stride_align),
        ("offset", taker.offset_align),
        ("rows", taker.rows_align),
    ];
    let more = aligned.into_iter().filter(|(_, align)| *align > 1);
    let words = more.map(|(what, align)| format!("{what} {align}"));
    words.collect::<Vec<_>>().join(", ")
}

fn memory(taker: &Taker) -> String {
    let mut words = match &taker.memory {
        Memory::AnyDmaBuf => "dma-buf".to_owned(),
        Memory::Own { node, .. } => format!("its own, {}", node.display()),
        _ => "any".to_owned(),
    };
    if taker.contiguous {
        words += ", in one piece";
    }
    if taker.reach == Reach::Below4G {
        words += ", below 4 GiB";
    }
    words
}

fn waits(taker: &Taker) -> String {
    let flags = [
        (Sync::CPU, "CPU"),
        (Sync::IMPLICIT, "implicit fences"),
        (Sync::SYNC_FILE, "sync_file"),
    ];
    let flags = flags.iter().filter(|(flag, _)| taker.sync.contains(*flag));
    flags.map(|(_, word)| *word).collect::<Vec<_>>().join(", ")
}
