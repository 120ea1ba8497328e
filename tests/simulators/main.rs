//! Both simulators driven as a client would: in process under a paused clock, and once over TCP.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod app;
mod control;
mod deaths;
mod faults;
mod github;
mod groups;
mod life;
mod limits;
mod lists;
mod modal;
mod modal_faults;
mod runs;
mod versions;

use std::time::Duration;

use chrono::DateTime;
use sandrunner::clock::Clock;
use sandrunner::sim::{Profile, Scenario, World};
use serde_json::{Value, json};

use github::{config_of, mint};
use modal::Modal;

#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    rust_2018_idioms,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    reason = "generated from api.proto"
)]
mod api {
    tonic::include_proto!("modal.client");
}

fn clock() -> Clock {
    Clock::scaled(DateTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000), 1.0)
}

fn world(profile: Profile, scenario: Value) -> World {
    let scenario: Scenario = serde_json::from_value(scenario).unwrap();
    World::try_new(profile, scenario, 1, clock()).unwrap()
}

/// One run of plain jobs in `acme/web`, all at once.
fn jobs(count: u64) -> Value {
    let jobs: Vec<Value> = (0..count).map(|index| job(5_000_000_000 + index, &["self-hosted", "modal"])).collect();
    json!({ "repos": [{ "name": "acme/web" }], "jobs": jobs })
}

fn job(id: u64, labels: &[&str]) -> Value {
    json!({ "id": id, "run": 6_000_000_000_u64, "repo": "acme/web", "labels": labels, "duration_secs": 60 })
}

const SUCCESS: i32 = 1;
const FAILURE: i32 = 2;
const TERMINATED: i32 = 3;
const PLAIN: [&str; 2] = ["self-hosted", "modal"];

/// Mints and creates one runner of a name of ours, and gives the sandbox's id.
async fn start(world: &World, modal: &mut Modal, attempt: u32, labels: &[&str]) -> String {
    let name = format!("sr-main-gh-5000000000-{attempt}");
    let config = config_of(&mint(world, &name, labels).await);
    modal.create(&name, &config).await.unwrap()
}
