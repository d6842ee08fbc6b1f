//! The EGL extension functions that importing needs, one line a function.
//!
//! The types are those of `EGL/eglext.h`. khronos-egl wraps the core functions
//! but none of these, and its wrappers panic on an error code of an extension;
//! so these report errors through [`EglCode`].

use std::ffi::{c_char, c_void};

use khronos_egl as egl;

use super::error::{EglCode, EglError};

pub(super) type Egl = egl::DynamicInstance<egl::EGL1_5>;
pub(super) type EglDevice = *mut c_void;

pub(super) const PLATFORM_DEVICE: egl::Enum = 0x313F;
pub(super) const DRM_DEVICE_FILE: egl::Int = 0x3233;
pub(super) const DRM_RENDER_NODE_FILE: egl::Int = 0x3377;
pub(super) const LINUX_DMA_BUF: egl::Enum = 0x3270;
pub(super) const LINUX_DRM_FOURCC: egl::Int = 0x3271;
pub(super) const GL_TEXTURE_2D: egl::Enum = 0x30B1;
pub(super) const GL_TEXTURE_LEVEL: egl::Int = 0x30BC;
pub(super) const SYNC_NATIVE_FENCE: egl::Enum = 0x3144;
pub(super) const SYNC_NATIVE_FENCE_FD: egl::Int = 0x3145;
pub(super) const NO_NATIVE_FENCE_FD: egl::Int = -1;

/// `GL_TEXTURE_EXTERNAL_OES` and `GL_SAMPLER_EXTERNAL_OES` of
/// GL_OES_EGL_image_external.
pub(super) const TEXTURE_EXTERNAL: u32 = 0x8D65;
pub(super) const SAMPLER_EXTERNAL: u32 = 0x8D66;

/// `glEGLImageTargetTexture2DOES` of GL_OES_EGL_image.
pub(super) type ImageTargetTexture2d = unsafe extern "system" fn(target: u32, image: *const c_void);

/// Declares the struct and loads each of its functions by name.
macro_rules! functions {
    ($(#[$meta:meta])* $vis:vis struct $table:ident {
        $($field:ident = $name:literal: fn($($arg:ty),*) -> $ret:ty;)*
    }) => {
        $(#[$meta])*
        $vis struct $table {
            $(pub(super) $field: unsafe extern "system" fn($($arg),*) -> $ret,)*
        }

        impl $table {
            pub(super) fn load(egl: &Egl) -> Result<$table, EglError> {
                Ok($table {$(
                    $field: match egl.get_proc_address($name) {
                        // SAFETY: EGL gave this address for this name, and the
                        // signature is that of eglext.h for the same name.
                        Some(f) => unsafe {
                            std::mem::transmute::<
                                extern "system" fn(),
                                unsafe extern "system" fn($($arg),*) -> $ret,
                            >(f)
                        },
                        None => return Err(EglError::missing("client library", vec![$name])),
                    },
                )*})
            }
        }
    };
}

functions! {
    /// EGL_EXT_device_enumeration, EGL_EXT_device_query, EGL_EXT_platform_base.
    pub(super) struct Devices {
        get_error = "eglGetError": fn() -> egl::Int;
        query_devices = "eglQueryDevicesEXT": fn(egl::Int, *mut EglDevice, *mut egl::Int) -> egl::Boolean;
        query_device_string = "eglQueryDeviceStringEXT": fn(EglDevice, egl::Int) -> *const c_char;
        get_platform_display = "eglGetPlatformDisplayEXT": fn(egl::Enum, *mut c_void, *const egl::Int) -> egl::EGLDisplay;
    }
}

functions! {
    /// EGL_KHR_image_base.
    pub(super) struct Images {
        get_error = "eglGetError": fn() -> egl::Int;
        create_image = "eglCreateImageKHR": fn(egl::EGLDisplay, egl::EGLContext, egl::Enum, egl::EGLClientBuffer, *const egl::Int) -> egl::EGLImage;
        destroy_image = "eglDestroyImageKHR": fn(egl::EGLDisplay, egl::EGLImage) -> egl::Boolean;
    }
}

functions! {
    /// EGL_EXT_image_dma_buf_import_modifiers.
    pub(super) struct Modifiers {
        get_error = "eglGetError": fn() -> egl::Int;
        query_formats = "eglQueryDmaBufFormatsEXT": fn(egl::EGLDisplay, egl::Int, *mut egl::Int, *mut egl::Int) -> egl::Boolean;
        query_modifiers = "eglQueryDmaBufModifiersEXT": fn(egl::EGLDisplay, egl::Int, egl::Int, *mut u64, *mut egl::Boolean, *mut egl::Int) -> egl::Boolean;
    }
}

functions! {
    /// EGL_MESA_image_dma_buf_export.
    pub(super) struct Exports {
        get_error = "eglGetError": fn() -> egl::Int;
        query = "eglExportDMABUFImageQueryMESA": fn(egl::EGLDisplay, egl::EGLImage, *mut egl::Int, *mut egl::Int, *mut u64) -> egl::Boolean;
        export = "eglExportDMABUFImageMESA": fn(egl::EGLDisplay, egl::EGLImage, *mut egl::Int, *mut egl::Int, *mut egl::Int) -> egl::Boolean;
    }
}

functions! {
    /// EGL_KHR_fence_sync, EGL_KHR_wait_sync, EGL_ANDROID_native_fence_sync.
    pub(super) struct Syncs {
        get_error = "eglGetError": fn() -> egl::Int;
        create = "eglCreateSyncKHR": fn(egl::EGLDisplay, egl::Enum, *const egl::Int) -> egl::EGLSync;
        destroy = "eglDestroySyncKHR": fn(egl::EGLDisplay, egl::EGLSync) -> egl::Boolean;
        wait = "eglWaitSyncKHR": fn(egl::EGLDisplay, egl::EGLSync, egl::Int) -> egl::Int;
        dup_fd = "eglDupNativeFenceFDANDROID": fn(egl::EGLDisplay, egl::EGLSync) -> egl::Int;
    }
}

/// The thread's error, which reading resets.
pub(super) fn last_error(get_error: unsafe extern "system" fn() -> egl::Int) -> EglCode {
    // SAFETY: eglGetError takes nothing and is allowed on every thread.
    EglCode(unsafe { get_error() })
}
