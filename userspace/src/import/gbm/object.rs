//! A buffer of the driver: made, exported, imported.

use std::borrow::Borrow;
use std::ffi::{c_int, c_uint};
use std::fmt;
use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::rc::Rc;

use super::api::{self, ImportFd, ImportFdModifier};
use super::device::{Inner, ask, clear_errno, said};
use super::error::GbmError;
use super::{Gbm, Usage};
use crate::buffer::Buffer;
use crate::frame::{Fourcc, Frame, INVALID, LINEAR, MAX_PLANES, Plane};
use crate::import::{self, words};
use crate::negotiate::Layout;
use crate::sys::drm;

/// A buffer of a GBM device; made by [`Gbm::allocate`] and [`Gbm::import`].
pub struct BufferObject {
    pub(super) gbm: Rc<Inner>,
    pub(super) raw: api::Object,
    fallback: Option<String>,
    /// Whether it was asked to be linear, which some drivers do not tell then.
    linear: bool,
}

impl Gbm {
    /// A new buffer in one of these layouts, the choice being the driver's; with
    /// no modifiers, one in a layout that the driver may keep to itself
    /// ([`INVALID`]).
    ///
    /// A driver that takes no list of modifiers is asked without, if [`LINEAR`]
    /// or [`INVALID`] is among them: [`BufferObject::fallback`] says so.
    ///
    /// # Errors
    /// [`GbmError::Allocate`], with what it most likely was.
    ///
    /// ```no_run
    /// // Not run: needs a DRM device.
    /// # use dmashare::{frame::{Fourcc, LINEAR}, import::gbm::{Gbm, GbmError, Usage}};
    /// # fn f(gbm: &Gbm) -> Result<(), GbmError> {
    /// let any = gbm.allocate(640, 480, Fourcc::ARGB8888, &[], Usage::RENDERING)?;
    /// let linear = gbm.allocate(640, 480, Fourcc::ARGB8888, &[LINEAR], Usage::RENDERING)?;
    /// if let Some(why) = linear.fallback() {
    ///     println!("{why}");
    /// }
    /// # Ok(()) }
    /// ```
    pub fn allocate(
        &self,
        width: u32,
        height: u32,
        fourcc: Fourcc,
        modifiers: &[u64],
        usage: Usage,
    ) -> Result<BufferObject, GbmError> {
        let gbm = &self.0;
        let failed = |source| GbmError::Allocate {
            on: gbm.to_string(),
            width,
            height,
            fourcc,
            usage: usage_words(usage),
            source,
            suspect: gbm.suspect_of_allocation(fourcc, modifiers, usage),
        };
        let object = |raw, fallback, linear| BufferObject {
            gbm: Rc::clone(gbm),
            raw,
            fallback,
            linear,
        };
        let mut fallback = None;
        if !modifiers.is_empty() {
            let listed = ask(|| gbm.create_listed(width, height, fourcc, modifiers, usage));
            match listed {
                Ok(raw) => return Ok(object(raw, None, modifiers == [LINEAR])),
                Err(error) if [LINEAR, INVALID].iter().any(|m| modifiers.contains(m)) => {
                    let why = format!("{gbm} takes no list of modifiers ({error})");
                    fallback = Some(why);
                }
                Err(error) => return Err(failed(error)),
            }
        }
        // Its own layout only where no other is allowed that can be told.
        let linear = modifiers.contains(&LINEAR) || usage.contains(Usage::LINEAR);
        let usage = match linear {
            true => usage | Usage::LINEAR,
            false => usage,
        };
        // SAFETY: the device is alive.
        let raw =
            ask(|| unsafe { (gbm.api.create)(gbm.raw, width, height, fourcc.0, usage.bits()) });
        Ok(object(raw.map_err(failed)?, fallback, linear))
    }

    /// A frame of others as a buffer of this device.
    ///
    /// The handles can be closed. To read its pixels, map the frame's buffers:
    /// not every driver maps what it imported.
    ///
    /// # Errors
    /// [`GbmError::Handle`] for a frame that does not lie in its buffers or
    /// buffers that are no dma-bufs, [`GbmError::Unchecked`] for a format whose
    /// layout is not known here, [`GbmError::Import`] where the driver does not
    /// take it, with what it likely was.
    ///
    /// ```no_run
    /// // Not run: needs a DRM device and a dma-buf.
    /// # use dmashare::{buffer::Buffer, frame::{Fourcc, Frame}, import::gbm::{Gbm, Usage}};
    /// # fn f(gbm: &Gbm, dma_buf: &Buffer) -> Result<(), Box<dyn std::error::Error>> {
    /// let frame = Frame::aligned(640, 480, Fourcc::XRGB8888, 256)?;
    /// let object = gbm.import(&frame, &[dma_buf], Usage::SCANOUT)?;
    /// assert_eq!(object.size(), (640, 480));
    /// # Ok(()) }
    /// ```
    pub fn import(
        &self,
        frame: &Frame,
        buffers: &[impl Borrow<Buffer>],
        usage: Usage,
    ) -> Result<BufferObject, GbmError> {
        let handles = import::check(frame, &import::resolve(buffers))?;
        if frame.fourcc.planes().is_none() {
            return Err(GbmError::Unchecked {
                frame: words(frame),
                fourcc: frame.fourcc,
            });
        }
        let gbm = &self.0;
        let failed = |source, suspect| GbmError::Import {
            on: gbm.to_string(),
            frame: words(frame),
            source,
            suspect,
        };
        // Before any way of importing: Mesa reads them as signed.
        for plane in &frame.planes {
            let numbers = int(plane.stride).and_then(|_| int(plane.offset));
            numbers
                .map_err(|source| failed(source, "strides and offsets have 31 bits".to_owned()))?;
        }
        let refused = |source| failed(source, gbm.suspect_of_import(frame, &handles, usage));
        let raw = match gbm.import_planes(frame, &handles, usage) {
            // Older than modifiers.
            Err(error) => match gbm.import_plain(frame, &handles, usage) {
                Some(Ok(raw)) => raw,
                Some(Err(_)) | None => return Err(refused(error)),
            },
            Ok(raw) => raw,
        };
        let object = BufferObject {
            gbm: Rc::clone(gbm),
            raw,
            fallback: None,
            linear: frame.modifier == LINEAR,
        };
        // kms_swrast finds what was imported before, with its old stride.
        // SAFETY: the buffer is alive, and has this plane.
        let stride = unsafe { (gbm.api.stride)(object.raw, 0) };
        if stride != frame.planes[0].stride {
            let source = std::io::Error::other(format!("it has a stride of {stride} there"));
            let suspect =
                "this buffer is imported already, with another stride; drop that, or open \
                           the device once more"
                    .to_owned();
            return Err(failed(source, suspect));
        }
        Ok(object)
    }
}

impl BufferObject {
    /// Width and height in pixels.
    ///
    /// ```no_run
    /// // Not run: needs a DRM device.
    /// # fn f(object: &dmashare::import::gbm::BufferObject) {
    /// let (width, height) = object.size();
    /// # }
    /// ```
    pub fn size(&self) -> (u32, u32) {
        // SAFETY: the buffer is alive.
        unsafe {
            (
                (self.gbm.api.width)(self.raw),
                (self.gbm.api.height)(self.raw),
            )
        }
    }

    /// The format.
    ///
    /// ```no_run
    /// // Not run: needs a DRM device.
    /// # use dmashare::frame::Fourcc;
    /// # fn f(object: &dmashare::import::gbm::BufferObject) {
    /// assert_eq!(object.fourcc(), Fourcc::XRGB8888);
    /// # }
    /// ```
    pub fn fourcc(&self) -> Fourcc {
        // SAFETY: the buffer is alive.
        Fourcc(unsafe { (self.gbm.api.format)(self.raw) })
    }

    /// The modifier, [`INVALID`] where the driver keeps the layout to itself.
    ///
    /// ```no_run
    /// // Not run: needs a DRM device.
    /// # fn f(object: &dmashare::import::gbm::BufferObject) {
    /// let is_linear = object.modifier() == dmashare::frame::LINEAR;
    /// # }
    /// ```
    pub fn modifier(&self) -> u64 {
        // SAFETY: the buffer is alive.
        match unsafe { (self.gbm.api.modifier)(self.raw) } {
            // It was asked for, and is not told.
            INVALID if self.linear => LINEAR,
            modifier => modifier,
        }
    }

    /// Why it was allocated without a list of modifiers, if it was though there
    /// was one.
    ///
    /// ```no_run
    /// // Not run: needs a DRM device.
    /// # fn f(object: &dmashare::import::gbm::BufferObject) {
    /// if let Some(why) = object.fallback() {
    ///     println!("{why}");
    /// }
    /// # }
    /// ```
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// The frame, and the dma-bufs that it lies in: planes of the same memory
    /// share one.
    ///
    /// # Errors
    /// [`GbmError::Export`] where the driver gives no handle, and
    /// [`GbmError::Nonsense`].
    ///
    /// ```no_run
    /// // Not run: needs a DRM device.
    /// # use dmashare::import::gbm::{BufferObject, GbmError};
    /// # fn f(object: &BufferObject) -> Result<(), GbmError> {
    /// let (frame, buffers) = object.export()?;
    /// assert!(frame.planes.len() >= buffers.len());
    /// # Ok(()) }
    /// ```
    pub fn export(&self) -> Result<(Frame, Vec<Buffer>), GbmError> {
        let gbm = &self.gbm;
        let nonsense = |reason: String| GbmError::Nonsense {
            on: gbm.to_string(),
            reason,
        };
        // SAFETY: the buffer is alive.
        let count = unsafe { (gbm.api.plane_count)(self.raw) };
        let count = usize::try_from(count).unwrap_or(0);
        if count == 0 || count > MAX_PLANES {
            return Err(nonsense(format!("{count} planes")));
        }
        let (mut planes, mut buffers, mut known) = (Vec::new(), Vec::new(), Vec::new());
        for (index, number) in (0..count).zip(0..) {
            // SAFETY: the buffer is alive, and has this plane; every member of
            // the union is as good as another for its number.
            let (handle, stride, offset) = unsafe {
                (
                    (gbm.api.handle)(self.raw, number).number,
                    (gbm.api.stride)(self.raw, number),
                    (gbm.api.offset)(self.raw, number),
                )
            };
            let buffer = match known.iter().position(|each| *each == handle) {
                Some(buffer) => buffer,
                None => {
                    buffers.push(self.export_plane(index, number, handle)?);
                    known.push(handle);
                    known.len() - 1
                }
            };
            planes.push(Plane {
                buffer: u8::try_from(buffer).unwrap_or(u8::MAX),
                offset,
                stride,
            });
        }
        let (width, height) = self.size();
        let frame = Frame {
            width,
            height,
            fourcc: self.fourcc(),
            modifier: self.modifier(),
            planes,
        };
        let sizes: Vec<u64> = buffers.iter().map(Buffer::size).collect();
        frame
            .check(&sizes)
            .map_err(|error| nonsense(error.to_string()))?;
        Ok((frame, buffers))
    }

    fn export_plane(&self, plane: usize, number: c_int, handle: u32) -> Result<Buffer, GbmError> {
        // Not by GBM at first: where there is no GPU, its handle is for reading
        // alone, and so are all that the kernel gives after it.
        if let Ok(fd) = drm::prime_handle_to_fd(self.gbm.file.as_fd(), handle) {
            return Ok(Buffer::from_fd(fd)?);
        }
        let api = self.gbm.api;
        clear_errno();
        let fd = match api.fd_for_plane {
            // SAFETY: the buffer is alive, and has this plane.
            Some(fd_for_plane) => unsafe { fd_for_plane(self.raw, number) },
            // Older, and of the first plane alone.
            // SAFETY: the buffer is alive.
            None if plane == 0 => unsafe { (api.fd)(self.raw) },
            None => -1,
        };
        if fd < 0 {
            return Err(GbmError::Export {
                on: self.gbm.to_string(),
                plane,
                source: said(),
            });
        }
        // SAFETY: the driver gave this handle to be closed by the caller.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Buffer::from_fd(fd)?)
    }
}

impl Inner {
    fn create_listed(
        &self,
        width: u32,
        height: u32,
        fourcc: Fourcc,
        modifiers: &[u64],
        usage: Usage,
    ) -> api::Object {
        let Ok(count) = c_uint::try_from(modifiers.len()) else {
            return ptr::null_mut();
        };
        let list = modifiers.as_ptr();
        // That a list is linear says the list.
        let usage = (usage - Usage::LINEAR).bits();
        // SAFETY: the device is alive, and the list has `count` modifiers.
        unsafe {
            match self.api.create_with_modifiers2 {
                Some(create) => create(self.raw, width, height, fourcc.0, list, count, usage),
                // Older, and for scan-out.
                None => {
                    let create = self.api.create_with_modifiers;
                    create(self.raw, width, height, fourcc.0, list, count)
                }
            }
        }
    }

    /// GBM_BO_IMPORT_FD_MODIFIER.
    fn import_planes(
        &self,
        frame: &Frame,
        handles: &[BorrowedFd<'_>],
        usage: Usage,
    ) -> std::io::Result<api::Object> {
        let mut data = ImportFdModifier {
            width: frame.width,
            height: frame.height,
            format: frame.fourcc.0,
            modifier: frame.modifier,
            fds: [-1; MAX_PLANES],
            ..ImportFdModifier::default()
        };
        for (index, plane) in frame.planes.iter().enumerate() {
            data.fds[index] = handles[usize::from(plane.buffer)].as_raw_fd();
            data.strides[index] = int(plane.stride)?;
            data.offsets[index] = int(plane.offset)?;
            data.num_fds += 1;
        }
        let data = (&raw mut data).cast();
        // SAFETY: the device is alive, and the data is of this type, with open
        // handles, which the driver keeps only by references of its own.
        ask(|| unsafe { (self.api.import)(self.raw, api::IMPORT_FD_MODIFIER, data, usage.bits()) })
    }

    /// GBM_BO_IMPORT_FD, for a frame of one plane at the start of its buffer.
    fn import_plain(
        &self,
        frame: &Frame,
        handles: &[BorrowedFd<'_>],
        usage: Usage,
    ) -> Option<std::io::Result<api::Object>> {
        let [plane] = frame.planes[..] else {
            return None;
        };
        if plane.offset != 0 || ![LINEAR, INVALID].contains(&frame.modifier) {
            return None;
        }
        let mut data = ImportFd {
            fd: handles[usize::from(plane.buffer)].as_raw_fd(),
            width: frame.width,
            height: frame.height,
            stride: plane.stride,
            format: frame.fourcc.0,
        };
        let data = (&raw mut data).cast();
        // SAFETY: as in `import_planes`.
        let import = || unsafe { (self.api.import)(self.raw, api::IMPORT_FD, data, usage.bits()) };
        Some(ask(import))
    }

    /// Which part of what was asked for the driver most likely has not.
    fn suspect_of_allocation(&self, fourcc: Fourcc, modifiers: &[u64], usage: Usage) -> String {
        let own = |usage| {
            let modifier = INVALID;
            self.is_supported(Layout { fourcc, modifier }, usage)
        };
        if !own(Usage::empty()) {
            return format!("it is the format: it has no {fourcc}");
        }
        if !own(usage) {
            return format!("it is the usage: it has {fourcc}, but not for that");
        }
        if !modifiers.is_empty() {
            return "it is likely the modifiers: LINEAR, or none, suits most".to_owned();
        }
        "it is likely the size, or there is no memory left".to_owned()
    }

    /// Which part of the frame, or of its memory, the driver most likely
    /// refused.
    fn suspect_of_import(&self, frame: &Frame, handles: &[BorrowedFd<'_>], usage: Usage) -> String {
        let Frame {
            fourcc, modifier, ..
        } = *frame;
        let takes = |modifier, usage| self.is_supported(Layout { fourcc, modifier }, usage);
        if !takes(INVALID, Usage::empty()) {
            return format!("it is the format: it has no {fourcc}");
        }
        if !takes(INVALID, usage) {
            return format!("it is the usage: it has {fourcc}, but not for that");
        }
        if !takes(modifier, usage) {
            return format!("it is the modifier: it has {fourcc} in other layouts");
        }
        if let Some(errno) = handles.iter().find_map(|handle| self.foreign(*handle)) {
            return format!(
                "it is the memory: the driver does not import it at all \
                 (PRIME_FD_TO_HANDLE: {errno}), whatever DRM_CAP_PRIME says; \
                 allocate from this device"
            );
        }
        if frame.planes.len() > 1 {
            return "it is likely that there are several planes, which drivers without a GPU do \
                    not take"
                .to_owned();
        }
        "it is likely a stride or an offset (many drivers want multiples of 64 or 256), or the size"
            .to_owned()
    }

    /// What the kernel's driver says of a handle that it does not import.
    fn foreign(&self, handle: BorrowedFd<'_>) -> Option<rustix::io::Errno> {
        // A handle of an open file of its own, which goes with that.
        let file = OpenOptions::new().read(true).write(true).open(&self.path);
        let file = file.ok()?;
        let _ = drm::drop_master(file.as_fd());
        drm::prime_fd_to_handle(file.as_fd(), handle).err()
    }
}

fn usage_words(usage: Usage) -> String {
    let names: Vec<&str> = usage.iter_names().map(|(name, _)| name).collect();
    match names.is_empty() {
        true => "no usage".to_owned(),
        false => names.join(" and "),
    }
}

impl Drop for BufferObject {
    fn drop(&mut self) {
        // SAFETY: made on this device, which is alive, and destroyed once; what
        // was mapped borrowed it.
        unsafe { (self.gbm.api.destroy)(self.raw) };
    }
}

impl fmt::Debug for BufferObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((width, height), fourcc) = (self.size(), self.fourcc());
        write!(f, "BufferObject({width}x{height} {fourcc} on {})", self.gbm)
    }
}
/// A number of a frame as GBM takes it.
fn int(value: u32) -> std::io::Result<c_int> {
    c_int::try_from(value).map_err(std::io::Error::other)
}
