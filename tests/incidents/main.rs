//! Published failures of comparable systems, each as a run of the whole controller in which the same goes wrong.
//!
//! A test is named after the issue in which somebody wrote his failure up. Its comment tells what happened there, and
//! what is required here; the test first shows that the fault struck, then what a controller without the required
//! behaviour would have done otherwise. Besides, the checker of `tests/checker` judges each whole run.

#![expect(clippy::wildcard_enum_match_arm, reason = "a story concerns a few kinds of events")]

mod case;
#[expect(dead_code, reason = "what other users need of it")]
#[path = "../checker/checker.rs"]
mod checker;
#[expect(dead_code, reason = "what other tests need of the lab")]
#[path = "../lab/lab.rs"]
mod lab;
mod leftovers;
mod lists;
mod never_kill;
mod serving;
