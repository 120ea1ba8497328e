//! What Modal says of token, environment, App, quota, images and Secrets.

use sandrunner::check::{Check, Verdict};
use sandrunner::config::{ClassConfig, ImageConfig};
use sandrunner::sim::{Fault, FaultMode, Operation, Profile};
use sandrunner::state_dir::{BuildLogs, BuildRecord};
use serde_json::json;

use crate::setup::{Setup, is_well, says};

/// A class with an image.
pub(crate) fn class(name: &str, more: &str) -> ClassConfig {
    toml::from_str(&format!("name = \"{name}\"\nlabels = [\"{name}\"]\n{more}")).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_token_that_modal_refuses_is_one_failure() {
    let setup = Setup::plain();
    setup.world.add_fault(Fault::new(Operation::Modal, FaultMode::Unauthorized)).unwrap();
    let findings = setup.check().await;
    says(findings.one(Check::ModalToken), Verdict::Failure, "revoked", "`ak-…` and `as-…`");
    assert_eq!(findings.troubles(), [Check::ModalToken]);
    let setup = Setup::plain();
    setup.world.add_fault("modal_outage").unwrap();
    says(setup.check().await.one(Check::ModalToken), Verdict::Failure, "", "status page");
}

#[tokio::test(start_paused = true)]
async fn the_environment_and_the_app_are_looked_up_and_not_made() {
    let findings = Setup::plain().check().await;
    is_well(findings.one(Check::ModalToken), "");
    is_well(findings.one(Check::ModalEnvironment), "environment `main`");
    is_well(findings.one(Check::ModalApp), "the first start makes it");
    let missing = Setup::plain().configure(|config| config.modal.environment = "staging".to_owned()).check().await;
    says(
        missing.one(Check::ModalEnvironment),
        Verdict::Failure,
        "no environment `staging`; there are `main`",
        "modal.environment",
    );
    assert_eq!(missing.troubles(), [Check::ModalEnvironment]);
}

#[tokio::test(start_paused = true)]
async fn the_quota_is_compared_with_the_limits() {
    let repos = json!({ "repos": [{ "name": "acme/web" }] });
    let with = |profile: Profile| Setup::of(profile, &repos);
    is_well(Setup::plain().check().await.one(Check::ModalQuota), "0 containers (no limit)");
    let few = with(Profile { modal_max_containers: Some(50), ..Profile::calm() });
    says(few.check().await.one(Check::ModalQuota), Verdict::Warning, "50 containers", "limits.max_sandboxes to 50");
    let few = few.configure(|config| config.limits.max_sandboxes = 50);
    is_well(few.check().await.one(Check::ModalQuota), "0 containers (at most 50)");
    let gpus = with(Profile { modal_max_gpus: Some(2), ..Profile::calm() });
    is_well(gpus.check().await.one(Check::ModalQuota), "0 GPUs (at most 2)");
    let gpus = gpus.configure(|config| {
        (config.builtin_gpus, config.limits.spend_per_day) = (vec!["t4".to_owned()], Some(10.0));
    });
    says(gpus.check().await.one(Check::ModalQuota), Verdict::Warning, "2 GPUs", "limits.max_gpus to 2");
    let spent = with(Profile { modal_spend_limit_reached: true, ..Profile::calm() });
    says(spent.check().await.one(Check::ModalQuota), Verdict::Failure, "spend limit", "raise the spend limit");
}

#[tokio::test(start_paused = true)]
async fn images_are_there_were_built_or_are_yet_to_be_built() {
    let dir = tempfile::tempdir().unwrap();
    let scenario = json!({ "repos": [{ "name": "acme/web" }], "images": ["im-there"] });
    let setup = Setup::of(Profile::calm(), &scenario).configure(|config| {
        config.state_dir = Some(dir.path().to_owned());
        let named = |name: &str| class(name, &format!("image = \"{name}\""));
        config.runner_classes = ["im-there", "im-gone", "good", "bad"].map(named).into();
        let image = |name: &str| -> ImageConfig { toml::from_str(&format!("name = \"{name}\"")).unwrap() };
        config.images = vec![image("good"), image("bad")];
        config.builtin_classes = false;
    });
    let logs = BuildLogs::new(dir.path(), &"main".parse().unwrap());
    for (image, problem) in [("bad", Some("a command failed")), ("good", Some("old")), ("good", None)] {
        let began = setup.world.clock().now() + chrono::TimeDelta::seconds(i64::from(problem.is_none()));
        let record = BuildRecord {
            image: image.to_owned(),
            began,
            took_seconds: 1.0,
            layers_built: 1,
            image_id: None,
            problem: problem.map(str::to_owned),
        };
        logs.keep(record, "log".to_owned()).await;
    }
    let findings = setup.check().await;
    is_well(findings.of(Check::Image, "im-there"), "Modal has im-there");
    says(findings.of(Check::Image, "im-gone"), Verdict::Failure, "no image im-gone", "same workspace");
    is_well(findings.of(Check::Image, "good"), "last built on");
    says(findings.of(Check::Image, "bad"), Verdict::Warning, "a command failed", "sandrunner image show bad");
    says(
        Setup::plain().check().await.of(Check::Image, "default"),
        Verdict::Skipped,
        "sandrunner image build default",
        "",
    );
}

#[tokio::test(start_paused = true)]
async fn secrets_have_to_be_there_with_what_they_must_hold() {
    let secret = |values| json!([{ "name": "registry", "values": values }]);
    let with = |secrets| {
        let scenario = json!({ "repos": [{ "name": "acme/web" }], "secrets": secrets });
        Setup::of(Profile::calm(), &scenario).configure(|config| {
            let image = "name = \"own\"\nbase = \"ghcr.io/acme/base:1\"\nregistry_secret = \"registry\"";
            config.images = vec![toml::from_str(image).unwrap()];
            config.runner_classes = vec![class("own", "image = \"own\"")];
            config.builtin_classes = false;
        })
    };
    let told = async |setup: Setup| setup.check().await.one(Check::Secrets).clone();
    let whole = told(with(secret(json!({ "REGISTRY_USERNAME": "me", "REGISTRY_PASSWORD": "x" })))).await;
    is_well(&whole, "all 1 that are named are there");
    let part = told(with(secret(json!({ "REGISTRY_USERNAME": "me" })))).await;
    says(&part, Verdict::Failure, "`registry`", "make `registry`");
    let none = told(with(json!([]))).await;
    says(&none, Verdict::Failure, "`registry`", "make `registry`");
    is_well(Setup::plain().check().await.one(Check::Secrets), "none is named");
}

#[tokio::test(start_paused = true)]
async fn gpus_that_nobody_has_heard_of_and_virtual_machines_are_told() {
    let with = |class: ClassConfig| {
        Setup::plain().configure(|config| {
            config.limits.spend_per_day = Some(10.0);
            config.runner_classes = vec![class];
            config.builtin_classes = false;
        })
    };
    says(Setup::plain().check().await.one(Check::Gpu), Verdict::Skipped, "no class", "");
    let known = with(class("big", "gpu = \"H100!:2\"\ngpu_fallback = [\"a100-80gb\", \"b200+\"]"));
    is_well(known.check().await.one(Check::Gpu), "3 names");
    let typo = with(class("big", "gpu = \"H1000\""));
    says(typo.check().await.one(Check::Gpu), Verdict::Warning, "`H1000`", "cost.gpus");
    let vm = with(class("vm", "docker = \"vm\"")).check().await;
    says(vm.one(Check::VmRuntime), Verdict::Skipped, "vm: Modal does not tell", "");
    says(Setup::plain().check().await.one(Check::VmRuntime), Verdict::Skipped, "no class", "");
}
