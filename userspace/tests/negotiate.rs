//! What holds of every negotiation, whatever the takers and the sources are.

use std::collections::BTreeSet;
use std::path::PathBuf;

use dmashare::alloc::Way;
use dmashare::frame::{Fourcc, INVALID, LINEAR};
use dmashare::negotiate::{
    Conflict, Layout, Memory, Origin, Over, Picture, Plan, Reach, Source, Sync, Taker, negotiate,
};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;

const TILED: u64 = 0x0100_0000_0000_0001;
const UNKNOWN: [u8; 4] = *b"????";

fn layout() -> impl Strategy<Value = Layout> {
    let fourccs = vec![*b"XR24", *b"AR24", *b"NV12", *b"YU12", *b"YUYV", UNKNOWN];
    let modifiers = vec![LINEAR, LINEAR, TILED, INVALID];
    (select(fourccs), select(modifiers)).prop_map(|(code, modifier)| Layout {
        fourcc: Fourcc::new(code),
        modifier,
    })
}

/// Mostly what devices ask for, and all else that fits the field.
fn align() -> impl Strategy<Value = u32> {
    prop_oneof![
        6 => select(vec![0, 1, 1, 2, 3, 16, 48, 64, 256, 4096]),
        1 => select(vec![u32::MAX, u32::MAX - 1, 1 << 31, 65_537]),
        1 => any::<u32>(),
    ]
}

fn pixels() -> impl Strategy<Value = u32> {
    prop_oneof![
        8 => 1..2000u32,
        1 => select(vec![0, 1, u32::MAX, u32::MAX / 4, 1 << 16]),
        1 => any::<u32>(),
    ]
}

fn range() -> impl Strategy<Value = std::ops::RangeInclusive<u32>> {
    prop_oneof![
        4 => Just(1..=u32::MAX),
        1 => (pixels(), pixels()).prop_map(|(from, to)| from..=to),
    ]
}

fn node() -> impl Strategy<Value = PathBuf> {
    select(vec!["/dev/dri/card0", "/dev/dri/card1"]).prop_map(PathBuf::from)
}

fn memory() -> impl Strategy<Value = Memory> {
    let own = node().prop_map(|node| Memory::Own {
        node,
        why: "PRIME_FD_TO_HANDLE: ENODEV".into(),
    });
    prop_oneof![2 => Just(Memory::Any), 2 => Just(Memory::AnyDmaBuf), 1 => own]
}

fn reach() -> impl Strategy<Value = Reach> {
    prop_oneof![4 => Just(Reach::All), 1 => Just(Reach::Below4G)]
}

fn taker() -> impl Strategy<Value = Taker> {
    let layouts = proptest::option::weighted(0.8, btree_set(layout(), 0..10));
    let sync = (0..8u32).prop_map(Sync::from_bits_truncate);
    let name = select(vec!["plane", "camera", "GPU"]);
    (
        (name, layouts, range(), range()),
        (align(), align(), align()),
        (prop::bool::weighted(0.2), reach(), memory(), sync),
    )
        .prop_map(|(what, aligns, how)| {
            let mut taker = Taker::new(what.0);
            (taker.layouts, taker.width, taker.height) = (what.1, what.2, what.3);
            (taker.stride_align, taker.offset_align, taker.rows_align) = aligns;
            (taker.contiguous, taker.reach, taker.memory, taker.sync) = how;
            taker
        })
}

fn origin() -> impl Strategy<Value = Origin> {
    prop_oneof![
        select(vec![Way::Memfd, Way::DmaHeap, Way::Udmabuf, Way::Module]).prop_map(Origin::Way),
        node().prop_map(Origin::Dumb),
        node().prop_map(Origin::Gbm),
    ]
}

fn source() -> impl Strategy<Value = Source> {
    let largest = prop_oneof![3 => Just(u64::MAX), 1 => any::<u64>(), 1 => 0..1u64 << 24];
    let flags = (any::<bool>(), prop::bool::weighted(0.9), reach());
    (
        origin(),
        btree_set(layout(), 0..10),
        flags,
        align(),
        largest,
    )
        .prop_map(
            |(origin, layouts, (contiguous, mappable, reach), align, largest)| {
                let mut source = Source::new(origin);
                source.layouts = source.layouts.map(|_| layouts);
                (source.contiguous, source.mappable, source.reach) = (contiguous, mappable, reach);
                (source.stride_align, source.largest) = (align, largest);
                source
            },
        )
}

fn picture() -> impl Strategy<Value = Picture> {
    let preferred = vec(layout().prop_map(|layout| layout.fourcc), 0..3);
    (pixels(), pixels(), preferred).prop_map(|(width, height, preferred)| {
        preferred
            .into_iter()
            .fold(Picture::new(width, height), Picture::prefer)
    })
}

type Case = (Picture, Vec<Taker>, Vec<Source>);

fn case() -> impl Strategy<Value = Case> {
    (picture(), vec(taker(), 0..6), vec(source(), 0..5))
}

/// Takers that want what devices want, so that most of them agree.
fn agreeing() -> impl Strategy<Value = Case> {
    let formats = vec![*b"XR24", *b"NV12", *b"YU12"];
    let layouts = btree_set(select(formats).prop_map(Fourcc::new), 2..4)
        .prop_map(|fourccs| fourccs.into_iter().map(Layout::linear).collect());
    let aligns = (align_of_device(), align_of_device(), align_of_device());
    let taker = (taker(), layouts, aligns).prop_map(|(mut taker, layouts, aligns)| {
        taker.layouts = Some(layouts);
        (taker.width, taker.height) = (1..=u32::MAX, 1..=u32::MAX);
        (taker.stride_align, taker.offset_align, taker.rows_align) = aligns;
        taker
    });
    let picture = (1..2000u32, 1..2000u32).prop_map(|(width, height)| Picture::new(width, height));
    (picture, vec(taker, 1..4), vec(source(), 4..8))
}

/// Takers and sources of one format in every layout.
fn of_drivers() -> impl Strategy<Value = Case> {
    let layouts = || {
        btree_set(select(vec![LINEAR, TILED, INVALID]), 1..=3).prop_map(|modifiers| {
            let layouts = modifiers.into_iter().map(|modifier| Layout {
                fourcc: Fourcc::XRGB8888,
                modifier,
            });
            layouts.collect::<BTreeSet<_>>()
        })
    };
    let taker = (proptest::option::weighted(0.7, layouts()), memory());
    let taker = taker.prop_map(|(layouts, memory)| {
        let mut taker = Taker::new("it");
        (taker.layouts, taker.memory) = (layouts, memory);
        taker
    });
    let source = (origin(), layouts()).prop_map(|(origin, layouts)| {
        let mut source = Source::new(origin);
        source.layouts = source.layouts.map(|_| layouts);
        source
    });
    let picture = Just(Picture::new(64, 64));
    (picture, vec(taker, 1..5), vec(source, 1..5))
}

fn any_case() -> impl Strategy<Value = Case> {
    prop_oneof![case(), agreeing(), of_drivers()]
}

fn align_of_device() -> impl Strategy<Value = u32> {
    select(vec![0, 1, 2, 8, 12, 64, 100, 256])
}

/// What a plan says of the buffer, whoever hands it to whom.
fn buffer(plan: Plan) -> impl PartialEq + std::fmt::Debug {
    (
        (plan.layout, plan.layouts, plan.origin, plan.passed_over),
        (plan.frame, plan.bytes),
        (plan.dma_buf, plan.contiguous, plan.reach),
    )
}

/// What a conflict says of those in it.
fn at_odds(conflict: Conflict) -> (Over, Vec<Taker>, String) {
    (conflict.over, conflict.takers, conflict.why)
}

/// Whether each of them takes what was planned for all.
fn holds(takers: &[Taker], sources: &[Source], plan: &Plan) -> Result<(), TestCaseError> {
    let gives = |source: &Source| {
        let strides = plan.frame.iter().flat_map(|frame| &frame.planes);
        let align = source.stride_align.max(1);
        source.origin == plan.origin
            && source.dma_buf == plan.dma_buf
            && (source.contiguous || !plan.contiguous)
            && source.reach >= plan.reach
            && source.largest >= plan.bytes.unwrap_or(0)
            && strides.into_iter().all(|plane| plane.stride % align == 0)
    };
    prop_assert!(sources.iter().any(gives), "{}", plan);
    let (frame, bytes) = match (&plan.frame, plan.bytes) {
        (Some(frame), Some(bytes)) => (frame.clone(), bytes),
        // The driver decides on the rest; what can be said of it holds.
        _ => {
            for taker in takers {
                let named = taker.layouts.as_ref();
                let implicit = plan.layout.modifier == INVALID;
                prop_assert!(named.map_or(!implicit, |named| named.contains(&plan.layout)));
                let known = match &taker.memory {
                    Memory::Own { node, .. } => plan.origin.node() == Some(node),
                    _ => !implicit,
                };
                prop_assert!(known);
            }
            prop_assert!(plan.request().is_err() && plan.allocate().is_err());
            return Ok(());
        }
    };
    for taker in takers {
        let accepted = taker.accepts(&frame, &plan.backing(bytes));
        prop_assert_eq!(accepted, Ok(()), "{}", plan);
    }
    let (width, height) = (u128::from(frame.width), u128::from(frame.height));
    // Of no format here more than 4 bytes a pixel, in at most three planes.
    let packed = 4 * width.next_multiple_of(2) * height.next_multiple_of(2);
    let ordinary = (4 * width).next_multiple_of(4096) * height.next_multiple_of(64) + 65536;
    prop_assert!(
        u128::from(bytes) <= (4 * packed).max(3 * ordinary),
        "{}",
        plan
    );
    let request = plan.request().unwrap();
    prop_assert_eq!((request.size, request.frame), (bytes, Some(frame)));
    prop_assert!(plan.dma_buf || !request.usage.needs_dma_buf());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_suits_every_taker((picture, takers, sources) in any_case()) {
        match negotiate(&picture, &takers, &sources) {
            Ok(plan) => holds(&takers, &sources, &plan)?,
            // Each half of the nearest is a plan of its own.
            Err(Conflict { nearest: Some(nearest), .. }) => {
                prop_assert_eq!(nearest.before.len() + nearest.after.len(), takers.len());
                prop_assert!(nearest.before.contains(&takers[0].name));
                let halves = [&nearest.first, &nearest.second];
                for half in halves {
                    holds(&[Taker::cpu()], &sources, half)?;
                }
                for taker in &takers {
                    let alone = std::slice::from_ref(taker);
                    prop_assert!(halves.iter().any(|half| holds(alone, &sources, half).is_ok()));
                }
            }
            Err(conflict) => prop_assert!(!conflict.to_string().is_empty()),
        }
    }

    #[test]
    fn the_order_of_takers_does_not_matter(
        (picture, takers, sources) in any_case(),
        keys in vec(any::<u64>(), 6),
    ) {
        let mut other: Vec<(u64, Taker)> = keys.into_iter().zip(takers.clone()).collect();
        other.sort_by_key(|(key, _)| *key);
        let other: Vec<Taker> = other.into_iter().map(|(_, taker)| taker).collect();
        let one = negotiate(&picture, &takers, &sources);
        let other = negotiate(&picture, &other, &sources);
        prop_assert_eq!(one.map(buffer).map_err(at_odds), other.map(buffer).map_err(at_odds));
    }

    #[test]
    fn one_more_taker_makes_no_peace((picture, takers, sources) in any_case(), one in taker()) {
        if negotiate(&picture, &takers, &sources).is_err() {
            let more = [takers, vec![one]].concat();
            prop_assert!(negotiate(&picture, &more, &sources).is_err());
        }
    }

    #[test]
    fn a_conflict_needs_each_of_its_takers((picture, takers, sources) in any_case()) {
        let Err(conflict) = negotiate(&picture, &takers, &sources) else { return Ok(()) };
        prop_assert!(conflict.takers.iter().all(|taker| takers.contains(taker)));
        let again = negotiate(&picture, &conflict.takers, &sources);
        prop_assert_eq!(again.map_err(at_odds), Err(at_odds(conflict.clone())));
        for without in 0..conflict.takers.len() {
            let mut fewer = conflict.takers.clone();
            fewer.remove(without);
            prop_assert!(negotiate(&picture, &fewer, &sources).is_ok());
        }
    }

    #[test]
    fn a_taker_travels(taker in taker()) {
        prop_assert_eq!(Taker::from_bytes(&taker.to_bytes().unwrap()), Ok(taker));
    }

    /// What is read says just what its bytes say.
    #[test]
    fn hostile_bytes_are_refused_or_read_whole(
        taker in taker(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        more in vec(any::<u8>(), 0..4),
    ) {
        let mut bytes = taker.to_bytes().unwrap();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.extend(more);
        if let Ok(taker) = Taker::from_bytes(&bytes) {
            prop_assert_eq!(taker.to_bytes(), Ok(bytes));
        }
    }

    #[test]
    fn random_bytes_are_no_taker(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(Taker::from_bytes(&bytes).is_err());
    }
}

fn linear(name: &str, codes: &[&[u8; 4]]) -> Taker {
    let layouts = codes.iter().map(|code| Layout::linear(Fourcc::new(**code)));
    let mut taker = Taker::new(name);
    taker.layouts = Some(layouts.collect());
    taker.memory = Memory::AnyDmaBuf;
    taker
}

fn heap() -> Source {
    Source::new(Origin::Way(Way::DmaHeap))
}

/// The properties say little of cases that never come: here are some of each
/// outcome that must.
#[test]
fn both_outcomes_are_common() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut plans, mut over, mut nearest) = (0, BTreeSet::new(), 0);
    for round in 0..2000 {
        let (picture, takers, sources) = match round % 2 {
            0 => case().new_tree(&mut runner).unwrap().current(),
            _ => agreeing().new_tree(&mut runner).unwrap().current(),
        };
        match negotiate(&picture, &takers, &sources) {
            Ok(plan) => plans += usize::from(!takers.is_empty() && plan.frame.is_some()),
            Err(conflict) => {
                nearest += usize::from(conflict.nearest.is_some());
                over.insert(conflict.over);
            }
        }
    }
    assert!(
        plans > 200 && nearest > 50,
        "{plans} plans, {nearest} nearest"
    );
    assert_eq!(over.len(), 8, "{over:?}");
}

#[test]
fn alignments_are_those_of_all() {
    let mut gpu = linear("GPU", &[b"NV12"]);
    (gpu.stride_align, gpu.rows_align) = (64, 16);
    let mut camera = linear("camera", &[b"NV12", b"YUYV"]);
    (camera.stride_align, camera.offset_align) = (48, 4096);
    let plan = negotiate(&Picture::new(100, 50), &[camera, gpu], &[heap()]).unwrap();
    let frame = plan.frame.as_ref().unwrap();
    // 192 is what both 64 and 48 divide; 64 rows of luma, 32 of chroma.
    assert_eq!(frame.planes[0].stride, 192);
    assert_eq!(frame.planes[1].offset, 12288); // 192 * 64 is 3 pages
    assert_eq!(plan.bytes, Some(12288 + 192 * 32));
    let said = plan.to_string();
    assert!(
        said.contains("strides are aligned by camera (48), GPU (64)"),
        "{said}"
    );
}

/// 640x480 became 503 MB by a stride, and 5 TB by a group of rows.
#[test]
fn peer_alignment_beyond_bound_conflicts() {
    let picture = Picture::new(640, 480);
    let with = |stride, offset, rows| {
        let mut peer = linear("peer", &[b"XR24", b"NV12"]);
        (peer.stride_align, peer.offset_align, peer.rows_align) = (stride, offset, rows);
        let peer = Taker::from_bytes(&peer.to_bytes().unwrap()).unwrap();
        negotiate(
            &picture.clone().prefer(Fourcc::new(*b"NV12")),
            &[peer],
            &[heap()],
        )
    };
    for (stride, offset, rows) in [
        (1 << 20, 1, 1),
        (1 << 16, 1, 1),
        (1, 1, 1 << 31),
        (1, 1, 1 << 14),
        (1 << 31, 1 << 31, 1 << 31),
        (u32::MAX, u32::MAX, u32::MAX),
    ] {
        let conflict = with(stride, offset, rows).unwrap_err();
        assert_eq!(conflict.over, Over::Alignment, "{conflict}");
        assert_eq!(conflict.takers[0].name, "peer");
        assert!(conflict.why.contains("smaller alignments"), "{conflict}");
    }
    // An offset matters where there are several planes.
    let plan = with(1, 1 << 30, 1).unwrap();
    assert_eq!(plan.layout, Layout::linear(Fourcc::XRGB8888));
    // What devices are known to ask for is planned still.
    let plan = with(4096, 65536, 64).unwrap();
    assert_eq!(plan.layout, Layout::linear(Fourcc::new(*b"NV12")));
    assert_eq!(plan.bytes, Some(4096 * 512 + 4096 * 256));
}

/// Peers whose alignments are harmless alone, and not together.
#[test]
fn alignments_beyond_bound_together_conflict() {
    let aligned = |name: &str, stride| {
        let mut taker = linear(name, &[b"XR24"]);
        taker.stride_align = stride;
        taker
    };
    let (one, other) = (aligned("one", 4095), aligned("other", 4096));
    let picture = Picture::new(640, 480);
    for alone in [&one, &other] {
        assert!(negotiate(&picture, std::slice::from_ref(alone), &[heap()]).is_ok());
    }
    let conflict = negotiate(&picture, &[one, other], &[heap()]).unwrap_err();
    assert_eq!((conflict.over, conflict.takers.len()), (Over::Alignment, 2));
}

#[test]
fn devices_prefer_tiles_and_cpus_rows() {
    let layouts = [TILED, LINEAR, INVALID].map(|modifier| Layout {
        fourcc: Fourcc::XRGB8888,
        modifier,
    });
    let mut device = Taker::new("device");
    device.memory = Memory::AnyDmaBuf;
    device.layouts = Some(layouts.into());
    let mut gbm = Source::new(Origin::Gbm("/dev/dri/renderD128".into()));
    gbm.layouts = Some(layouts.into());
    let sources = [heap(), gbm];
    let picture = Picture::new(64, 64);
    let plan = negotiate(&picture, &[device.clone()], &sources).unwrap();
    assert_eq!(
        (plan.layout, plan.origin.clone()),
        (layouts[0], sources[1].origin.clone())
    );
    // Implicit means something to its own driver only.
    assert_eq!(plan.layouts, layouts[..2]);
    assert_eq!(plan.passed_over.len(), 1);
    let with_cpu = negotiate(&picture, &[device.clone(), Taker::cpu()], &sources).unwrap();
    assert_eq!(with_cpu.layout, layouts[1]);
    assert_eq!(with_cpu.origin, sources[0].origin);
    device.memory = Memory::Own {
        node: "/dev/dri/renderD128".into(),
        why: "no PRIME import".into(),
    };
    let own = negotiate(&picture, &[device], &sources).unwrap();
    assert_eq!(own.layouts, layouts);
}

#[test]
fn who_takes_its_own_memory_only_gets_it() {
    let mut plane = linear("plane", &[b"XR24"]);
    plane.memory = Memory::Own {
        node: "/dev/dri/card1".into(),
        why: "PRIME_FD_TO_HANDLE: ENODEV".into(),
    };
    plane.contiguous = true;
    let gpu = linear("GPU", &[b"XR24"]);
    let dumb = |node: &str| Source::new(Origin::Dumb(node.into()));
    let sources = [heap(), dumb("/dev/dri/card0"), dumb("/dev/dri/card1")];
    let picture = Picture::new(100, 100);
    let plan = negotiate(&picture, &[gpu.clone(), plane.clone()], &sources).unwrap();
    assert_eq!(plan.origin, sources[2].origin);
    assert_eq!(plan.frame.unwrap().planes[0].stride, 512); // as its driver has it
    assert!(!plan.contiguous);

    let conflict = negotiate(&picture, &[gpu, plane], &sources[..2]).unwrap_err();
    assert_eq!((conflict.over, conflict.takers.len()), (Over::Memory, 1));
    let said = conflict.to_string();
    assert!(
        said.contains("plane takes what /dev/dri/card1 itself allocated"),
        "{said}"
    );
    assert!(said.contains("ENODEV"), "{said}");
}

#[test]
fn three_can_disagree_where_any_two_agree() {
    let takers = [
        linear("A", &[b"XR24", b"YUYV"]),
        linear("D", &[b"XR24", b"YUYV", b"NV12"]),
        linear("B", &[b"YUYV", b"NV12"]),
        linear("C", &[b"NV12", b"XR24"]),
    ];
    let conflict = negotiate(&Picture::new(64, 64), &takers, &[heap()]).unwrap_err();
    let names: Vec<&str> = conflict.takers.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["A", "B", "C"]);
}

#[test]
fn more_takers_than_all_sets_are_tried_of() {
    let mut takers: Vec<Taker> = (0..40)
        .map(|n| linear(&format!("{n}"), &[b"XR24"]))
        .collect();
    assert!(negotiate(&Picture::new(64, 64), &takers, &[heap()]).is_ok());
    takers.insert(20, linear("odd", &[b"YUYV"]));
    let conflict = negotiate(&Picture::new(64, 64), &takers, &[heap()]).unwrap_err();
    assert_eq!((conflict.takers.len(), conflict.over), (2, Over::Layout));
    // Odd comes in the middle, and no split in order parts it from the others.
    assert_eq!(conflict.nearest, None);
}

#[test]
fn each_hands_over_as_both_can() {
    let with = |name: &str, sync| {
        let mut taker = linear(name, &[b"XR24"]);
        taker.sync = sync;
        taker
    };
    let takers = [
        with("camera", Sync::CPU | Sync::IMPLICIT),
        with("GPU", Sync::all()),
        with("plane", Sync::CPU | Sync::SYNC_FILE),
        with("encoder", Sync::CPU),
    ];
    let plan = negotiate(&Picture::new(64, 64), &takers, &[heap()]).unwrap();
    let by: Vec<Sync> = plan.hand_overs.iter().map(|pair| pair.by).collect();
    assert_eq!(by, [Sync::IMPLICIT, Sync::SYNC_FILE, Sync::CPU]);
}

#[test]
fn contiguous_memory_needs_a_source() {
    let mut camera = linear("camera (dma-contig)", &[b"YUYV"]);
    camera.contiguous = true;
    camera.reach = Reach::Below4G;
    let picture = Picture::new(640, 480);
    let takers = [camera, linear("GPU", &[b"YUYV"])];
    let mut module = Source::new(Origin::Way(Way::Module));
    let refused = negotiate(&picture, &takers, &[heap(), module.clone()]).unwrap_err();
    assert_eq!((refused.over, refused.takers.len()), (Over::Contiguous, 1));
    assert!(refused.to_string().contains("our module"), "{refused}");
    module.contiguous = true;
    let refused = negotiate(&picture, &takers, &[heap(), module.clone()]).unwrap_err();
    assert_eq!(refused.over, Over::Reach);
    module.reach = Reach::Below4G;
    let plan = negotiate(&picture, &takers, &[heap(), module.clone()]).unwrap();
    assert_eq!(plan.origin, module.origin);
    assert!(plan.contiguous && plan.request().unwrap().contiguous);
    assert_eq!(plan.reach, Reach::Below4G);
    assert_eq!(plan.passed_over[0].0, heap().origin);
}
