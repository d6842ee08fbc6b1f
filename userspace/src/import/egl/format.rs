//! The formats and modifiers that a driver says it imports.

use std::ptr;

use khronos_egl as egl;

use super::Inner;
use super::api::{self, Modifiers};
use super::error::EglError;
use crate::share::{Fourcc, INVALID, LINEAR};

/// A format that a GPU imports, and in which layouts.
///
/// ```
/// use dmashare::import::egl::Format;
/// # fn show(formats: &[Format]) {
/// for format in formats {
///     println!("{}: {} modifiers", format.fourcc, format.modifiers.len());
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Format {
    /// The pixel format.
    pub fourcc: Fourcc,
    /// The layouts; empty where the driver names none and takes what is
    /// linear.
    pub modifiers: Vec<Modifier>,
}

/// A layout in which a GPU imports a format.
///
/// ```
/// use dmashare::import::egl::{Format, Modifier};
/// # fn samples_as_2d(format: &Format) -> Vec<u64> {
/// let two_d = format.modifiers.iter().filter(|modifier| !modifier.external_only);
/// two_d.map(|modifier| modifier.code).collect()
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Modifier {
    /// The modifier of `drm_fourcc.h`.
    pub code: u64,
    /// Whether it can only be sampled as GL_TEXTURE_EXTERNAL_OES, and not be
    /// drawn into.
    pub external_only: bool,
}

impl Format {
    pub(super) fn new(fourcc: Fourcc, modifiers: Vec<Modifier>) -> Format {
        Format { fourcc, modifiers }
    }
}

/// Whether the driver says it takes this, or in words why not. An empty list
/// says nothing.
pub(super) fn takes(formats: &[Format], fourcc: Fourcc, modifier: u64) -> Result<(), String> {
    if formats.is_empty() {
        return Ok(());
    }
    let Some(format) = formats.iter().find(|format| format.fourcc == fourcc) else {
        let all = formats.iter().map(|format| format.fourcc.to_string());
        let all = all.collect::<Vec<_>>().join(" ");
        return Err(format!("it takes no {fourcc}, only {all}"));
    };
    let codes: Vec<u64> = match format.modifiers.as_slice() {
        [] => vec![LINEAR],
        named => named.iter().map(|modifier| modifier.code).collect(),
    };
    // A driver that was told no modifier can lack none.
    if modifier == INVALID || codes.contains(&modifier) {
        return Ok(());
    }
    let codes = codes.iter().map(|code| format!("{code:#x}"));
    let codes = codes.collect::<Vec<_>>().join(" ");
    Err(format!("it takes {fourcc} with modifier {codes} only"))
}

impl Inner {
    /// What the driver says it imports; nothing where it cannot say.
    pub(super) fn formats(&self) -> Result<Vec<Format>, EglError> {
        let Some(functions) = &self.modifiers else {
            return Ok(Vec::new());
        };
        let codes = self.query_formats(functions)?;
        let formats = codes.into_iter().map(|code| {
            let modifiers = self.query_modifiers(functions, code)?;
            Ok(Format::new(Fourcc(code.cast_unsigned()), modifiers))
        });
        formats.collect()
    }

    fn query_formats(&self, functions: &Modifiers) -> Result<Vec<egl::Int>, EglError> {
        let query = |room, codes: *mut egl::Int| {
            let mut count = 0;
            // SAFETY: `codes` has room for `room` codes.
            let ok = unsafe {
                (functions.query_formats)(self.display.as_ptr(), room, codes, &raw mut count)
            };
            self.check(functions, "eglQueryDmaBufFormatsEXT", ok)?;
            Ok::<egl::Int, EglError>(count)
        };
        let count = query(0, ptr::null_mut())?;
        let mut codes = vec![0; usize::try_from(count).unwrap_or(0)];
        let count = query(count, codes.as_mut_ptr())?;
        codes.truncate(usize::try_from(count).unwrap_or(0));
        Ok(codes)
    }

    fn query_modifiers(
        &self,
        functions: &Modifiers,
        format: egl::Int,
    ) -> Result<Vec<Modifier>, EglError> {
        let query = |room, codes: *mut u64, external: *mut egl::Boolean| {
            let mut count = 0;
            let display = self.display.as_ptr();
            // SAFETY: both arrays have room for `room` items.
            let ok = unsafe {
                (functions.query_modifiers)(display, format, room, codes, external, &raw mut count)
            };
            self.check(functions, "eglQueryDmaBufModifiersEXT", ok)?;
            Ok::<egl::Int, EglError>(count)
        };
        let room = query(0, ptr::null_mut(), ptr::null_mut())?;
        let length = usize::try_from(room).unwrap_or(0);
        let (mut codes, mut external) = (vec![0; length], vec![egl::FALSE; length]);
        let count = query(room, codes.as_mut_ptr(), external.as_mut_ptr())?;
        let modifiers = codes
            .into_iter()
            .zip(external)
            .map(|(code, external)| Modifier {
                code,
                external_only: external == egl::TRUE,
            });
        Ok(modifiers
            .take(usize::try_from(count).unwrap_or(0))
            .collect())
    }

    fn check(
        &self,
        functions: &Modifiers,
        operation: &'static str,
        ok: egl::Boolean,
    ) -> Result<(), EglError> {
        if ok == egl::TRUE {
            return Ok(());
        }
        Err(EglError::Egl {
            operation,
            on: self.renderer.clone(),
            code: api::last_error(functions.get_error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_names_no_modifier_takes_linear() {
        let formats = [Format::new(Fourcc::XRGB8888, vec![])];
        assert_eq!(takes(&formats, Fourcc::XRGB8888, LINEAR), Ok(()));
        assert!(takes(&formats, Fourcc::XRGB8888, 1).is_err());
        assert!(takes(&formats, Fourcc::ARGB8888, LINEAR).is_err());
    }

    #[test]
    fn a_driver_that_cannot_say_is_asked_by_importing() {
        assert_eq!(takes(&[], Fourcc::ARGB8888, 7), Ok(()));
    }
}
