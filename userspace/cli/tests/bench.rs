//! `dmashare bench`, with as few frames as it takes: that it measures every way
//! to its end, not how fast this machine is.

use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

#[test]
fn every_way_is_measured_and_drawn() {
    let folder = TempDir::new().unwrap();
    let svg = folder.path().join("bench.svg");
    let output = Command::new(env!("CARGO_BIN_EXE_dmashare"))
        .args(["bench", "--frames", "2", "--json", "--svg"])
        .arg(&svg)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let ways = ["fd", "fd-read", "fd-map", "memcpy", "socket", "pipe"];
    let expected: Vec<_> = ["1080p", "4K"]
        .iter()
        .flat_map(|size| ways.map(|way| (*size, way)))
        .collect();
    let found: Vec<_> = rows
        .iter()
        .map(|row| (row["size"].as_str().unwrap(), row["way"].as_str().unwrap()))
        .collect();
    assert_eq!(found, expected);
    for row in &rows {
        for figure in ["us", "us_95", "cpu_us", "times_fd"] {
            assert!(row[figure].as_f64().unwrap() > 0.0, "{figure} of {row}");
        }
    }
    let drawn = std::fs::read_to_string(svg).unwrap();
    assert_eq!(drawn.matches("<rect").count(), 1 + rows.len());
    assert!(drawn.ends_with("</svg>\n"));
}

#[test]
fn what_cannot_be_measured() {
    for (arguments, status) in [
        (&["bench", "--frames", "1"][..], 2),
        (&["bench", "--frames", "2", "--svg", "/no/such/folder/x"], 2),
        // The consumer without its producer.
        (&["bench-consumer", "fd", "100", "1"], 1),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_dmashare"))
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
}
