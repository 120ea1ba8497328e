//! Classes that no job gets to, whose runners take each other's jobs, that cost without end, or that give Docker.

use sandrunner::check::{Check, Finding, Verdict};
use sandrunner::config::{ClassConfig, Config};

use crate::modal::class;
use crate::setup::{Setup, is_well, says};

/// What is said of some classes alone.
async fn told(name: Check, classes: Vec<ClassConfig>, change: impl FnOnce(&mut Config)) -> Finding {
    let setup = Setup::plain().configure(|config| {
        config.runner_classes = classes;
        config.builtin_classes = false;
        change(config);
    });
    setup.judge(&setup.facts().await).one(name).clone()
}

fn labelled(name: &str, labels: &str, more: &str) -> ClassConfig {
    toml::from_str(&format!("name = \"{name}\"\nlabels = [{labels}]\n{more}")).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_class_that_another_one_shadows_is_named_with_it() {
    let reached = async |classes: Vec<ClassConfig>| told(Check::ClassReached, classes, |_| {}).await;
    is_well(&reached(vec![class("one", ""), class("two", "")]).await, "all 2 classes");
    let twice = reached(vec![labelled("one", "\"x\"", ""), labelled("two", "\"x\"", "")]).await;
    says(&twice, Verdict::Warning, "`two` (by `one`)", "a label that the other one does not offer");
    let with_required = reached(vec![labelled("one", "\"x\"", ""), labelled("two", "\"x\", \"modal\"", "")]).await;
    says(&with_required, Verdict::Warning, "`one` (by `two`)", "");
    // A pattern of its own, repositories of its own, and forks of its own are each reached by some job.
    let pattern = labelled("two", "\"x\"", "extra_label_patterns = [\"run-*\"]");
    is_well(&reached(vec![labelled("one", "\"x\"", ""), pattern]).await, "all");
    let elsewhere = labelled("one", "\"x\"", "repos = [\"acme/web\"]");
    let both = vec![elsewhere, labelled("two", "\"x\"", "")];
    let setup = |allowed: &'static [&'static str]| {
        let allowed: Vec<String> = allowed.iter().map(|repo| (*repo).to_owned()).collect();
        told(Check::ClassReached, both.clone(), |config| config.github[0].allowed_repos = allowed)
    };
    is_well(&setup(&["acme/web", "acme/api"]).await, "all");
    is_well(&setup(&["acme/web", "acme/w*"]).await, "all");
    says(&setup(&["acme/web"]).await, Verdict::Warning, "`two` (by `one`)", "");
    let public = labelled("two", "\"x\"", "allow_public_repos = true");
    is_well(&reached(vec![labelled("one", "\"x\"", ""), public]).await, "all");
}

#[tokio::test(start_paused = true)]
async fn label_sets_that_contain_each_other_are_told_where_both_serve_one_place() {
    let overlap = async |classes: Vec<ClassConfig>| told(Check::ClassOverlap, classes, |_| {}).await;
    let small = || labelled("small", "\"cpu\"", "");
    let large = overlap(vec![small(), labelled("large", "\"cpu\", \"big\"", "")]).await;
    says(
        &large,
        Verdict::Warning,
        "`large` may take jobs of `small`",
        "give `small` a label of its own, such as \"small\"",
    );
    is_well(&overlap(vec![small(), labelled("other", "\"big\"", "")]).await, "no runner");
    let of = |repo: &str| format!("repos = [\"acme/{repo}\"]");
    let (web, api) = (labelled("small", "\"cpu\"", &of("web")), labelled("large", "\"cpu\", \"big\"", &of("api")));
    let allowed = |config: &mut Config| config.github[0].allowed_repos.push("acme/api".to_owned());
    is_well(&told(Check::ClassOverlap, vec![web.clone(), api.clone()], allowed).await, "no runner");
    // Runners of an organization take jobs of all its repositories.
    let organization = |config: &mut Config| {
        allowed(config);
        let table = "name = \"acme\"\nrunner_group = \"Modal\"";
        config.github[0].organizations = vec![toml::from_str(table).unwrap()];
    };
    says(&told(Check::ClassOverlap, vec![web, api], organization).await, Verdict::Warning, "`large`", "");
}

#[tokio::test(start_paused = true)]
async fn what_is_built_in_overlaps_without_a_word_until_somebody_adds_to_it() {
    let builtin = |classes: Vec<ClassConfig>| {
        told(Check::ClassOverlap, classes, |config| {
            (config.builtin_classes, config.builtin_gpus) = (true, vec!["t4".to_owned()]);
        })
    };
    is_well(&builtin(Vec::new()).await, "no runner");
    says(
        &builtin(vec![class("big", "")]).await,
        Verdict::Warning,
        "`big` may take jobs of `default`",
        "builtin_classes = false",
    );
}

#[tokio::test(start_paused = true)]
async fn gpus_without_a_limit_of_what_they_cost_are_a_warning() {
    let gpus =
        async |change: fn(&mut Config)| told(Check::GpuSpend, vec![class("big", "gpu = \"H100\"")], change).await;
    says(&gpus(|_| {}).await, Verdict::Warning, "big, up to 4 GPUs", "limits.spend_per_day");
    is_well(&gpus(|config| config.limits.spend_per_day = Some(50.0)).await, "limits.spend_per_day bounds");
    is_well(&gpus(|config| config.limits.max_gpus = 0).await, "no class gets a GPU");
    is_well(&gpus(|config| config.runner_classes[0].spend_per_day = Some(5.0)).await, "each class");
    is_well(&gpus(|config| config.runner_classes[0].repos = vec!["acme/web".to_owned()]).await, "each class");
    is_well(Setup::plain().check().await.one(Check::GpuSpend), "no class gets a GPU");
}

#[tokio::test(start_paused = true)]
async fn docker_without_a_registry_to_pull_from_is_a_warning() {
    let docker = async |more: &str| told(Check::Docker, vec![class("docker", more)], |_| {}).await;
    says(&docker("").await, Verdict::Skipped, "no class", "");
    is_well(&docker("docker = \"vm\"").await, "everything");
    is_well(&docker("docker = \"gvisor\"").await, "without `services:`");
    let shut = docker("docker = \"vm\"\nnetwork = { domains = [] }").await;
    says(&shut, Verdict::Warning, "shuts Docker Hub out", "registry-1.docker.io");
    is_well(&docker("docker = \"vm\"\nnetwork = { domains = [\"*.docker.io\"] }").await, "");
}
