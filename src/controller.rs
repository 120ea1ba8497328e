//! The spine: one pass after the other, until it is told to stop.
//!
//! The controller is level-triggered: every pass looks at the whole state and acts on what is. Timers and
//! wake-ups only start a pass; they carry nothing into the plan. This is the only module that asks the clock
//! for the planner.

mod answer;
mod images;
mod question;
mod tell;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{Notify, mpsc};

use crate::act::{Actor, Effect, Outcome, Writers};
use crate::budget::CreateBudget;
use crate::clock::Clock;
use crate::cost::{Entry, Ledger, Reach};
use crate::error::ErrorClass;
use crate::evidence::{Evidence, INIT_FAILURE, Learned, kept};
use crate::explain::RecentEnd;
use crate::github::GithubReader;
use crate::http::webhook::Hint;
use crate::ids::{ClassName, CredentialName, Fingerprint, ImageId, OurName};
use crate::metrics::{self, Meter, Seen};
use crate::mutant::{self, Mutant};
use crate::observe::{Made, Readers, View};
use crate::pause::Pauses;
use crate::plan::{Plan, Policy, plan, workflow_doubt};
use crate::poll::{self, Shortfall};
use crate::retry;
use crate::state::{Admission, Allowance, ImageState, Observed};
use crate::state_dir::{BookKeeper, Keeper, LogKeeper, PagesKeeper};
use crate::status::{Coverage, PassStatus, RecentAction, Timeline, live};

pub use question::{Asker, Handover, Question};

/// How long a pass waits after the first news, so that what comes together is taken together.
const GATHER: Duration = Duration::from_millis(20);
/// How long a stop waits for actions under way; what is not done by then is adopted after the next start.
const STOP_LIMIT: Duration = Duration::from_secs(8);

/// How often the gauges are set.
const METER_EVERY: chrono::TimeDelta = chrono::TimeDelta::seconds(5);
/// How many of the last actions are kept for people.
const RECENT_MAX: usize = 50;
/// How many of the last sandboxes that served nothing are kept for people.
const ENDS_MAX: usize = 200;
/// How many of the last pick-ups the quantiles rest on.
const PICKUPS_MAX: usize = 1_000;

/// What the controller is made of.
#[derive(Debug)]
pub struct Controller {
    policy: Policy,
    fingerprint: Fingerprint,
    clock: Clock,
    view: View,
    evidence: Evidence,
    /// None where nothing is kept for the next start.
    keeper: Option<Keeper>,
    /// The same of GitHub's lists.
    pages: Option<PagesKeeper>,
    /// The same of what dead sandboxes printed.
    logs: Option<LogKeeper>,
    ledger: Ledger,
    /// Keeps what sandboxes have cost.
    book: Option<BookKeeper>,
    /// None in observe mode: then nothing can change anything.
    actor: Option<Actor>,
    creates: CreateBudget,
    plan: Plan,
    wake: Arc<Notify>,
    questions: mpsc::Receiver<Question>,
    nudges: mpsc::Receiver<Hint>,
    meter: Meter,
    metered_at: Option<DateTime<Utc>>,
    /// Credentials with too many repositories, as they were last told.
    shortfalls: BTreeMap<CredentialName, Shortfall>,
    recent: VecDeque<RecentAction>,
    pickups: VecDeque<f64>,
    ends: VecDeque<RecentEnd>,
    timeline: Timeline,
    last_pass: Option<PassStatus>,
    /// Sandboxes whose jobs were told to near their longest time.
    long_jobs: BTreeSet<OurName>,
}

/// What a controller is started with.
#[derive(Debug)]
pub struct Parts {
    /// The rules.
    pub policy: Policy,
    /// Stands for what was learned of starts: see [`kept::encode`].
    pub fingerprint: Fingerprint,
    /// Time.
    pub clock: Clock,
    /// What reads.
    pub readers: Readers,
    /// What changes; none in observe mode.
    pub writers: Option<Writers>,
    /// Modal's creates per second, and at once.
    pub modal_creates: (f64, u32),
    /// Starts a pass.
    pub wake: Arc<Notify>,
    /// What it is asked.
    pub questions: mpsc::Receiver<Question>,
    /// What GitHub's webhooks told.
    pub nudges: mpsc::Receiver<Hint>,
}

/// What one look without acting came to.
#[derive(Debug)]
pub struct Dry {
    /// What would be done.
    pub plan: Plan,
    /// How much was known.
    pub coverage: Coverage,
    /// What was observed.
    pub observed: Box<Observed>,
    /// What was learned of it.
    pub evidence: Box<Evidence>,
}

impl Controller {
    /// Puts the parts together; nothing is contacted.
    pub fn new(parts: Parts) -> Self {
        let Parts { policy, fingerprint, clock, readers, writers, modal_creates, wake, questions, nudges } = parts;
        let mut view = View::new(readers, &policy);
        if writers.is_none() {
            // Nothing is built where nothing is created; whether an image has to be is no reason to show nothing.
            let ready = ImageState::Ready(ImageId::new("im-unknown"));
            view.observed.images = policy.classes.iter().map(|class| (class.name.clone(), ready.clone())).collect();
        }
        Self {
            ledger: Ledger::new(&policy),
            book: None,
            view,
            evidence: Evidence::default(),
            keeper: None,
            pages: None,
            logs: None,
            actor: writers.map(Actor::new),
            creates: CreateBudget::new(modal_creates.0, modal_creates.1),
            plan: Plan::default(),
            wake,
            questions,
            nudges,
            meter: Meter::default(),
            metered_at: None,
            shortfalls: BTreeMap::new(),
            recent: VecDeque::new(),
            pickups: VecDeque::new(),
            ends: VecDeque::new(),
            timeline: Timeline::default(),
            last_pass: None,
            long_jobs: BTreeSet::new(),
            policy,
            fingerprint,
            clock,
        }
    }

    /// What reads GitHub, one for each credential.
    pub fn github_readers(&self) -> Vec<GithubReader> {
        self.view.readers().all_github().collect()
    }

    /// Starts from what an earlier process kept, and lets `keeper` keep what this one learns.
    #[must_use]
    pub fn with_kept(self, evidence: Evidence, keeper: Option<Keeper>) -> Self {
        Self { evidence, keeper, ..self }
    }

    /// Lets `pages` keep what GitHub's lists showed.
    #[must_use]
    pub fn with_pages(self, pages: PagesKeeper) -> Self {
        Self { pages: Some(pages), ..self }
    }

    /// Lets `logs` keep what sandboxes printed that ended without serving.
    #[must_use]
    pub fn with_logs(self, logs: LogKeeper) -> Self {
        Self { logs: Some(logs), ..self }
    }

    /// Starts from what earlier processes accounted, of which the first list of ended sandboxes may show more, and lets
    /// `book` keep what is accounted from here on.
    #[must_use]
    pub fn with_book(self, (entries, reach, book): (Vec<Entry>, Reach, BookKeeper)) -> Self {
        let modal_now = self.clock.now() + self.clock.skew();
        Self { ledger: self.ledger.with_entries(&entries, reach, modal_now), book: Some(book), ..self }
    }

    /// Goes on with what a controller before it in this process left for people.
    #[must_use]
    pub fn with_handover(self, handover: Handover) -> Self {
        let Handover { kept: _, pauses: _, meter, recent, pickups, ends, timeline } = handover;
        Self { meter, recent, pickups, ends, timeline, ..self }
    }

    /// Holds back what the operator ordered before.
    #[must_use]
    pub fn with_pauses(mut self, pauses: Pauses) -> Self {
        self.view.observed.pauses = pauses;
        self
    }

    /// Runs passes until `shutdown` completes, then waits a short time for what is under way.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Handover {
        tokio::pin!(shutdown);
        loop {
            let now = self.clock.now();
            self.reconcile(now);
            let next = self.next_pass(now);
            tokio::select! {
                // In order, so that a run repeats exactly.
                biased;
                () = &mut shutdown => break,
                Some(question) = self.questions.recv() => {
                    self.answer(question);
                    continue;
                }
                Some(hint) = self.nudges.recv() => self.take_nudges(&hint, now),
                () = self.view.arrival() => {}
                () = finish(self.actor.as_mut()) => {}
                () = self.wake.notified() => {}
                () = self.clock.sleep_until(next) => {}
            }
            self.clock.sleep(GATHER).await;
        }
        self.stop().await
    }

    /// Reads everything once, at most for `limit`, and plans without acting.
    ///
    /// It is meant for a controller without writers.
    pub async fn look(mut self, limit: Duration) -> Dry {
        let is_limited = self.policy.limits_spend();
        self.ledger = if is_limited { self.ledger.with_one_list() } else { self.ledger.without_lists() };
        let until = self.clock.now() + chrono::TimeDelta::from_std(limit).unwrap_or(chrono::TimeDelta::MAX);
        loop {
            let now = self.clock.now();
            self.reconcile(now);
            let coverage = crate::status::coverage(&self.view);
            let is_settled = !self.view.is_reading() && coverage.is_ready() && coverage.runs_unread == 0;
            if is_settled || now >= until {
                let (observed, evidence) = (Box::new(self.view.observed), Box::new(self.evidence));
                return Dry { plan: self.plan, coverage, observed, evidence };
            }
            tokio::select! {
                () = self.view.arrival() => {}
                () = self.clock.sleep_until(until.min(now + chrono::TimeDelta::milliseconds(200))) => {}
            }
        }
    }

    /// One pass: look at what has arrived, decide, start. Safe to repeat at any moment, also after a crash.
    fn reconcile(&mut self, now: DateTime<Utc>) {
        let outcomes = self.actor.as_mut().map(Actor::finished).unwrap_or_default();
        self.take_outcomes(&outcomes, now);
        self.view.take_arrived(now);
        self.view.observed.in_flight = self.actor.as_ref().map(|actor| actor.creating().clone()).unwrap_or_default();
        self.view.observed.admission = self.admission(now);
        let learned = self.evidence.learn(&self.view.observed, &self.policy, &outcomes, now);
        metrics::count(&outcomes, &learned);
        self.tell_ends(&learned, now);
        tell::tell_shortages(&learned, &self.evidence, &self.policy, now);
        self.renew_refused_images(&learned);
        self.go_back(&learned, now);
        if let Some(actor) = &self.actor
            && learned.ends.iter().any(|(_, _, reason)| *reason == INIT_FAILURE)
        {
            // A Volume or a Secret may be gone, and another one have its name (Modal: what did not start).
            actor.forget_ids();
        }
        self.forget_rebuilds(now);
        if let Some(keeper) = &mut self.keeper {
            keeper.offer(&self.evidence, now);
        }
        if let Some(pages) = &mut self.pages {
            pages.offer(now);
        }
        if let Some(logs) = &mut self.logs {
            logs.offer(now);
        }
        self.keep_accounts(now);
        self.remember(&outcomes, &learned, now);
        self.plan = plan(&self.view.observed, &self.evidence, &self.policy, now);
        let queued = self.plan.tally.values().flat_map(|tally| tally.queued.values()).sum();
        self.timeline.note(queued, live(&self.plan), now);
        self.start(now);
        let capacities = self.view.capacities(now);
        self.view.refresh(poll::due(&self.view.observed, &self.evidence, &self.policy, &capacities, now), now);
        let seconds = (self.clock.now() - now).as_seconds_f64() / self.clock.speed();
        self.last_pass = Some(PassStatus { at: now, seconds });
        metrics::passed(&self.view, seconds, now);
        self.meter(now);
    }

    /// Accounts sandboxes that ended, and what was spent by that.
    fn keep_accounts(&mut self, now: DateTime<Utc>) {
        let listed = std::mem::take(&mut self.view.observed.fleet.ended);
        self.ledger.note_claims(&self.view.observed, &self.evidence);
        let entries = self.ledger.take(&self.view.observed, listed, &self.policy, now);
        self.view.observed.spend = self.ledger.spend(&self.view.observed, &self.policy, now);
        if let Some(book) = &mut self.book {
            book.offer(entries, now);
        }
    }

    /// Takes everything that webhooks have told, in one pass.
    fn take_nudges(&mut self, first: &Hint, now: DateTime<Utc>) {
        self.view.nudge(&first.repo, first.run, now);
        while let Ok(hint) = self.nudges.try_recv() {
            self.view.nudge(&hint.repo, hint.run, now);
        }
    }

    /// Keeps the last actions and pick-ups for people.
    fn remember(&mut self, outcomes: &[Outcome], learned: &Learned, now: DateTime<Utc>) {
        self.recent.extend(outcomes.iter().map(|outcome| RecentAction::new(outcome, &self.evidence, now)));
        let times = learned.pickups.iter().filter_map(|pickup| pickup.queued_at.zip(pickup.started_at));
        for seconds in times.map(|(queued, started)| (started - queued).as_seconds_f64().max(0.0)) {
            self.pickups.push_back(seconds);
            self.timeline.note_pickup(seconds);
        }
        self.ends.drain(..self.ends.len().saturating_sub(ENDS_MAX));
        self.recent.drain(..self.recent.len().saturating_sub(RECENT_MAX));
        self.pickups.drain(..self.pickups.len().saturating_sub(PICKUPS_MAX));
    }

    fn start(&mut self, now: DateTime<Utc>) {
        for reader in self.view.readers().all_github() {
            let waiting = self.plan.waits_for_mints.get(reader.credential()).copied().unwrap_or(0);
            reader.budget().lock().expect("no holder of the budget panics").set_waiting_mints(waiting);
        }
        let Some(actor) = self.actor.as_mut() else { return };
        let images = self.view.observed.images.iter().filter_map(|(class, image)| match image {
            ImageState::Ready(id) => Some((class.clone(), id.clone())),
            ImageState::Building { .. } | ImageState::Failed { .. } => None,
        });
        let images: BTreeMap<ClassName, ImageId> = images.collect();
        for (name, origin) in actor.start(&self.plan, &images, now) {
            if let Some((workflow, group)) = workflow_doubt(&self.view.observed, &origin) {
                tracing::warn!(
                    repo = %origin.scope.repo, run_id = origin.run.0, runner_name = %name, workflow, group,
                    "the runner group is kept to selected workflows, and this may be none of them"
                );
            }
            self.evidence.started(&name, &origin, now);
            self.creates.take(now);
        }
        self.start_images(now);
    }

    /// Lays what actions came to into the view, before any list shows it.
    fn take_outcomes(&mut self, outcomes: &[Outcome], now: DateTime<Utc>) {
        for outcome in outcomes {
            match &outcome.effect {
                Effect::Created { .. } if mutant::is(Mutant::NoExpectation) => {}
                Effect::NameTaken { .. } if mutant::is(Mutant::NameTakenIgnored) => {}
                Effect::MaybeCreated { .. } if mutant::is(Mutant::UnsureForgotten) => {}
                Effect::Created { name, origin, sandbox, task, secret, runner, image } => {
                    let made = Made {
                        id: sandbox.clone(),
                        origin: origin.clone(),
                        secret: secret.clone(),
                        runner: Some(*runner),
                        image: Some(image.clone()),
                        task: task.clone(),
                    };
                    self.view.created(name, made, now);
                }
                Effect::NameTaken { name, origin } | Effect::MaybeCreated { name, origin, .. } => {
                    self.view.unsure(name, origin.clone(), now);
                }
                Effect::Image { source, result, replaces } => {
                    self.take_image(source, result, replaces.as_ref(), now);
                }
                Effect::CreateFailed { failure, .. } if failure.class == ErrorClass::RateLimited => {
                    let pause = failure.retry_after.unwrap_or(Duration::from_secs(1)).min(retry::LONGEST);
                    self.creates.hold(now + chrono::TimeDelta::from_std(pause).unwrap_or_default());
                }
                Effect::CreateFailed { origin, failure, .. }
                    if matches!(failure.class, ErrorClass::NotFound | ErrorClass::Invalid) =>
                {
                    if !self.evidence.is_refused_machine(origin, failure, &self.policy, now) {
                        self.doubt_image(&origin.class, failure.class, now);
                    }
                    if let Some(actor) = &self.actor {
                        actor.forget_ids();
                    }
                }
                Effect::NotPrepared { .. }
                | Effect::MintFailed { .. }
                | Effect::CreateFailed { .. }
                | Effect::Deregistered { .. }
                | Effect::SecretDenied { .. }
                | Effect::StillRunning { .. }
                | Effect::StillLives { .. }
                | Effect::Terminated { .. }
                | Effect::SecretDeleted { .. }
                | Effect::Failed { .. } => {}
            }
        }
    }

    fn admission(&mut self, now: DateTime<Utc>) -> Admission {
        let mut mints = BTreeMap::new();
        for reader in self.view.readers().all_github() {
            let budget = reader.budget();
            let mut budget = budget.lock().expect("no holder of the budget panics");
            let allowed = budget.mints_admitted(now);
            let next = (allowed == 0).then(|| budget.next_mint(now));
            mints.insert(reader.credential().clone(), Allowance { now: allowed, next });
        }
        let allowed = self.creates.admitted(now);
        let next = (allowed == 0).then(|| self.creates.next(now));
        Admission { mints, creates: Allowance { now: allowed, next } }
    }

    /// When the next pass starts if nothing happens before.
    fn next_pass(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let skips = self.plan.skips.iter().map(|skip| skip.again_at).filter(|at| *at > now);
        let admissions = self.plan.waits_for_mints.keys().filter_map(|credential| {
            self.view.observed.admission.mints.get(credential).and_then(|allowance| allowance.next)
        });
        let polled = poll::next(&self.view.observed, &self.policy, self.view.admitted_at(), now);
        skips.chain(admissions).min().map_or(polled, |at| at.min(polled))
    }

    /// Gauges follow what was observed; they are read every ten seconds or more seldom.
    fn meter(&mut self, now: DateTime<Utc>) {
        if self.metered_at.is_some_and(|at| now - at < METER_EVERY) {
            return;
        }
        self.metered_at = Some(now);
        let Self { meter, view, evidence, plan, policy, .. } = self;
        meter.meter(&Seen { observed: &view.observed, evidence, plan, policy, now });
        metrics::meter_readers(view, now);
        metrics::meter_runners(&self.view.observed, &self.evidence, now);
        metrics::meter_modal(&self.view.observed, &self.evidence, &self.policy, now);
        self.tell_shortfalls();
        self.tell_long_jobs(now);
    }

    /// Patterns of an allow-list grow by themselves, beyond what was checked at the start.
    fn tell_shortfalls(&mut self) {
        let lists = poll::lists_of(&self.view.observed, &self.policy);
        let shortfalls = poll::shortfalls(&lists, &self.policy, &self.view.planned_capacities());
        for (credential, shortfall) in &shortfalls {
            if self.shortfalls.get(credential) != Some(shortfall) {
                let Shortfall { lists: repositories, least } = *shortfall;
                tracing::warn!(
                    %credential, repositories, least_seconds = least.num_seconds(),
                    max_interval_seconds = self.policy.max_interval.as_secs(),
                    "reconcile.max_interval is too short for so many repositories: raise it, or points_per_minute, or \
                     narrow allowed_repos"
                );
            }
        }
        self.shortfalls = shortfalls;
    }

    /// Starts nothing more, waits for what is under way, and keeps what it came to; no sandbox is touched.
    async fn stop(mut self) -> Handover {
        self.drain().await;
        let now = self.clock.now();
        let outcomes = self.actor.as_mut().map(Actor::finished).unwrap_or_default();
        self.evidence.learn(&self.view.observed, &self.policy, &outcomes, now);
        if let Some(keeper) = self.keeper {
            keeper.finish(&self.evidence, now).await;
        }
        if let Some(pages) = self.pages {
            pages.finish().await;
        }
        if let Some(book) = self.book {
            book.finish(now).await;
        }
        if let Some(logs) = self.logs {
            logs.finish().await;
        }
        let kept = kept::encode(&self.evidence, self.fingerprint).ok();
        let pauses = Some(self.view.observed.pauses);
        Handover {
            kept,
            pauses,
            meter: self.meter,
            recent: self.recent,
            pickups: self.pickups,
            ends: self.ends,
            timeline: self.timeline,
        }
    }

    async fn drain(&mut self) {
        let Some(actor) = self.actor.as_mut() else { return };
        let drained = self.clock.deadline(STOP_LIMIT, async {
            while !actor.is_idle() {
                actor.finish().await;
            }
        });
        if drained.await.is_err() {
            tracing::warn!("stopped with actions under way; their outcome is looked up after the next start");
        }
    }
}

async fn finish(actor: Option<&mut Actor>) {
    match actor {
        Some(actor) => actor.finish().await,
        None => std::future::pending().await,
    }
}
