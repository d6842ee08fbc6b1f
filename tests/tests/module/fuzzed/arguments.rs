//! The arguments of the calls that are fuzzed.

use crate::device::{Alloc, Info, Query, Range, Wrap};

/// Structures that are valid whatever their bits are.
pub(super) trait Argument {}

impl Argument for Alloc {}
impl Argument for Wrap {}
impl Argument for Query {}
impl Argument for Info {}
impl Argument for Create {}
impl Argument for List {}
impl Argument for Data {}
impl Argument for SyncFile {}
impl Argument for u64 {}
impl Argument for [u8; 32] {}

/// `struct udmabuf_create`, laid out as a range.
#[repr(C)]
pub(super) struct Create {
    pub(super) range: Range,
}

/// `struct udmabuf_create_list` with its items.
#[repr(C)]
pub(super) struct List {
    pub(super) flags: u32,
    pub(super) count: u32,
    pub(super) items: [Range; 4],
}

/// `struct dma_heap_allocation_data`
#[repr(C)]
pub(super) struct Data {
    pub(super) len: u64,
    pub(super) fd: u32,
    pub(super) fd_flags: u32,
    pub(super) heap_flags: u64,
}

/// `struct dma_buf_export_sync_file`, and that of import
#[repr(C)]
pub(super) struct SyncFile {
    pub(super) flags: u32,
    pub(super) fd: i32,
}
