//! What an open card holds of a dma-buf: its handle, and how often.

use dmashare::alloc::Allocate as _;
use dmashare::alloc::{Memfd, Request, allocate};
use dmashare::buffer::Buffer;
use dmashare::import::HandleError;
use dmashare::import::drm::{Card, DrmError};
use dmashare_tests::conformance::Verdict;
use dmashare_tests::held;
use libtest_mimic::Trial;

use crate::{crtc, ensure, test, text};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("gem::one_handle_is_closed_once", one_handle_is_closed_once),
        test("gem::threads_share_a_handle", threads_share_a_handle),
        test("gem::a_render_node_imports", a_render_node_imports),
        test("gem::refuses_a_memfd", refuses_a_memfd),
        test("gem::a_card_of_another_opener", a_card_of_another_opener),
    ]
}

fn buffer() -> Result<Buffer, String> {
    let request = Request::new(1 << 16).named("gem test").for_device();
    Ok(allocate(&request).map_err(text)?.buffer)
}

fn same(one: &Buffer, other: &Buffer) -> Result<bool, String> {
    let inode = |buffer: &Buffer| crtc::inode(buffer.fd().map_err(text)?);
    Ok(inode(one)? == inode(other)?)
}

fn one_handle_is_closed_once() -> Verdict {
    let (card, buffer) = (Card::find("vgem").map_err(text)?, buffer()?);
    let before = held::of_dma_buf(&buffer)?;
    let first = card.open_handle(&buffer).map_err(text)?;
    let second = card.open_handle(&buffer).map_err(text)?;
    ensure(first.number() == second.number(), || {
        format!("{first:?} and {second:?}")
    })?;
    drop(first);
    // Who closes after each import has none left now.
    ensure(same(&second.export().map_err(text)?, &buffer)?, || {
        "it came back as another dma-buf".to_owned()
    })?;
    drop(second);
    held::comes_back_to(before, || held::of_dma_buf(&buffer))
}

/// Imports, exports and closes at once: no one's handle is closed by another.
fn threads_share_a_handle() -> Verdict {
    let (card, buffer) = (Card::find("vgem").map_err(text)?, buffer()?);
    let before = held::of_dma_buf(&buffer)?;
    let work = || -> Verdict {
        for _ in 0..200 {
            let handle = card.open_handle(&buffer).map_err(text)?;
            ensure(same(&handle.export().map_err(text)?, &buffer)?, || {
                "another's dma-buf".to_owned()
            })?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads = [0; 3].map(|_| scope.spawn(work));
        let ends = threads.map(|thread| thread.join().map_err(|_| "a panic".to_owned()));
        ends.into_iter().try_for_each(|end| end?)
    })?;
    held::comes_back_to(before, || held::of_dma_buf(&buffer))
}

fn a_render_node_imports() -> Verdict {
    let nodes = Card::render_nodes().map_err(text)?;
    let mut found = Vec::new();
    for node in nodes {
        let card = Card::open(&node).map_err(text)?;
        if card.driver() != "vgem" {
            found.push(card.to_string());
            continue;
        }
        let buffer = buffer()?;
        let handle = card.open_handle(&buffer).map_err(text)?;
        ensure(same(&handle.export().map_err(text)?, &buffer)?, || {
            "it came back as another dma-buf".to_owned()
        })?;
        return match card.screens() {
            Err(DrmError::RenderNode { .. }) => Ok(()),
            other => Err(format!("screens of a render node: {other:?}")),
        };
    }
    Err(format!("no render node of vgem among {found:?}"))
}

fn refuses_a_memfd() -> Verdict {
    let card = Card::find("vgem").map_err(text)?;
    let memfd = Memfd::new().allocate(&Request::new(4096)).map_err(text)?;
    match card.open_handle(&memfd) {
        Err(DrmError::Handle(HandleError::NotADmaBuf { index: 0, .. })) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn a_card_of_another_opener() -> Verdict {
    let path = Card::find("vgem").map_err(text)?.path().to_owned();
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path);
    let card = Card::from_fd(file.map_err(text)?.into()).map_err(text)?;
    ensure(card.path() == path && card.driver() == "vgem", || {
        card.to_string()
    })?;
    card.open_handle(&buffer()?).map(drop).map_err(text)
}
