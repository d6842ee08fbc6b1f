//! The controls of a device: what its user can turn, by number.

use bytemuck::Zeroable;
use rustix::io::{Errno, retry_on_intr};

use super::device::text;
use super::{Device, V4l2Error};
use crate::sys::v4l2::{self, QueryControl, QueryMenu};

/// No menu has more; a broken driver's may have no end.
const MOST_ITEMS: i64 = 1024;

/// A control whose value is a number: an integer, a switch (0 or 1), an item of
/// a menu, a set of bits.
///
/// ```no_run
/// // Not run: needs a camera.
/// use dmashare::import::v4l2::Device;
/// let camera = Device::find("vivid", "platform:vivid-000")?;
/// let text = camera.control("OSD Text Mode")?;
/// camera.set_control(&text, text.maximum)?; // no clock in the picture
/// assert_eq!(camera.get_control(&text)?, text.maximum);
/// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Control {
    /// `V4L2_CID_*`, or the driver's own.
    pub id: u32,
    /// Its name, for people.
    pub name: String,
    /// The least value.
    pub minimum: i64,
    /// The largest value.
    pub maximum: i64,
    /// What values are apart.
    pub step: u64,
    /// The value it has until set.
    pub default: i64,
    /// `V4L2_CTRL_TYPE_*`
    kind: u32,
}

impl Device {
    /// Its controls whose values are numbers.
    ///
    /// # Errors
    /// [`V4l2Error::Ioctl`].
    ///
    /// ```no_run
    /// // Not run: needs a camera.
    /// # use dmashare::import::v4l2::Device;
    /// for control in Device::open("/dev/video0")?.controls()? {
    ///     println!("{}: {} to {}", control.name, control.minimum, control.maximum);
    /// }
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn controls(&self) -> Result<Vec<Control>, V4l2Error> {
        let mut controls = Vec::new();
        let mut last = 0;
        loop {
            let mut query = QueryControl::zeroed();
            query.id = last | v4l2::CTRL_NEXT;
            match retry_on_intr(|| v4l2::query_control(self.0.node(), &mut query)) {
                // A driver that gives the same again would have us ask for ever.
                Ok(()) if query.id > last => last = query.id,
                // One without any may not know the call.
                Ok(()) | Err(Errno::INVAL | Errno::NOTTY) => return Ok(controls),
                Err(errno) => return Err(self.0.failed("QUERY_EXT_CTRL", errno)),
            }
            controls.extend(number(&query));
        }
    }

    /// The control of this name.
    ///
    /// # Errors
    /// [`V4l2Error::Control`] with those that it has instead, and
    /// [`V4l2Error::Ioctl`].
    ///
    /// ```no_run
    /// // Not run: needs a camera.
    /// # use dmashare::import::v4l2::Device;
    /// let pattern = Device::find("vivid", "")?.control("Test Pattern")?;
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn control(&self, name: &str) -> Result<Control, V4l2Error> {
        let mut names = Vec::new();
        for control in self.controls()? {
            if control.name == name {
                return Ok(control);
            }
            names.push(control.name);
        }
        Err(V4l2Error::Control {
            device: self.to_string(),
            control: name.to_owned(),
            problem: format!("there is none of this name, but: {}", names.join(", ")),
        })
    }

    /// The items of a menu, each with the value that stands for it; none of what
    /// is no menu. A device can leave values out.
    ///
    /// # Errors
    /// [`V4l2Error::Ioctl`].
    ///
    /// ```no_run
    /// // Not run: needs a camera.
    /// # use dmashare::import::v4l2::Device;
    /// let camera = Device::find("vivid", "")?;
    /// let pattern = camera.control("Test Pattern")?;
    /// let items = camera.menu(&pattern)?;
    /// let bars = items.iter().find(|(_, name)| name == "75% Colorbar");
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn menu(&self, control: &Control) -> Result<Vec<(i64, String)>, V4l2Error> {
        let mut items = Vec::new();
        let is_menu = matches!(control.kind, v4l2::CTRL_MENU | v4l2::CTRL_INTEGER_MENU);
        if !is_menu {
            return Ok(items);
        }
        // Both are counted in 32 bits, and there are not many.
        let values = control.minimum.max(0)..=control.maximum.min(MOST_ITEMS);
        for value in values {
            let mut query = QueryMenu::zeroed();
            query.id = control.id;
            query.index = u32::try_from(value).unwrap_or(u32::MAX);
            match retry_on_intr(|| v4l2::query_menu(self.0.node(), &mut query)) {
                Ok(()) => {}
                Err(Errno::INVAL) => continue,
                Err(errno) => return Err(self.0.failed("QUERYMENU", errno)),
            }
            let [a, b, c, d, e, f, g, h, ..] = query.name;
            let name = match control.kind {
                v4l2::CTRL_INTEGER_MENU => i64::from_ne_bytes([a, b, c, d, e, f, g, h]).to_string(),
                _ => text(&query.name),
            };
            items.push((value, name));
        }
        Ok(items)
    }

    /// The value that a control has.
    ///
    /// # Errors
    /// [`V4l2Error::Ioctl`]: `EACCES` for one that can only be set.
    ///
    /// ```no_run
    /// // Not run: needs a camera.
    /// # use dmashare::import::v4l2::Device;
    /// let camera = Device::open("/dev/video0")?;
    /// let value = camera.get_control(&camera.control("Brightness")?)?;
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn get_control(&self, control: &Control) -> Result<i64, V4l2Error> {
        let bytes = self
            .0
            .call("G_EXT_CTRLS", |node| v4l2::get_control(node, control.id))?;
        let [a, b, c, d, ..] = bytes;
        Ok(match control.kind {
            v4l2::CTRL_INTEGER64 => i64::from_ne_bytes(bytes),
            v4l2::CTRL_BITMASK => u32::from_ne_bytes([a, b, c, d]).into(),
            _ => i32::from_ne_bytes([a, b, c, d]).into(),
        })
    }

    /// Sets a control.
    ///
    /// # Errors
    /// [`V4l2Error::Control`] for a value beyond its range,
    /// [`V4l2Error::Busy`] where it cannot be changed while frames come, and
    /// [`V4l2Error::Ioctl`].
    ///
    /// ```no_run
    /// // Not run: needs a camera.
    /// # use dmashare::import::v4l2::Device;
    /// let camera = Device::open("/dev/video0")?;
    /// let brightness = camera.control("Brightness")?;
    /// camera.set_control(&brightness, brightness.default)?;
    /// # Ok::<(), dmashare::import::v4l2::V4l2Error>(())
    /// ```
    pub fn set_control(&self, control: &Control, value: i64) -> Result<(), V4l2Error> {
        let Control {
            minimum, maximum, ..
        } = *control;
        let beyond = || V4l2Error::Control {
            device: self.to_string(),
            control: control.name.clone(),
            problem: format!("{value} is not from {minimum} to {maximum}; set it to one that is"),
        };
        if !(minimum..=maximum).contains(&value) {
            return Err(beyond());
        }
        let narrow = |[a, b, c, d]: [u8; 4]| [a, b, c, d, 0, 0, 0, 0];
        let bytes = match control.kind {
            v4l2::CTRL_INTEGER64 => value.to_ne_bytes(),
            v4l2::CTRL_BITMASK => {
                let bits = u32::try_from(value).map_err(|_| beyond())?;
                narrow(bits.to_ne_bytes())
            }
            _ => {
                let value = i32::try_from(value).map_err(|_| beyond())?;
                narrow(value.to_ne_bytes())
            }
        };
        self.0.call("S_EXT_CTRLS", |node| {
            v4l2::set_control(node, control.id, bytes)
        })
    }
}

/// A control, if its value is one number and it can be had at all.
fn number(query: &QueryControl) -> Option<Control> {
    // Integer, boolean, menu, integer64, bitmask, menu of integers; no buttons,
    // headings, strings, structs and arrays.
    let is_number = matches!(
        query.kind,
        1 | 2
            | v4l2::CTRL_MENU
            | v4l2::CTRL_INTEGER64
            | v4l2::CTRL_BITMASK
            | v4l2::CTRL_INTEGER_MENU
    );
    if !is_number || query.elems > 1 || query.flags & v4l2::CTRL_DISABLED != 0 {
        return None;
    }
    Some(Control {
        id: query.id,
        name: text(&query.name),
        minimum: query.minimum,
        maximum: query.maximum,
        step: query.step,
        default: query.default,
        kind: query.kind,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_are_listed() {
        let of = |kind| {
            let mut query = QueryControl::zeroed();
            (query.id, query.kind, query.elems) = (0x0098_0900, kind, 1);
            number(&query)
        };
        for kind in [1, 2, 3, v4l2::CTRL_INTEGER64, v4l2::CTRL_BITMASK, 9] {
            assert!(of(kind).is_some(), "{kind}");
        }
        // A button, a heading, a string, and structs.
        for kind in [4, 6, 7, 0x100, 0x200] {
            assert_eq!(of(kind), None, "{kind}");
        }
    }
}
