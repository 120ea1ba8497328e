//! Images and how they are built: a builder that carries out what can be told from a definition's lines.
//!
//! It pulls bases from registries that may be private, fails at a step that fails, and keeps the rest for done.

use std::collections::BTreeMap;

use tonic::Status;

use super::objects::definition_key;
use crate::modal::api;
use crate::modal::api::generic_result::GenericStatus;
use crate::sim::draws::seconds;
use crate::sim::fault::{FaultMode, Strike};
use crate::sim::history::{Operation, What};
use crate::sim::jobs::Time;
use crate::sim::scenario::ScenarioRegistry;
use crate::sim::world::State;

/// How long sandboxes of an image do not connect whose build a fault has struck, where the fault does not say.
const UNCONNECTED_SECS: f64 = 900.0;
/// The number of the kind of credentials that a registry is asked with: a user's name and password.
const STATIC_CREDS: i32 = api::RegistryAuthType::StaticCreds as i32;

/// An image: built, being built, or failed.
#[derive(Debug, Clone)]
pub(super) struct Image {
    pub(super) commands: Vec<String>,
    pub(super) built_at: Time,
    pub(super) failure: Option<Failure>,
    /// The version of the runner that is in it, as far as its definition tells.
    pub(super) runner: Option<String>,
    /// How its sandboxes fail to connect, and until when.
    unconnected: Option<(Strike, Time)>,
}

/// Why a build failed.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    /// The number of the line that failed, from 0.
    line: usize,
    /// What the builder wrote.
    log: String,
    /// What Modal says.
    exception: String,
}

impl Failure {
    fn at(line: usize, log: &str, exception: &str) -> Self {
        Self { line, log: log.to_owned(), exception: exception.to_owned() }
    }

    /// It was built and counts as not built since.
    pub(super) fn lost() -> Self {
        Self::at(0, "", "simulated fault: the image is not built")
    }
}

impl Image {
    /// One that nobody made here.
    pub(super) fn given(now: Time) -> Self {
        Self { commands: Vec::new(), built_at: now, failure: None, runner: None, unconnected: None }
    }

    pub(super) fn is_given(&self) -> bool {
        self.commands.is_empty()
    }

    /// How its build ended; none while it goes on.
    pub(super) fn result(&self, now: Time) -> Option<api::GenericResult> {
        let (status, exception, exitcode) = match &self.failure {
            Some(failure) => (GenericStatus::Failure, failure.exception.clone(), 1),
            None => (GenericStatus::Success, String::new(), 0),
        };
        (now >= self.built_at).then(|| api::GenericResult { status: status.into(), exception, exitcode })
    }

    /// The lines that the builder wrote: none after the one that failed.
    pub(super) fn log(&self) -> Vec<String> {
        let done = self.failure.as_ref().map_or(self.commands.len(), |failure| failure.line + 1);
        let mut lines: Vec<String> = self.commands.iter().take(done).map(|command| format!("=> {command}\n")).collect();
        let failed = self.failure.iter().filter(|failure| !failure.log.is_empty());
        lines.extend(failed.map(|failure| format!("{}\n", failure.log)));
        lines
    }
}

impl State {
    /// The id of a definition, and how its build ended.
    pub(super) fn image(
        &mut self,
        asked: &api::ImageGetOrCreateRequest,
    ) -> Result<(String, Option<api::GenericResult>), Status> {
        let definition = asked.image.as_ref().ok_or_else(|| Status::invalid_argument("image is missing"))?;
        if definition.dockerfile_commands.is_empty() {
            return Err(Status::invalid_argument("the image has no dockerfile_commands"));
        }
        let missing = |base: &&api::BaseImage| !self.objects.images.contains_key(&base.image_id);
        if let Some(base) = definition.base_images.iter().find(missing) {
            return Err(Status::not_found(format!("base image '{}' not found", base.image_id)));
        }
        let key = definition_key(definition, &asked.builder_version);
        if let Some(id) = self.objects.image_by_definition.get(&key).filter(|_| !asked.force_build) {
            let result = self.objects.images.get(id).and_then(|image| image.result(self.now));
            return Ok((id.clone(), result));
        }
        let image = self.build(definition)?;
        let id = self.new_object_id("im");
        self.objects.images.insert(id.clone(), image);
        self.objects.image_by_definition.insert(key, id.clone());
        Ok((id, None))
    }

    fn build(&mut self, definition: &api::Image) -> Result<Image, Status> {
        let commands = &definition.dockerfile_commands;
        let bases = || definition.base_images.iter().filter_map(|base| self.objects.images.get(&base.image_id));
        let runner = runner_installed(commands)
            .or_else(|| self.runner_behind(commands))
            .or_else(|| bases().find_map(|base| base.runner.clone()));
        let below = bases().find_map(|base| base.unconnected);
        let mut environment = BTreeMap::new();
        for secret in &definition.secret_ids {
            environment.extend(self.secret_values(secret)?.clone());
        }
        let own = self.pull_denied(definition)?.or_else(|| first_failure(commands));
        let refused = commands.iter().position(|command| self.is_download_refused(command, &environment));
        let own = own.or_else(|| refused.map(|line| Failure::at(line, "curl: (22) 401", "a command failed")));
        let strike = self.strike(Operation::ImageBuild, "");
        let until = |strike: Strike| self.now + seconds(strike.seconds_or(UNCONNECTED_SECS));
        let is_unconnected = |strike: &Strike| {
            matches!(strike.mode, FaultMode::NeverOnline | FaultMode::RegistrationFailed | FaultMode::Crash)
        };
        let unconnected = strike.filter(is_unconnected).map(|strike| (strike, until(strike))).or(below);
        let struck =
            strike.filter(|strike| !is_unconnected(strike)).map(|strike| struck_at(strike, commands.len() - 1));
        Ok(Image {
            commands: commands.clone(),
            built_at: self.now + seconds(self.profile.image_build_secs),
            failure: struck.or(own),
            runner,
            unconnected,
        })
    }

    /// Whether a base is in a private registry that the definition's Secret does not open.
    fn pull_denied(&self, definition: &api::Image) -> Result<Option<Failure>, Status> {
        let reference = definition.dockerfile_commands[0].strip_prefix("FROM ").unwrap_or_default();
        let is_in = |registry: &&ScenarioRegistry| {
            reference.strip_prefix(&registry.prefix).is_some_and(|rest| rest.starts_with(['/', ':', '@']))
        };
        let Some(registry) = self.scenario.private_registries.iter().find(is_in) else { return Ok(None) };
        let config = definition.image_registry_config.clone().unwrap_or_default();
        let is_open = config.registry_auth_type == STATIC_CREDS && {
            let values = self.secret_values(&config.secret_id)?;
            let is = |key: &str, value: &str| values.get(key).is_some_and(|it| it == value);
            is("REGISTRY_USERNAME", &registry.username) && is("REGISTRY_PASSWORD", &registry.password)
        };
        Ok((!is_open).then(|| pull_failure(reference)))
    }

    /// How a sandbox of an image fails to connect now, because a fault struck its build.
    pub(in crate::sim) fn strike_of_image(&mut self, image: &str) -> Option<Strike> {
        let (strike, until) = self.objects.images.get(image)?.unconnected?;
        if self.now >= until {
            return None;
        }
        let (mode, fault) = (strike.mode, strike.name.into());
        self.record(What::FaultStruck { operation: Operation::Boot, mode, fault, subject: "".into() });
        Some(strike)
    }
}

fn pull_failure(reference: &str) -> Failure {
    let log = format!("error: pull access denied for {reference}: the registry asks for other credentials");
    Failure::at(0, &log, "the base image cannot be pulled: unauthorized")
}

fn struck_at(strike: Strike, line: usize) -> Failure {
    if strike.mode == FaultMode::Unauthorized {
        return pull_failure("the base image");
    }
    Failure::at(line, "", "simulated fault: the build failed")
}

/// The first line whose command fails, as far as that can be told: `false`, and `exit` with a code, by themselves or after
/// `&&`.
fn first_failure(commands: &[String]) -> Option<Failure> {
    let code_of = |step: &str| match step.trim().split_once(' ') {
        None if step.trim() == "false" => Some(1),
        Some(("exit", code)) => code.trim().parse::<u8>().ok().filter(|code| *code != 0),
        None | Some(_) => None,
    };
    let failed = commands.iter().enumerate().find_map(|(line, command)| {
        let mut steps = command.strip_prefix("RUN ")?.split("&&");
        steps.find_map(code_of).map(|code| (line, code))
    });
    let (line, code) = failed?;
    let log = format!("error: the command ended with exit code {code}");
    Some(Failure::at(line, &log, &format!("step {} ended with exit code {code}", line + 1)))
}

/// The version of the runner whose archive some commands fetch.
fn runner_installed(commands: &[String]) -> Option<String> {
    let version = |command: &String| {
        let (_, rest) = command.split_once("actions-runner-linux-x64-")?;
        Some(rest.split_once(".tar.gz")?.0.to_owned())
    };
    commands.iter().find_map(version)
}
