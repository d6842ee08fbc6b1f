//! What importers do with a buffer that is there.
//!
//! vgem attaches and lets go. vivid's first instance (`allocators=0`) maps the
//! buffer for the kernel's CPU (vmap). Its second (`allocators=1`) attaches and
//! maps it for DMA; that it then refuses one of several pieces, and so lets go of
//! it at once, is no difference in what the exporter does; it tells the kernel's
//! log, which is not to go to a console.

use std::fs::{File, read_dir, read_to_string};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use crate::{Op, raw};

struct Size {
    bytes: usize,
    attach: &'static str,
    vmap: &'static str,
    map: &'static str,
}

/// None is smaller than vivid's frame.
const SIZES: [Size; 3] = [
    Size {
        bytes: 1 << 20,
        attach: "1 MiB: attach (vgem)",
        vmap: "1 MiB: vmap (vivid)",
        map: "1 MiB: attach+map (vivid)",
    },
    Size {
        bytes: 8 << 20,
        attach: "8 MiB: attach (vgem)",
        vmap: "8 MiB: vmap (vivid)",
        map: "8 MiB: attach+map (vivid)",
    },
    Size {
        bytes: 64 << 20,
        attach: "64 MiB: attach (vgem)",
        vmap: "64 MiB: vmap (vivid)",
        map: "64 MiB: attach+map (vivid)",
    },
];

/// Has a buffer imported, and lets it go; whether the importer liked it.
type Import = fn(&File, i32, usize) -> bool;

pub(super) fn ops(ops: &mut Vec<Op>, remarks: &mut Vec<String>) {
    let vgem = device("/sys/class/drm", "card", |folder| {
        let device = folder.join("device").canonicalize();
        device.is_ok_and(|device| device.file_name().is_some_and(|name| name == "vgem"))
    });
    let camera = |name: &str| {
        device("/sys/class/video4linux", "video", |folder| {
            let found = read_to_string(folder.join("name"));
            found.is_ok_and(|found| found.trim_end() == name)
        })
    };
    let vgem = vgem.map(|name| format!("/dev/dri/{name}"));
    let [by_cpu, by_dma] = ["vivid-000-vid-cap", "vivid-001-vid-cap"]
        .map(|name| camera(name).map(|name| format!("/dev/{name}")));
    for size in SIZES {
        // One for all importers: memory that runs short would be in small pieces.
        let buffers: Vec<(&str, Rc<OwnedFd>)> = super::makers(&mut Vec::new())
            .iter()
            .map(|maker| (maker.exporter.name(), Rc::new(maker.buffer(size.bytes))))
            .collect();
        let kinds: [(&str, &Option<String>, Import); 3] = [
            (size.attach, &vgem, |vgem, fd, _| {
                let handle = raw::prime_import(vgem.as_raw_fd(), fd);
                raw::gem_close(vgem.as_raw_fd(), handle);
                true
            }),
            (size.vmap, &by_cpu, prepare),
            (size.map, &by_dma, prepare),
        ];
        for (what, node, import) in kinds {
            let Some(node) = node else {
                remarks.push(format!("left out: {what}: there is no such device"));
                continue;
            };
            for (who, buffer) in &buffers {
                let (who, buffer) = (*who, Rc::clone(buffer));
                let device = File::options().read(true).write(true).open(node);
                let device = device.expect("a device that was found");
                let bytes = size.bytes;
                if !import(&device, buffer.as_raw_fd(), bytes) {
                    remarks.push(format!("{what}, {who}: mapped, and refused"));
                }
                ops.push(Op::new(what, who, move || {
                    import(&device, buffer.as_raw_fd(), bytes);
                }));
            }
        }
    }
}

fn prepare(camera: &File, fd: i32, bytes: usize) -> bool {
    let camera = camera.as_raw_fd();
    raw::request_buffers(camera, 1);
    let is_taken = raw::prepare_buffer(camera, fd, bytes);
    raw::request_buffers(camera, 0);
    is_taken
}

/// The name of the first device of a class that is the one.
fn device(class: &str, prefix: &str, is_it: impl Fn(&PathBuf) -> bool) -> Option<String> {
    let entries = read_dir(class).ok()?.flatten();
    let names = entries.map(|entry| (entry.file_name(), entry.path()));
    let mut names = names.filter_map(|(name, path)| Some((name.into_string().ok()?, path)));
    let found = names.find(|(name, path)| {
        let number = name.strip_prefix(prefix);
        number.is_some_and(|number| number.parse::<u32>().is_ok()) && is_it(path)
    });
    found.map(|(name, _)| name)
}
