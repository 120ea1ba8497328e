//! Runs the unchanged controller against a World in one process: everything is encoded and decoded, nothing
//! waits on a socket, so tokio's paused clock makes a virtual hour take seconds and repeat exactly.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sandrunner::clock::Clock;
use sandrunner::config::{Config, Environment, GithubConfig, LimitsConfig, ModalConfig, Settings};
use sandrunner::daemon::{self, Clients};
use sandrunner::sim::{Event, Profile, Report, Scenario, Service, What, World};
use sandrunner::{github, modal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A World and a clock that starts at a fixed time.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) world: World,
    pub(crate) clock: Clock,
    config: Config,
}

/// What happens to a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// It goes on.
    GoOn,
    /// It is killed and started again.
    Kill,
    /// It is stopped, and the run judged.
    End,
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) report: Report,
    pub(crate) history: Vec<Event>,
}

/// The time at which every run starts.
pub(crate) fn epoch() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + chrono::TimeDelta::days(20_500)
}

impl Lab {
    /// The configuration of an operator with much room, pointed at a World.
    pub(crate) fn new(profile: Profile, scenario: Scenario, seed: u64) -> Self {
        let clock = Clock::scaled(epoch(), 1.0);
        let config = Config {
            github: vec![GithubConfig {
                token: Some("simulated".to_owned().into()),
                allowed_repos: scenario.allowed_repos().iter().map(ToString::to_string).collect(),
                mutations_per_minute: 180,
                ..GithubConfig::default()
            }],
            modal: ModalConfig {
                token_id: Some("ak-simulated".to_owned().into()),
                token_secret: Some("as-simulated".to_owned().into()),
                create_burst: 150,
                ..ModalConfig::default()
            },
            limits: LimitsConfig { max_sandboxes: 5_000, max_gpus: 1_000, ..LimitsConfig::default() },
            ..Config::default()
        };
        Self { world: World::new(profile, scenario, seed, clock.clone()), clock, config }
    }

    /// Changes the configuration.
    pub(crate) fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// A controller that runs until the set is dropped, as if its process had been killed.
    fn start(&self, stop: &CancellationToken) -> JoinSet<()> {
        let settings = Settings::new(&self.config, &Environment::new()).expect("the configuration is right");
        let github =
            github::connect_with_service(self.world.github_service(), settings.github[0].clone(), self.clock.clone());
        let modal = modal::connect_with_service(self.world.modal_service(), settings.modal.clone(), self.clock.clone());
        let clients = Clients { github: vec![github.expect("settings")], modal: modal.expect("settings") };
        let (_ask, questions) = mpsc::channel(1);
        let controller = daemon::controller(&settings, clients, self.clock.clone(), Arc::default(), questions);
        let mut tasks = JoinSet::new();
        tasks.spawn(controller.run(stop.clone().cancelled_owned()));
        tasks
    }

    /// Runs the controller until `is_over`, asked every virtual second, or until `limit` has passed.
    pub(crate) async fn run(self, limit: Duration, mut is_over: impl FnMut(&World) -> bool) -> Outcome {
        let next = |world: &World| if is_over(world) { Next::End } else { Next::GoOn };
        self.drive(limit, Duration::from_secs(1), next).await
    }

    /// Runs the controller, kills it and starts another as `next` says, asked after each `pause`.
    pub(crate) async fn drive(self, limit: Duration, pause: Duration, mut next: impl FnMut(&World) -> Next) -> Outcome {
        let stop = CancellationToken::new();
        let mut tasks = self.start(&stop);
        let until = self.clock.now() + chrono::TimeDelta::from_std(limit).expect("a limit of hours");
        while self.clock.now() < until {
            match next(&self.world) {
                Next::GoOn => self.clock.sleep(pause).await,
                Next::Kill => {
                    // A task that was aborted is gone only when it has been joined.
                    tasks.shutdown().await;
                    tasks = self.start(&stop);
                }
                Next::End => break,
            }
        }
        let outcome = Outcome { report: self.world.report(), history: self.world.history(0) };
        stop.cancel();
        while tasks.join_next().await.is_some() {}
        outcome
    }
}

/// Every expected job has ended, and nothing of ours is left.
pub(crate) fn is_done_and_clean(world: &World) -> bool {
    if world.summary().expected_jobs_open > 0 {
        return false;
    }
    let report = world.report();
    report.sandboxes_live_at_end == 0 && report.runners_left_at_end == 0
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
