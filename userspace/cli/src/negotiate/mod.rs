//! `dmashare negotiate`: what suits all takers of a picture.

mod form;
mod outcome;
mod table;
mod taker;

use clap::Args;
use dmashare::alloc;
use dmashare::frame::Fourcc;
use dmashare::negotiate::{Conflict, Converter, Picture, Taker, negotiate, sources};

use crate::failure::Failure;
use crate::{size, told};
use taker::Named;

/// The picture, and who takes it.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The takers are given in the order in which the picture goes from one to the next. It \
decides on nothing but who waits for whom, and where a conversion would come.\n\n\
Exit status: 0 if there is a plan, 1 if the takers are at odds, 2 for wrong usage or bad \
input.")]
pub(crate) struct Options {
    /// The size of the picture, in pixels
    #[arg(long, value_name = "WxH", default_value = "1920x1080", value_parser = size)]
    size: (u32, u32),
    /// A format to prefer, such as NV12; more than once, the best first
    #[arg(long, value_name = "FOURCC", value_parser = form::fourcc)]
    prefer: Vec<Fourcc>,
    /// Who could convert, before the CPU: what it reads and what it writes, each as a TAKER is named
    #[arg(long, value_names = ["READS", "WRITES"], num_args = 2, value_parser = taker::parse)]
    converter: Vec<Named>,
    /// Print JSON instead of a table and sentences
    #[arg(long)]
    json: bool,
    #[arg(value_name = "TAKER", required = true, value_parser = taker::parse, help = taker::HELP)]
    takers: Vec<Named>,
}

fn size(text: &str) -> Result<(u32, u32), String> {
    size::of_picture(text).ok_or_else(|| format!("{text:?} is no size; write 1920x1080"))
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let takers = options.takers.iter().map(Named::open);
    let takers: Vec<Taker> = takers.collect::<Result<_, _>>()?;
    let (width, height) = options.size;
    let mut picture = Picture::new(width, height);
    picture.preferred.clone_from(&options.prefer);
    // The first of them is the first choice.
    // Where a GPU is among the takers, it could convert before the CPU does.
    for (reads, writes) in options.takers.iter().filter_map(Named::converter) {
        picture = picture.converted_by(converter(&reads, &writes)?);
    }
    for pair in options.converter.chunks_exact(2).rev() {
        picture = picture.converted_by(converter(&pair[0], &pair[1])?);
    }
    let outcome = negotiate(&picture, &takers, &sources(&alloc::probe()));
    match (options.json, &outcome) {
        (true, outcome) => told::json(&outcome::Outcome::new(&takers, outcome))?,
        (false, Ok(plan)) => told::lines(&[table::of(&takers), format!("\n{plan}")])?,
        (false, Err(conflict)) => told::lines(&[table::of(&takers), format!("\n{conflict}")])?,
    }
    outcome.map(|_| ()).map_err(|conflict| at_odds(&conflict))
}

fn converter(reads: &Named, writes: &Named) -> Result<Converter, Failure> {
    let (reads, writes) = (reads.open()?, writes.open()?);
    Ok(Converter {
        name: reads.name.clone(),
        reads,
        writes,
    })
}

fn at_odds(conflict: &Conflict) -> Failure {
    let over = conflict.over;
    Failure::failed(match conflict.takers.len() {
        0 => format!("nothing can be shared here: {over}"),
        1 => format!("{} cannot be suited here: {over}", conflict.takers[0].name),
        count => format!("{count} takers are at odds over {over}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_two_numbers() {
        assert_eq!(size("1920x1080"), Ok((1920, 1080)));
        for text in [
            "",
            "x",
            "1x",
            "1920",
            "0x1",
            "1x0",
            "+1x1",
            "1x1x1",
            "4294967296x1",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
