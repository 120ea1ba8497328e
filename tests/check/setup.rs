//! A World, the configuration of an operator whom it suits, and what the check says of both.

use chrono::{DateTime, TimeDelta};
use sandrunner::check::{self, Check, Facts, Failed, Finding, Progress, Verdict, Writes};
use sandrunner::clock::Clock;
use sandrunner::config::{Config, Environment, GithubConfig, ModalConfig, Settings};
use sandrunner::daemon::Clients;
use sandrunner::error::ErrorClass;
use sandrunner::github::{self, GithubSettings};
use sandrunner::modal;
use sandrunner::sim::{APP_ID, APP_KEY, Operation, Profile, RemovalReason, Scenario, What, World};
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;

/// A World with a configuration.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) world: World,
    pub(crate) config: Config,
    pub(crate) writes: Writes,
    /// How far the machine's clock is ahead of the services'.
    pub(crate) ahead: TimeDelta,
}

impl Setup {
    /// With a scenario.
    pub(crate) fn of(profile: Profile, scenario: &Value) -> Self {
        let scenario: Scenario = serde_json::from_value(scenario.clone()).unwrap();
        let clock = Clock::scaled(DateTime::UNIX_EPOCH + TimeDelta::days(20_500), 1.0);
        let secret = |text: &str| Some(text.to_owned().into());
        let config = Config {
            github: vec![GithubConfig {
                token: secret("ghp_canary7rk2"),
                allowed_repos: scenario.allowed_repos().iter().map(ToString::to_string).collect(),
                ..GithubConfig::default()
            }],
            modal: ModalConfig {
                token_id: secret("ak-canary9xw4"),
                token_secret: secret("as-canary5tz8"),
                ..ModalConfig::default()
            },
            builtin_gpus: Vec::new(),
            ..Config::default()
        };
        let world = World::new(profile, scenario, 1, clock);
        Self { world, config, writes: Writes::OfProofs, ahead: TimeDelta::zero() }
    }

    /// One private repository, `acme/web`, with a token.
    pub(crate) fn plain() -> Self {
        Self::of(Profile::calm(), &json!({ "repos": [{ "name": "acme/web" }] }))
    }

    /// Takes the World's GitHub App in place of the token.
    pub(crate) fn with_app(mut self) -> Self {
        let allowed_repos = self.config.github[0].allowed_repos.clone();
        let private_key = Some(APP_KEY.to_owned().into());
        let app_id = Some(APP_ID.to_owned());
        self.config.github = vec![GithubConfig { app_id, private_key, allowed_repos, ..GithubConfig::default() }];
        self
    }

    /// With another token.
    pub(crate) fn with_token(mut self, token: &str) -> Self {
        self.config.github[0].token = Some(token.to_owned().into());
        self
    }

    /// Changes the configuration.
    pub(crate) fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings::new(&self.config, &Environment::new()).unwrap()
    }

    /// Checks everything, and that nothing stays of it.
    pub(crate) async fn check(&self) -> Findings {
        let findings = self.look().await;
        assert_eq!(self.left(), Vec::<String>::new(), "{findings:#?}");
        findings
    }

    /// Checks everything.
    pub(crate) async fn look(&self) -> Findings {
        self.judge(&self.facts().await)
    }

    /// Judges what was found, or changed since.
    pub(crate) fn judge(&self, facts: &Facts) -> Findings {
        Findings(check::judge(&self.settings(), facts))
    }

    /// Asks for everything.
    pub(crate) async fn facts(&self) -> Facts {
        let settings = self.settings();
        let clock = self.world.clock().on_machine(self.ahead);
        let client = self.world.client(1);
        let connect = |account: &GithubSettings| {
            github::connect_with_service(client.github_service(), account.clone(), clock.clone()).unwrap()
        };
        let github = settings.github.iter().map(connect).collect();
        let modal = modal::connect_with_service(client.modal_service(), settings.modal.clone(), clock.clone()).unwrap();
        let clients = Clients { github, modal };
        let (proofs, progress) = (TaskTracker::new(), Progress::new(|done, known| assert!(done <= known)));
        let facts = check::gather(&settings, &clients, &clock, (self.writes, &proofs), &progress).await;
        proofs.close();
        proofs.wait().await;
        facts
    }

    /// What was made and is still there, and calls that make something: but for runners that were deleted.
    fn left(&self) -> Vec<String> {
        let mut left: Vec<String> = Vec::new();
        for event in self.world.history(0) {
            match event.what {
                What::RunnerRegistered { runner, .. } => left.push(runner),
                What::RunnerRemoved { runner, reason: RemovalReason::Deleted, .. } => {
                    left.retain(|other| *other != runner);
                }
                What::SecretChanged { secret, .. } => left.push(secret),
                // An App that is only looked up is not found; one that is made would be.
                What::Call { operation: Operation::App, status, .. } if status != 5 => left.push("an App".to_owned()),
                What::Call { operation, .. } if is_of_work(operation) => left.push(operation.name()),
                _ => {}
            }
        }
        left
    }

    /// How often an operation was called.
    pub(crate) fn calls(&self, wanted: Operation) -> usize {
        let is_it = |what: &What| matches!(what, What::Call { operation, .. } if *operation == wanted);
        self.world.history(0).iter().filter(|event| is_it(&event.what)).count()
    }
}

fn is_of_work(operation: Operation) -> bool {
    [Operation::Create, Operation::Image, Operation::Volume, Operation::Terminate, Operation::SetTags]
        .contains(&operation)
}

/// What the check said.
#[derive(Debug)]
pub(crate) struct Findings(pub(crate) Vec<Finding>);

impl Findings {
    pub(crate) fn worst(&self) -> Verdict {
        check::worst(&self.0)
    }

    /// The only finding of a name.
    pub(crate) fn one(&self, name: Check) -> &Finding {
        let all: Vec<&Finding> = self.0.iter().filter(|finding| finding.name == name).collect();
        assert_eq!(all.len(), 1, "{name}: {self:#?}");
        all[0]
    }

    /// The finding of a name for a subject.
    pub(crate) fn of(&self, name: Check, subject: &str) -> &Finding {
        let is_it = |finding: &&Finding| finding.name == name && finding.subject.as_deref() == Some(subject);
        self.0.iter().find(is_it).unwrap_or_else(|| panic!("{name} of {subject}: {self:#?}"))
    }

    /// Those that are worse than well.
    pub(crate) fn troubles(&self) -> Vec<Check> {
        self.0.iter().filter(|finding| finding.result > Verdict::Ok).map(|finding| finding.name).collect()
    }
}

/// A call that failed, in a service's words.
pub(crate) fn failed(class: ErrorClass, said: &str) -> Failed {
    Failed { class, said: said.to_owned(), remedy: None }
}

/// Whether a finding is so, and says so in its text and in its fix.
#[track_caller]
pub(crate) fn says(finding: &Finding, result: Verdict, text: &str, fix: &str) {
    assert_eq!(finding.result, result, "{finding:#?}");
    assert!(finding.text.contains(text), "`{text}` is missing in {finding:#?}");
    assert_eq!(finding.fix.is_some(), result > Verdict::Ok, "{finding:#?}");
    assert!(finding.fix.as_deref().unwrap_or_default().contains(fix), "`{fix}` is missing in {finding:#?}");
}

/// Whether a finding is well, and says so.
#[track_caller]
pub(crate) fn is_well(finding: &Finding, text: &str) {
    says(finding, Verdict::Ok, text, "");
}
