//! What some seeds have beside: a GitHub App, runners of an organization, lists of repositories, webhooks, few
//! requests, re-runs, and harm to the calls that come with it; faults by the names of the catalogue, and limits of
//! GPUs and of a class; and GPUs that Modal is short of, of which a class has a choice.
//!
//! Each is drawn apart, so that everything else of a seed does not depend on it.

use fastrand::Rng;
use sandrunner::sim::{FaultRequest, Mishap, NamedFault, Operation, Scenario};
use serde_json::json;

use crate::lab::Keeping;
use crate::setup::{Allowed, Credential, GROUP, Setup};
use crate::swarm::{Drawn, brief, crash_at, lasting};

/// Makes other draws of a seed than those for everything else.
const APART: u64 = 0x0bad_5eed;
/// And others again.
const APART_TOO: u64 = 0x0_ca7a_106e;
/// And yet others.
const APART_AGAIN: u64 = 0x0_fa11_bac5;
/// And the last.
const APART_AT_LAST: u64 = 0x0_acc0_0715;
/// A sandbox is given up that waits for a machine for a quarter of an hour.
const SHORT_SECS: f64 = 2_000.0;
/// A day, in seconds.
const DAY: u32 = 86_400;

/// Adds to what a seed comes to.
pub(crate) fn widen(seed: u64, drawn: &mut Drawn) {
    let mut rng = Rng::with_seed(seed ^ APART);
    let setup = &mut drawn.setup;
    let mut places = credential(&mut rng, setup);
    if rng.u8(..4) == 0 {
        organization(&mut setup.scenario);
        places.extend([Operation::ListGroups, Operation::ListGroupRepos]);
    }
    if rng.u8(..3) == 0 {
        setup.lost_nudges = Some([0.02, 0.3][rng.usize(..2)]);
        places.push(Operation::GetRun);
    }
    // Two controllers do not share their accounts; and with few requests sweeps are seldom.
    if rng.u8(..6) == 0 && setup.controllers == 1 {
        few_requests(&mut rng, setup);
        places.extend([Operation::GetRepo, Operation::Downloads, Operation::Deprecation]);
    } else if rng.u8(..5) == 0 {
        again(&mut rng, drawn.phase_secs, setup);
        places.extend([Operation::GetRun, Operation::ListRuns]);
    }
    if places.is_empty() {
        return;
    }
    for _ in 0..rng.usize(..3) {
        drawn.faults.push(lasting(&mut rng, &places, drawn.phase_secs));
    }
    for _ in 0..rng.usize(..3) {
        drawn.faults.push(brief(&mut rng, &places, drawn.phase_secs));
    }
    if rng.u8(..4) == 0 {
        let place = places[rng.usize(..places.len())];
        drawn.crashes.push(crash_at(&mut rng, (1, Some(place)), drawn.phase_secs));
        drawn.crashes.sort_by(|a, b| b.0.total_cmp(&a.0));
    }
}

/// Adds names of faults, and limits of kinds.
pub(crate) fn fill(seed: u64, drawn: &mut Drawn) {
    let mut rng = Rng::with_seed(seed ^ APART_TOO);
    let names: Vec<&NamedFault> = NamedFault::all().collect();
    for _ in 0..rng.usize(..4) {
        let name = names[rng.usize(..names.len())].name;
        let from_secs = Some(rng.f64() * drawn.phase_secs);
        drawn.faults.push(FaultRequest { from_secs, until_secs: Some(drawn.phase_secs), ..name.into() });
    }
    if rng.u8(..3) == 0 {
        drawn.setup.max_gpus = rng.u32(1..=3);
    }
    if rng.u8(..4) == 0 {
        // Of what needs no GPU it takes everything.
        drawn.setup.add_class(&[], &["job-*"], rng.u32(1..=5));
    }
}

/// Has Modal be short of GPUs, of which a class has a choice, for as long as things go wrong.
pub(crate) fn shorten(seed: u64, drawn: &mut Drawn) {
    let mut rng = Rng::with_seed(seed ^ APART_AGAIN);
    if rng.u8(..5) != 0 {
        return;
    }
    let Setup { classes, scenario, .. } = &mut drawn.setup;
    let class = json!({ "name": "choice", "labels": ["gpu:a100"], "extra_label_patterns": ["job-*"],
        "gpu": "a100", "gpu_fallback": ["l4", "t4"] });
    classes.push(serde_json::from_value(class).expect("a class"));
    let labels = ["self-hosted", "modal", "gpu:a100"].map(str::to_owned);
    let jobs = &mut scenario.jobs;
    for _ in 0..rng.usize(1..=2) {
        let job = rng.usize(..jobs.len());
        jobs[job].labels = labels.to_vec();
    }
    drawn.phase_secs = drawn.phase_secs.max(SHORT_SECS);
    let short = &["A100", "L4", "T4"][..rng.usize(1..=3)];
    let knobs = json!({ "knobs": { "modal_gpus_sold_out": short }, "until_secs": drawn.phase_secs });
    drawn.faults.push(serde_json::from_value(knobs).expect("a request"));
}

/// Has what sandboxes cost judged, a class with an image of steps, Modal out of room, or mishaps of the machine, each for
/// some seeds.
pub(crate) fn furnish(seed: u64, drawn: &mut Drawn) {
    let mut rng = Rng::with_seed(seed ^ APART_AT_LAST);
    // Two controllers would write one file.
    if rng.u8(..5) == 0 && drawn.setup.controllers == 1 {
        drawn.setup.is_accounted = true;
    }
    if rng.u8(..5) == 0 && drawn.setup.classes.is_empty() {
        drawn.setup.image(&json!({ "name": "own", "base": "debian:13", "apt": ["make"], "run": ["true"] }));
        drawn.setup.class(&json!({ "name": "own", "extra_label_patterns": ["job-*"], "image": "own" }));
    }
    if rng.u8(..5) == 0 {
        let knobs = json!({ "knobs": { "modal_max_containers": rng.u8(1..=8) }, "until_secs": drawn.phase_secs });
        drawn.faults.push(serde_json::from_value(knobs).expect("a request"));
    }
    // What can be written no more accounts nothing.
    if rng.u8(..4) == 0 && !drawn.setup.is_accounted {
        if drawn.setup.keeping == Keeping::Nothing {
            drawn.setup.keeping = Keeping::All;
        }
        // How many controllers there are is drawn apart.
        let mishaps: Vec<Mishap> = Mishap::ALL.iter().copied().filter(|it| *it != Mishap::SecondController).collect();
        for _ in 0..rng.usize(1..=3) {
            let name = mishaps[rng.usize(..mishaps.len())].name();
            let from_secs = Some(rng.f64() * drawn.phase_secs);
            drawn.faults.push(FaultRequest { from_secs, until_secs: Some(drawn.phase_secs), ..name.into() });
        }
    }
}

/// With what GitHub is asked, and how repositories are allowed; tells which calls come with it.
fn credential(rng: &mut Rng, setup: &mut Setup) -> Vec<Operation> {
    let mut places = Vec::new();
    if rng.u8(..4) == 0 {
        setup.credential = Credential::App;
        setup.profile.installation_token_secs = f64::from(rng.u16(300..=3_600));
        places.extend([Operation::ListInstallations, Operation::InstallationToken]);
    }
    if rng.u8(..4) == 0 {
        setup.allowed = Allowed::Like(&["acme/service-*"]);
        places.push(match setup.credential {
            Credential::Token => Operation::ListOrgRepos,
            Credential::App => Operation::ListInstallationRepos,
        });
    }
    places
}

/// Registers runners in a group of the organization, which admits what is allowed and no more.
fn organization(scenario: &mut Scenario) {
    let repos: Vec<String> = scenario.allowed_repos().iter().map(ToString::to_string).collect();
    let groups = json!([{ "id": 1, "name": "Default" }, { "id": 4, "name": GROUP, "repos": repos }]);
    let organizations = json!([{ "name": "acme", "groups": groups }]);
    scenario.organizations = serde_json::from_value(organizations).expect("organizations");
}

fn few_requests(rng: &mut Rng, setup: &mut Setup) {
    let profile = &mut setup.profile;
    profile.github_requests_per_hour = rng.u32(400..=1_500);
    profile.github_charges_unchanged = rng.bool();
    profile.github_points_per_minute = rng.u32(120..=480);
    profile.github_mutations_per_minute = rng.u32(20..=90);
    setup.primary_reserve = profile.github_requests_per_hour / 5;
}

/// Makes re-runs of some runs, which are days old and stand behind the pages that are read.
fn again(rng: &mut Rng, phase_secs: f64, setup: &mut Setup) {
    let Scenario { jobs, runs, .. } = &mut setup.scenario;
    for _ in 0..rng.usize(1..=3) {
        let id = jobs[rng.usize(..jobs.len())].run;
        if runs.iter().any(|run| run.id == id) {
            continue;
        }
        let (age_secs, late_secs) = (f64::from(rng.u32(DAY..=20 * DAY)), rng.f64() * phase_secs);
        runs.push(serde_json::from_value(json!({ "id": id, "age_secs": age_secs })).expect("a run"));
        for job in jobs.iter_mut().filter(|job| job.run == id) {
            job.attempt = 2;
            job.arrival_secs += late_secs;
        }
    }
    setup.profile.github_list_page = rng.u32(1..=3);
}
