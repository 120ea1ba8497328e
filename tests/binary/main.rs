//! The real binary: its commands, its surfaces, and what a kill in the middle of the work leaves.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod check;
#[expect(dead_code, reason = "what other users need of it")]
#[path = "../checker/checker.rs"]
mod checker;
mod commands;
mod cost;
mod daemon;
mod images;
mod init;
mod kills;
mod machine;
mod process;
mod proxy;
mod restart;
mod secrets;
mod service;
mod state;
