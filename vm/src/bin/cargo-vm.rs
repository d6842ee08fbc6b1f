//! `cargo vm`

fn main() -> std::process::ExitCode {
    dmashare_vm::cli::main()
}
