//! The kernel module's header as Rust: `kmod/dmashare_uapi.h` is the one source
//! of the interface, and `userspace/src/sys/module/uapi.rs` is made from it here.
//!
//! It reads the little of C that such a header needs, and refuses the rest by
//! its line: what it does not understand it cannot translate by halves.

mod comment;
mod read;
mod write;

pub use read::UapiError;

/// The Rust file that says what this header says.
///
/// # Errors
/// [`UapiError`], with the line that is outside of the subset that is read.
///
/// ```
/// use dmashare_tests::uapi::to_rust;
/// let header = "\
/// /* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/// /* The interface of nothing. */
/// #ifndef _UAPI_DMASHARE_H
/// #define _UAPI_DMASHARE_H
///
/// /* How long a name is. */
/// #define DMASHARE_NAME_LEN 32
///
/// #endif /* _UAPI_DMASHARE_H */
/// ";
/// let rust = to_rust(header)?;
/// assert!(rust.contains("/// How long a name is.\npub(crate) const NAME_LEN: u32 = 32;\n"));
///
/// let odd = header.replace("32", "sizeof(int)");
/// let error = to_rust(&odd).unwrap_err();
/// assert!(error.to_string().starts_with("line 7: "), "{error}");
/// # Ok::<(), dmashare_tests::uapi::UapiError>(())
/// ```
pub fn to_rust(header: &str) -> Result<String, UapiError> {
    read::header(header).map(|header| write::rust(&header))
}
