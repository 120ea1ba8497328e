//! Runs the unchanged controller against a World in one process: everything is encoded and decoded, nothing
//! waits on a socket, so tokio's paused clock makes a virtual hour take seconds and repeat exactly.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::FutureExt;
use futures::future::select_all;
use sandrunner::clock::Clock;
use sandrunner::config::{ClassConfig, Config, Environment, GithubConfig, LimitsConfig, ModalConfig, Settings};
use sandrunner::controller::{Asker, Question};
use sandrunner::daemon::{self, Clients, Heard};
use sandrunner::github::{self, GithubSettings};
use sandrunner::http::webhook::Hint;
use sandrunner::ids::ClassName;
use sandrunner::observe::class_tag;
use sandrunner::poll::ListOrder;
use sandrunner::sim::{
    APP_ID, APP_KEY, Befallen, Client, ControllerChange, Event, Mishap, Profile, Report, Scenario, Service,
    StatedLimits, What, World,
};
use sandrunner::status::Status;
use sandrunner::{modal, state_dir};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A World and its clock, which starts at a fixed time.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) world: World,
    pub(crate) clock: Clock,
    config: Config,
    controllers: u32,
    /// How far the wall clock of the controllers' machine is ahead of the World's.
    wall_ahead: TimeDelta,
    keeping: Keeping,
    /// Where the controllers keep what they learn.
    states: TempDir,
    /// Where the first one does, if not there.
    place: Option<PathBuf>,
    questions: Questions,
    nudges: Nudges,
    list_order: ListOrder,
}

/// What the controllers ask with: GitHub's token, Modal's token id and its secret. The checker looks for them.
pub(crate) const SECRETS: [&str; 3] = ["ghp_canary7rk2", "ak-canary9xw4", "as-canary5tz8"];

/// What the controllers keep over a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// Nothing: they have no state directory.
    Nothing,
    /// What they last saved.
    All,
    /// That, or nothing, or a file that is cut off, in turns that begin with a number.
    ///
    /// For a run that repeats exactly the runtime needs to have one thread for blocking work: then a start reads
    /// only after a save that was under way at the kill.
    ByTurns(u64),
}

/// Asks the first controller for its status, as the HTTP server does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Questions(Arc<Mutex<Option<Asker>>>);

impl Questions {
    /// Asks; the answer is there after the next pass.
    pub(crate) fn ask(&self) -> oneshot::Receiver<Status> {
        let asker = self.0.lock().expect("no holder panics");
        // A controller that is just being started does not answer.
        asker.as_ref().map_or_else(|| oneshot::channel().1, |asker| asker.try_ask(Question::Status))
    }
}

/// Hints to the first controller, as the HTTP server gives them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Nudges(Arc<Mutex<Option<mpsc::Sender<Hint>>>>);

impl Nudges {
    /// Gives a hint; where too many wait, it is lost.
    pub(crate) fn give(&self, hint: Hint) {
        let sender = self.0.lock().expect("no holder panics");
        drop(sender.as_ref().map(|sender| sender.try_send(hint)));
    }
}

/// What happens to the controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// They go on.
    GoOn,
    /// They are killed and started again.
    Kill,
    /// The wall clock of their machine jumps by so much: they follow the monotonic clock, and only one that is
    /// started later reads the wall clock.
    Jump(TimeDelta),
    /// Their machine is suspended for so long: its clock stands still while the World goes on.
    Suspend(Duration),
    /// They are stopped, and the run judged.
    End,
}

/// A controller that runs, as a process of the World.
#[derive(Debug)]
struct Process {
    client: Client,
    clock: Clock,
    tasks: JoinSet<()>,
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) report: Report,
    pub(crate) history: Vec<Event>,
}

/// An account with the GitHub App of a World.
pub(crate) fn app_account(name: &str, allowed: &[impl ToString]) -> GithubConfig {
    GithubConfig {
        name: name.to_owned(),
        app_id: Some(APP_ID.to_owned()),
        private_key: Some(APP_KEY.to_owned().into()),
        allowed_repos: allowed.iter().map(ToString::to_string).collect(),
        ..GithubConfig::default()
    }
}

/// The time at which every run starts.
pub(crate) fn epoch() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_500)
}

impl Lab {
    /// The configuration of an operator with much room, pointed at a World.
    pub(crate) fn new(profile: Profile, scenario: Scenario, seed: u64) -> Self {
        let clock = Clock::scaled(epoch(), 1.0);
        let [token, token_id, token_secret] = SECRETS.map(|secret| Some(secret.to_owned().into()));
        let config = Config {
            github: vec![GithubConfig {
                token,
                allowed_repos: scenario.allowed_repos().iter().map(ToString::to_string).collect(),
                mutations_per_minute: 180,
                ..GithubConfig::default()
            }],
            modal: ModalConfig { token_id, token_secret, ..ModalConfig::default() },
            limits: LimitsConfig { max_sandboxes: 5_000, max_gpus: 1_000, ..LimitsConfig::default() },
            ..Config::default()
        };
        let world = World::new(profile, scenario, seed, clock.clone());
        Self {
            world,
            clock,
            config,
            controllers: 1,
            wall_ahead: TimeDelta::zero(),
            keeping: Keeping::Nothing,
            states: TempDir::new().expect("a scratch directory"),
            place: None,
            questions: Questions::default(),
            nudges: Nudges::default(),
            list_order: ListOrder::Index,
        }
    }

    /// Runs so many controllers with the same configuration; they are the World's clients 1, 2 and so on.
    pub(crate) fn controllers(self, controllers: u32) -> Self {
        Self { controllers, ..self }
    }

    /// Sets the wall clock of the controllers' machine off from the start.
    pub(crate) fn wall_ahead(self, wall_ahead: TimeDelta) -> Self {
        Self { wall_ahead, ..self }
    }

    /// Gives each controller a state directory.
    pub(crate) fn keeping(self, keeping: Keeping) -> Self {
        Self { keeping, ..self }
    }

    /// Gives the only controller a state directory that stays.
    pub(crate) fn keeping_in(self, dir: &Path) -> Self {
        Self { keeping: Keeping::All, place: Some(dir.to_owned()), ..self }
    }

    /// What asks the first controller, whichever life it is in.
    pub(crate) fn questions(&self) -> Questions {
        self.questions.clone()
    }

    /// What gives hints to the first controller, whichever life it is in.
    pub(crate) fn nudges(&self) -> Nudges {
        self.nudges.clone()
    }

    /// Reads run lists in another order where not all can be read each interval.
    pub(crate) fn list_order(self, list_order: ListOrder) -> Self {
        Self { list_order, ..self }
    }

    /// Changes the configuration.
    pub(crate) fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// States the limits of the configuration, for whoever judges the history.
    fn state_limits(&self) {
        let limit_of =
            |class: &ClassConfig| Some((class_tag(&ClassName::new(class.name.as_str())), class.max_sandboxes?));
        let LimitsConfig { max_sandboxes, max_sandboxes_per_repo, max_gpus, spend_per_day: _ } = self.config.limits;
        self.world.state_limits(StatedLimits {
            sandboxes: Some(max_sandboxes),
            sandboxes_per_repo: max_sandboxes_per_repo,
            classes: self.config.runner_classes.iter().filter_map(limit_of).collect(),
            gpus: Some(max_gpus),
        });
    }

    /// A controller that runs until its tasks are dropped, as if its process had been killed.
    async fn start(&self, number: u32, stop: &CancellationToken) -> Process {
        let mut settings = Settings::new(&self.config, &Environment::new()).expect("the configuration is right");
        settings.policy.list_order = self.list_order;
        let (client, clock) = (self.world.client(number), self.clock.on_machine(self.wall_ahead));
        let connect = |account: &GithubSettings| {
            github::connect_with_service(client.github_service(), account.clone(), clock.clone()).expect("settings")
        };
        let github = settings.github.iter().map(connect).collect();
        let modal = modal::connect_with_service(client.modal_service(), settings.modal.clone(), clock.clone());
        let clients = Clients { github, modal: modal.expect("settings") };
        let modal_reader = clients.modal.0.clone();
        let (asker, questions) = Asker::new(1);
        if number == 1 {
            *self.questions.0.lock().expect("no holder panics") = Some(asker);
        }
        let (nudge, nudges) = mpsc::channel(1_024);
        if number == 1 {
            *self.nudges.0.lock().expect("no holder panics") = Some(nudge);
        }
        let heard = Heard { questions, nudges };
        let mut controller = daemon::controller(&settings, clients, clock.clone(), Arc::default(), heard);
        if self.keeping != Keeping::Nothing {
            let (deployment, fingerprint) = (&settings.policy.deployment, settings.runner_fingerprint());
            let (kept, keeper) = state_dir::open(&self.state_dir(number), deployment, fingerprint, clock.now()).await;
            let dir = self.state_dir(number);
            let pages = state_dir::open_pages(&dir, deployment, controller.github_readers(), clock.now()).await;
            let logs = state_dir::open_logs(&dir, deployment, modal_reader, clock.clone());
            let book = state_dir::open_book(&dir, deployment, clock.now()).await;
            controller = controller.with_kept(kept, keeper).with_pages(pages).with_logs(logs).with_book(book);
        }
        self.world.note_controller(number, ControllerChange::Started);
        let mut tasks = JoinSet::new();
        let stopped = stop.clone().cancelled_owned();
        tasks.spawn(async move { drop(controller.run(stopped).await) });
        Process { client, clock, tasks }
    }

    /// Each has a machine of its own.
    pub(crate) fn state_dir(&self, number: u32) -> PathBuf {
        self.place.clone().unwrap_or_else(|| self.states.path().join(number.to_string()))
    }

    /// Kills a controller, if it is not dead yet, and starts it again.
    async fn restart(&mut self, process: &mut Process, number: u32, stop: &CancellationToken) {
        self.world.note_controller(number, ControllerChange::Killed);
        // A task that was aborted is gone only when it has been joined.
        process.tasks.shutdown().await;
        self.lose(number).await;
        self.befall().await;
        *process = self.start(number, stop).await;
    }

    /// Carries out what befell machines, whose controllers are dead. A second controller is started later.
    async fn befall(&mut self) {
        while let Some(Befallen { client, mishap }) = self.world.take_befallen() {
            if mishap == Mishap::SecondController {
                self.controllers += 1;
            }
            self.wall_ahead += mishap.clock_jump();
            let settings = Settings::new(&self.config, &Environment::new()).expect("the configuration is right");
            let (dir, deployment) = (self.state_dir(client), settings.policy.deployment);
            // Behind a save that goes on after the kill.
            let harmed = tokio::task::spawn_blocking(move || state_dir::harm(&dir, &deployment, mishap));
            harmed.await.expect("nothing in it panics").expect("a scratch directory can be changed");
        }
    }

    /// What happens to a state directory while its controller is dead.
    async fn lose(&mut self, number: u32) {
        let Keeping::ByTurns(turn) = &mut self.keeping else { return };
        *turn += 1;
        let (turn, dir) = (*turn % 3, self.state_dir(number));
        // Behind a save that goes on after the kill.
        let lost = tokio::task::spawn_blocking(move || match turn {
            0 => {
                // It may not be there yet.
                let _ = fs::remove_dir_all(&dir);
            }
            1 => {
                let file = dir.join("evidence-main.json");
                if let Ok(kept) = fs::read(&file) {
                    fs::write(&file, &kept[..kept.len() / 2]).expect("what was read can be written");
                }
            }
            _ => {}
        });
        lost.await.expect("nothing in it panics");
    }

    /// Runs the controller until `is_over`, asked every virtual second, or until `limit` has passed.
    pub(crate) async fn run(self, limit: Duration, mut is_over: impl FnMut(&World) -> bool) -> Outcome {
        let next = |world: &World| if is_over(world) { Next::End } else { Next::GoOn };
        self.drive(limit, Duration::from_secs(1), next).await
    }

    /// Runs the controllers, and does to them what `next` says, asked after each `pause`, and what befalls their
    /// machines. A controller that dies of a [`sandrunner::sim::Crash`] or a [`Mishap`] is started again at once.
    pub(crate) async fn drive(
        mut self,
        limit: Duration,
        pause: Duration,
        mut next: impl FnMut(&World) -> Next,
    ) -> Outcome {
        self.state_limits();
        let stop = CancellationToken::new();
        let mut processes = Vec::new();
        let until = self.clock.now() + TimeDelta::from_std(limit).expect("a limit of hours");
        while self.clock.now() < until {
            self.befall().await;
            for number in u32::try_from(processes.len()).expect("a few controllers")..self.controllers {
                processes.push(self.start(number + 1, &stop).await);
            }
            match next(&self.world) {
                Next::GoOn => self.wait(pause, &mut processes, &stop).await,
                Next::Kill => {
                    for (process, number) in processes.iter_mut().zip(1..) {
                        self.restart(process, number, &stop).await;
                    }
                }
                Next::Jump(by) => self.wall_ahead += by,
                Next::Suspend(duration) => {
                    self.world.advance(duration);
                    let behind = -TimeDelta::from_std(duration).expect("a duration of hours");
                    for process in &processes {
                        process.clock.shift(behind);
                    }
                }
                Next::End => break,
            }
        }
        let outcome = Outcome { report: self.world.report(), history: self.world.history(0) };
        stop.cancel();
        for process in &mut processes {
            while process.tasks.join_next().await.is_some() {}
        }
        outcome
    }

    /// Lets the controllers run for `pause`, or until one of them has died.
    async fn wait(&mut self, pause: Duration, processes: &mut [Process], stop: &CancellationToken) {
        let clients: Vec<Client> = processes.iter().map(|process| process.client.clone()).collect();
        let deaths = select_all(clients.iter().map(|client| client.died().boxed()));
        let died = tokio::select! {
            biased;
            ((), index, _) = deaths => Some(index),
            () = self.clock.sleep(pause) => None,
        };
        if let Some(index) = died {
            let number = u32::try_from(index + 1).expect("a few controllers");
            self.restart(&mut processes[index], number, stop).await;
        }
    }
}

/// Every expected job has ended, and nothing of ours is left; asked for in full every ten seconds only, because a
/// report reads the whole history.
pub(crate) fn is_done_and_clean(world: &World) -> bool {
    let is_turn = world.clock().now().timestamp() % 10 == 0;
    if !is_turn || world.summary().expected_jobs_open > 0 {
        return false;
    }
    let report = world.report();
    (report.sandboxes_live_at_end, report.runners_left_at_end, report.secrets_left_at_end) == (0, 0, 0)
}

impl Outcome {
    /// Calls of a service by operation and status.
    pub(crate) fn calls(&self, of: Service) -> BTreeMap<String, usize> {
        let mut calls = BTreeMap::new();
        for event in &self.history {
            if let What::Call { service, operation, status, .. } = &event.what
                && *service == of
            {
                *calls.entry(format!("{operation:?} {status}")).or_default() += 1;
            }
        }
        calls
    }

    /// When something happened, in seconds from the start.
    pub(crate) fn times(&self, mut is_it: impl FnMut(&What) -> bool) -> Vec<f64> {
        let events = self.history.iter().filter(|event| is_it(&event.what));
        events.map(|event| (event.at - epoch()).as_seconds_f64()).collect()
    }

    /// The run as a few lines, for messages.
    pub(crate) fn summary(&self) -> String {
        format!(
            "{:#?}\nGitHub: {:#?}\nModal: {:#?}",
            self.report,
            self.calls(Service::Github),
            self.calls(Service::Modal)
        )
    }
}
