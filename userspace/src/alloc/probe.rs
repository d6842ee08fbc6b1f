//! Which ways work here.

use std::fmt;

use super::{AllocError, Offer, Request, Way};

/// Which ways to allocate work on this system, and what would help the others.
///
/// It prints as a line for each way.
#[derive(Clone, Debug)]
pub struct Probe {
    rows: Vec<Row>,
}

/// What the probe found out about one way.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Row {
    /// The way.
    pub way: Way,
    /// What it offers, found out by allocating a page; if it gave none, why,
    /// and what would help.
    pub verdict: Result<Offer, AllocError>,
}

/// Tries each way, by allocating a page and giving it back.
///
/// ```
/// use dmashare::alloc::{Way, probe};
/// let probe = probe();
/// println!("{probe}");
/// let memfd = probe.row(Way::Memfd).verdict.as_ref().unwrap();
/// assert!(memfd.sealable && !memfd.devices);
/// ```
pub fn probe() -> Probe {
    let rows = Way::ALL.map(|way| Row {
        way,
        verdict: try_out(way),
    });
    Probe { rows: rows.into() }
}

fn try_out(way: Way) -> Result<Offer, AllocError> {
    let mut request = Request::new(1).named("dmashare probe");
    if way.for_devices() {
        request = request.for_device();
    }
    let buffer = way.open()?.allocate(&request)?;
    Offer::new(way, buffer.kind())
}

impl Probe {
    /// What was found, in the order in which [`allocate`](super::allocate)
    /// asks.
    ///
    /// ```
    /// # use dmashare::alloc::{Way, probe};
    /// let probe = probe();
    /// let ways: Vec<Way> = probe.rows().iter().map(|row| row.way).collect();
    /// assert_eq!(ways, Way::ALL);
    /// ```
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// What was found about this way.
    ///
    /// ```
    /// # use dmashare::alloc::{Way, probe};
    /// match &probe().row(Way::Udmabuf).verdict {
    ///     Ok(offer) => println!("/dev/udmabuf gives up to {} bytes", offer.largest.bytes),
    ///     Err(why) => println!("{why}"),
    /// }
    /// ```
    pub fn row(&self, way: Way) -> &Row {
        self.rows
            .iter()
            .find(|row| row.way == way)
            .expect("a probe has a row for every way")
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, row) in self.rows.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            write!(f, "{row}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<9}", self.way)?;
        match &self.verdict {
            Ok(offer) => write!(f, "usable, {offer}"),
            Err(reason) => write!(f, "{reason}"),
        }
    }
}
