use proptest::prelude::*;

use super::payload::{Described, Layout, Memory};
use super::{Caps, CapsError, GstreamerError, Stamp, command, format, payload, place};
use crate::alloc::{Allocate, Memfd, Request};
use crate::buffer::Buffer;
use crate::frame::{Fourcc, Frame, FrameError, INVALID, LINEAR, Plane};

use std::time::Duration;

fn caps(text: &str) -> Caps {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn memfd(size: u64) -> Buffer {
    Memfd::new().allocate(&Request::new(size)).unwrap()
}

fn described() -> Described {
    Described {
        id: 0x0102_0304_0506_0708,
        stamp: Stamp {
            pts: Some(Duration::from_nanos(0x1112_1314_1516_1718)),
            dts: None,
            duration: Some(Duration::from_millis(40)),
            offset: Some(7),
            offset_end: None,
            flags: 0x40,
        },
        dma_buf: true,
        memories: vec![
            Memory {
                size: 0x2122,
                offset: 0x3132,
            },
            Memory { size: 1, offset: 0 },
        ],
        layout: Some(Layout {
            format: 23,
            width: 0x4142,
            height: 0x5152,
            planes: vec![(0x6162, 0x7172), (0x0102_0304_0506, -2)],
        }),
    }
}

/// As `gstunixfdsink.c` and `video_meta_serialize` write it, by hand.
#[test]
fn the_bytes_are_gstreamers() {
    let mut bytes = Vec::new();
    for word in [
        0x0102_0304_0506_0708u64,
        0x1112_1314_1516_1718,
        u64::MAX,
        40_000_000,
        7,
        u64::MAX,
    ] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(0x40u32.to_ne_bytes());
    bytes.extend([1, 2]);
    bytes.extend(1u16.to_ne_bytes());
    for word in [0x2122u64, 0x3132, 1, 0] {
        bytes.extend(word.to_ne_bytes());
    }
    let meta = bytes.len();
    bytes.extend([90, 0, 0, 0, 12, 0, 0, 0]);
    bytes.extend(b"GstVideoMeta\0\0");
    bytes.extend([0, 0, 0, 0, 23, 0, 0, 0]);
    bytes.extend([0x42, 0x41, 0, 0, 0x52, 0x51, 0, 0, 2, 0, 0, 0]);
    bytes.extend([0x62, 0x61, 0, 0, 0, 0, 0, 0, 6, 5, 4, 3, 2, 1, 0, 0]);
    bytes.extend([0x72, 0x71, 0, 0, 0xfe, 0xff, 0xff, 0xff]);
    bytes.extend([0; 16 + 8]);
    assert_eq!(bytes.len() - meta, 90);
    assert_eq!(described().write(), bytes);
    assert_eq!(Described::read(&bytes), Ok(described()));
    assert_eq!(payload::id_of(&bytes), Some(described().id));

    let command = command::command(payload::EOS, &[]);
    assert_eq!(command, [3u32.to_ne_bytes(), [0; 4]].concat());
}

#[test]
fn what_is_cut_short_is_refused() {
    let bytes = described().write();
    for end in 0..bytes.len() {
        let cut = Described::read(&bytes[..end]);
        let expected = match end {
            0..88 => GstreamerError::Short {
                command: payload::NEW_BUFFER,
                length: end,
            },
            _ => GstreamerError::Meta("it is cut short"),
        };
        assert_eq!(cut, Err(expected), "{end}");
    }
}

/// Such as `GstVideoCropMeta`, and what is to come.
#[test]
fn other_metas_are_passed_over() {
    let mut bytes = described().write();
    let video = bytes.split_off(88);
    bytes[54..56].copy_from_slice(&3u16.to_ne_bytes());
    let other = [&[22, 0, 0, 0, 5, 0, 0, 0], &b"Other\0\x09"[..], &[1; 7]].concat();
    let bytes = [&bytes[..], &other, &video, &other].concat();
    assert_eq!(Described::read(&bytes), Ok(described()));
    // One that says it is shorter than its own name, or has none.
    for length in [0u32, 8, 14] {
        let mut broken = bytes.clone();
        broken[88..92].copy_from_slice(&length.to_le_bytes());
        assert!(Described::read(&broken).is_err(), "{length}");
    }
    let mut later = bytes.clone();
    later[88 + 22 + 21] = 1;
    let later = Described::read(&later);
    assert!(matches!(later, Err(GstreamerError::Meta(_))), "{later:?}");
}

/// What gst-launch-1.0 1.26 says (`-v`).
#[test]
fn caps_of_gstreamer_are_read() {
    let camera = caps(
        "video/x-raw, format=(string)YUY2, width=(int)640, height=(int)360, \
         framerate=(fraction)30/1, interlace-mode=(string)progressive, \
         colorimetry=(string)2:4:16:1, pixel-aspect-ratio=(fraction)1/1",
    );
    assert_eq!(
        (camera.width, camera.height, camera.rate),
        (640, 360, (30, 1))
    );
    assert_eq!(camera.fourcc, Fourcc::new(*b"YUYV"));
    assert!(!camera.devices);
    let tiled = caps(
        "video/x-raw(memory:DMABuf, meta:GstVideoOverlayComposition), format=(string)DMA_DRM, \
         drm-format=(string)NV12:0x0100000000000002, width=(int)8, height=(int)4, \
         things=(string){ a, b }, quoted=(string)\"a\\\"b, width=(int)9\";",
    );
    assert!(tiled.devices);
    assert_eq!((tiled.modifier, tiled.width), (0x0100_0000_0000_0002, 8));
    assert!(matches!(tiled.frame(), Err(CapsError::Layout { .. })));
    // Without types, and with the old form for dma-bufs.
    let old = caps("video/x-raw(memory:DMABuf),format=NV12,width=4,height=2");
    assert_eq!((old.fourcc, old.devices), (Fourcc::new(*b"NV12"), true));
    for (text, field) in [
        ("video/x-raw, format=BGRx, width=(int)-4, height=2", "width"),
        (
            "video/x-raw, format=BGRx, width=[ 1, 4 ], height=2",
            "width",
        ),
        ("video/x-raw, format=BGRx, width=4", "height"),
        (
            "video/x-raw, format=BGRx, width=4, height=4294967296",
            "height",
        ),
        (
            "video/x-raw, format=DMA_DRM, width=4, height=4",
            "drm-format",
        ),
        (
            "video/x-raw, format=DMA_DRM, drm-format=NV12:2, width=4, height=4",
            "drm-format",
        ),
        (
            "video/x-raw, format=BGRx, width=4, height=4, interlace-mode=fields",
            "interlace-mode",
        ),
    ] {
        match text.parse::<Caps>() {
            Err(CapsError::Field { field: found, .. }) => assert_eq!(found, field),
            other => panic!("{text}: {other:?}"),
        }
    }
    let audio = "audio/x-raw, format=(string)S16LE".parse::<Caps>();
    assert_eq!(audio, Err(CapsError::NotVideo("audio/x-raw".into())));
    let gl = "video/x-raw(memory:GLMemory), format=RGBA, width=4, height=4".parse::<Caps>();
    assert_eq!(gl, Err(CapsError::Memory("memory:GLMemory".into())));
    let unknown = "video/x-raw, format=v210, width=4, height=4".parse::<Caps>();
    assert_eq!(unknown, Err(CapsError::Format("v210".into())));
    for broken in [
        "video/x-raw, width",
        "video/x-raw(memory:DMABuf",
        "video/x-raw, a=\"b",
        "video/x-raw, a=1; video/x-raw, a=2",
        "video/x-raw, a=)",
    ] {
        let read = broken.parse::<Caps>();
        assert!(
            matches!(read, Err(CapsError::Syntax(_))),
            "{broken}: {read:?}"
        );
    }
}

#[test]
fn frames_have_caps() {
    let mut frame = Frame::packed(4, 2, Fourcc::XRGB8888).unwrap();
    frame.modifier = 0x0100_0000_0000_0001;
    let tiled = Caps::of(&frame).unwrap();
    assert_eq!(
        tiled.to_string(),
        "video/x-raw(memory:DMABuf), format=(string)DMA_DRM, \
         drm-format=(string)XR24:0x0100000000000001, width=(int)4, height=(int)2, \
         interlace-mode=(string)progressive, pixel-aspect-ratio=(fraction)1/1, \
         framerate=(fraction)0/1"
    );
    assert_eq!(caps(&tiled.to_string()), tiled);
    frame.modifier = INVALID;
    assert!(matches!(Caps::of(&frame), Err(CapsError::Layout { .. })));
    // A format of no name there, and one with a blank in its code.
    let frame = Frame::packed(4, 2, Fourcc::new(*b"XR4H")).unwrap();
    assert!(Caps::of(&frame).unwrap().devices);
    let grey = Frame::packed(4, 2, Fourcc::new(*b"R8  ")).unwrap();
    let grey = Caps::of(&grey).unwrap().for_devices();
    assert_eq!(caps(&grey.to_string()), grey);
    let mut odd = frame;
    odd.fourcc = Fourcc(1);
    assert!(matches!(Caps::of(&odd), Err(CapsError::Format(_))));
}

/// Offsets and strides of `fill_planes` in GStreamer's video-info.c.
#[test]
fn the_usual_layout_is_gstreamers() {
    type Planes = &'static [(u32, u32)];
    let cases: [(&str, u32, u32, Planes); 9] = [
        ("BGRx", 5, 3, &[(0, 20)]),
        ("BGR", 5, 3, &[(0, 16)]),
        ("GRAY8", 5, 3, &[(0, 8)]),
        ("YUY2", 5, 3, &[(0, 12)]),
        ("NV12", 5, 3, &[(0, 8), (32, 8)]),
        ("NV16", 5, 3, &[(0, 8), (24, 8)]),
        ("I420", 5, 3, &[(0, 8), (32, 4), (40, 4)]),
        ("Y42B", 9, 3, &[(0, 12), (36, 8), (60, 8)]),
        ("P010_10LE", 5, 3, &[(0, 12), (48, 12)]),
    ];
    for (name, width, height, planes) in cases {
        let caps = caps(&format!(
            "video/x-raw, format={name}, width={width}, height={height}"
        ));
        let frame = caps.frame().unwrap();
        let found: Vec<_> = frame.planes.iter().map(|p| (p.offset, p.stride)).collect();
        assert_eq!(found, planes, "{name}");
        assert_eq!((frame.width, frame.height), (width, height));
    }
    // Room for two fields makes it another one.
    let fields = "video/x-raw, format=I420, width=4, height=6, interlace-mode=mixed";
    assert!(matches!(
        caps(fields).frame(),
        Err(CapsError::Layout { .. })
    ));
    assert!(caps(&fields.replace("=6", "=8")).frame().is_ok());
}

/// What a sink describes, a source understands.
fn passed(caps: &Caps, frame: &Frame, buffers: &[&Buffer]) -> Frame {
    let described = place::describe(3, caps, frame, buffers, &Stamp::default()).unwrap();
    let read = Described::read(&described.write()).unwrap();
    assert_eq!(read, described);
    let again: Vec<Buffer> = buffers.iter().map(|b| b.try_clone().unwrap()).collect();
    place::frame(caps, &read, &again).unwrap()
}

#[test]
fn layouts_pass() {
    let nv12 = Fourcc::new(*b"NV12");
    let buffers = [memfd(1 << 16), memfd(1 << 16)];
    let [one, two] = &buffers;
    let usual = Frame::packed(64, 32, nv12).unwrap();
    let caps = Caps::of(&usual).unwrap();
    let described = place::describe(3, &caps, &usual, &[one], &Stamp::default()).unwrap();
    assert_eq!(described.layout, None);
    assert_eq!(
        described.memories,
        [Memory {
            size: 3072,
            offset: 0
        }]
    );
    assert_eq!(passed(&caps, &usual, &[one]), usual);

    let mut apart = Frame::aligned(64, 32, nv12, 256).unwrap();
    assert_eq!(passed(&caps, &apart, &[one]), apart);
    let plane = |buffer, offset| Plane {
        buffer,
        offset,
        stride: 100,
    };
    apart.planes = vec![plane(1, 4096), plane(0, 12)];
    assert_eq!(passed(&caps, &apart, &[one, two]), apart);
}

#[test]
fn only_what_can_be_understood_is_sent() {
    let frame = Frame::packed(16, 16, Fourcc::XRGB8888).unwrap();
    let caps = Caps::of(&frame).unwrap();
    let buffer = memfd(4096);
    let describe = |frame: &Frame, buffers: &[&Buffer]| {
        place::describe(0, &caps, frame, buffers, &Stamp::default()).unwrap_err()
    };
    let mut other = frame.clone();
    other.width = 8;
    let error = describe(&other, &[&buffer]);
    assert!(matches!(error, GstreamerError::Mismatch { .. }), "{error}");
    assert_eq!(describe(&frame, &[]), GstreamerError::Buffers(0));
    assert_eq!(describe(&frame, &[&buffer; 5]), GstreamerError::Buffers(5));
    let mut wide = frame.clone();
    wide.planes[0].stride = 1 << 31;
    let error = describe(&wide, &[&buffer]);
    assert!(matches!(
        error,
        GstreamerError::Frame(FrameError::Size { .. })
    ));
}

/// Everything of it that a peer can get wrong.
#[test]
fn nothing_beyond_the_memory_is_believed() {
    let frame = Frame::packed(32, 32, Fourcc::XRGB8888).unwrap();
    let caps = Caps::of(&frame).unwrap();
    let buffer = [memfd(8192)];
    let good = Described {
        memories: vec![Memory {
            size: 4096,
            offset: 4096,
        }],
        layout: None,
        dma_buf: false,
        ..described()
    };
    let judge = |described: &Described| place::frame(&caps, described, &buffer);
    assert_eq!(judge(&good).unwrap().planes[0].offset, 4096);

    let with = |change: &dyn Fn(&mut Described)| {
        let mut changed = good.clone();
        change(&mut changed);
        judge(&changed).unwrap_err()
    };
    let is_dma_buf = with(&|d| d.dma_buf = true);
    assert!(matches!(
        is_dma_buf,
        GstreamerError::NotDmaBuf { memory: 0, .. }
    ));
    for (size, offset) in [(4097, 4096), (4096, 4097), (u64::MAX, 1), (1, u64::MAX)] {
        let error = with(&|d| d.memories = vec![Memory { size, offset }]);
        let found = 8192;
        let expected = GstreamerError::Range {
            memory: 0,
            offset,
            size,
            found,
        };
        assert_eq!(error, expected);
    }
    let short = with(&|d| d.memories[0].size = 4095);
    assert!(
        matches!(short, GstreamerError::Frame(FrameError::Size { .. })),
        "{short}"
    );
    let layout = |planes: &[(u64, i32)]| Layout {
        format: 8,
        width: 32,
        height: 32,
        planes: planes.to_vec(),
    };
    let planes = |planes: &[(u64, i32)]| {
        let layout = layout(planes);
        with(&move |d| d.layout = Some(layout.clone()))
    };
    for stride in [127, 0] {
        let error = planes(&[(0, stride)]);
        assert!(matches!(
            error,
            GstreamerError::Frame(FrameError::Stride { .. })
        ));
    }
    assert!(matches!(planes(&[(0, -128)]), GstreamerError::Meta(_)));
    for offset in [1, 4095] {
        let error = planes(&[(offset, 128)]);
        assert!(matches!(
            error,
            GstreamerError::Frame(FrameError::Size { .. })
        ));
    }
    for offset in [4096, u64::MAX, 1 << 32] {
        let error = planes(&[(offset, 128)]);
        assert!(matches!(error, GstreamerError::Plane { .. }), "{error}");
    }
    let larger = with(&|d| {
        d.layout = Some(Layout {
            width: 64,
            ..layout(&[(0, 128)])
        });
    });
    assert!(matches!(larger, GstreamerError::Meta(_)), "{larger}");
    assert_eq!(with(&|d| d.memories.clear()), GstreamerError::Empty);
}

#[test]
fn every_format_is_there_once() {
    for number in 0..130u32 {
        let name = |format: &&format::Format| format.number == number;
        assert!(format::all().iter().filter(name).count() <= 1, "{number}");
    }
    for format in format::all() {
        assert!(format.fourcc.planes().is_some(), "{}", format.name);
        let by = format::by_fourcc(format.fourcc).unwrap();
        assert_eq!(by.name, format::by_name(format.name).unwrap().name);
    }
}

fn any_described() -> impl Strategy<Value = Described> {
    let time = proptest::option::of(0..u64::MAX - 1);
    let memories = proptest::collection::vec(any::<(u64, u64)>(), 0..6);
    let planes = proptest::collection::vec(any::<(u64, i32)>(), 0..5);
    let layout = proptest::option::of((any::<[u32; 3]>(), planes));
    let stamp = (time.clone(), time.clone(), time.clone(), time.clone(), time);
    (any::<(u64, u32, bool)>(), stamp, memories, layout).prop_map(
        |((id, flags, dma_buf), times, memories, layout)| Described {
            id,
            stamp: Stamp {
                pts: times.0.map(Duration::from_nanos),
                dts: times.1.map(Duration::from_nanos),
                duration: times.2.map(Duration::from_nanos),
                offset: times.3,
                offset_end: times.4,
                flags,
            },
            dma_buf,
            memories: memories
                .into_iter()
                .map(|(size, offset)| Memory { size, offset })
                .collect(),
            layout: layout.map(|([format, width, height], planes)| Layout {
                format,
                width,
                height,
                planes,
            }),
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read(described in any_described()) {
        prop_assert_eq!(Described::read(&described.write()), Ok(described));
    }

    /// Whatever a sink says, the frame lies inside of the buffer.
    #[test]
    fn a_frame_is_inside_or_refused(
        described in any_described(),
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..8),
        size in 1u64..100_000,
    ) {
        let mut bytes = described.write();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(described) = Described::read(&bytes) {
            let caps = caps("video/x-raw, format=I420, width=16, height=16");
            let buffers: Vec<_> = described.memories.iter().map(|_| memfd(size)).collect();
            if let Ok(frame) = place::frame(&caps, &described, &buffers) {
                let sizes: Vec<u64> = buffers.iter().map(Buffer::size).collect();
                prop_assert_eq!(frame.check(&sizes), Ok(()));
            }
        }
    }

    #[test]
    fn any_caps_end_in_words(text in "(video/x-raw)?[ -~]{0,80}") {
        if let Ok(caps) = text.parse::<Caps>() {
            prop_assert_eq!(caps.to_string().parse::<Caps>(), Ok(caps));
        }
    }
}

/// Whatever a peer's format is: its caps say nothing else.
#[test]
fn fourcc_of_peer_stays_in_its_field() {
    let hostile = [
        *b",a=1",
        *b"\";b=",
        *b"\\\"\\\"",
        *b"(a)b",
        *b"{1,2",
        *b"[0;9",
        *b"<a>;",
        *b"a b'",
        *b"$#%&",
    ];
    for code in hostile {
        for modifier in [LINEAR, 0x0100_0000_0000_0002] {
            let fourcc = Fourcc::new(code);
            let frame = Frame {
                width: 8,
                height: 4,
                fourcc,
                modifier,
                planes: Vec::new(),
            };
            let in_caps = Caps::of(&frame);
            if code.contains(&b' ') {
                assert_eq!(in_caps, Err(CapsError::Format(fourcc.to_string())));
                continue;
            }
            let caps = in_caps.unwrap();
            assert_eq!(caps.to_string().parse::<Caps>(), Ok(caps.clone()), "{caps}");
        }
    }
    let frame = Frame {
        width: 8,
        height: 4,
        fourcc: Fourcc::new(*b"XR:0"),
        modifier: LINEAR,
        planes: Vec::new(),
    };
    assert_eq!(Caps::of(&frame), Err(CapsError::Format("XR:0".to_owned())));
}

/// What a sink's caps say is shown, and does nothing to a terminal.
#[test]
fn errors_of_caps_are_printable() {
    for text in [
        "a\u{202e}\u{2028}\u{1b}[31m, x=1",
        "video/x-raw(memory:\u{202e}\u{1b}), x=1",
        "video/x-raw, format=\u{202e}\u{2028}\u{1b}",
        "video/x-raw, format=BGRx, width=\u{202e}\u{1b}",
        "\u{202e}\u{1b}(",
    ] {
        let error = text.parse::<Caps>().unwrap_err().to_string();
        assert!(error.chars().all(crate::text::is_printable), "{error:?}");
    }
}
