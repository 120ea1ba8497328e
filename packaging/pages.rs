//! Writes the manual pages and the completions of shells for the package: `cargo run --example pages -- FOLDER`. They come
//! from the same description as the command line; the program itself does not carry what makes them.

use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::{Shell, generate_to};
use sandrunner::cli::Arguments;

fn main() -> anyhow::Result<()> {
    let folder: PathBuf = std::env::args_os().nth(1).context("name the folder to write to")?.into();
    let pages = folder.join("man");
    std::fs::create_dir_all(&pages)?;
    clap_mangen::generate_to(Arguments::command(), &pages)?;
    let completions = folder.join("completions");
    std::fs::create_dir_all(&completions)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut Arguments::command(), "sandrunner", &completions)?;
    }
    Ok(())
}
