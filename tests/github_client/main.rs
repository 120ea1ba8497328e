//! The GitHub client against a GitHub that behaves as the real one does on a bad day.
//!
//! Each test scripts the answers to single requests and looks at what the client makes of them, and at what
//! it had asked. Most run within this process under a paused clock; those about the wire use loopback. What
//! lasts over several requests is tried against the simulated GitHub.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

#[cfg(feature = "sim")]
mod app;
#[cfg(feature = "sim")]
mod faults;
mod lists;
mod loopback;
mod refusals;
mod script;
#[cfg(feature = "sim")]
mod simulated;
mod writes;
