//! The result as a picture: a bar for each way, on a logarithmic scale, since
//! they lie hundreds of times apart.

use std::fmt::Write as _;
use std::path::Path;

use super::Row;
use crate::failure::Failure;

const WIDTH: f64 = 820.0;
const BAR: f64 = 22.0;
const LEFT: f64 = 180.0;
const TOP: f64 = 60.0;
/// From 1 us to 100 ms.
const DECADES: i32 = 5;

pub(super) fn draw(path: &Path, rows: &[Row]) -> Result<(), Failure> {
    std::fs::write(path, picture(rows))
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

/// Where a time of so many microseconds lies, in pixels.
fn place(us: f64) -> f64 {
    let share = us.max(1.0).log10() / f64::from(DECADES);
    LEFT + share.min(1.0) * (WIDTH - LEFT - 90.0)
}

fn picture(rows: &[Row]) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a handful of rows")]
    let bottom = TOP + rows.len() as f64 * (BAR + 8.0);
    let mut svg = String::new();
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"26\" font-size=\"16\">Time to hand over a frame, in microseconds \
         (median)</text>\n",
        bottom + 40.0
    );
    for decade in 0..=DECADES {
        let us = 10f64.powi(decade);
        let x = place(us);
        let _ = write!(
            svg,
            "<line x1=\"{x}\" y1=\"{}\" x2=\"{x}\" y2=\"{bottom}\" stroke=\"#dddddd\"/>\n\
             <text x=\"{x}\" y=\"{}\" text-anchor=\"middle\" fill=\"#666666\">{us}</text>\n",
            TOP - 8.0,
            bottom + 18.0
        );
    }
    let mut y = TOP;
    for row in rows {
        let end = place(row.us);
        let color = if row.way == super::Way::Fd {
            "#2a7f62"
        } else {
            "#b0632c"
        };
        let middle = y + BAR * 0.7;
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{} {}</text>\n\
             <rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{color}\"/>\n\
             <text x=\"{:.1}\" y=\"{middle}\">{:.0}</text>\n",
            LEFT - 8.0,
            row.size,
            row.way,
            end - LEFT,
            end + 6.0,
            row.us
        );
        y += BAR + 8.0;
    }
    svg += "</svg>\n";
    svg
}
