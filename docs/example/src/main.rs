//! `paint fb0 200 100 50`

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let colour: Vec<u8> = arguments
        .iter()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect();
    let (Some(name), Ok(colour)) = (arguments.first(), <[u8; 3]>::try_from(colour)) else {
        eprintln!("usage: paint NAME RED GREEN BLUE");
        return ExitCode::from(2);
    };
    match paint::paint(name, colour) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("paint: {name}: {error}");
            ExitCode::FAILURE
        }
    }
}
