//! Sandrunner runs GitHub Actions jobs in Modal sandboxes.

pub mod budget;
pub mod clock;
pub mod error;
pub mod ids;
pub mod modal;
pub mod runner;
pub mod state;
