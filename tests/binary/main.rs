//! The real binary: its commands, its surfaces, and what a kill in the middle of the work leaves.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod commands;
mod daemon;
mod process;
mod restart;
mod secrets;
mod state;
