//! Which ways work here.

use std::fmt;

use super::{AllocError, Request, Way};

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
    /// Whether it gave a page of memory; if not, why, and what would help.
    pub verdict: Result<(), AllocError>,
}

/// Tries each way, by allocating a page and giving it back.
///
/// ```
/// use dmashare::alloc::{Way, probe};
/// let probe = probe();
/// println!("{probe}");
/// assert!(probe.row(Way::Memfd).verdict.is_ok());
/// ```
pub fn probe() -> Probe {
    let rows = Way::ALL.map(|way| Row {
        way,
        verdict: try_out(way),
    });
    Probe { rows: rows.into() }
}

fn try_out(way: Way) -> Result<(), AllocError> {
    let mut request = Request::new(1).named("dmashare probe");
    request.device = way.for_devices();
    way.open()?.allocate(&request)?;
    Ok(())
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
    ///     Ok(()) => println!("/dev/udmabuf works"),
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
            Ok(()) => f.write_str("usable"),
            Err(reason) => write!(f, "{reason}"),
        }
    }
}
