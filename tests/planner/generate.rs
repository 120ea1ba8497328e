//! Random situations for the properties of the planner and its bench, from a seed.

use chrono::{DateTime, TimeDelta, Utc};
use sandrunner::evidence::{Agreement, Claim, NameEvidence};
use sandrunner::ids::{JobId, Labels, RunId, RunnerId, SandboxId};
use sandrunner::plan::Policy;
use sandrunner::state::{
    Connection, Ended, JobStatus, Origin, OurSandbox, Runner, SandboxEnd, SandboxResult, Scope, WorkflowJob,
};

use crate::situation::{Situation, name, now, run_view, scope};

/// How large a situation is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) jobs: u64,
    pub(crate) sandboxes: u64,
    pub(crate) repos: u64,
}

const LABEL_SETS: [&[&str]; 8] = [
    &["modal"],
    &["modal", "self-hosted"],
    &["modal", "self-hosted", "linux"],
    &["modal", "gpu:t4"],
    &["modal", "job-1"],
    &["modal", "job-2"],
    &["ubuntu-latest"],
    &["modal", "windows"],
];

/// A situation with everything in it that can be there.
pub(crate) fn situation(size: Size, seed: u64) -> Situation {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut situation = Situation::empty();
    let labels: Vec<Labels> = LABEL_SETS.iter().map(|labels| Labels::new(*labels)).collect();
    // Shared, as the observed ones are.
    let scopes: Vec<Scope> = (0..size.repos).map(|repo| scope(&format!("acme/repo-{repo}"))).collect();
    for scope in scopes.iter().cloned() {
        allow(&mut situation.policy, &scope.repo);
        let registry = situation.policy.registry(&scope);
        situation.observed.add(scope.clone(), registry.clone());
        let view = situation.observed.repos.get_mut(&scope).expect("it was added");
        view.runs_read.succeeded(now());
        view.deep_read_at = Some(now());
        situation.observed.registries.get_mut(&registry).expect("likewise").runners_read.succeeded(now());
    }
    for id in 0..size.jobs {
        add_job(&mut situation, &mut random, id + 1, (&scopes, &labels));
    }
    for id in 0..size.sandboxes {
        // Half of them were made for jobs that are still there.
        let job = if random.bool() { id % size.jobs.max(1) + 1 } else { size.jobs + id + 1 };
        add_sandbox(&mut situation, &mut random, job, (&scopes, &labels));
    }
    situation.policy.limits.sandboxes = if random.bool() { 1_000_000 } else { random.u32(1..=200) };
    situation.policy.limits.sandboxes_per_repo = random.bool().then(|| random.u32(1..=20));
    situation.policy.limits.gpus = random.u32(0..=20);
    situation
}

fn allow(policy: &mut Policy, repo: &sandrunner::ids::RepoName) {
    for account in policy.accounts.values_mut() {
        account.repos.insert(repo.clone());
    }
}

fn add_job(situation: &mut Situation, random: &mut fastrand::Rng, id: u64, (scopes, labels): (&[Scope], &[Labels])) {
    let repo = &scopes[random.usize(0..scopes.len())];
    let run = RunId(id / 5 + 1);
    let status = match random.u8(0..10) {
        0..=6 => JobStatus::Queued,
        7 => JobStatus::InProgress,
        8 => JobStatus::Completed,
        _ => JobStatus::Waiting,
    };
    let job = WorkflowJob {
        id: JobId(id),
        run_id: run,
        run_attempt: 1,
        runner_id: None,
        runner_name: (status == JobStatus::InProgress).then(|| name(&format!("{id}-1")).to_string()),
        status,
        labels: labels[random.usize(0..labels.len())].clone(),
        created_at: None,
        started_at: None,
        completed_at: None,
        name: "build".into(),
    };
    let view = situation.observed.repos.get_mut(repo).expect("all repositories are there");
    view.runs.entry(run).or_insert_with(|| run_view(run)).jobs.insert(job.id, job);
}

fn ended(random: &mut fastrand::Rng, at: DateTime<Utc>) -> Ended {
    let exit_code = random.i32(64..70);
    let result = SandboxResult { status: SandboxEnd::Failure, exit_code, message: String::new() };
    Ended { at, result: Some(result) }
}

fn add_sandbox(
    situation: &mut Situation,
    random: &mut fastrand::Rng,
    job: u64,
    (scopes, labels): (&[Scope], &[Labels]),
) {
    let which = name(&format!("{job}-{}", random.u32(1..=3)));
    let group = &labels[random.usize(0..6)];
    let class = if group.contains("gpu:t4") { "gpu:t4" } else { "default" };
    let class = situation.policy.classes.iter().find(|known| known.name.as_str() == class).unwrap();
    let (class, machine) = (class.name.clone(), class.machines().swap_remove(0));
    let origin = Origin {
        scope: scopes[random.usize(0..scopes.len())].clone(),
        run: RunId(job / 5 + 1),
        class,
        group: group.fingerprint(),
        machine,
    };
    let age = TimeDelta::seconds(random.i64(0..1_000));
    let since = now() - age;
    let mut evidence = NameEvidence::default();
    evidence.origin = Some(origin.clone());
    evidence.registered_at = Some(since);
    match random.u8(0..6) {
        0 => evidence.online_at = Some(since),
        1 => {
            evidence.online_at = Some(since);
            evidence.claim = Some(Claim { job: JobId(job), runner: None, at: now() });
        }
        2 => evidence.busy_at = Some(since),
        3 => {
            evidence.never_online = Some(Agreement { first: since, last: now() });
            evidence.living = evidence.never_online;
            evidence.fenced_at = random.bool().then_some(since);
        }
        4 => evidence.stale = Some(Agreement { first: since, last: now() }),
        _ => {}
    }
    let ended = (random.u8(0..5) == 0).then(|| ended(random, since));
    let sandbox = OurSandbox {
        id: SandboxId::new(format!("sb-{which}")),
        origin: origin.clone(),
        created_at: since,
        is_scheduled: random.u8(0..10) > 0,
        scheduled_at: None,
        started_at: Some(since),
        secret: None,
        runner: None,
        image: None,
        task: None,
        resources: sandrunner::cost::Resources::default(),
        seen_at: now(),
        missing_since: None,
        asked_at: None,
        unknown_since: None,
        ended,
    };
    if random.bool() {
        let runner = Runner {
            id: RunnerId(job),
            name: which.to_string(),
            connection: if evidence.online_at.is_some() { Connection::Online } else { Connection::Offline },
            is_busy: evidence.busy_at.is_some(),
            labels: Some(origin.group),
            version: None,
        };
        let registry = situation.policy.registry(&origin.scope);
        let view = situation.observed.registries.get_mut(&registry).expect("all repositories are there");
        view.runners.insert(which.clone(), runner);
    }
    // Its attempt is remembered, as after the reading that showed it.
    situation.evidence.started(&which, &origin, now());
    situation.evidence.names.insert(which.clone(), evidence);
    situation.observed.fleet.sandboxes.insert(which, sandbox);
}
