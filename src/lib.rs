//! Sandrunner runs GitHub Actions jobs in Modal sandboxes.
//!
//! # Bird's-eye view
//!
//! A daemon polls GitHub for queued workflow jobs and Modal for sandboxes, plans the difference between what
//! should be and what is, and acts: it registers just-in-time runners and creates the sandboxes that run them.
//! It is level-triggered. Every pass looks at the whole state and acts on what is, never on what just changed,
//! so that a missed event costs time and no correctness, and a restart needs nothing from before.
//!
//! GitHub gives a queued job to any free runner whose labels match. Jobs and runners are therefore never bound
//! to each other but counted, per repository and label set: a pass creates as many runners as there are queued
//! jobs without one that starts or waits.
//!
//! Whoever reads one function reads `Controller::reconcile` in [`controller`]: take what arrived, learn, plan,
//! start the actions, start the readings that are due.
//!
//! # Code map
//!
//! | Modules | What they do |
//! |---|---|
//! | [`controller`] | the spine: one pass after the other |
//! | [`poll`], [`observe`], [`state`] | what to read next; the readings; what was observed, as plain data |
//! | [`evidence`], [`state_dir`] | what earlier passes taught: agreeing readings, attempts, claims, machines that Modal is short of; the files that keep some of it, and pages of lists, over a restart, and what dead sandboxes printed |
//! | [`plan`], [`class`], [`allow`] | demand, supply, limits, what may be destroyed, and a reason for each job that gets nothing; from labels to a machine; which repositories |
//! | [`act`] | carries out a plan, one outcome per action |
//! | [`budget`], [`retry`] | what may be asked and when; when to try again |
//! | [`cost`] | what sandboxes cost, and what was spent today |
//! | [`github`], [`modal`] | the two clients, each with a reader and a writer |
//! | [`runner`] | the script that runs inside a sandbox, and its exit codes |
//! | [`check`] | whether everything is as it must be for jobs to be served, and what to do where it is not |
//! | [`config`], [`cli`], [`daemon`], [`schedule`] | from the file to settings, from a command to running parts |
//! | [`http`], [`status`], [`metrics`], [`telemetry`], [`systemd`] | what people, Prometheus and systemd see |
//! | [`admin`], [`pause`], [`explain`] | the socket by which commands reach the daemon; what its operator holds back; what a job waits for, in plain words |
//! | [`ids`], [`error`], [`clock`] | names checked at the boundary, what a failed call means, the one source of time |
//! | [`mutant`] | known-bad variants behind the feature `mutants`: absent from every build but that of their test |
//! | `sim` (feature `sim`, on by default) | the simulated GitHub and Modal: real servers for `demo`, `simulate`, tests and benches |
//!
//! # Invariants
//!
//! Mostly things that are absent:
//!
//! - [`plan`], [`state`], [`class`], [`allow`], [`evidence`], [`poll`], [`budget`], [`cost`], [`pause`] and [`explain`] call no client, no clock and no random
//!   source; the time is an argument. The same input gives the same plan. In [`check`] that holds of all but its `gather`.
//! - [`observe`] holds readers only. Nothing outside of [`act`] creates, terminates or deletes anything at GitHub
//!   or Modal, and where nothing may change ([`cli::plan`], mode `observe`) no writer reaches the controller. An
//!   action may be refused; it is never replaced by another.
//! - [`check`] leaves nothing behind: no App, no Secret, no image, no sandbox. The one thing it makes is a runner, by
//!   [`act::prove`], which deletes it at once.
//! - [`github`] and [`modal`] know neither each other nor [`plan`]. Their wire types stay inside.
//! - A failed reading is not an empty one. It may hold or create up to what was seen; it lowers and ends nothing.
//! - A sandbox whose runner was ever seen online is never terminated: it ends by itself. Runners and sandboxes
//!   whose names and tags are not wholly ours are counted and never touched.
//! - Nothing in memory or on disk is needed for correctness. Of the daemon only [`state_dir`] writes to disk, and nothing waits for it.
//! - Tokens and just-in-time configs are secrets by type. They are in no log, no argument list and no tag.
//! - Every queued job of an allowed repository that was read ends in the plan as a create or as a skip with its
//!   reason.
//! - The simulators know nothing of the controller, so that their report is an independent judge.

pub mod act;
pub mod admin;
pub mod allow;
pub mod budget;
pub mod check;
pub mod class;
pub mod cli;
pub mod clock;
pub mod config;
pub mod controller;
pub mod cost;
pub mod daemon;
pub mod error;
pub mod evidence;
pub mod explain;
pub mod github;
pub mod http;
pub mod ids;
pub mod metrics;
pub mod modal;
pub mod mutant;
pub mod observe;
pub mod pause;
pub mod plan;
pub mod poll;
pub mod retry;
pub mod runner;
pub mod schedule;
#[cfg(feature = "sim")]
pub mod sim;
pub mod state;
pub mod state_dir;
pub mod status;
pub mod systemd;
pub mod telemetry;
