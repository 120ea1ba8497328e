//! The simulated GitHub and the simulated Modal: one [`World`] behind two real servers.
//!
//! The World holds the truth: which jobs are queued, which runners listen, which sandboxes live. GitHub's
//! side serves it over HTTP, Modal's side over gRPC, each with the lags, limits and oddities of the real
//! service as a [`Profile`] states them. Everything that is asked and everything that changes goes into an
//! append-only history, from which [`Report`] judges a run.
//!
//! Invariant: nothing here knows the controller. The World shares with it only ids, the clock, the printing
//! of error chains and Modal's wire definition, so that the report is an independent judge.

/// Declares an enum together with the list of all its variants, which no variant can be missing from.
macro_rules! listed_enum {
    ($(#[$attribute:meta])* pub enum $name:ident { $($(#[$note:meta])* $variant:ident,)* }) => {
        $(#[$attribute])*
        pub enum $name { $($(#[$note])* $variant,)* }

        impl $name {
            /// Every one, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
        }
    };
}

mod app;
mod assign;
mod change;
mod client;
mod connection;
mod control;
mod deaths;
mod draws;
mod engine;
mod fault;
mod generate;
mod github;
mod groups;
mod history;
mod jit;
mod jobs;
mod limits;
mod modal;
mod profile;
mod releases;
mod replay;
mod report;
mod repos;
mod runners;
mod sandboxes;
mod scenario;
mod server;
mod world;

pub use app::{APP_CLIENT_ID, APP_ID, APP_KEY, Access, Grants, InstallationChange, Permission};
pub use change::ChangeError;
pub use client::{Client, Crash, CrashPhase};
pub use fault::{Befallen, Fault, FaultMode, FaultPart, FaultRequest, InvalidFault, Mishap, NamedFault};
pub use groups::GroupChange;
pub use history::{Cause, ControllerChange, Event, LimitKind, Operation, RemovalReason, Service, StatedLimits, What};
pub use jobs::{Hold, Rerun};
pub use modal::ModalEndpoint;
pub use profile::{Assignment, InvalidProfile, Lognormal, Profile, Span};
pub use releases::{NewRelease, ReleaseChange};
pub use replay::{Replay, ReplayError};
pub use report::{PickupSeconds, Report};
pub use repos::RepoChange;
pub use scenario::{
    BeyondLimit, Conclusion, ForeignRunner, ForeignSandbox, Ghost, GroupVisibility, RepoAbout, Scenario, ScenarioError,
    ScenarioGroup, ScenarioImage, ScenarioInstallation, ScenarioJob, ScenarioOrganization, ScenarioRegistry,
    ScenarioRelease, ScenarioRepo, ScenarioRun, ScenarioSecret, SkipReason, Visibility,
};
pub use server::{Servers, serve};
pub use world::{Summary, World};
