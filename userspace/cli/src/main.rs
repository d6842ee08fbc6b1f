//! The command `dmashare`.

fn main() -> std::process::ExitCode {
    dmashare_cli::main()
}
