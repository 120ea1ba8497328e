//! Judges what was found out of Modal: token, environment, App, quota, images, Secrets (pure).

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{ModalFacts, Told};
use super::{Check, Finding};
use crate::class::{Docker, ImageBase, ImageSource, RunnerClass, Runtime};
use crate::config::Settings;
use crate::cost::gpu_key;
use crate::error::ErrorClass;
use crate::ids::ImageId;
use crate::state::{Quota, Spend};

pub(super) fn judge(settings: &Settings, facts: &ModalFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(failed) = &facts.token {
        let fix = match failed.class {
            ErrorClass::Unauthorized | ErrorClass::Forbidden => {
                "make a token in the settings of the Modal workspace, and set both its halves, `ak-…` and `as-…`"
                    .to_owned()
            }
            ErrorClass::Policy
            | ErrorClass::NotFound
            | ErrorClass::Conflict
            | ErrorClass::Invalid
            | ErrorClass::RateLimited
            | ErrorClass::Unavailable
            | ErrorClass::Unreadable
            | ErrorClass::Unsent => failed.fix(),
        };
        findings.push(Finding::failure(Check::ModalToken, failed.said.clone(), fix));
        findings.push(Finding::skipped(Check::Image, "Modal cannot be asked for images and Secrets"));
    } else {
        findings.push(Finding::ok(Check::ModalToken, "Modal takes it"));
        findings.extend(environment(settings, &facts.environments));
        findings.push(app(settings, &facts.app));
        findings.extend(settings.images.iter().filter_map(|source| image(settings, facts, source)));
        findings.push(secrets(facts));
    }
    findings.push(gpus(settings));
    findings.push(virtual_machines(&settings.policy.classes));
    findings
}

fn environment(settings: &Settings, told: &Told<(Vec<Quota>, Option<Quota>)>) -> Vec<Finding> {
    let wanted = &settings.modal.environment;
    match told {
        Err(failed) => vec![Finding::failed(Check::ModalEnvironment, failed)],
        Ok((_, Some(ours))) => {
            let found = Finding::ok(Check::ModalEnvironment, format!("environment `{}`", ours.environment));
            vec![found, quota(settings, ours)]
        }
        Ok((all, None)) if wanted.is_empty() => {
            let names = names(all);
            let text = format!("no environment of the workspace is the default one; there are {names}");
            vec![Finding::failure(Check::ModalEnvironment, text, "name one of them as modal.environment")]
        }
        Ok((all, None)) => {
            let text = format!("the workspace has no environment `{wanted}`; there are {}", names(all));
            let fix = "name one of them as modal.environment, or make it: `modal environment create NAME`";
            vec![Finding::failure(Check::ModalEnvironment, text, fix)]
        }
    }
}

fn names(environments: &[Quota]) -> String {
    let names: Vec<String> = environments.iter().map(|one| format!("`{}`", one.environment)).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn quota(settings: &Settings, quota: &Quota) -> Finding {
    let (check, limits) = (Check::ModalQuota, &settings.policy.limits);
    if quota.spend == Spend::LimitReached {
        let fix = "raise the spend limit in the settings of the Modal workspace, or wait for its next cycle";
        return Finding::failure(check, "the spend limit of the workspace is reached, so Modal creates nothing", fix);
    }
    if let Some(most) = quota.max_tasks.filter(|most| *most < limits.sandboxes) {
        let text = format!(
            "Modal runs {most} containers at a time, of whomever, and limits.max_sandboxes is {}",
            limits.sandboxes
        );
        return Finding::warning(
            check,
            text,
            format!("set limits.max_sandboxes to {most} or less, or have the quota raised"),
        );
    }
    let gpus = quota.max_gpus.filter(|most| settings.policy.has_gpus() && *most < limits.gpus);
    if let Some(most) = gpus {
        let text = format!("Modal gives {most} GPUs at a time, to whomever, and limits.max_gpus is {}", limits.gpus);
        return Finding::warning(
            check,
            text,
            format!("set limits.max_gpus to {most} or less, or have the quota raised"),
        );
    }
    let of = |most: Option<u32>| most.map_or_else(|| "no limit".to_owned(), |most| format!("at most {most}"));
    let Quota { tasks, gpus, max_tasks, max_gpus, .. } = quota;
    let text = format!("in use: {tasks} containers ({}), {gpus} GPUs ({})", of(*max_tasks), of(*max_gpus));
    Finding::ok(check, text)
}

fn app(settings: &Settings, told: &Told<bool>) -> Finding {
    let name = &settings.modal.app_name;
    match told {
        Ok(true) => Finding::ok(Check::ModalApp, format!("App `{name}` is there")),
        Ok(false) => Finding::ok(Check::ModalApp, format!("App `{name}` is not there yet: the first start makes it")),
        Err(failed) => Finding::failed(Check::ModalApp, failed),
    }
}

/// The classes that have an image.
fn classes_of<'a>(settings: &'a Settings, source: &'a ImageSource) -> impl Iterator<Item = &'a RunnerClass> {
    settings.policy.classes.iter().filter(move |class| class.image == *source)
}

/// Judges an image; none for one that no class has.
fn image(settings: &Settings, facts: &ModalFacts, source: &ImageSource) -> Option<Finding> {
    classes_of(settings, source).next()?;
    let id = match source {
        ImageSource::Existing(id) => Some(id),
        ImageSource::Recipe(recipe) => match &recipe.base {
            ImageBase::Existing(id) => Some(id),
            ImageBase::Default { .. } | ImageBase::Registry(_) => None,
        },
        ImageSource::Default { .. } | ImageSource::Registry(_) => None,
    };
    let finding = match id.and_then(|id| Some((id, facts.images.get(&ImageId::new(id.as_str()))?))) {
        Some((id, Ok(false))) => {
            let fix = "name an image of the same workspace and environment, or leave `image` out for the default one";
            Finding::failure(Check::Image, format!("Modal has no image {id}"), fix)
        }
        Some((_, Err(failed))) => Finding::failed(Check::Image, failed),
        Some((id, Ok(true))) if !source.gets_runner() => Finding::ok(Check::Image, format!("Modal has {id}")),
        Some((_, Ok(true))) | None => built(facts, source),
    };
    Some(finding.of(source))
}

fn built(facts: &ModalFacts, source: &ImageSource) -> Finding {
    let Some(build) = facts.builds.get(&source.to_string()) else {
        let text = format!("no build of it is kept: the first job builds it, or now `sandrunner image build {source}`");
        return Finding::skipped(Check::Image, text);
    };
    match &build.problem {
        None => Finding::ok(Check::Image, format!("last built on {}", build.began.format("%Y-%m-%d %H:%M UTC"))),
        Some(problem) => {
            let fix = format!("look at its log: `sandrunner image show {source}`");
            Finding::warning(Check::Image, format!("its last build failed: {problem}"), fix)
        }
    }
}

fn secrets(facts: &ModalFacts) -> Finding {
    let failed: BTreeMap<&String, _> =
        facts.secrets.iter().filter_map(|(name, told)| Some((name, told.as_ref().err()?))).collect();
    let Some((name, first)) = failed.first_key_value() else {
        let text = match facts.secrets.len() {
            0 => "none is named".to_owned(),
            count => format!("all {count} that are named are there"),
        };
        return Finding::ok(Check::Secrets, text);
    };
    let names: Vec<String> = failed.keys().map(|name| format!("`{name}`")).collect();
    match first.class {
        ErrorClass::NotFound | ErrorClass::Policy | ErrorClass::Invalid => {
            let text = format!("Modal has no Secret {}, or it lacks a value that it must hold", names.join(", "));
            let fix = format!("make `{name}` in the Modal workspace, or take it out of the configuration");
            Finding::failure(Check::Secrets, text, fix)
        }
        ErrorClass::Unauthorized
        | ErrorClass::Forbidden
        | ErrorClass::Conflict
        | ErrorClass::RateLimited
        | ErrorClass::Unavailable
        | ErrorClass::Unreadable
        | ErrorClass::Unsent => Finding::failed(Check::Secrets, first),
    }
}

/// Names of GPUs are Modal's to know; one without a price is one that nobody has heard of.
fn gpus(settings: &Settings) -> Finding {
    let policy = &settings.policy;
    let asked = policy.classes.iter().flat_map(|class| class.gpu.iter().chain(&class.gpu_fallback));
    let names: BTreeSet<&String> = asked.map(|gpu| &gpu.name).collect();
    let unknown: Vec<String> = names
        .iter()
        .filter(|name| !policy.prices.rates.gpus.contains_key(&gpu_key(name)))
        .map(|name| format!("`{name}`"))
        .collect();
    if names.is_empty() {
        return Finding::skipped(Check::Gpu, "no class has one");
    }
    if unknown.is_empty() {
        return Finding::ok(Check::Gpu, format!("{} names, all of Modal's", names.len()));
    }
    let text = format!("no GPU of Modal's is known by the name {}", unknown.join(", "));
    Finding::warning(Check::Gpu, text, "correct it, or, if Modal has it, set its price in cost.gpus")
}

fn virtual_machines(classes: &[RunnerClass]) -> Finding {
    let is_vm =
        |class: &&RunnerClass| class.options.runtime == Some(Runtime::Vm) || class.options.docker == Some(Docker::Vm);
    let names: Vec<&str> = classes.iter().filter(is_vm).map(|class| class.name.as_str()).collect();
    if names.is_empty() {
        return Finding::skipped(Check::VmRuntime, "no class asks for a virtual machine");
    }
    let text = format!(
        "{}: Modal does not tell whether it gives virtual machines to this workspace (a beta, on request); the first sandbox \
         shows it, and a refusal is the reason `create_refused` of its jobs",
        names.join(", ")
    );
    Finding::skipped(Check::VmRuntime, text)
}
