//! The library's `Module`: descriptions, limits, and nodes that are granted apart.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::thread;

use dmashare::alloc::{
    AllocError, AllocFlags, Allocate, Memfd, Module, ModuleFeatures, ModuleMemory, Piece, Request,
    Way, probe,
};
use dmashare_tests::conformance::Verdict;
use dmashare_tests::held;
use libtest_mimic::Trial;

use crate::{ensure, skipped, test, text};

const MIB: u64 = 1 << 20;

pub(crate) fn trials() -> Vec<Trial> {
    let module = Module::open();
    let trial = |name, check: fn() -> Verdict| match &module {
        Ok(_) => test(name, check),
        Err(reason) => skipped(name, reason),
    };
    vec![
        trial("module::query_describes_buffers", query_describes_buffers),
        trial("module::info_reports_features_of_node", features_of_nodes),
        trial("module::refusing_limit_is_named", refusing_limit_is_named),
        trial("module::nodes_are_granted_apart", nodes_are_granted_apart),
    ]
}

fn request(size: u64) -> Request {
    Request::new(size).for_device()
}

fn query_describes_buffers() -> Verdict {
    let module = || Module::open().map_err(text);
    let scattered = module()?.max_chunk(4096);
    let low = module()?.contiguous().below_4g();
    let memfd = Memfd::new()
        .allocate(&Request::new(2 * MIB))
        .map_err(text)?;
    let piece = |range| Piece {
        memfd: &memfd,
        range,
    };
    let pieces = [piece(0..4096), piece(MIB..MIB + 4096)];
    for (made, memory, flags, chunks) in [
        (
            scattered.allocate(&request(MIB)),
            ModuleMemory::System,
            AllocFlags::empty(),
            Some(256),
        ),
        (
            low.allocate(&request(MIB)),
            ModuleMemory::Contiguous,
            AllocFlags::BELOW_4G,
            Some(1),
        ),
        (
            module()?.allocate(&request(MIB).contiguous()),
            ModuleMemory::Contiguous,
            AllocFlags::empty(),
            Some(1),
        ),
        (
            module()?.wrap(&pieces, "wrapped"),
            ModuleMemory::Memfd,
            AllocFlags::empty(),
            Some(2),
        ),
        (
            module()?.allocate(&request(MIB)),
            ModuleMemory::System,
            AllocFlags::empty(),
            None,
        ),
    ] {
        let buffer = made.map_err(text)?;
        // Through another open file than the one that made it.
        let found = module()?.query(&buffer).map_err(text)?;
        let as_expected = found.size == buffer.size()
            && found.memory == Some(memory)
            && found.flags == flags
            && chunks.is_none_or(|chunks| chunks == found.chunks);
        ensure(as_expected && found.chunks > 0, || {
            format!("{}: {found:?}", buffer.name())
        })?;
    }
    let refused = module()?.query(&memfd).expect_err("a memfd").to_string();
    ensure(refused.contains("only dma-bufs that it made"), || refused)
}

fn features_of_nodes() -> Verdict {
    let module = Module::open().map_err(text)?;
    for (memory, has, lacks) in [
        (
            ModuleMemory::System,
            ModuleFeatures::ALLOC | ModuleFeatures::MAX_CHUNK | ModuleFeatures::BELOW_4G,
            ModuleFeatures::WRAP,
        ),
        (
            ModuleMemory::Contiguous,
            ModuleFeatures::ALLOC | ModuleFeatures::BELOW_4G,
            ModuleFeatures::WRAP | ModuleFeatures::MAX_CHUNK,
        ),
        (
            ModuleMemory::Memfd,
            ModuleFeatures::WRAP,
            ModuleFeatures::ALLOC,
        ),
    ] {
        let features = module.info(memory).map_err(text)?.features;
        ensure(
            features.contains(has) && !features.intersects(lacks),
            || format!("{}: {features:?}", memory.node()),
        )?;
    }
    Ok(())
}

/// A parameter of the module, which gets its value back.
struct Parameter {
    path: String,
    before: String,
}

impl Parameter {
    fn lower(name: &str) -> Result<Parameter, String> {
        let path = format!("/sys/module/dmashare/parameters/{name}");
        let before = fs::read_to_string(&path).map_err(text)?;
        fs::write(&path, "1").map_err(text)?;
        Ok(Parameter { path, before })
    }
}

impl Drop for Parameter {
    fn drop(&mut self) {
        fs::write(&self.path, &self.before).expect("it could be written before");
    }
}

fn refusing_limit_is_named() -> Verdict {
    // Buffers of tests before this one are freed with a delay.
    let used = || {
        let info = Module::open().and_then(|module| module.info(ModuleMemory::System));
        info.map(|info| info.total_used).map_err(text)
    };
    held::comes_back_to(0, used)?;
    let memfd = Memfd::new()
        .allocate(&Request::new(2 * MIB))
        .map_err(text)?;
    for name in [
        "max_buffer_mb",
        "max_file_mb",
        "max_user_mb",
        "max_total_mb",
    ] {
        let _lowered = Parameter::lower(name)?;
        let module = Module::open().map_err(text)?;
        let range = 0..2 * MIB;
        let pieces = [Piece {
            memfd: &memfd,
            range,
        }];
        for made in [
            module.allocate(&request(2 * MIB)),
            module.allocate(&request(2 * MIB).contiguous()),
            module.wrap(&pieces, "wrapped"),
        ] {
            match made {
                Err(AllocError::TooLarge { limit: MIB, of, .. }) if of.contains(name) => {}
                other => return Err(format!("{name}: {other:?}")),
            }
        }
        module.allocate(&request(MIB)).map_err(text)?;
    }
    Ok(())
}

/// The node for system memory, open to everyone.
struct OpenToAll;

impl OpenToAll {
    fn set(mode: u32) -> Verdict {
        let node = ModuleMemory::System.node();
        fs::set_permissions(node, Permissions::from_mode(mode)).map_err(text)
    }
}

impl Drop for OpenToAll {
    fn drop(&mut self) {
        OpenToAll::set(0o600).expect("it could be set before");
    }
}

/// A user that may open the node for system memory, and no other.
fn nodes_are_granted_apart() -> Verdict {
    OpenToAll::set(0o666)?;
    let _opened = OpenToAll;
    let user = thread::spawn(|| {
        // SAFETY: a number only. It holds for this thread alone, and takes from it
        // root's right to open any file.
        unsafe { libc::setfsuid(1000) };
        let module = Module::open().map_err(text)?;
        module.allocate(&request(MIB)).map_err(text)?;
        let memfd = Memfd::new().allocate(&Request::new(MIB)).map_err(text)?;
        let range = 0..MIB;
        let pieces = [Piece {
            memfd: &memfd,
            range,
        }];
        for (refused, memory) in [
            (
                module.allocate(&request(MIB).contiguous()),
                ModuleMemory::Contiguous,
            ),
            (module.wrap(&pieces, "wrapped"), ModuleMemory::Memfd),
        ] {
            let refused = refused.err().map(text).unwrap_or_default();
            let node = memory.node();
            let says = format!("{node}: open: Permission denied");
            ensure(
                refused.starts_with(&says) && refused.contains("granted apart"),
                || format!("{node}: {refused:?}"),
            )?;
        }
        let probe = probe();
        let offer = probe.row(Way::Module).verdict.as_ref().map_err(text)?;
        ensure(!offer.contiguous && offer.below_4g, || format!("{offer:?}"))
    });
    user.join().map_err(|_| "the user's thread panicked")??;
    let probe = probe();
    let offer = probe.row(Way::Module).verdict.as_ref().map_err(text)?;
    ensure(offer.contiguous, || format!("root's {offer:?}"))
}
