//! The spine: one pass after the other, until it is told to stop.
//!
//! The controller is level-triggered: every pass looks at the whole state and acts on what is. Timers and
//! wake-ups only start a pass; they carry nothing into the plan. This is the only module that asks the clock
//! for the planner.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::act::{Actor, BuiltImage, Effect, Outcome, Writers};
use crate::budget::CreateBudget;
use crate::class::{ImageSource, RunnerClass};
use crate::clock::Clock;
use crate::error::ErrorClass;
use crate::evidence::{Evidence, INIT_FAILURE, Learned};
use crate::github::GithubReader;
use crate::http::webhook::Hint;
use crate::ids::{ClassName, CredentialName, ImageId};
use crate::metrics::{self, Meter};
use crate::mutant::{self, Mutant};
use crate::observe::{Made, Readers, View};
use crate::plan::{Action, Plan, Policy, plan, workflow_doubt};
use crate::poll::{self, Shortfall};
use crate::retry;
use crate::runner::RunnerVersion;
use crate::state::{Admission, Allowance, ImageState, Rebuilds};
use crate::state_dir::{Keeper, PagesKeeper};
use crate::status::{Coverage, RecentAction, Status, Subject};

/// How long a pass waits after the first news, so that what comes together is taken together.
const GATHER: Duration = Duration::from_millis(20);
/// How long a stop waits for actions under way; what is not done by then is adopted after the next start.
const STOP_LIMIT: Duration = Duration::from_secs(8);

/// How often the gauges are set.
const METER_EVERY: chrono::TimeDelta = chrono::TimeDelta::seconds(5);
/// How many of the last actions are kept for people.
const RECENT_MAX: usize = 50;
/// How many of the last pick-ups the quantiles rest on.
const PICKUPS_MAX: usize = 1_000;

/// A question to the running controller.
pub type StatusRequest = oneshot::Sender<Status>;

/// What the controller is made of.
#[derive(Debug)]
pub struct Controller {
    policy: Policy,
    clock: Clock,
    view: View,
    evidence: Evidence,
    /// None where nothing is kept for the next start.
    keeper: Option<Keeper>,
    /// The same of GitHub's lists.
    pages: Option<PagesKeeper>,
    /// None in observe mode: then nothing can change anything.
    actor: Option<Actor>,
    creates: CreateBudget,
    plan: Plan,
    wake: Arc<Notify>,
    questions: mpsc::Receiver<StatusRequest>,
    nudges: mpsc::Receiver<Hint>,
    meter: Meter,
    metered_at: Option<DateTime<Utc>>,
    /// Credentials with too many repositories, as they were last told.
    shortfalls: BTreeMap<CredentialName, Shortfall>,
    recent: VecDeque<RecentAction>,
    pickups: VecDeque<f64>,
}

/// What a controller is started with.
#[derive(Debug)]
pub struct Parts {
    /// The rules.
    pub policy: Policy,
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
    /// Questions from the HTTP server.
    pub questions: mpsc::Receiver<StatusRequest>,
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
}

impl Controller {
    /// Puts the parts together; nothing is contacted.
    pub fn new(parts: Parts) -> Self {
        let Parts { policy, clock, readers, writers, modal_creates, wake, questions, nudges } = parts;
        let mut view = View::new(readers, &policy);
        if writers.is_none() {
            // Nothing is built where nothing is created; whether an image has to be is no reason to show nothing.
            let ready = ImageState::Ready(ImageId::new("im-unknown"));
            view.observed.images = policy.classes.iter().map(|class| (class.name.clone(), ready.clone())).collect();
        }
        Self {
            view,
            evidence: Evidence::default(),
            keeper: None,
            pages: None,
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
            policy,
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

    /// Runs passes until `shutdown` completes, then waits a short time for what is under way.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
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
        self.stop().await;
    }

    /// Reads everything once, at most for `limit`, and plans without acting.
    ///
    /// It is meant for a controller without writers.
    pub async fn look(mut self, limit: Duration) -> Dry {
        let until = self.clock.now() + chrono::TimeDelta::from_std(limit).unwrap_or(chrono::TimeDelta::MAX);
        loop {
            let now = self.clock.now();
            self.reconcile(now);
            let coverage = crate::status::coverage(&self.view);
            let is_settled = !self.view.is_reading() && coverage.is_ready() && coverage.runs_unread == 0;
            if is_settled || now >= until {
                return Dry { plan: self.plan, coverage };
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
        self.renew_refused_images(&learned);
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
        self.remember(&outcomes, &learned, now);
        self.plan = plan(&self.view.observed, &self.evidence, &self.policy, now);
        self.start(now);
        let capacities = self.view.capacities(now);
        self.view.refresh(poll::due(&self.view.observed, &self.evidence, &self.policy, &capacities, now), now);
        metrics::passed(&self.view, (self.clock.now() - now).as_seconds_f64() / self.clock.speed(), now);
        self.meter(now);
    }

    /// GitHub refuses the runner of an image: where the image follows GitHub's releases, it is made again with the one that
    /// is offered now. An image that comes out the same keeps its breaker.
    fn renew_refused_images(&mut self, learned: &Learned) {
        if !self.policy.follows_releases {
            return;
        }
        let is_default = |class: &ClassName| self.policy.class(class).is_some_and(|class| class.image.is_default());
        let is_refused = |image: &ImageState| image.id().is_some_and(|id| learned.refused_images.contains(id));
        self.view.observed.images.retain(|class, image| !is_default(class) || !is_refused(image));
    }

    /// Once GitHub takes the runner of an image, the next refusal is looked into at once again.
    fn forget_rebuilds(&mut self, now: DateTime<Utc>) {
        let observed = &self.view.observed;
        let is_refused = |class: &RunnerClass| {
            let image = observed.images.get(&class.name).and_then(ImageState::id);
            image.is_some_and(|image| self.evidence.refused_images.contains_key(image))
                || self
                    .policy
                    .accounts
                    .keys()
                    .any(|account| observed.refused_version(account, &class.name, now).is_some())
        };
        let refused: BTreeSet<&ImageSource> =
            self.policy.classes.iter().filter(|class| is_refused(class)).map(|class| &class.image).collect();
        self.view.observed.rebuilds.retain(|source, _| refused.contains(source));
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
        let texts = outcomes.iter().map(|outcome| RecentAction { at: now, text: outcome.to_string() });
        self.recent.extend(texts);
        let times = learned.pickups.iter().filter_map(|pickup| pickup.queued_at.zip(pickup.started_at));
        self.pickups.extend(times.map(|(queued, started)| (started - queued).as_seconds_f64().max(0.0)));
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
        for action in &self.plan.actions {
            if let Action::PrepareImage { class, replaces, .. } = action {
                let source = self.policy.class(class).map(|class| class.image.clone());
                let failures = match self.view.observed.images.get(class) {
                    Some(ImageState::Failed { failures, .. } | ImageState::Building { failures }) => *failures,
                    // It serves until the new one is made.
                    Some(ImageState::Ready(_)) => {
                        let observed = &mut self.view.observed;
                        match source.filter(|_| replaces.is_some()) {
                            Some(source) => {
                                let before = observed.rebuilds.get(&source).copied();
                                observed.rebuilds.insert(source, Rebuilds::next(before, now));
                            }
                            None => observed.renewed_at = Some(now),
                        }
                        continue;
                    }
                    None => 0,
                };
                let building = ImageState::Building { failures };
                set_images(&mut self.view.observed.images, &self.policy, source.as_ref(), &building);
            }
        }
    }

    /// Lays what actions came to into the view, before any list shows it.
    fn take_outcomes(&mut self, outcomes: &[Outcome], now: DateTime<Utc>) {
        for outcome in outcomes {
            match &outcome.effect {
                Effect::Created { .. } if mutant::is(Mutant::NoExpectation) => {}
                Effect::NameTaken { .. } if mutant::is(Mutant::NameTakenIgnored) => {}
                Effect::MaybeCreated { .. } if mutant::is(Mutant::UnsureForgotten) => {}
                Effect::Created { name, origin, sandbox, secret, runner, image } => {
                    let made = Made {
                        id: sandbox.clone(),
                        origin: origin.clone(),
                        secret: secret.clone(),
                        runner: Some(*runner),
                        image: Some(image.clone()),
                    };
                    self.view.created(name, made, now);
                }
                Effect::NameTaken { name, origin } | Effect::MaybeCreated { name, origin, .. } => {
                    self.view.unsure(name, origin.clone(), now);
                }
                Effect::Image { source, result, replaces: _ } => {
                    if let Some(state) = self.image_state(source, result, now) {
                        set_images(&mut self.view.observed.images, &self.policy, Some(source), &state);
                    }
                    if let Ok(built) = result {
                        self.note_runner(source, built.runner);
                    }
                }
                Effect::CreateFailed { failure, .. } if failure.class == ErrorClass::RateLimited => {
                    let pause = failure.retry_after.unwrap_or(Duration::from_secs(1)).min(retry::LONGEST);
                    self.creates.hold(now + chrono::TimeDelta::from_std(pause).unwrap_or_default());
                }
                Effect::CreateFailed { origin, failure, .. }
                    if matches!(failure.class, ErrorClass::NotFound | ErrorClass::Invalid) =>
                {
                    // The App or the image may be gone, or the image not built (Modal: `NOT_FOUND`,
                    // `FAILED_PRECONDITION`): both are looked up, or made, again.
                    let source = self.policy.class(&origin.class).map(|class| class.image.clone());
                    self.view.observed.images.retain(|class, _| {
                        self.policy.class(class).is_none_or(|class| Some(&class.image) != source.as_ref())
                    });
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
                | Effect::Terminated { .. }
                | Effect::SecretDeleted { .. }
                | Effect::Failed { .. } => {}
            }
        }
    }

    /// Notes which runner is in the image of some classes; one that we did not put there is found by its registrations.
    fn note_runner(&mut self, source: &ImageSource, runner: Option<RunnerVersion>) {
        let runners = &mut self.view.observed.runners_in_use;
        for class in self.policy.classes.iter().filter(|class| class.image == *source) {
            match runner {
                Some(version) => runners.insert(class.name.clone(), version),
                None => runners.remove(&class.name),
            };
        }
    }

    /// What the making of an image changes; nothing where it failed and the image of before can still be used.
    fn image_state(
        &self,
        source: &ImageSource,
        result: &Result<BuiltImage, String>,
        now: DateTime<Utc>,
    ) -> Option<ImageState> {
        match result {
            Ok(built) => Some(ImageState::Ready(built.image.clone())),
            Err(message) => {
                let mut of_source = self.policy.classes.iter().filter(|class| class.image == *source);
                let earlier = of_source.find_map(|class| self.view.observed.images.get(&class.name));
                let earlier = match earlier {
                    Some(ImageState::Failed { failures, .. } | ImageState::Building { failures }) => *failures,
                    Some(ImageState::Ready(_)) => return None,
                    None => 0,
                };
                Some(ImageState::Failed { message: message.clone(), failures: earlier + 1, at: now })
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

    fn answer(&mut self, question: StatusRequest) {
        let subject = Subject {
            view: &self.view,
            evidence: &self.evidence,
            plan: &self.plan,
            policy: &self.policy,
            recent: &self.recent,
            pickups: &self.pickups,
        };
        let status = Status::new(&subject, self.clock.now());
        // Whoever asked may have gone away.
        let _ = question.send(status);
    }

    /// Gauges follow what was observed; they are read every ten seconds or more seldom.
    fn meter(&mut self, now: DateTime<Utc>) {
        if self.metered_at.is_some_and(|at| now - at < METER_EVERY) {
            return;
        }
        self.metered_at = Some(now);
        self.meter.meter(&self.view, &self.plan, &self.policy, now);
        metrics::meter_runners(&self.view.observed, &self.evidence, now);
        self.tell_shortfalls();
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
    async fn stop(mut self) {
        self.drain().await;
        let now = self.clock.now();
        if let Some(keeper) = self.keeper {
            let outcomes = self.actor.as_mut().map(Actor::finished).unwrap_or_default();
            self.evidence.learn(&self.view.observed, &self.policy, &outcomes, now);
            keeper.finish(&self.evidence, now).await;
        }
        if let Some(pages) = self.pages {
            pages.finish().await;
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

/// Classes with the same image share its state.
fn set_images(
    images: &mut BTreeMap<ClassName, ImageState>,
    policy: &Policy,
    source: Option<&ImageSource>,
    state: &ImageState,
) {
    for class in policy.classes.iter().filter(|class| Some(&class.image) == source) {
        images.insert(class.name.clone(), state.clone());
    }
}
