//! Situations for the planner in a small text notation, statements separated by semicolons.
//!
//! ```text
//! spend 9.5 [of=default|all] [limit=10] · spend unknown [limit=10]
//! limit 5 · limit repo 2 · gpus 1 · mints 3 · creates 3      limits and admissions
//! job 7 acme/web queued 40s [run=1] [labels=modal] [runner=7-1] [advanced=5s]
//! sandbox 7-1 acme/web starting|idle|claimed|busy|failed|unscheduled|unplaced|gone|ended=64 60s [run=1] [labels=modal] [secret] [fenced=100s] [seen=60s] [kept=60s] [terminated=60s] [tagged] [image=im-1] [placed=30s] [on=h100:2] [region=eu]
//! creating 7-1 acme/web · unsure 7-1 acme/web
//! runner 7-1 acme/web offline|online|busy 600s [stale]
//! fleet unknown · unreadable sb-1 [2] · unproven · image building|absent|failed 1 60s · fruitless 7 3 10s · run 1 completed
//! fallback a100,l4:2 · regions us,eu (of class gpu:t4) · spent 30s · gpu-quota 8 8 30s
//! old-jobs 30s · unheard 30s · partly-read 7 10s
//! org acme · group acme/web [workflows=acme/web/.github/workflows/ci.yml@main]; a job has then [workflow=.github/workflows/ci.yml] [calls]
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sandrunner::allow::RepoPatterns;
use sandrunner::class::{ClassClocks, Gpu, ImageSource, LabelPattern, Machine, Risks, RunnerClass, SandboxOptions};
use sandrunner::cost::{Known, Prices, Resources};
use sandrunner::error::{CallFailure, ErrorClass};
use sandrunner::evidence::{Agreement, Claim, Evidence, JobEvidence, NameEvidence};
use sandrunner::ids::{ClassName, ImageId, JobId, Labels, OurName, RunId, RunnerId, SandboxId, SecretId};
use sandrunner::plan::{AccountPolicy, Credentials, Limits, Plan, Policy, RunnerGroupChoice, Waves, plan};
use sandrunner::poll::ListOrder;
use sandrunner::retry;
use sandrunner::state::{
    AdmittedRepos, AdmittedWorkflows, Allowance, Connection, Creating, Ended, ImageState, JobStatus, NeedsJobs,
    Observed, Origin, OurSandbox, Quota, ReadState, RegistryView, RepoView, RunStatus, RunView, Runner, RunnerGroup,
    SandboxEnd, SandboxResult, Scope, SelectedWorkflow, Setbacks, Spend, Workflow, WorkflowFile, WorkflowJob,
    WorkflowRun, WrittenIn,
};

/// Everything that a plan is made from.
#[derive(Debug, Clone)]
pub(crate) struct Situation {
    pub(crate) observed: Observed,
    pub(crate) evidence: Evidence,
    pub(crate) policy: Policy,
}

/// The time of every situation.
pub(crate) fn now() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000)
}

/// A name of the deployment and account that situations use: `7-1` is attempt 1 for job 7.
pub(crate) fn name(text: &str) -> OurName {
    format!("sr-main-gh-{text}").parse().unwrap()
}

pub(crate) fn scope(repo: &str) -> Scope {
    Scope { account: "gh".parse().unwrap(), repo: repo.parse().unwrap() }
}

fn class(name: &str, gpu: Option<&str>) -> RunnerClass {
    RunnerClass {
        name: ClassName::new(name),
        labels: Labels::new(gpu.map(|_| name)),
        extra_label_patterns: vec![LabelPattern::new("job-*")],
        repos: Vec::new(),
        admits: Risks::NONE,
        cpu: 2.0,
        memory_mib: 4096,
        gpu: gpu.and_then(Gpu::parse),
        gpu_fallback: Vec::new(),
        image: ImageSource::Default { has_docker: false },
        regions: Vec::new(),
        region_fallback: Vec::new(),
        env: BTreeMap::new(),
        options: SandboxOptions::default(),
        clocks: ClassClocks {
            timeout: Duration::from_secs(3600),
            idle_timeout: Duration::from_secs(300),
            start_timeout: Duration::from_secs(180),
            schedule_timeout: Duration::from_secs(120),
        },
        max_sandboxes: None,
        spend_per_day: None,
        price: None,
    }
}

impl Situation {
    /// Everything is known, nothing is there, and much is allowed.
    pub(crate) fn empty() -> Self {
        let policy = Policy {
            deployment: "main".parse().unwrap(),
            required_label: "modal".into(),
            accounts: BTreeMap::from([(
                "gh".parse().unwrap(),
                AccountPolicy {
                    order: 0,
                    host: "https://api.github.com".to_owned(),
                    repos: BTreeSet::new(),
                    patterns: RepoPatterns::default(),
                    runner_group_id: 1,
                    organizations: BTreeMap::new(),
                    credentials: Credentials::One,
                },
            )]),
            classes: vec![class("gpu:t4", Some("T4")), class("default", None)],
            limits: Limits { sandboxes: 1_000_000, sandboxes_per_repo: None, gpus: 1_000, spend_per_day: None },
            waves: Waves { first: 20, first_gpu: 4 },
            claim_window: Duration::from_secs(90),
            interval: Duration::from_secs(10),
            max_interval: Duration::from_secs(900),
            list_order: ListOrder::Index,
            follows_releases: true,
            runner_dir: "/opt/actions-runner".to_owned(),
            prices: Prices::default(),
        };
        let mut observed = Observed::default();
        observed.fleet.read.succeeded(now() - TimeDelta::seconds(1));
        let image = ImageState::Ready(ImageId::new("im-1"));
        observed.images = policy.classes.iter().map(|class| (class.name.clone(), image.clone())).collect();
        observed.admission.creates = Allowance { now: 1_000_000, next: None };
        observed.admission.mints.insert("gh".parse().unwrap(), Allowance { now: 1_000_000, next: None });
        let mut evidence = Evidence::default();
        evidence.proven = policy.classes.iter().map(|class| class.name.clone()).collect();
        Self { observed, evidence, policy }
    }

    /// Reads the notation.
    pub(crate) fn parse(text: &str) -> Self {
        let mut situation = Self::empty();
        for statement in text.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
            let words: Vec<&str> = statement.split_whitespace().collect();
            situation.state(&words);
        }
        situation
    }

    pub(crate) fn plan(&self) -> Plan {
        plan(&self.observed, &self.evidence, &self.policy, now())
    }

    fn state(&mut self, words: &[&str]) {
        match words {
            ["limit", "repo", n] => self.policy.limits.sandboxes_per_repo = Some(n.parse().unwrap()),
            ["limit", n] => self.policy.limits.sandboxes = n.parse().unwrap(),
            ["gpus", n] => self.policy.limits.gpus = n.parse().unwrap(),
            ["mints", n] => {
                let next = Some(now() + TimeDelta::seconds(1));
                self.observed
                    .admission
                    .mints
                    .values_mut()
                    .for_each(|mints| *mints = Allowance { now: n.parse().unwrap(), next });
            }
            ["creates", n] => self.observed.admission.creates.now = n.parse().unwrap(),
            ["job", id, repo, status, rest @ ..] => self.job(id, repo, status, &Options::parse(rest)),
            ["sandbox", which, repo, state, rest @ ..] => self.sandbox(which, repo, state, &Options::parse(rest)),
            ["creating", which, repo, rest @ ..] => {
                let creating = Creating { origin: origin(repo, &Options::parse(rest)), since: now(), asked_at: None };
                self.repo(repo);
                self.observed.in_flight.insert(name(which), creating);
            }
            ["unsure", which, repo, rest @ ..] => {
                let creating = Creating { origin: origin(repo, &Options::parse(rest)), since: now(), asked_at: None };
                self.repo(repo);
                self.observed.fleet.unsure.insert(name(which), creating);
            }
            ["runner", which, repo, state, rest @ ..] => self.runner(which, repo, state, &Options::parse(rest)),
            ["fleet", "unknown"] => {
                self.observed.fleet.read = ReadState::default();
                self.observed.fleet.read.failed(now(), no_answer());
            }
            ["runners", "unknown", repo] => self.registry(repo).runners_read = ReadState::default(),
            ["unproven"] => self.evidence.proven.clear(),
            ["image", "building"] => {
                self.observed
                    .images
                    .values_mut()
                    .for_each(|image| *image = ImageState::Building { failures: Setbacks::default() });
            }
            ["image", "absent"] => self.observed.images.clear(),
            ["image", "failed", failures, age] => self.image_failed(failures.parse().unwrap(), seconds(age)),
            ["unreadable", id, gpus @ ..] => {
                let gpus = gpus.first().map_or(0, |gpus| gpus.parse().unwrap());
                self.observed.fleet.unreadable.insert(SandboxId::new(*id), gpus);
            }
            ["fruitless", id, count, age] => {
                let at = now() - seconds(age);
                let job = self.job_evidence(id.parse().unwrap());
                job.fruitless = count.parse().unwrap();
                job.attempt = job.attempt.max(job.fruitless);
                job.fruitless_at = Some(at);
            }
            ["run", id, repo, "completed"] => {
                let id = RunId(id.parse().unwrap());
                self.repo(repo).runs.get_mut(&id).unwrap().run.status = RunStatus::Completed;
            }
            ["fallback", gpus] => {
                self.policy.classes[0].gpu_fallback = gpus.split(',').map(|gpu| Gpu::parse(gpu).unwrap()).collect();
            }
            ["regions", regions] => {
                let mut regions = regions.split(',').map(str::to_owned);
                self.policy.classes[0].regions = regions.next().into_iter().collect();
                self.policy.classes[0].region_fallback = regions.collect();
            }
            ["org" | "group", ..] => self.organization(words),
            ["spend", rest @ ..] => self.spend(rest),
            _ => self.readings(words),
        }
    }

    /// All images have failed so often, the last time so long ago.
    fn image_failed(&mut self, times: u32, age: TimeDelta) {
        let failures = Setbacks { lasting: times, ..Setbacks::default() };
        let pause = TimeDelta::from_std(retry::delay(retry::IMAGE, times)).unwrap();
        let again_at = now() - age + pause;
        let failed = ImageState::Failed { message: "no space".into(), failures, again_at };
        self.observed.images.values_mut().for_each(|image| *image = failed.clone());
    }

    /// Registers the runners of an organization's repositories with it, in its group `Modal`.
    fn organization(&mut self, words: &[&str]) {
        match *words {
            ["org", name] => self.policy.accounts.values_mut().for_each(|account| {
                account.organizations.insert(name.parse().unwrap(), RunnerGroupChoice::Name("Modal".to_owned()));
            }),
            ["group", repo, ref rest @ ..] => {
                let selected = rest.first().and_then(|word| word.strip_prefix("workflows="));
                let workflows = selected.map_or(AdmittedWorkflows::All, |selected| {
                    AdmittedWorkflows::Selected(selected.split(',').map(SelectedWorkflow::read).collect())
                });
                let admits = AdmittedRepos::Selected([scope(repo).repo].into());
                let group = RunnerGroup { id: 4, name: "Modal".to_owned(), admits, allows_public: false, workflows };
                self.registry(repo).group = Some(group);
            }
            _ => panic!("not a statement: {words:?}"),
        }
    }

    /// Says what was spent today: six hours are left of it.
    fn spend(&mut self, words: &[&str]) {
        let spend = &mut self.observed.spend;
        (spend.known, spend.day_ends_at) = (Known::Yes, now() + TimeDelta::hours(6));
        let Policy { classes, prices, .. } = &self.policy;
        spend.prices = classes.iter().map(|class| (class.name.clone(), prices.of_machines(class))).collect();
        let mut class = None;
        for word in words {
            match word.split_once('=') {
                Some(("of", name)) => class = Some(ClassName::new(name)),
                Some(("limit", limit)) => match &class {
                    None => self.policy.limits.spend_per_day = Some(limit.parse().unwrap()),
                    Some(name) => {
                        let mut classes = self.policy.classes.iter_mut();
                        classes.find(|it| it.name == *name).unwrap().spend_per_day = Some(limit.parse().unwrap());
                    }
                },
                None if *word == "unknown" => spend.known = Known::NotYet,
                None => {
                    spend.total = word.parse().unwrap();
                    spend.by_class.insert(ClassName::new("default"), spend.total);
                }
                Some(_) => panic!("not an option: {word}"),
            }
        }
    }

    /// Says how old what was read is.
    fn readings(&mut self, words: &[&str]) {
        match *words {
            ["unheard", age] => {
                let at = now() - seconds(age);
                for run in self.observed.repos.values_mut().flat_map(|repo| repo.runs.values_mut()) {
                    run.jobs_read.succeeded(at);
                    run.jobs_read.failed(now(), no_answer());
                }
            }
            ["old-jobs", age] => {
                let at = now() - seconds(age);
                for repo in self.observed.repos.values_mut() {
                    repo.runs.values_mut().for_each(|run| run.jobs_read.succeeded(at));
                }
            }
            ["spent", age] => {
                self.observed.quota.read.succeeded(now() - seconds(age));
                self.observed.quota.known = Some(Quota {
                    environment: "main".to_owned(),
                    max_tasks: Some(100),
                    tasks: 60,
                    max_gpus: None,
                    gpus: 0,
                    spend: Spend::LimitReached,
                });
            }
            ["gpu-quota", used, most, age] => {
                self.observed.quota.read.succeeded(now() - seconds(age));
                self.observed.quota.known = Some(Quota {
                    environment: "main".to_owned(),
                    max_tasks: None,
                    tasks: 0,
                    max_gpus: Some(most.parse().unwrap()),
                    gpus: used.parse().unwrap(),
                    spend: Spend::Within,
                });
            }
            ["partly-read", job, age] => {
                let (job, at) = (JobId(job.parse().unwrap()), now() - seconds(age));
                let runs = self.observed.repos.values_mut().flat_map(|repo| repo.runs.values_mut());
                for run in runs.filter(|run| run.jobs.contains_key(&job)) {
                    run.jobs_read.failed(at, no_answer());
                    run.partly_read.insert(job, at);
                }
            }
            _ => panic!("not a statement: {words:?}"),
        }
    }

    fn repo(&mut self, repo: &str) -> &mut RepoView {
        let scope = scope(repo);
        self.policy.accounts.values_mut().for_each(|account| {
            account.repos.insert(scope.repo.clone());
        });
        let registry = self.policy.registry(&scope);
        if !self.observed.repos.contains_key(&scope) {
            self.observed.add(scope.clone(), registry.clone());
            let view = self.observed.repos.get_mut(&scope).unwrap();
            view.runs_read.succeeded(now());
            view.deep_read_at = Some(now());
            let runners_read = &mut self.observed.registries.get_mut(&registry).unwrap().runners_read;
            if runners_read.known_at.is_none() {
                runners_read.succeeded(now());
            }
        }
        self.observed.repos.get_mut(&scope).unwrap()
    }

    /// Where the runners of a repository are registered.
    pub(crate) fn registry(&mut self, repo: &str) -> &mut RegistryView {
        let registry = self.repo(repo).registry.clone();
        self.observed.registries.get_mut(&registry).unwrap()
    }

    fn job_evidence(&mut self, id: u64) -> &mut JobEvidence {
        self.evidence.started(&name(&format!("{id}-1")), &origin("acme/web", &Options::default()), now());
        self.evidence.names.remove(&name(&format!("{id}-1")));
        let job = self.evidence.jobs.get_mut(&JobId(id)).unwrap();
        job.attempt = 0;
        job
    }

    fn job(&mut self, id: &str, repo: &str, status: &str, options: &Options<'_>) {
        let id: u64 = id.parse().unwrap();
        let job = WorkflowJob {
            id: JobId(id),
            run_id: options.run,
            run_attempt: 1,
            status: match status {
                "queued" => JobStatus::Queued,
                "in_progress" => JobStatus::InProgress,
                "completed" => JobStatus::Completed,
                "waiting" => JobStatus::Waiting,
                other => JobStatus::Other(other.to_owned()),
            },
            labels: options.labels(),
            runner_id: None,
            runner_name: options.runner.map(|runner| name(runner).to_string()),
            created_at: None,
            started_at: None,
            completed_at: None,
            name: "build".into(),
        };
        let evidence = self.job_evidence(id);
        evidence.first_queued = now() - options.age;
        evidence.advanced_at = options.advanced.map(|age| now() - age);
        let view = self.repo(repo).runs.entry(options.run).or_insert_with(|| run_view(options.run));
        view.run.workflow = options.workflow.map(|text| {
            let jobs = if options.calls { WrittenIn::OthersToo } else { WrittenIn::Own };
            Workflow { file: WorkflowFile::read(text).unwrap(), branch: None, jobs }.into()
        });
        view.jobs.insert(job.id, job);
    }

    fn sandbox(&mut self, which: &str, repo: &str, state: &str, options: &Options<'_>) {
        let id = format!("sb-{which}");
        let since = now() - options.age;
        let exit = state.strip_prefix("ended=").map(|code| code.parse::<i32>().unwrap());
        let sandbox = OurSandbox {
            id: SandboxId::new(id),
            origin: origin(repo, options),
            created_at: since,
            is_scheduled: !matches!(state, "unscheduled" | "unplaced"),
            scheduled_at: options.placed.map(|age| now() - age),
            started_at: (!matches!(state, "unscheduled" | "unplaced") && options.placed.is_none()).then_some(since),
            secret: options.secret.then(|| SecretId::new("st-1")),
            runner: options.tagged.then_some(RunnerId(8)),
            image: options.image.map(ImageId::new),
            task: None,
            resources: Resources::default(),
            seen_at: options.seen.map_or(now(), |age| now() - age),
            missing_since: None,
            asked_at: None,
            unknown_since: None,
            ended: (state == "gone" || exit.is_some()).then(|| Ended {
                at: since,
                result: exit.map(|exit_code| SandboxResult {
                    status: SandboxEnd::Failure,
                    exit_code,
                    message: String::new(),
                }),
            }),
        };
        let readings = Agreement { first: now() - TimeDelta::seconds(70), last: now() };
        let mut evidence = NameEvidence::default();
        evidence.origin = Some(sandbox.origin.clone());
        evidence.online_at = matches!(state, "idle" | "claimed" | "busy").then_some(since);
        evidence.busy_at = (state == "busy").then_some(now());
        evidence.claim = (state == "claimed").then_some(Claim { job: JobId(999_999), runner: None, at: now() });
        evidence.never_online = matches!(state, "failed" | "unplaced").then_some(readings);
        evidence.living = evidence.never_online;
        evidence.fenced_at = options.fenced.map(|age| now() - age);
        evidence.kept_at = options.kept.map(|age| now() - age);
        evidence.terminated_at = options.terminated.map(|age| now() - age);
        self.repo(repo);
        self.evidence.names.insert(name(which), evidence);
        self.observed.fleet.sandboxes.insert(name(which), sandbox);
    }

    fn runner(&mut self, which: &str, repo: &str, state: &str, options: &Options<'_>) {
        let runner = Runner {
            id: RunnerId(1),
            name: name(which).to_string(),
            connection: if state == "online" { Connection::Online } else { Connection::Offline },
            is_busy: state == "busy",
            labels: Some(options.labels().fingerprint()),
            version: None,
        };
        self.registry(repo).runners.insert(name(which), runner);
        let evidence = self.evidence.names.entry(name(which)).or_default();
        (evidence.registered_at, evidence.registered_as) = (Some(now() - options.age), Some(RunnerId(1)));
        evidence.registration_seen_at = Some(now());
        evidence.fenced_at = options.fenced.map(|age| now() - age);
        evidence.kept_at = options.kept.map(|age| now() - age);
        if options.stale {
            evidence.stale = Some(Agreement { first: now() - TimeDelta::seconds(60), last: now() });
        }
    }
}

/// A run whose jobs were just read.
pub(crate) fn run_view(id: RunId) -> RunView {
    let mut jobs_read = ReadState::default();
    jobs_read.succeeded(now());
    RunView {
        run: WorkflowRun {
            id,
            attempt: 1,
            status: RunStatus::Queued,
            created_at: None,
            updated_at: None,
            risks: Risks::NONE,
            workflow: None,
        },
        first_listed_at: now(),
        changed_at: now(),
        listed_at: now(),
        asked_at: None,
        gone_at: None,
        jobs: BTreeMap::new(),
        jobs_read,
        needs_jobs: NeedsJobs::InTurn,
        emptied_at: None,
        partly_read: BTreeMap::new(),
    }
}

fn origin(repo: &str, options: &Options<'_>) -> Origin {
    let labels = options.labels();
    let class = if labels.contains("gpu:t4") { "gpu:t4" } else { "default" };
    let gpu = options.on.or(labels.contains("gpu:t4").then_some("t4")).and_then(Gpu::parse);
    let machine = Machine { gpu, regions: options.region.map(str::to_owned).into_iter().collect() };
    Origin { scope: scope(repo), run: options.run, class: ClassName::new(class), group: labels.fingerprint(), machine }
}

fn seconds(text: &str) -> TimeDelta {
    TimeDelta::seconds(text.trim_end_matches('s').parse().unwrap())
}

#[expect(clippy::struct_excessive_bools, reason = "flags of a notation")]
struct Options<'a> {
    run: RunId,
    labels: Option<&'a str>,
    runner: Option<&'a str>,
    workflow: Option<&'a str>,
    calls: bool,
    age: TimeDelta,
    advanced: Option<TimeDelta>,
    fenced: Option<TimeDelta>,
    kept: Option<TimeDelta>,
    terminated: Option<TimeDelta>,
    placed: Option<TimeDelta>,
    tagged: bool,
    image: Option<&'a str>,
    on: Option<&'a str>,
    region: Option<&'a str>,
    seen: Option<TimeDelta>,
    secret: bool,
    stale: bool,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            run: RunId(1),
            labels: None,
            runner: None,
            workflow: None,
            calls: false,
            age: TimeDelta::zero(),
            advanced: None,
            fenced: None,
            kept: None,
            terminated: None,
            placed: None,
            tagged: false,
            image: None,
            on: None,
            region: None,
            seen: None,
            secret: false,
            stale: false,
        }
    }
}

impl<'a> Options<'a> {
    fn parse(words: &[&'a str]) -> Self {
        let mut options = Self::default();
        for word in words {
            match word.split_once('=') {
                Some(("run", run)) => options.run = RunId(run.parse().unwrap()),
                Some(("labels", labels)) => options.labels = Some(labels),
                Some(("image", image)) => options.image = Some(image),
                Some(("on", gpu)) => options.on = Some(gpu),
                Some(("region", region)) => options.region = Some(region),
                Some(("runner", runner)) => options.runner = Some(runner),
                Some(("workflow", workflow)) => options.workflow = Some(workflow),
                Some(("advanced", age)) => options.advanced = Some(seconds(age)),
                Some(("seen", age)) => options.seen = Some(seconds(age)),
                Some(("fenced", age)) => options.fenced = Some(seconds(age)),
                Some(("kept", age)) => options.kept = Some(seconds(age)),
                Some(("placed", age)) => options.placed = Some(seconds(age)),
                Some(("terminated", age)) => options.terminated = Some(seconds(age)),
                None if *word == "calls" => options.calls = true,
                None if *word == "secret" => options.secret = true,
                None if *word == "tagged" => options.tagged = true,
                None if *word == "stale" => options.stale = true,
                None => options.age = seconds(word),
                Some(_) => panic!("not an option: {word}"),
            }
        }
        options
    }

    fn labels(&self) -> Labels {
        Labels::new(self.labels.unwrap_or("modal").split(','))
    }
}

fn no_answer() -> CallFailure {
    CallFailure { class: ErrorClass::Unavailable, message: "no answer".into(), retry_after: None }
}
