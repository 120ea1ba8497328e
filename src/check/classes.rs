//! Judges classes against each other: which are reached, whose runners take whose jobs, and what they may cost (pure).

use std::collections::BTreeSet;

use super::facts::Facts;
use super::{Check, Finding};
use crate::class::{Docker, LabelPattern, Network, Risk, Risks, RunnerClass, domain_admits, resolve};
use crate::config::Settings;
use crate::ids::{Labels, RepoName};
use crate::plan::Policy;
use crate::state::Registry;

/// What stands for the star of a pattern: no class names it.
const ANY_TEXT: &str = "sandrunner-check";

/// How many pairs of classes are named.
const NAMED: usize = 5;

/// Where images without a registry in their name come from.
const DOCKER_HUB: &str = "registry-1.docker.io";

pub(super) fn judge(settings: &Settings, facts: &Facts) -> Vec<Finding> {
    let repos: Vec<RepoName> = served(&settings.policy, facts);
    vec![
        reached(&settings.policy, &repos),
        overlap(settings, facts),
        gpu_spend(settings),
        docker(&settings.policy.classes),
    ]
}

/// The repositories that jobs can come from; where patterns mean some and none was listed, one that stands for them.
fn served(policy: &Policy, facts: &Facts) -> Vec<RepoName> {
    let named = policy.scopes().map(|scope| scope.repo);
    let mut repos: BTreeSet<RepoName> = named.chain(facts.repos.keys().map(|scope| scope.repo.clone())).collect();
    if policy.accounts.values().any(|account| !account.patterns.served.is_empty()) {
        repos.extend(format!("{ANY_TEXT}/{ANY_TEXT}").parse());
    }
    repos.into_iter().collect()
}

fn reached(policy: &Policy, repos: &[RepoName]) -> Finding {
    let shadowed: Vec<String> = policy
        .classes
        .iter()
        .filter_map(|class| Some(format!("`{}` (by `{}`)", class.name, shadow_of(class, policy, repos)?.name)))
        .collect();
    if shadowed.is_empty() {
        return Finding::ok(Check::ClassReached, format!("all {} classes", policy.classes.len()));
    }
    let text = format!("no job gets to {}: whatever labels it carries, the other class serves it", shadowed.join(", "));
    Finding::warning(
        Check::ClassReached,
        text,
        "give the class a label that the other one does not offer, or remove it",
    )
}

/// The class that gets all jobs of a class; none where some job gets to it.
fn shadow_of<'a>(class: &RunnerClass, policy: &'a Policy, repos: &[RepoName]) -> Option<&'a RunnerClass> {
    let mut other = None;
    let risks = [Risks::NONE, Risks::NONE.with(Risk::Fork), Risks::NONE.with(Risk::Public)];
    let both = Risks::NONE.with(Risk::Fork).with(Risk::Public);
    let repos = if class.repos.is_empty() { repos } else { &class.repos };
    for labels in label_sets(class, &policy.required_label) {
        for repo in repos {
            for risks in risks.into_iter().chain([both]) {
                match resolve(&policy.classes, &policy.required_label, (&labels, risks), repo) {
                    Ok(found) if found.name == class.name => return None,
                    Ok(found) => other = other.or(Some(found)),
                    Err(_) => {}
                }
            }
        }
    }
    other
}

/// Sets of labels that the class matches: the smallest one, and one for each of its patterns.
fn label_sets(class: &RunnerClass, required_label: &str) -> Vec<Labels> {
    let own: Vec<&str> = class.labels.iter().chain([required_label]).collect();
    let example = |pattern: &LabelPattern| {
        let label = pattern.to_string().replace('*', ANY_TEXT);
        Labels::new(own.iter().copied().map(str::to_owned).chain([label]))
    };
    std::iter::once(Labels::new(&own)).chain(class.extra_label_patterns.iter().map(example)).collect()
}

/// Two built-in classes are not told: what is to be known of them stands in the documentation, and only whoever makes classes
/// can give them labels.
fn overlap(settings: &Settings, facts: &Facts) -> Finding {
    let (policy, builtin) = (&settings.policy, &settings.builtin_classes);
    let mut pairs = Vec::new();
    for small in &policy.classes {
        for large in &policy.classes {
            let is_told = !(builtin.contains(&small.name) && builtin.contains(&large.name));
            if is_told && is_within(small, large) && meet(small, large, policy, facts) {
                pairs.push((small, large));
            }
        }
    }
    let Some((small, _)) = pairs.first() else {
        return Finding::ok(Check::ClassOverlap, "no runner of a configured class takes the jobs of another");
    };
    let mut told: Vec<String> = pairs
        .iter()
        .take(NAMED)
        .map(|(small, large)| format!("`{}` may take jobs of `{}`", large.name, small.name))
        .collect();
    if pairs.len() > NAMED {
        told.push(format!("and {} more", pairs.len() - NAMED));
    }
    let text = format!(
        "runners of {}, whose labels theirs contain; the job they were made for then gets another",
        told.join(", ")
    );
    let fix = format!(
        "give `{}` a label of its own, such as \"{}\", and its jobs the same (builtin_classes = false where it is built in)",
        small.name,
        suggestion(small)
    );
    Finding::warning(Check::ClassOverlap, text, fix)
}

/// Whether a runner with the labels of the one may take jobs that ask for those of the other.
fn is_within(small: &RunnerClass, large: &RunnerClass) -> bool {
    small.labels.len() < large.labels.len() && small.labels.iter().all(|label| large.labels.contains(label))
}

/// Whether both serve jobs from one place where runners are registered.
fn meet(one: &RunnerClass, other: &RunnerClass, policy: &Policy, facts: &Facts) -> bool {
    if one.repos.is_empty() || other.repos.is_empty() {
        return true;
    }
    let scopes = policy.scopes().chain(facts.repos.keys().cloned());
    let (mut of_one, mut of_other) = (BTreeSet::new(), BTreeSet::new());
    for scope in scopes {
        let registry: Registry = policy.registry(&scope);
        if one.repos.contains(&scope.repo) {
            of_one.insert(registry.clone());
        }
        if other.repos.contains(&scope.repo) {
            of_other.insert(registry);
        }
    }
    !of_one.is_disjoint(&of_other)
}

fn suggestion(class: &RunnerClass) -> String {
    let name = class.name.as_str();
    if class.labels.contains(name) { format!("{name}-only") } else { name.to_owned() }
}

fn gpu_spend(settings: &Settings) -> Finding {
    let (check, policy) = (Check::GpuSpend, &settings.policy);
    let with_gpu: Vec<&RunnerClass> = policy.classes.iter().filter(|class| class.gpu.is_some()).collect();
    if with_gpu.is_empty() || policy.limits.gpus == 0 {
        return Finding::ok(check, "no class gets a GPU");
    }
    if policy.limits.spend_per_day.is_some() {
        return Finding::ok(check, "limits.spend_per_day bounds what they cost");
    }
    let is_open = |class: &&&RunnerClass| class.repos.is_empty() && class.spend_per_day.is_none();
    let open: Vec<&str> = with_gpu.iter().filter(is_open).map(|class| class.name.as_str()).collect();
    if open.is_empty() {
        return Finding::ok(check, "each class with a GPU has a spend_per_day, or repositories of its own");
    }
    let text = format!(
        "every allowed repository may use {}, up to {} GPUs at a time, without a limit of what they cost",
        open.join(", "),
        policy.limits.gpus
    );
    let fix =
        "set limits.spend_per_day (US dollars), or limits.max_gpus = 0, or say by builtin_gpu_repos whose jobs may";
    Finding::warning(check, text, fix)
}

/// Combinations that cannot work are refused with the configuration.
fn docker(classes: &[RunnerClass]) -> Finding {
    let with_docker: Vec<&RunnerClass> = classes.iter().filter(|class| class.options.docker.is_some()).collect();
    if with_docker.is_empty() {
        return Finding::skipped(Check::Docker, "no class gives Docker to its jobs");
    }
    let pulls_nothing = |class: &&&RunnerClass| match &class.options.network {
        Network::Open => false,
        Network::Only { cidrs, domains } => {
            cidrs.is_empty() && !domains.iter().any(|domain| domain_admits(domain, DOCKER_HUB))
        }
    };
    let shut: Vec<&str> = with_docker.iter().filter(pulls_nothing).map(|class| class.name.as_str()).collect();
    if !shut.is_empty() {
        let text = format!("{} give Docker to their jobs, and their network shuts Docker Hub out", shut.join(", "));
        let fix = "add registry-1.docker.io, auth.docker.io and production.cloudflare.docker.com to network.domains, unless all \
                   images come from elsewhere";
        return Finding::warning(Check::Docker, text, fix);
    }
    let limited: Vec<&str> = with_docker
        .iter()
        .filter(|class| class.options.docker == Some(Docker::Gvisor))
        .map(|class| class.name.as_str())
        .collect();
    if limited.is_empty() {
        return Finding::ok(Check::Docker, "in virtual machines, with everything");
    }
    let text = format!("{}: under gVisor, with the host's network alone and without `services:`", limited.join(", "));
    Finding::ok(Check::Docker, text)
}
