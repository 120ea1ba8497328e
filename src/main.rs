//! The `sandrunner` command.

fn main() {}
