//! The pure part: what is learned from readings and outcomes, what is planned, and what sandboxes have cost.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bounds;
mod cases;
mod evidence;
mod explain;
mod feedback;
mod generate;
mod groups;
mod ledger;
mod metrics;
mod policy;
mod properties;
mod situation;
mod supply;
