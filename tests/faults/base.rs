//! The runs that faults are put into: small ones, each with something of its own.

use chrono::TimeDelta;
use sandrunner::sim::Span;
use serde_json::{Value, json};

use crate::lab::Keeping;
use crate::setup::{Allowed, Credential, GROUP, Setup};

/// A base scenario.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Base {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    make: fn() -> Setup,
}

/// All of them; pairs of faults go into the first two.
pub(crate) const BASES: &[Base] = &[
    Base { name: "one", about: "one job", make: || Setup::calm(run_of(1, 60.0)) },
    Base { name: "three", about: "three jobs of one label set", make: || Setup::calm(run_of(3, 60.0)) },
    Base { name: "matrix", about: "a matrix of eight under a limit of three", make: matrix },
    Base { name: "cancelled", about: "one of two jobs is cancelled while its sandbox starts", make: cancelled },
    Base { name: "restart", about: "a kill with ten jobs running and two queued", make: restart },
    Base { name: "kept", about: "the same with three kills, and a state directory that is kept or lost", make: kept },
    Base { name: "gpu", about: "a job that needs a GPU, and with it a Secret", make: || Setup::calm(with_labels(GPU)) },
    Base {
        name: "two_sets",
        about: "two label sets, of which one holds the other and has a runner too many",
        make: || Setup::calm(two_sets()),
    },
    Base { name: "unseen", about: "a runner that works while lists show it offline, and no jobs", make: unseen },
    Base {
        name: "failed_start",
        about: "a runner never comes online, and its sandbox is terminated",
        make: failed_start,
    },
    Base { name: "adopted", about: "a create whose first answer is lost", make: adopted },
    Base {
        name: "lost_replies",
        about: "a mint and all attempts of a create whose answers are lost",
        make: lost_replies,
    },
    Base { name: "pages", about: "lists of several pages, others' runners, and a lost registration", make: pages },
    Base { name: "pair", about: "two controllers with one configuration", make: pair },
    Base { name: "limits", about: "two repositories under a limit for each and one for both", make: limits },
    Base {
        name: "classes",
        about: "two jobs for one GPU, and two of a class that may have one sandbox",
        make: classes,
    },
    Base { name: "neighbour", about: "a machine of another deployment that is switched off", make: neighbour },
    Base { name: "app", about: "a GitHub App whose token ends between two jobs", make: app },
    Base {
        name: "owners",
        about: "a GitHub App at two owners: one address shows the repositories of either",
        make: owners,
    },
    Base {
        name: "organization",
        about: "two repositories with the runners of their organization's group, of which one is not needed",
        make: organization,
    },
    Base { name: "sweep", about: "two re-runs beyond the pages that are read, of which one is told of", make: sweep },
    Base { name: "quota", about: "five jobs, one at a time, while GitHub's hour is nearly used up", make: quota },
    Base {
        name: "strangers",
        about: "two jobs of a fork, which GitHub gives to the runner of another job",
        make: strangers,
    },
    Base {
        name: "steps",
        about: "a class with an image of steps on one in a private registry, beside a class without",
        make: steps,
    },
    Base { name: "fallback", about: "two jobs for a GPU that Modal has none of, which get the next", make: fallback },
    Base { name: "room", about: "four jobs in a workspace that has room for two sandboxes", make: room },
    Base { name: "account", about: "what three jobs cost, one of them on a GPU, over a kill", make: account },
    Base {
        name: "ghost",
        about: "a job that GitHub lists as queued and gives to nobody for half an hour",
        make: ghost,
    },
    Base {
        name: "printed",
        about: "a class with a Volume, whose first runner crashes and leaves what it printed",
        make: printed,
    },
];

impl Base {
    /// The one of a name.
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        BASES.iter().find(|base| base.name == name)
    }

    /// The run itself.
    pub(crate) fn setup(&self) -> Setup {
        (self.make)()
    }
}

const REPO: &str = "acme/web";
const OTHER: &str = "acme/api";
const RUN: u64 = 7_000_000_000;
const JOB: u64 = 5_000_000_000;
const PLAIN: &[&str] = &["self-hosted", "modal"];
const TRAIN: &[&str] = &["self-hosted", "modal", "job-train"];
const GPU: &[&str] = &["self-hosted", "modal", "gpu:t4"];

/// A job that arrives after the controller has looked around.
fn job(number: u64, labels: &[&str], duration_secs: f64) -> Value {
    json!({ "id": JOB + number, "run": RUN, "repo": REPO, "labels": labels, "arrival_secs": 5,
        "duration_secs": duration_secs })
}

#[expect(clippy::needless_pass_by_value, reason = "each caller makes the list for it")]
fn scenario(jobs: Vec<Value>) -> Value {
    json!({ "repos": [{ "name": REPO }], "jobs": jobs })
}

fn run_of(jobs: u64, duration_secs: f64) -> Value {
    scenario((0..jobs).map(|number| job(number, PLAIN, duration_secs)).collect())
}

fn with_labels(labels: &[&str]) -> Value {
    scenario(vec![job(0, labels, 60.0)])
}

fn matrix() -> Setup {
    Setup { max_sandboxes: 3, ..Setup::calm(run_of(8, 40.0)) }
}

fn cancelled() -> Setup {
    let mut first = job(0, PLAIN, 60.0);
    // The mint comes about nine seconds after the job, the runner three seconds later.
    first["cancel_secs"] = json!(10.0);
    let mut setup = Setup::calm(scenario(vec![first, job(1, PLAIN, 60.0)]));
    setup.profile.idle_removal_secs = Some(Span::new(150.0, 150.0));
    setup
}

fn strangers() -> Setup {
    let theirs = [1, 2].map(|number| {
        let mut job = job(number, PLAIN, 60.0);
        (job["run"], job["arrival_secs"]) = (json!(RUN + 1), json!(4.0));
        job
    });
    let mut scenario = scenario(theirs.into_iter().chain([job(0, PLAIN, 60.0)]).collect());
    scenario["runs"] = json!([{ "id": RUN + 1, "fork": true }]);
    Setup::calm(scenario)
}

fn restart() -> Setup {
    let mut jobs: Vec<Value> = (0..10).map(|number| job(number, PLAIN, 400.0)).collect();
    jobs.extend((10..12).map(|number| {
        let mut late = job(number, PLAIN, 60.0);
        late["arrival_secs"] = json!(118.0);
        late
    }));
    Setup { kills_at: vec![120.0], ..Setup::calm(scenario(jobs)) }
}

fn kept() -> Setup {
    Setup { kills_at: vec![60.0, 120.0, 180.0], keeping: Keeping::ByTurns(1), ..restart() }
}

fn two_sets() -> Value {
    let large = &["self-hosted", "modal", "job-1-0"];
    let (mut cancelled, mut late) = (job(2, large, 60.0), job(3, PLAIN, 60.0));
    cancelled["cancel_secs"] = json!(8.0);
    late["arrival_secs"] = json!(60.0);
    scenario(vec![job(0, PLAIN, 60.0), job(1, large, 60.0), cancelled, late])
}

fn failed_start() -> Setup {
    let mut scenario = run_of(1, 60.0);
    scenario["faults"] = json!([{ "operation": "boot", "mode": "never_online" }]);
    Setup::calm(scenario)
}

fn unseen() -> Setup {
    let mut scenario = run_of(1, 500.0);
    scenario["faults"] = json!([
        { "operation": "list_runners", "mode": "online_hidden", "until_secs": 700 },
        { "operation": "list_jobs", "mode": "error", "from_secs": 100, "until_secs": 450 },
    ]);
    let mut setup = Setup::calm(scenario);
    setup.profile.busy_lag_secs = Span::new(3_600.0, 3_600.0);
    // It takes its job shortly before GitHub fails, so that nothing shows that when its start is judged.
    setup.profile.image_build_secs = 45.0;
    setup
}

/// The next attempt of the create finds the name taken, by what the first one made.
fn adopted() -> Setup {
    let mut scenario = run_of(1, 60.0);
    scenario["faults"] = json!([{ "operation": "create", "mode": "reply_lost" }]);
    Setup::calm(scenario)
}

fn lost_replies() -> Setup {
    let mut scenario = run_of(1, 60.0);
    // As often as a create is tried, so that it stays in doubt, and the first mint.
    scenario["faults"] = json!([
        { "operation": "mint", "mode": "reply_lost" },
        { "operation": "create", "mode": "reply_lost", "times": 4 },
    ]);
    Setup::calm(scenario)
}

fn pages() -> Setup {
    let mut scenario = run_of(3, 60.0);
    scenario["faults"] = json!([{ "operation": "mint", "mode": "reply_lost" }]);
    let foreign: Vec<Value> = (0..3)
        .map(|number| json!({ "repo": REPO, "name": format!("box-{number}"), "labels": ["self-hosted", "metal"] }))
        .collect();
    scenario["foreign_runners"] = json!(foreign);
    let jobs = scenario["jobs"].as_array_mut().expect("jobs");
    // Runs of others, which go on for the whole time.
    jobs.extend((0..3).map(|number| {
        json!({ "id": JOB + 100 + number, "run": RUN + 1 + number, "repo": REPO, "labels": ["ubuntu-latest"],
            "duration_secs": 300 })
    }));
    let mut setup = Setup::calm(scenario);
    setup.profile.github_list_page = 2;
    setup.profile.modal_list_page = 1;
    setup
}

fn limits() -> Setup {
    // The other repository makes room long before the first one does.
    let mut jobs: Vec<Value> = (0..5).map(|number| job(number, PLAIN, 60.0)).collect();
    for other in &mut jobs[4..] {
        other["repo"] = json!(OTHER);
        other["run"] = json!(RUN + 1);
        other["duration_secs"] = json!(10.0);
    }
    let scenario = json!({ "repos": [{ "name": REPO }, { "name": OTHER }], "jobs": jobs });
    Setup { max_sandboxes: 3, max_sandboxes_per_repo: Some(2), ..Setup::calm(scenario) }
}

fn classes() -> Setup {
    let own = &["self-hosted", "modal", "job-own"];
    let jobs = [GPU, own, GPU, own].into_iter().zip(0..).map(|(labels, number)| job(number, labels, 40.0)).collect();
    let mut setup = Setup { max_gpus: 1, ..Setup::calm(scenario(jobs)) };
    setup.add_class(&["job-own"], &[], 1);
    setup
}

fn neighbour() -> Setup {
    // As long as it takes to be sure that a runner is not used.
    let mut scenario = run_of(1, 420.0);
    scenario["foreign_runners"] =
        json!([{ "repo": REPO, "name": "sr-other-gh-77-1", "labels": PLAIN, "online": false }]);
    Setup::calm(scenario)
}

fn pair() -> Setup {
    Setup { controllers: 2, ..Setup::calm(run_of(2, 60.0)) }
}

/// A job of the organization's other repository, in a run of its own.
fn other_job(number: u64, duration_secs: f64) -> Value {
    let mut job = job(number, PLAIN, duration_secs);
    job["repo"] = json!(OTHER);
    job["run"] = json!(RUN + number);
    job
}

fn app() -> Setup {
    let mut late = job(1, PLAIN, 60.0);
    late["arrival_secs"] = json!(245.0);
    // Two installations, and two repositories in one of them, for lists of several pages.
    let repos = json!([{ "name": REPO }, { "name": OTHER }, { "name": "beta/tool", "allowed": false }]);
    let scenario = json!({ "repos": repos, "jobs": [job(0, PLAIN, 60.0), late] });
    let mut setup = Setup {
        credential: Credential::App,
        allowed: Allowed::Like(&["acme/*"]),
        interval_secs: 20,
        ..Setup::calm(scenario)
    };
    setup.profile.github_list_page = 1;
    // The next one is fetched after four fifths of it, and it is not used in its last minute.
    setup.profile.installation_token_secs = 320.0;
    setup
}

fn owners() -> Setup {
    const THIRD: &str = "beta/tool";
    let mut first = other_job(0, 60.0);
    first["repo"] = json!(THIRD);
    let mut late = job(1, PLAIN, 60.0);
    late["run"] = json!(RUN + 1);
    // When the lists have been read for a second time, and a third time where they seemed to lack something.
    late["arrival_secs"] = json!(200.0);
    let scenario = json!({ "repos": [{ "name": REPO }, { "name": THIRD }], "jobs": [first, late] });
    Setup {
        credential: Credential::App,
        allowed: Allowed::Like(&["acme/*", "beta/*"]),
        interval_secs: 20,
        ..Setup::calm(scenario)
    }
}

fn organization() -> Setup {
    let groups = json!([{ "id": 1, "name": "Default" }, { "id": 4, "name": GROUP, "repos": [REPO, OTHER] }]);
    let mut cancelled = other_job(2, 60.0);
    // Its runner waits in vain, and leaves its registration.
    cancelled["cancel_secs"] = json!(20.0);
    let scenario = json!({
        "repos": [{ "name": REPO }, { "name": OTHER }],
        "organizations": [{ "name": "Acme", "groups": groups }],
        "jobs": [job(0, PLAIN, 60.0), other_job(1, 60.0), cancelled],
    });
    let mut setup = Setup { allowed: Allowed::Like(&["acme/*"]), interval_secs: 20, ..Setup::calm(scenario) };
    setup.profile.github_list_page = 1;
    setup
}

fn sweep() -> Setup {
    // Newer runs fill the page that is read, and have ended before the re-runs begin.
    let newer = (1..=3).map(|number| {
        json!({ "id": JOB + number, "run": RUN + number, "repo": REPO, "labels": ["ubuntu-latest"], "duration_secs": 1 })
    });
    let again = (4..=5).map(|number| {
        let mut job = job(number, PLAIN, 60.0);
        job["run"] = json!(RUN + number);
        job["attempt"] = json!(2);
        job["arrival_secs"] = json!(30 * (number - 3));
        job
    });
    let age = |number: u64, hours: u64| json!({ "id": RUN + number, "age_secs": hours * 3_600 });
    let mut scenario = scenario(newer.chain(again).collect());
    scenario["runs"] = json!([age(1, 1), age(2, 2), age(3, 3), age(4, 30), age(5, 40)]);
    // With this seed the nudge of the first re-run gets lost, and that of the second one arrives.
    let mut setup = Setup { lost_nudges: Some(0.5), seed: 7, interval_secs: 20, ..Setup::calm(scenario) };
    setup.profile.github_list_page = 2;
    setup
}

fn quota() -> Setup {
    let jobs = (0..5).map(|number| job(number, PLAIN, 60.0));
    let mut setup = Setup { max_sandboxes: 1, primary_reserve: 30, ..Setup::calm(scenario(jobs.collect())) };
    // Reading at the usual pace would use up what is left long before the hour ends.
    setup.profile.github_requests_per_hour = 300;
    setup.profile.github_used_before = 240;
    setup.profile.github_first_hour_secs = 600.0;
    setup.profile.github_charges_unchanged = true;
    setup
}

fn steps() -> Setup {
    let mut scenario = scenario(vec![job(0, &["self-hosted", "modal", "job-own"], 60.0), job(1, PLAIN, 60.0)]);
    let login = json!({ "REGISTRY_USERNAME": "acme", "REGISTRY_PASSWORD": "right" });
    scenario["private_registries"] = json!([{ "prefix": "ghcr.io/acme", "username": "acme", "password": "right" }]);
    scenario["secrets"] = json!([{ "name": "registry", "values": login }]);
    let mut setup = Setup::calm(scenario);
    setup.image(&json!({ "name": "own", "base": "ghcr.io/acme/base:1", "registry_secret": "registry",
        "apt": ["make"], "run": ["true"] }));
    setup.class(&json!({ "name": "own", "labels": ["job-own"], "image": "own" }));
    setup
}

fn fallback() -> Setup {
    let jobs = (0..2).map(|number| job(number, TRAIN, 60.0));
    let mut setup = Setup { schedule_within: TimeDelta::minutes(2), ..Setup::calm(scenario(jobs.collect())) };
    setup.class(&json!({ "name": "train", "labels": ["job-train"], "gpu": "a100", "gpu_fallback": ["l4"],
        "schedule_timeout": "2m" }));
    setup.profile.modal_gpus_sold_out = vec!["A100".to_owned()];
    setup
}

fn room() -> Setup {
    let mut setup = Setup::calm(run_of(4, 60.0));
    setup.profile.modal_max_containers = Some(2);
    setup
}

fn account() -> Setup {
    let mut jobs: Vec<Value> = [PLAIN, GPU, PLAIN].into_iter().zip(0..).map(|(of, at)| job(at, of, 90.0)).collect();
    // It is queued when the first ones have ended.
    jobs[2]["arrival_secs"] = json!(130.0);
    Setup { kills_at: vec![60.0], is_accounted: true, ..Setup::calm(scenario(jobs)) }
}

fn printed() -> Setup {
    let mut scenario = scenario(vec![job(0, &["self-hosted", "modal", "job-own"], 60.0)]);
    scenario["faults"] = json!([{ "operation": "boot", "mode": "crash" }]);
    let mut setup = Setup { keeping: Keeping::All, ..Setup::calm(scenario) };
    setup.class(&json!({ "name": "own", "labels": ["job-own"], "volumes": [{ "name": "cache-{repo}" }] }));
    setup
}

fn ghost() -> Setup {
    let mut scenario = run_of(1, 60.0);
    // Three runners wait for it in vain meanwhile, and an hour passes until the next one.
    scenario["faults"] = json!([{ "operation": "queue", "mode": "ghost", "seconds": 1_800 }]);
    Setup { interval_secs: 120, ..Setup::calm(scenario) }
}
