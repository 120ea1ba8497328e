//! A run and how the controller is configured for it.

use std::time::Duration;

use chrono::TimeDelta;
use sandrunner::config::{ClassConfig, Config, ImageConfig, OrganizationConfig};
use sandrunner::sim::{Profile, Scenario};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::lab::{Keeping, Lab, app_account};

/// A run without any fault but those that belong to it.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) profile: Profile,
    /// Where it has an organization, runners are registered in that one's [`GROUP`].
    pub(crate) scenario: Scenario,
    pub(crate) seed: u64,
    /// `limits.max_sandboxes`.
    pub(crate) max_sandboxes: u32,
    /// `limits.max_sandboxes_per_repo`.
    pub(crate) max_sandboxes_per_repo: Option<u32>,
    /// `limits.max_gpus`.
    pub(crate) max_gpus: u32,
    /// Classes beside those that are built in.
    pub(crate) classes: Vec<ClassConfig>,
    /// How long sandboxes wait for a machine with a GPU.
    pub(crate) schedule_within: TimeDelta,
    /// Images that classes name.
    pub(crate) images: Vec<ImageConfig>,
    /// How many controllers run.
    pub(crate) controllers: u32,
    /// How many more join them later.
    pub(crate) joining: u32,
    /// When all controllers are killed and started again, in seconds from the start.
    pub(crate) kills_at: Vec<f64>,
    /// What they keep over that.
    pub(crate) keeping: Keeping,
    /// Whether what they account is held against what Modal took; they keep all then.
    pub(crate) is_accounted: bool,
    /// With what they ask GitHub.
    pub(crate) credential: Credential,
    /// How `github.allowed_repos` means the repositories.
    pub(crate) allowed: Allowed,
    /// `github.primary_reserve`.
    pub(crate) primary_reserve: u32,
    /// `reconcile.interval`, in seconds.
    pub(crate) interval_secs: u64,
    /// What part of GitHub's webhooks gets lost; none where there is no webhook at all.
    pub(crate) lost_nudges: Option<f64>,
}

/// With what GitHub is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credential {
    /// A personal token.
    Token,
    /// A GitHub App, which is installed at every owner.
    App,
}

/// How repositories are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allowed {
    /// Each by its name.
    Named,
    /// Those that a list shows and these patterns mean.
    Like(&'static [&'static str]),
}

/// The image that somebody else made for a class.
const OWN_IMAGE: &str = "im-own";

/// The runner group that runners of an organization join.
pub(crate) const GROUP: &str = "Modal";

impl Setup {
    /// One controller with much room and a personal token, in a World without lag, in which images are soon made.
    pub(crate) fn calm(scenario: Value) -> Self {
        Self {
            profile: Profile { image_build_secs: 1.0, ..Profile::calm() },
            scenario: serde_json::from_value(scenario).expect("a scenario"),
            seed: 1,
            max_sandboxes: 100,
            max_sandboxes_per_repo: None,
            max_gpus: 1_000,
            classes: Vec::new(),
            schedule_within: TimeDelta::minutes(15),
            images: Vec::new(),
            controllers: 1,
            joining: 0,
            kills_at: Vec::new(),
            keeping: Keeping::Nothing,
            is_accounted: false,
            credential: Credential::Token,
            allowed: Allowed::Named,
            primary_reserve: 500,
            interval_secs: 10,
            lost_nudges: None,
        }
    }

    /// Adds a class with an image of its own, of which at most so many sandboxes may live.
    pub(crate) fn add_class(&mut self, labels: &[&str], extra_label_patterns: &[&str], max_sandboxes: u32) {
        self.class(&json!({ "name": "own", "labels": labels, "extra_label_patterns": extra_label_patterns,
            "image": OWN_IMAGE, "max_sandboxes": max_sandboxes }));
        self.scenario.images.push(OWN_IMAGE.to_owned());
    }

    /// Adds a class as the configuration writes it.
    pub(crate) fn class(&mut self, class: &Value) {
        self.classes.push(ClassConfig::deserialize(class).expect("a class"));
    }

    /// Adds an image as the configuration writes it.
    pub(crate) fn image(&mut self, image: &Value) {
        self.images.push(ImageConfig::deserialize(image).expect("an image"));
    }

    /// The World and the controllers.
    pub(crate) fn lab(&self) -> Lab {
        let lab = Lab::new(self.profile.clone(), self.scenario.clone(), self.seed);
        lab.controllers(self.controllers).keeping(self.keeping).configure(|config| self.configure(config))
    }

    /// How long a run may go unread because the quota does not allow to read every list each interval:
    /// `reconcile.max_interval`.
    pub(crate) fn unread_within(&self) -> TimeDelta {
        let is_scarce = self.profile.github_requests_per_hour < Profile::calm().github_requests_per_hour;
        if is_scarce { TimeDelta::minutes(15) } else { TimeDelta::zero() }
    }

    /// How much longer a job may wait because Modal has none of the machines that its class would like best; after a kill
    /// the controller may find that out once more.
    pub(crate) fn sold_out_for(&self) -> TimeDelta {
        let is_short = !self.profile.modal_gpus_sold_out.is_empty();
        if is_short { self.schedule_within * 2 } else { TimeDelta::zero() }
    }

    fn configure(&self, config: &mut Config) {
        config.limits.max_sandboxes = self.max_sandboxes;
        config.limits.max_sandboxes_per_repo = self.max_sandboxes_per_repo;
        config.limits.max_gpus = self.max_gpus;
        config.runner_classes.clone_from(&self.classes);
        config.images.clone_from(&self.images);
        config.reconcile.interval = Duration::from_secs(self.interval_secs);
        let github = &mut config.github[0];
        if self.credential == Credential::App {
            *github = app_account("gh", &github.allowed_repos);
        }
        if let Allowed::Like(patterns) = self.allowed {
            github.allowed_repos = patterns.iter().map(ToString::to_string).collect();
        }
        github.organizations =
            self.scenario.organizations.iter().map(|organization| in_group(&organization.name)).collect();
        github.points_per_minute = self.profile.github_points_per_minute;
        github.mutations_per_minute = self.profile.github_mutations_per_minute;
        github.primary_reserve = self.primary_reserve;
    }
}

fn in_group(organization: &str) -> OrganizationConfig {
    OrganizationConfig { name: organization.to_owned(), runner_group: Some(GROUP.to_owned()), runner_group_id: None }
}
