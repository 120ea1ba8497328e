//! `sandrunner check`: what is found out of the simulated services, and how it is judged.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a helper of a test fails like the test, and looks at few kinds of events"
)]

mod budgets;
mod classes;
mod credentials;
mod modal;
mod network;
mod places;
mod proofs;
mod setup;
