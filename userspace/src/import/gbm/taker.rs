//! What a GBM device can take, for who chooses a layout for several.

use super::{Gbm, Usage};
use crate::alloc::{Request, allocate};
use crate::frame::{Fourcc, Frame};
use crate::negotiate::{Layout, Memory, Taker};

/// What rows of a linear frame start at, that suits all devices known here.
const ALIGN: u32 = 256;

/// What GBM is asked for: it lists no formats.
const FORMATS: [&[u8; 4]; 16] = [
    b"XR24", b"AR24", b"XB24", b"AB24", b"RG16", b"XR30", b"AR30", b"XB30", b"AB30", b"XB4H",
    b"AB4H", b"R8  ", b"GR88", b"R16 ", b"NV12", b"YUYV",
];

impl Gbm {
    /// What [`import`](Gbm::import) takes for this usage: of linear layouts what
    /// the driver says, and of memory what it was seen to import, since it does
    /// not tell. For that a small dma-buf is allocated, and imported.
    ///
    /// ```no_run
    /// // Not run: needs a DRM device.
    /// # use dmashare::import::gbm::{Gbm, GbmError, Usage};
    /// # use dmashare::negotiate::Memory;
    /// let taker = Gbm::open("/dev/dri/card0")?.taker(Usage::SCANOUT);
    /// if let Memory::Own { why, .. } = &taker.memory {
    ///     println!("{}: {why}", taker.name);
    /// }
    /// # Ok::<(), GbmError>(())
    /// ```
    pub fn taker(&self, usage: Usage) -> Taker {
        let mut taker = Taker::new(self.to_string());
        let all = FORMATS
            .iter()
            .map(|code| Layout::linear(Fourcc::new(**code)));
        let supported = all.filter(|layout| self.is_supported(*layout, usage));
        // A driver that takes one plane need not take several, nor say so.
        let supported = supported.filter(|layout| {
            layout.fourcc.planes() == Some(1) || self.try_foreign(layout.fourcc, usage).is_ok()
        });
        taker.layouts = Some(supported.collect());
        (taker.stride_align, taker.offset_align) = (ALIGN, ALIGN);
        taker.memory = match self.try_foreign(Fourcc::XRGB8888, usage) {
            Ok(()) => Memory::AnyDmaBuf,
            Err(why) => Memory::Own {
                node: self.path().to_owned(),
                why,
            },
        };
        taker
    }

    /// Imports a dma-buf of another, or says why not.
    fn try_foreign(&self, fourcc: Fourcc, usage: Usage) -> Result<(), String> {
        let frame = Frame::aligned(64, 16, fourcc, ALIGN);
        let frame = frame.map_err(|error| error.to_string())?;
        let size = frame.size_of_buffer(0).map_err(|error| error.to_string())?;
        let request = Request::new(size).named("gbm try").for_device();
        let made =
            allocate(&request).map_err(|error| format!("nothing to try it with: {error}"))?;
        let imported = self.import(&frame, &[&made.buffer], usage);
        imported.map(drop).map_err(|error| error.to_string())
    }
}
