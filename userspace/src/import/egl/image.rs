//! One EGLImage over the dma-bufs of a frame.

use std::ffi::c_void;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::rc::Rc;

use khronos_egl as egl;
use rustix::io::fcntl_dupfd_cloexec;

use super::Inner;
use super::api;
use super::error::{EglCode, EglError};
use super::format::{Format, takes};
use super::yuv::Hints;
use crate::buffer::{Access, Buffer};
use crate::import::words;
use crate::share::{Frame, INVALID, LINEAR};

/// An EGLImage, destroyed on drop.
pub(super) struct Image {
    pub(super) gpu: Rc<Inner>,
    pub(super) raw: egl::EGLImage,
}

impl Image {
    /// The image of a frame that was checked.
    pub(super) fn new(
        gpu: &Rc<Inner>,
        frame: &Frame,
        handles: &[BorrowedFd<'_>],
        hints: Option<&Hints>,
    ) -> Result<Image, EglError> {
        gpu.check_frame(frame)?;
        if gpu.is_llvmpipe() {
            for handle in handles {
                gpu.check_memory(frame, *handle)?;
            }
        }
        let mut list = attributes(frame, handles, gpu.modifiers.is_some()).map_err(|reason| {
            EglError::Inexpressible {
                frame: words(frame),
                reason,
            }
        })?;
        list.extend(hints.iter().flat_map(|hints| hints.attributes()));
        list.push(egl::NONE);
        let create = |list: &[egl::Int]| {
            // SAFETY: the list ends with EGL_NONE and holds open descriptors,
            // which EGL duplicates (EGL_EXT_image_dma_buf_import, version 6);
            // the target demands no context and no client buffer.
            unsafe {
                (gpu.images.create_image)(
                    gpu.display.as_ptr(),
                    egl::NO_CONTEXT,
                    api::LINUX_DMA_BUF,
                    ptr::null_mut(),
                    list.as_ptr(),
                )
            }
        };
        let raw = create(&list);
        if raw == egl::NO_IMAGE {
            let code = api::last_error(gpu.images.get_error);
            return Err(EglError::Import {
                on: gpu.renderer.clone(),
                frame: words(frame),
                code,
                suspect: gpu.suspect(code, frame),
            });
        }
        Ok(Image {
            gpu: Rc::clone(gpu),
            raw,
        })
    }

    /// The image of a texture of GL's own; the context is current.
    pub(super) fn of_texture(
        gpu: &Rc<Inner>,
        texture: glow::NativeTexture,
    ) -> Result<Image, EglError> {
        let list = [api::GL_TEXTURE_LEVEL, 0, egl::NONE];
        // A name of GL, in the place of an address.
        let name = ptr::without_provenance_mut::<c_void>(texture.0.get() as usize);
        // SAFETY: the list ends with EGL_NONE; the texture is one of this
        // context, which is current.
        let raw = unsafe {
            (gpu.images.create_image)(
                gpu.display.as_ptr(),
                gpu.context.as_ptr(),
                api::GL_TEXTURE_2D,
                name,
                list.as_ptr(),
            )
        };
        if raw == egl::NO_IMAGE {
            return Err(EglError::Egl {
                operation: "eglCreateImageKHR",
                on: gpu.renderer.clone(),
                code: api::last_error(gpu.images.get_error),
            });
        }
        Ok(Image {
            gpu: Rc::clone(gpu),
            raw,
        })
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // SAFETY: made on this display, destroyed once. Textures made of it
        // hold their own reference in the driver.
        unsafe { (self.gpu.images.destroy_image)(self.gpu.display.as_ptr(), self.raw) };
    }
}

/// The attribute names of one plane (`EGL/eglext.h`): its handle, offset,
/// stride, and the low and high half of its modifier.
const PLANES: [[egl::Int; 5]; 4] = [
    [0x3272, 0x3273, 0x3274, 0x3443, 0x3444],
    [0x3275, 0x3276, 0x3277, 0x3445, 0x3446],
    [0x3278, 0x3279, 0x327A, 0x3447, 0x3448],
    [0x3440, 0x3441, 0x3442, 0x3449, 0x344A],
];

/// The attributes that describe a checked frame to eglCreateImageKHR, without
/// the end of the list, or why there are none.
///
/// Without EGL_EXT_image_dma_buf_import_modifiers (`modifiers`) there are no
/// attributes for a modifier or a fourth plane.
fn attributes(
    frame: &Frame,
    handles: &[BorrowedFd<'_>],
    modifiers: bool,
) -> Result<Vec<egl::Int>, &'static str> {
    const TOO_LARGE: &str = "an EGLint ends at 2147483647";
    let int = |value: u32| egl::Int::try_from(value).map_err(|_| TOO_LARGE);
    if !modifiers && ![LINEAR, INVALID].contains(&frame.modifier) {
        return Err("without EGL_EXT_image_dma_buf_import_modifiers only a linear frame");
    }
    if !modifiers && frame.planes.len() == PLANES.len() {
        return Err("without EGL_EXT_image_dma_buf_import_modifiers three planes at most");
    }
    let mut list = vec![
        egl::WIDTH,
        int(frame.width)?,
        egl::HEIGHT,
        int(frame.height)?,
        api::LINUX_DRM_FOURCC,
        frame.fourcc.0.cast_signed(),
    ];
    let [low, high] = halves(frame.modifier);
    for (plane, [fd, offset, stride, modifier_low, modifier_high]) in
        frame.planes.iter().zip(PLANES)
    {
        let handle = handles[usize::from(plane.buffer)];
        list.extend([fd, handle.as_raw_fd()]);
        list.extend([offset, int(plane.offset)?]);
        list.extend([stride, int(plane.stride)?]);
        if modifiers && frame.modifier != INVALID {
            list.extend([modifier_low, low, modifier_high, high]);
        }
    }
    Ok(list)
}

/// The low and the high half of a modifier, as EGL wants them.
fn halves(modifier: u64) -> [egl::Int; 2] {
    let [a, b, c, d, e, f, g, h] = modifier.to_le_bytes();
    [
        egl::Int::from_le_bytes([a, b, c, d]),
        egl::Int::from_le_bytes([e, f, g, h]),
    ]
}

impl Inner {
    /// Whether the driver can be asked to import such a frame.
    pub(super) fn check_frame(&self, frame: &Frame) -> Result<(), EglError> {
        // Seen with Mesa 25: llvmpipe takes 640x480 of a format with 8 bytes a
        // pixel and a stride of 640, and reads beyond the memory. So none but
        // those whose planes were measured and found within their buffers.
        if frame.fourcc.planes().is_none() {
            return Err(EglError::Unchecked {
                frame: words(frame),
                fourcc: frame.fourcc,
            });
        }
        // Nor does it look at this, and has room for so many tiles.
        if frame.width.max(frame.height) > self.max_size {
            return Err(EglError::TooLarge {
                on: self.renderer.clone(),
                frame: words(frame),
                limit: self.max_size,
            });
        }
        Ok(())
    }

    /// Whether llvmpipe can map this memory to read and write.
    ///
    /// Where it cannot, Mesa 25.0 takes it all the same, and maps it later with
    /// a stride of its own choice.
    fn check_memory(&self, frame: &Frame, handle: BorrowedFd<'_>) -> Result<(), EglError> {
        let map = || {
            let fd = fcntl_dupfd_cloexec(handle, 0);
            let fd = fd.map_err(|source| EglError::Handles {
                source: source.into(),
            })?;
            let buffer = Buffer::from_fd(fd)?;
            buffer
                .map(Access::ReadWrite)
                .map_err(|reason| EglError::Memory {
                    on: self.renderer.clone(),
                    frame: words(frame),
                    reason,
                })
        };
        map().map(drop)
    }

    /// Which part of the frame, or of its memory, the driver most likely
    /// refused.
    fn suspect(&self, code: EglCode, frame: &Frame) -> String {
        if self.is_llvmpipe() && code == EglCode::BAD_ALLOC && frame.planes.len() > 1 {
            return "Mesa's software device lists such formats, but takes none of several planes \
                    (seen with Mesa 25.0); import_planes does"
                .to_owned();
        }
        suspect(code, frame, &self.formats().unwrap_or_default())
    }
}

/// Which part of the frame the driver most likely refused.
///
/// The codes are those of EGL_EXT_image_dma_buf_import and its modifiers
/// extension. `formats` is what the driver says it takes; empty where it
/// cannot say.
fn suspect(code: EglCode, frame: &Frame, formats: &[Format]) -> String {
    if let Err(why) = takes(formats, frame.fourcc, frame.modifier) {
        return why;
    }
    if let Some(planes) = frame.fourcc.planes()
        && frame.planes.len() > planes
        && frame.modifier == LINEAR
    {
        return format!(
            "{} has {planes} planes, not {}",
            frame.fourcc,
            frame.planes.len()
        );
    }
    match code {
        EglCode::BAD_MATCH => "it is likely the format or the size".to_owned(),
        EglCode::BAD_ACCESS => {
            "it is likely a stride or an offset; many drivers want multiples of 64 or 256"
                .to_owned()
        }
        EglCode::BAD_ATTRIBUTE => "it is likely the modifier or the number of planes".to_owned(),
        EglCode::BAD_ALLOC => "the driver could not take hold of the memory; \
             the software device can, wherever the CPU can map it"
            .to_owned(),
        _ => "format and modifier are among those it takes".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::egl::Modifier;
    use crate::share::{Fourcc, Plane};
    use std::os::fd::AsFd;

    fn nv12(modifier: u64) -> Frame {
        let plane = |offset| Plane {
            buffer: 0,
            offset,
            stride: 64,
        };
        Frame {
            width: 64,
            height: 32,
            fourcc: Fourcc::new(*b"NV12"),
            modifier,
            planes: vec![plane(0), plane(2048)],
        }
    }

    #[test]
    fn every_plane_is_described_in_the_terms_of_eglext_h() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let fd = file.as_fd().as_raw_fd();
        let list = attributes(&nv12(0x0100_0000_8000_0002), &[file.as_fd()], true).unwrap();
        assert_eq!(
            list,
            [
                0x3057,
                64,
                0x3056,
                32,
                0x3271,
                0x3231_564e, // size and fourcc
                0x3272,
                fd,
                0x3273,
                0,
                0x3274,
                64, // plane 0
                0x3443,
                i32::MIN + 2,
                0x3444,
                0x0100_0000, // its modifier
                0x3275,
                fd,
                0x3276,
                2048,
                0x3277,
                64, // plane 1
                0x3445,
                i32::MIN + 2,
                0x3446,
                0x0100_0000, // its modifier
            ]
        );
    }

    #[test]
    fn without_the_modifiers_extension_only_linear_can_be_said() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let list = attributes(&nv12(LINEAR), &[file.as_fd()], false).unwrap();
        assert!(!list.contains(&0x3443));
        assert!(attributes(&nv12(1), &[file.as_fd()], false).is_err());
    }

    #[test]
    fn what_an_eglint_cannot_hold_is_an_error() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let mut frame = nv12(LINEAR);
        frame.planes[1].stride = u32::MAX;
        assert!(attributes(&frame, &[file.as_fd()], true).is_err());
    }

    #[test]
    fn a_modifier_that_the_driver_was_not_told_is_no_suspect() {
        let linear = Modifier {
            code: LINEAR,
            external_only: false,
        };
        let formats = [Format::new(Fourcc::new(*b"NV12"), vec![linear])];
        let other = suspect(EglCode::BAD_MATCH, &nv12(1), &formats);
        assert!(other.contains("with modifier 0x0 only"), "{other}");
        let none = suspect(EglCode::BAD_MATCH, &nv12(INVALID), &formats);
        assert!(!none.contains("modifier"), "{none}");
    }

    #[test]
    fn the_suspect_is_what_the_driver_does_not_list() {
        let formats = [Format::new(Fourcc::XRGB8888, vec![])];
        let suspect = suspect(EglCode::BAD_MATCH, &nv12(LINEAR), &formats);
        assert!(
            suspect.contains("NV12") && suspect.contains("XR24"),
            "{suspect}"
        );
    }
}
