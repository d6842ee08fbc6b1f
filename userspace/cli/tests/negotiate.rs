//! `dmashare negotiate` as people call it, with takers that need no device.

use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// A camera and a display, as files.
struct Takers(TempDir);

impl Takers {
    fn new() -> Takers {
        let takers = Takers(TempDir::new().unwrap());
        takers.write(
            "camera.json",
            r#"{"name": "the camera", "layouts": ["YUYV", "NV12"], "rows_align": 16}"#,
        );
        takers.write(
            "plane.json",
            r#"{"name": "the plane", "layouts": ["XR24", "XR24:0x100000000000001"],
                "stride_align": 64, "sync": ["cpu", "sync_file"]}"#,
        );
        takers.write(
            "yuv.json",
            r#"{"name": "the overlay", "layouts": ["NV12"], "stride_align": 256}"#,
        );
        takers
    }

    fn write(&self, name: &str, json: &str) {
        std::fs::write(self.0.path().join(name), json).unwrap();
    }

    fn negotiate(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_dmashare"))
            .arg("negotiate")
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .unwrap()
    }

    /// What it prints, where it ends with this status.
    fn prints(&self, arguments: &[&str], status: i32) -> String {
        let output = self.negotiate(arguments);
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        assert_eq!(output.stderr.is_empty(), status == 0, "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str], status: i32) -> Value {
        let printed = self.prints(&[arguments, &["--json"]].concat(), status);
        serde_json::from_str(&printed).unwrap()
    }
}

#[test]
fn a_plan_with_its_reasons() {
    let takers = Takers::new();
    let of = [
        "file:camera.json",
        "cpu",
        "file:yuv.json",
        "--size",
        "100x50",
    ];
    let printed = takers.prints(&of, 0);
    // 64 rows of luma, and 32 of chroma.
    let plan = "100x50 NV12 linear, stride 256 and 256, 24576 bytes, from memfd";
    assert!(printed.contains(plan), "{printed}");
    for reason in [
        "the camera leaves YUYV, NV12 linear",
        "strides are aligned by the overlay (256)",
        "there is room for groups of rows by the camera (16)",
        "from the CPU to the overlay: ",
    ] {
        assert!(printed.contains(reason), "{printed}");
    }
    let json = takers.json(&of, 0);
    assert_eq!(json["takers"].as_array().unwrap().len(), 3);
    assert_eq!(json["plan"]["layout"], "NV12");
    assert_eq!(json["plan"]["planes"][1]["offset"], 256 * 64);
    assert_eq!(json["plan"]["bytes"], 24576);
    assert!(json.get("conflict").is_none());
}

#[test]
fn a_conflict_with_the_way_round_it() {
    let takers = Takers::new();
    let of = ["file:camera.json", "peer", "file:plane.json"];
    let printed = takers.prints(&of, 1);
    for words in [
        "the camera takes YUYV, NV12 linear only; the plane takes XR24 linear, ",
        "no format in common; nearest: the camera -> YUYV linear -> the CPU converts -> ",
    ] {
        assert!(printed.contains(words), "{printed}");
    }
    let said = String::from_utf8(takers.negotiate(&of).stderr).unwrap();
    assert_eq!(
        said,
        "dmashare: 2 takers are at odds over format and modifier\n"
    );
    let json = takers.json(&of, 1);
    let at_odds = &json["conflict"]["takers"];
    assert_eq!(*at_odds, serde_json::json!(["the camera", "the plane"]));
    assert_eq!(json["conflict"]["nearest"]["first"]["layout"], "YUYV");
    // Who reads what the camera writes, and writes what the plane reads.
    let gpu = ["--converter", "file:camera.json", "file:plane.json"];
    let json = takers.json(&[&of[..], &gpu].concat(), 1);
    assert_eq!(json["conflict"]["nearest"]["converter"], "the camera");
}

#[test]
fn what_is_preferred_comes_first() {
    let takers = Takers::new();
    let of = ["cpu", "file:camera.json"];
    assert_eq!(takers.json(&of, 0)["plan"]["layout"], "YUYV");
    let preferred = takers.json(&[&of[..], &["--prefer", "NV12"]].concat(), 0);
    assert_eq!(preferred["plan"]["layout"], "NV12");
}

/// What `--json` prints of a taker is a file that describes it.
#[test]
fn a_printed_taker_can_be_read() {
    let takers = Takers::new();
    let printed = takers.json(&["file:plane.json"], 0);
    takers.write("again.json", &printed["takers"][0].to_string());
    assert_eq!(takers.json(&["file:again.json"], 0), printed);
}

#[test]
fn what_cannot_be_is_wrong_usage() {
    let takers = Takers::new();
    takers.write("field.json", r#"{"name": "it", "layout": ["XR24"]}"#);
    takers.write("format.json", r#"{"name": "it", "layouts": ["XRGB8888"]}"#);
    for (arguments, words) in [
        (&[][..], "TAKER"),
        (&["gpu"], "\"gpu\" is no taker"),
        (&["cpu", "--size", "0x1"], "1920x1080"),
        (&["cpu", "--prefer", "XRGB8888"], "drm_fourcc.h"),
        (&["cpu", "--converter", "cpu"], "2 values"),
        (&["file:none.json"], "none.json: No such file"),
        (&["file:field.json"], "field.json: unknown field `layout`"),
        (&["file:format.json"], "\"XRGB8888\" is no format"),
    ] {
        let output = takers.negotiate(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty() && said.contains(words), "{said}");
    }
}
