//! Images: layers, streams that end early, builds that fail.

use sandrunner::error::{CallFailure, ErrorClass};
use sandrunner::ids::ImageId;
use std::collections::BTreeMap;

use sandrunner::modal::{self, Base, BuildProgress, ImageDefinition, Rebuilt, RunnerContents, Steps, Tools};
use sandrunner::sim::{Fault, FaultMode, Operation};
use tonic::Code;

use super::Sim;

const SHA256: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const URL: &str =
    "https://github.com/actions/runner/releases/download/v2.330.0/actions-runner-linux-x64-2.330.0.tar.gz";

fn default_image() -> ImageDefinition {
    let runner = RunnerContents {
        version: "2.330.0",
        sha256: SHA256,
        download_url: URL,
        dir: "/opt/actions-runner",
        token: None,
    };
    ImageDefinition::default_layers(&runner, Tools::Usual).unwrap()
}

fn building(layer: usize) -> BuildProgress {
    BuildProgress::Building { layer, layers: 2 }
}

#[tokio::test(start_paused = true)]
async fn the_default_image_is_built_layer_by_layer_and_then_known() {
    let sim = Sim::new();
    let app = sim.writer.ensure_app().await.unwrap();
    let mut seen = Vec::new();
    let id = modal::build(&sim.writer, &app, &default_image(), |progress| seen.push(progress)).await.unwrap();
    let steps: Vec<_> = seen.iter().filter(|step| !matches!(step, BuildProgress::Log(_))).cloned().collect();
    assert_eq!(steps, [building(1), building(2)]);
    let log: String =
        seen.iter().filter_map(|step| if let BuildProgress::Log(text) = step { Some(&**text) } else { None }).collect();
    assert_eq!(log.matches("FROM ubuntu:24.04").count(), 1, "nothing twice, although streams are reopened: {log}");
    assert!(log.contains("sha256sum --check"), "{log}");
    assert_eq!(sim.calls(Operation::ImageLog), 4, "each stream ends early once");

    seen.clear();
    let again = modal::build(&sim.writer, &app, &default_image(), |progress| seen.push(progress)).await.unwrap();
    assert_eq!(again, id);
    let known = |layer| BuildProgress::Known { layer, layers: 2 };
    assert_eq!(seen, [known(1), known(2)]);

    let on = |id: &str| {
        let steps = Steps { apt: &[], env: &BTreeMap::new(), run: &[] };
        ImageDefinition::made(Base::Existing(&ImageId::new(id)), steps, None).unwrap()
    };
    let without_entry_point = modal::build(&sim.writer, &app, &on(id.as_str()), |_| ()).await.unwrap();
    assert_ne!(without_entry_point, id);
    let error = modal::build(&sim.writer, &app, &on("im-none"), |_| ()).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_several_images_share_is_built_anew_once_and_all_are_known_after_that() {
    let sim = Sim::new();
    let app = sim.writer.ensure_app().await.unwrap();
    let made = |command: &str| {
        let run = [command.to_owned()];
        let steps = Steps { apt: &[], env: &BTreeMap::new(), run: &run };
        ImageDefinition::made(Base::Default(Tools::Usual), steps, None).unwrap()
    };
    let images = [made("echo one"), made("echo two"), default_image()];
    let mut before = Vec::new();
    for image in &images {
        before.push(modal::build(&sim.writer, &app, image, |_| ()).await.unwrap());
    }
    let (mut rebuilt, mut anew, mut layers) = (Rebuilt::default(), Vec::new(), 0);
    for image in &images {
        let count = |step| layers += usize::from(matches!(step, BuildProgress::Building { .. }));
        anew.push(modal::rebuild(&sim.writer, &app, image, &mut rebuilt, count).await.unwrap());
    }
    assert_eq!(layers, 4, "the base once, and what is on it");
    assert!(anew.iter().all(|id| !before.contains(id)));
    for (image, id) in images.iter().zip(&anew) {
        let known = modal::build(&sim.writer, &app, image, |step| assert!(matches!(step, BuildProgress::Known { .. })));
        assert_eq!(known.await.unwrap(), *id);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_build_shows_its_log_and_can_be_tried_again() {
    let sim = Sim::new();
    let app = sim.writer.ensure_app().await.unwrap();
    sim.fault(Fault { after: 1, ..Fault::new(Operation::ImageBuild, FaultMode::Error) });
    let error = modal::build(&sim.writer, &app, &default_image(), |_| ()).await.unwrap_err();
    assert!(error.build_log().unwrap().contains("sha256sum --check"), "{error}");
    let failure = CallFailure::from(error);
    assert_eq!(failure.class, ErrorClass::Invalid);
    assert!(failure.message.starts_with("cannot build layer 2 of the image: a command failed"), "{failure}");

    let mut seen = Vec::new();
    modal::build(&sim.writer, &app, &default_image(), |progress| seen.push(progress)).await.unwrap();
    assert_eq!(seen[..2], [BuildProgress::Known { layer: 1, layers: 2 }, building(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_broken_stream_is_opened_again_but_not_for_ever() {
    let sim = Sim::new();
    let app = sim.writer.ensure_app().await.unwrap();
    sim.fail(Operation::ImageLog, Code::Unavailable, 3);
    modal::build(&sim.writer, &app, &default_image(), |_| ()).await.unwrap();

    let other = ImageDefinition::registry_layers("debian:13").unwrap();
    sim.fail(Operation::ImageLog, Code::Unavailable, 4);
    let error = modal::build(&sim.writer, &app, &other, |_| ()).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Unavailable);
    sim.fail(Operation::ImageLog, Code::PermissionDenied, 1);
    let third = ImageDefinition::registry_layers("debian:12").unwrap();
    let error = modal::build(&sim.writer, &app, &third, |_| ()).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Forbidden);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_fails_ends_the_log_and_nothing_after_it_is_carried_out() {
    let sim = Sim::new();
    let app = sim.writer.ensure_app().await.unwrap();
    let run = ["echo one", "echo two && exit 7", "echo three"].map(str::to_owned);
    let made = |run: &[String]| {
        let steps = Steps { apt: &[], env: &BTreeMap::new(), run };
        ImageDefinition::made(Base::Default(Tools::Usual), steps, None).unwrap()
    };
    let error = modal::build(&sim.writer, &app, &made(&run), |_| ()).await.unwrap_err();
    let log = error.build_log().unwrap().to_owned();
    assert!(log.contains("echo one") && log.ends_with("the command ended with exit code 7\n"), "{log}");
    assert!(!log.contains("echo three"), "{log}");
    let told = CallFailure::from(error).message;
    assert!(told.contains("cannot build layer 2 of the image") && told.contains("exit code 7"), "{told}");
    modal::build(&sim.writer, &app, &made(&run[..1]), |_| ()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_secret_is_looked_up_with_what_must_be_in_it() {
    let sim = Sim::new();
    let value = ("REGISTRY_USERNAME".to_owned(), "acme".to_owned().into());
    let stored = sim.writer.store_secret("ghcr", &[value]).await.unwrap();
    assert_eq!(sim.writer.find_secret_with("ghcr", &["REGISTRY_USERNAME"]).await.unwrap(), stored);
    let error = sim.writer.find_secret_with("ghcr", &["REGISTRY_USERNAME", "REGISTRY_PASSWORD"]).await.unwrap_err();
    assert!(CallFailure::from(error).message.contains("REGISTRY_PASSWORD"));
}
