//! How tables look.

use comfy_table::{ContentArrangement, LineStyle, Row, Table, TableStyle};

/// A line below the header and no other: rows are short, and logs narrow.
const STYLE: TableStyle =
    TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// An empty table, as wide as the terminal.
pub(crate) fn new(header: impl Into<Row>) -> Table {
    let mut table = Table::new();
    table
        .load_style(STYLE)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    table
}
