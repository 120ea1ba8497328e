//! Registers a runner and creates the sandbox that runs it: the JIT config is minted last and used at once.

use std::collections::BTreeMap;

use secrecy::SecretString;

use super::{Effect, Task, class_of, unknown_class};
use crate::class::{Cidr, Docker, Network, Risk, RunnerClass, User};
use crate::error::{CallFailure, ErrorClass};
use crate::github::{MintRequest, Minted};
use crate::ids::{AppId, ImageId, OurName, RepoName, RunnerId, SecretId};
use crate::modal::{CreatedSandbox, Deletion, Gpu, ModalError, Mount, SandboxNetwork, SandboxSpec};
use crate::mutant::{self, Mutant};
use crate::observe::{class_tag, tag};
use crate::plan::{Create, DeregisterReason, Policy};
use crate::runner::{ENTRYPOINT, RUN_AS_USER, variable};
use crate::state::{Registry, Scope};

/// Where jobs work, relative to the runner's folder (the runner's default).
const WORK_FOLDER: &str = "_work";

/// Everything that is settled before the JIT config exists.
struct Prepared<'a> {
    class: &'a RunnerClass,
    app: AppId,
    image: &'a ImageId,
    /// The class's Secrets.
    secrets: Vec<SecretId>,
    volumes: Vec<Mount>,
}

pub(super) async fn create(task: &Task, create: &Create) -> Effect {
    let prepared = match prepare(task, create).await {
        Ok(prepared) => prepared,
        Err(failure) => {
            let failure = CallFailure { class: failure.class.before_the_call(), ..failure };
            return Effect::NotPrepared { name: create.name.clone(), origin: create.origin.clone(), failure };
        }
    };
    let registry = task.writers.policy.registry(&create.origin.scope);
    let github = match task.writers.github_of(&registry) {
        Ok(github) => github,
        Err(failure) => return mint_failed(create, failure),
    };
    let name = create.name.to_string();
    let request = MintRequest {
        name: &name,
        runner_group_id: create.runner_group_id,
        labels: &create.labels,
        work_folder: WORK_FOLDER,
    };
    let mut answer = github.generate_jit_config(&registry, request).await;
    let is_lost = answer.as_ref().is_err_and(|error| error.class().may_have_taken_effect());
    if is_lost && mutant::is(Mutant::MintRetriedBlindly) {
        answer = github.generate_jit_config(&registry, request).await;
    }
    match answer {
        Ok(minted) => sandbox(task, create, &prepared, minted).await,
        Err(error) if error.class() == ErrorClass::Conflict => {
            Effect::NameTaken { name: create.name.clone(), origin: create.origin.clone() }
        }
        Err(error) => mint_failed(create, error.into()),
    }
}

async fn prepare<'a>(task: &'a Task, create: &Create) -> Result<Prepared<'a>, CallFailure> {
    let class = class_of(&task.writers.policy, &create.origin).ok_or_else(|| unknown_class(&create.origin.class))?;
    let image = task.image.as_ref().ok_or_else(|| CallFailure {
        class: ErrorClass::Invalid,
        message: format!("class `{}` has no image yet", class.name),
        retry_after: None,
    })?;
    let app = task.app().await?;
    let mut secrets = Vec::new();
    for name in &class.options.secrets {
        secrets.push(task.secret(name).await.map_err(|failure| without_secret(name, failure))?);
    }
    let account = task.writers.policy.accounts.get(&create.origin.scope.account);
    let api = account.map_or("", |account| account.host.as_str());
    let mut volumes = Vec::new();
    for mount in &class.options.volumes {
        let name = mount.name_for(api, &create.origin.scope.repo, &class.name);
        let volume = task.volume(&name).await?;
        if volumes.iter().any(|other: &Mount| other.volume == volume) {
            let message = format!("two of the class's Volumes are the same, `{name}`: a sandbox has a Volume once");
            return Err(CallFailure { class: ErrorClass::Invalid, message, retry_after: None });
        }
        volumes.push(Mount { volume, path: mount.path.clone(), is_read_only: mount.is_read_only });
    }
    Ok(Prepared { class, app, image, secrets, volumes })
}

/// Says what to do about a Secret that is not there.
fn without_secret(name: &str, failure: CallFailure) -> CallFailure {
    if failure.class != ErrorClass::NotFound {
        return failure;
    }
    let message = format!("there is no Modal Secret `{name}`: make it in the workspace, or take it out of the class");
    CallFailure { message, ..failure }
}

fn mint_failed(create: &Create, failure: CallFailure) -> Effect {
    Effect::MintFailed { name: create.name.clone(), origin: create.origin.clone(), failure }
}

async fn sandbox(task: &Task, create: &Create, prepared: &Prepared<'_>, minted: Minted) -> Effect {
    let Minted { runner_id: runner, config } = minted;
    let (name, origin) = (create.name.clone(), create.origin.clone());
    let env = environment(task, create, prepared.class, config);
    // A sandbox with a GPU takes its environment from a Secret only.
    let secret = match create.origin.machine.gpu {
        None => None,
        Some(_) => match task.writers.modal.store_secret(&secret_name(&name, runner), &env).await {
            Ok(secret) => Some(secret),
            Err(error) => return Effect::CreateFailed { name, origin, runner, failure: error.into() },
        },
    };
    let spec = spec(create, prepared, env, runner, secret.clone());
    if mutant::is(Mutant::ConfigKept) {
        task.writers.clock.sleep(std::time::Duration::from_secs(90)).await;
    }
    let mut answer = task.writers.modal.create_sandbox(&spec).await;
    if answer.is_err() && mutant::is(Mutant::ConfigReused) {
        let again = SandboxSpec { name: format!("{}0", spec.name), ..spec };
        answer = task.writers.modal.create_sandbox(&again).await;
    }
    match answer {
        Ok(CreatedSandbox { id: sandbox, task, .. }) => {
            Effect::Created { name, origin, runner, sandbox, task, secret, image: prepared.image.clone() }
        }
        Err(error) => {
            let failure = CallFailure::from(error);
            if failure.class == ErrorClass::Conflict {
                // The name's sandbox is another's, so no sandbox will use this registration.
                return conflict(task, create, runner, secret.as_ref()).await;
            }
            if failure.class.may_have_taken_effect() && !mutant::is(Mutant::TimeoutIsNotCreated) {
                return Effect::MaybeCreated { name, origin, runner, failure };
            }
            // No sandbox will read it, and no tag remembers it.
            if let Some(secret) = secret {
                delete_unused(task, &secret).await;
            }
            Effect::CreateFailed { name, origin, runner, failure }
        }
    }
}

async fn conflict(task: &Task, create: &Create, runner: RunnerId, secret: Option<&SecretId>) -> Effect {
    if let Some(secret) = secret {
        delete_unused(task, secret).await;
    }
    let registry = task.writers.policy.registry(&create.origin.scope);
    if let Effect::Failed { failure } = task.deregister(&create.name, &registry, runner, DeregisterReason::Stale).await
    {
        tracing::warn!(repo = %registry, runner_name = %create.name, error = %failure, "a registration is left behind");
    }
    Effect::NameTaken { name: create.name.clone(), origin: create.origin.clone() }
}

/// What the Secret of a registration is called, so that whoever finds the registration finds the Secret: one whose
/// creation was not answered, or whose creator was killed, is in no tag.
pub(super) fn secret_name(name: &OurName, runner: RunnerId) -> String {
    format!("{name}-{runner}")
}

async fn delete_unused(task: &Task, secret: &SecretId) {
    let deleted: Result<Deletion, ModalError> = task.writers.modal.delete_secret(secret).await;
    if let Err(error) = deleted {
        let error = CallFailure::from(error);
        tracing::warn!(%error, "a Secret is left behind; the config in it opens nothing once its runner is deleted");
    }
}

/// The repositories whose jobs the runner may be given: its own, or all of its organization that the class serves,
/// patterns included: the runner may live when a repository is made that one of them means.
fn served(policy: &Policy, scope: &Scope, class: &RunnerClass) -> String {
    let Registry::Org(org) = policy.registry(scope) else { return scope.repo.to_string() };
    let Some(account) = policy.accounts.get(&org.account) else { return scope.repo.to_string() };
    let is_own = |repo: &&RepoName| repo.owner() == org.name.as_str();
    let entries: Vec<String> = if class.repos.is_empty() {
        let named = account.repos.iter().filter(is_own).map(RepoName::to_string);
        let meant = account.patterns.of_owner(org.name.as_str()).filter(|_| !mutant::is(Mutant::PatternsForgotten));
        named.chain(meant).collect()
    } else {
        let served = class.repos.iter().filter(is_own).filter(|repo| account.serves(repo));
        served.map(RepoName::to_string).collect()
    };
    entries.join(" ")
}

/// What the supervisor reads, with what the class adds.
fn environment(task: &Task, create: &Create, class: &RunnerClass, config: SecretString) -> Vec<(String, SecretString)> {
    let seconds = |duration: std::time::Duration| duration.as_secs().to_string();
    let plain = [
        (variable::RUNNER_DIR, task.writers.runner.dir.clone()),
        (variable::IDLE_TIMEOUT_SECS, seconds(class.clocks.idle_timeout)),
        (variable::START_TIMEOUT_SECS, seconds(class.clocks.start_timeout)),
        (variable::REPOSITORIES, served(&task.writers.policy, &create.origin.scope, class)),
        (variable::TRUSTED_ONLY, if class.admits.contains(Risk::Fork) { "0" } else { "1" }.to_owned()),
        (variable::SETUP_INFO, setup_info(create, class, task)),
    ];
    let docker = class.options.docker.map(|docker| (variable::DOCKER, docker.as_str().to_owned()));
    let user = match class.options.user {
        User::Root => None,
        User::Runner => Some((variable::RUN_AS, RUN_AS_USER.to_owned())),
    };
    let class_env = class.env.iter().map(|(name, value)| (name.clone(), value.clone()));
    let ours = plain.into_iter().chain(docker).chain(user).map(|(name, value)| (name.to_owned(), value));
    let mut env: Vec<(String, SecretString)> =
        class_env.chain(ours).map(|(name, value)| (name, value.into())).collect();
    env.push((variable::JIT_CONFIG.to_owned(), config));
    env
}

/// What a job's log says of its machine, in the form of GitHub's runner; the supervisor puts the region in.
fn setup_info(create: &Create, class: &RunnerClass, task: &Task) -> String {
    let lacks_surcharge = task.writers.policy.prices.lacks_surcharge(class, &create.origin.machine);
    let surcharge = if lacks_surcharge { ", without region surcharge" } else { "" };
    let gpu = create.origin.machine.gpu.as_ref();
    let gpu = gpu.map(|gpu| format!(", {} x {}", gpu.count, gpu.name)).unwrap_or_default();
    let price = create.price.map_or_else(|| "not known".to_owned(), |price| format!("{price:.4} USD per hour"));
    let detail = format!(
        "Class: {} ({} cores, {} MiB{gpu})\nImage: {} ({})\nRegion: {}\nPrice: {price}, as asked for{surcharge}",
        class.name,
        class.cpu,
        class.memory_mib,
        class.image,
        task.image.as_ref().map_or("", ImageId::as_str),
        variable::SETUP_INFO_REGION,
    );
    serde_json::json!([{ "group": "Modal sandbox", "detail": detail }]).to_string()
}

fn spec(
    create: &Create,
    prepared: &Prepared<'_>,
    env: Vec<(String, SecretString)>,
    runner: RunnerId,
    secret: Option<SecretId>,
) -> SandboxSpec {
    let (class, machine) = (prepared.class, &create.origin.machine);
    let options = &class.options;
    let network = match &options.network {
        Network::Open => SandboxNetwork::Open,
        Network::Only { cidrs, domains } => {
            SandboxNetwork::Only { cidrs: cidrs.iter().map(Cidr::to_string).collect(), domains: domains.clone() }
        }
    };
    // In a virtual machine Docker needs nothing of Modal's.
    let docker = options.docker.filter(|docker| *docker == Docker::Gvisor);
    SandboxSpec {
        app: prepared.app.clone(),
        name: create.name.to_string(),
        image: prepared.image.clone(),
        entrypoint: ENTRYPOINT.iter().map(|part| (*part).to_owned()).collect(),
        env: if secret.is_some() { Vec::new() } else { env },
        tags: tags(create, runner, secret.as_ref()),
        secret_ids: prepared.secrets.iter().cloned().chain(secret).collect(),
        cpu: class.cpu,
        cpu_limit: options.cpu_limit,
        memory_mib: class.memory_mib,
        memory_limit_mib: options.memory_limit_mib,
        gpu: machine.gpu.as_ref().map(|gpu| Gpu { name: gpu.name.clone(), count: gpu.count }),
        timeout: class.clocks.sandbox_timeout(),
        regions: machine.regions.clone(),
        workdir: None,
        runtime: options.runtime.map(|runtime| runtime.as_str().to_owned()),
        network,
        volumes: prepared.volumes.clone(),
        experimental: docker.map(|_| ("enable_docker".to_owned(), "true".to_owned())).into_iter().collect(),
    }
}

fn tags(create: &Create, runner: RunnerId, secret: Option<&SecretId>) -> BTreeMap<String, String> {
    let origin = &create.origin;
    let mut tags = BTreeMap::from([
        (tag::DEPLOYMENT.to_owned(), create.name.deployment.to_string()),
        (tag::ACCOUNT.to_owned(), create.name.account.to_string()),
        (tag::REPO.to_owned(), origin.scope.repo.as_tag()),
        (tag::RUN.to_owned(), origin.run.to_string()),
        (tag::JOB.to_owned(), create.name.job.to_string()),
        (tag::CLASS.to_owned(), class_tag(&origin.class)),
        (tag::GROUP.to_owned(), origin.group.to_string()),
        (tag::RUNNER.to_owned(), runner.to_string()),
    ]);
    let machine = &origin.machine;
    let optional = [
        (tag::GPU, machine.gpu.as_ref().map(crate::class::Gpu::as_tag)),
        (tag::REGIONS, machine.regions_tag()),
        (tag::WORKFLOW, create.workflow.clone()),
        (tag::SECRET, secret.map(SecretId::to_string)),
    ];
    tags.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    tags
}
