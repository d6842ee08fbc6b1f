//! The functions of libgbm.so.1, one line a function (`gbm.h`).

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use super::error::GbmError;

/// `struct gbm_device` and `struct gbm_bo`, known to the library alone.
pub(super) type Device = *mut c_void;
pub(super) type Object = *mut c_void;

pub(super) const IMPORT_FD: u32 = 0x5503;
pub(super) const IMPORT_FD_MODIFIER: u32 = 0x5504;

/// `struct gbm_import_fd_data`.
#[repr(C)]
pub(super) struct ImportFd {
    pub(super) fd: c_int,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) stride: u32,
    pub(super) format: u32,
}

/// `struct gbm_import_fd_modifier_data`.
#[repr(C)]
#[derive(Default)]
pub(super) struct ImportFdModifier {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) format: u32,
    pub(super) num_fds: u32,
    pub(super) fds: [c_int; 4],
    pub(super) strides: [c_int; 4],
    pub(super) offsets: [c_int; 4],
    pub(super) modifier: u64,
}

/// `union gbm_bo_handle`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) union Handle {
    pub(super) pointer: *mut c_void,
    pub(super) number: u32,
    whole: u64,
}

/// Declares the table and loads each function by name; those behind `?` are not
/// in every version.
macro_rules! functions {
    (
        $($field:ident = $name:literal: fn($($arg:ty),*) $(-> $ret:ty)?;)*
        ?
        $($maybe:ident = $maybe_name:literal: fn($($maybe_arg:ty),*) -> $maybe_ret:ty;)*
    ) => {
        pub(super) struct Api {
            $(pub(super) $field: unsafe extern "C" fn($($arg),*) $(-> $ret)?,)*
            $(pub(super) $maybe: Option<unsafe extern "C" fn($($maybe_arg),*) -> $maybe_ret>,)*
        }

        impl Api {
            fn load() -> Result<Api, libloading::Error> {
                // SAFETY: libgbm.so.1 is the ABI name of GBM; loading it runs
                // only its own constructors.
                let library = unsafe { libloading::Library::new("libgbm.so.1")? };
                let api = Api {
                    $($field: {
                        // SAFETY: the signature is that of gbm.h for this name.
                        *unsafe { library.get(concat!($name, "\0").as_bytes())? }
                    },)*
                    $($maybe: {
                        // SAFETY: as before.
                        unsafe { library.get(concat!($maybe_name, "\0").as_bytes()) }
                            .ok()
                            .map(|function| *function)
                    },)*
                };
                // For good: the functions are of it, and drivers that it loads
                // leave threads behind.
                std::mem::forget(library);
                Ok(api)
            }
        }
    };
}

functions! {
    create_device = "gbm_create_device": fn(c_int) -> Device;
    destroy_device = "gbm_device_destroy": fn(Device);
    backend_name = "gbm_device_get_backend_name": fn(Device) -> *const c_char;
    is_supported = "gbm_device_is_format_supported": fn(Device, u32, u32) -> c_int;
    plane_count_of = "gbm_device_get_format_modifier_plane_count": fn(Device, u32, u64) -> c_int;
    create = "gbm_bo_create": fn(Device, u32, u32, u32, u32) -> Object;
    create_with_modifiers = "gbm_bo_create_with_modifiers": fn(Device, u32, u32, u32, *const u64, c_uint) -> Object;
    import = "gbm_bo_import": fn(Device, u32, *mut c_void, u32) -> Object;
    destroy = "gbm_bo_destroy": fn(Object);
    width = "gbm_bo_get_width": fn(Object) -> u32;
    height = "gbm_bo_get_height": fn(Object) -> u32;
    format = "gbm_bo_get_format": fn(Object) -> u32;
    modifier = "gbm_bo_get_modifier": fn(Object) -> u64;
    plane_count = "gbm_bo_get_plane_count": fn(Object) -> c_int;
    stride = "gbm_bo_get_stride_for_plane": fn(Object, c_int) -> u32;
    offset = "gbm_bo_get_offset": fn(Object, c_int) -> u32;
    handle = "gbm_bo_get_handle_for_plane": fn(Object, c_int) -> Handle;
    fd = "gbm_bo_get_fd": fn(Object) -> c_int;
    map = "gbm_bo_map": fn(Object, u32, u32, u32, u32, u32, *mut u32, *mut *mut c_void) -> *mut c_void;
    unmap = "gbm_bo_unmap": fn(Object, *mut c_void);
    ?
    create_with_modifiers2 = "gbm_bo_create_with_modifiers2": fn(Device, u32, u32, u32, *const u64, c_uint, u32) -> Object;
    fd_for_plane = "gbm_bo_get_fd_for_plane": fn(Object, c_int) -> c_int;
}

/// The library, loaded once and kept.
pub(super) fn api() -> Result<&'static Api, GbmError> {
    static API: OnceLock<Result<Api, String>> = OnceLock::new();
    let loaded = API.get_or_init(|| Api::load().map_err(|error| error.to_string()));
    loaded
        .as_ref()
        .map_err(|error| GbmError::Library(error.clone()))
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn layout_is_that_of_the_header() {
        assert_eq!(size_of::<ImportFd>(), 20);
        assert_eq!(size_of::<ImportFdModifier>(), 72);
        assert_eq!(offset_of!(ImportFdModifier, fds), 16);
        assert_eq!(offset_of!(ImportFdModifier, modifier), 64);
        assert_eq!(size_of::<Handle>(), 8);
    }
}
