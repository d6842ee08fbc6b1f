//! Guests of another architecture than the host's, with what is compiled for
//! them here.

use std::path::Path;

use dmashare_vm::cli::Sources;
use dmashare_vm::debian::{Kernel, Root, build_module, build_program};
use dmashare_vm::{Arch, Builder, Error, Exit};

#[test]
#[ignore = "fetches some 450 MB more than the others: a kernel, and compilers for arm64"]
fn an_arm64_guest_runs_what_is_compiled_for_it() {
    let debian = Sources::default()
        .open_for(Arch::Aarch64)
        .expect("the host has what guests need");
    let kernel = Kernel::prepare(&debian, "6.12").expect("a kernel");
    assert!(kernel.release.ends_with("-arm64"), "{}", kernel.release);
    let root = Root::prepare(&debian, "trixie", &["busybox-static"]).expect("a root");
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let hello = build_program(&debian, &sources.join("arm64"), "hello.c", &["-Wall"])
        .expect("the program compiles");
    let oops = build_module(&debian, &kernel, &sources.join("oops")).expect("the module builds");
    let vm = Builder::new(kernel, root.image)
        .share(hello.parent().unwrap())
        .share(oops.parent().unwrap())
        .boot()
        .expect("the guest boots");

    let said = vm.command(hello.to_str().unwrap()).output().unwrap();
    assert_eq!(said.exit, Exit::Code(0));
    assert_eq!(said.stdout, b"hello from aarch64\n");
    // busybox, which did not say here which programs it is.
    let machine = vm.command("uname").arg("-m").output().unwrap();
    assert_eq!(machine.stdout, b"aarch64\n");

    // Its kernel has its own words for what goes wrong in it.
    let end = vm.command("insmod").arg(oops.to_str().unwrap()).output();
    let end = end.expect_err("the guest does not survive this");
    assert!(matches!(end, Error::Oops { .. }), "{end}");
    assert!(
        end.to_string().contains("NULL pointer dereference"),
        "{end}"
    );
}
