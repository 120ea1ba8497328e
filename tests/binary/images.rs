//! `sandrunner image`: builds, keeps logs, lists and shows.

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{BOUND, Ended, Sandrunner, Simulation, config, small};

/// One image that can be built and one whose second command fails, each with a class.
fn configured(folder: &TempDir) -> String {
    let state = folder.path().join("state");
    let image = |name: &str, run: &str| {
        format!(
            "[[images]]\nname = \"{name}\"\nrun = [{run}]\n\
             [[runner_classes]]\nname = \"{name}\"\nlabels = [\"{name}\"]\nimage = \"{name}\"\n"
        )
    };
    let images = [image("good", "\"echo hello\""), image("bad", "\"echo hello\", \"false\"")].concat();
    config(folder, &format!("state_dir = \"{}\"\n{images}", state.display()))
}

async fn image(simulation: &Simulation, arguments: &[&str], config: &str) -> Ended {
    let all: Vec<&str> = ["image"].into_iter().chain(arguments.iter().copied()).chain(["--config", config]).collect();
    Sandrunner::start(&all, &simulation.variables(&[])).ended(BOUND).await
}

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:#?}"))
}

#[tokio::test]
async fn images_are_built_listed_and_shown_with_their_logs() {
    let folder = TempDir::new().unwrap();
    let simulation = Simulation::start(&folder, &small(0), &["--profile", "calm"]).await;
    let config = configured(&folder);
    let listed = json(&image(&simulation, &["list", "--json"], &config).await);
    let names: Vec<&str> = listed["images"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["good", "bad", "default"]);
    assert!(listed["images"][0]["last_build"].is_null(), "{listed:#}");

    let built = image(&simulation, &["build", "--json"], &config).await;
    assert_eq!(built.status.code(), Some(1), "one of them fails: {built:#?}");
    let told = json(&built);
    assert!(told["images"][0]["image_id"].as_str().unwrap().starts_with("im-"), "{told:#}");
    let problem = told["images"][1]["problem"].as_str().unwrap();
    assert!(problem.contains("exit code 1") && problem.contains("=> RUN false"), "{problem}");
    assert!(told["images"][2]["runner_version"].is_string(), "{told:#}");
    for line in ["building the image's layer", "=> RUN echo hello", "`bad` could not be built"] {
        assert!(built.stderr.contains(line), "`{line}` is missing in {}", built.stderr);
    }

    let again = image(&simulation, &["build", "good"], &config).await;
    assert_eq!(again.status.code(), Some(0), "{again:#?}");
    let id = told["images"][0]["image_id"].as_str().unwrap();
    assert!(again.stdout.starts_with(&format!("good: {id}, runner ")), "what is known is used: {}", again.stdout);
    let anew = image(&simulation, &["build", "good", "--rebuild"], &config).await;
    assert!(anew.stdout.starts_with("good: im-") && !anew.stdout.contains(id), "{}", anew.stdout);

    let shown = json(&image(&simulation, &["show", "bad", "--json"], &config).await);
    assert_eq!(shown["layers"][1], serde_json::json!(["FROM base", "RUN echo hello", "RUN false"]));
    assert!(shown["layers"][2][0].as_str().unwrap().contains("the release that GitHub offers"), "{shown:#}");
    assert!(shown["log"].as_str().unwrap().contains("the command ended with exit code 1"), "{shown:#}");
    assert_eq!(shown["builds"].as_array().unwrap().len(), 1, "{shown:#}");
    let text = image(&simulation, &["show", "good"], &config).await.stdout;
    assert!(text.contains("  RUN echo hello") && text.matches("built 3 layers").count() == 2, "{text}");

    let unknown = image(&simulation, &["show", "nod"], &config).await;
    assert_eq!(unknown.status.code(), Some(2), "{unknown:#?}");
    assert!(unknown.stderr.contains("there is no image `nod`: name one of good, bad, default"), "{}", unknown.stderr);
}

#[tokio::test]
async fn what_is_kept_is_shown_without_credentials_and_also_where_nothing_of_it_can_be_read() {
    let folder = TempDir::new().unwrap();
    let config = configured(&folder);
    let builds = folder.path().join("state").join("builds-main");
    std::fs::create_dir_all(builds.parent().unwrap()).unwrap();
    std::fs::write(&builds, "in the way").unwrap();
    let variables = [("ALLOWED_REPOS".to_owned(), "acme/web".to_owned())];
    for (arguments, told) in
        [(&["list"][..], "good (good; runner: added): no build is kept"), (&["show", "good"], "  RUN echo hello")]
    {
        let all: Vec<&str> =
            ["image"].into_iter().chain(arguments.iter().copied()).chain(["--config", &config]).collect();
        let ended = Sandrunner::start(&all, &variables).ended(BOUND).await;
        assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
        assert!(ended.stdout.contains(told), "{ended:#?}");
        let problem = format!("cannot read the logs of builds in {}", builds.display());
        assert!(ended.stderr.contains(&problem), "{ended:#?}");
    }
}

#[tokio::test]
async fn images_are_built_where_only_a_pattern_says_what_is_served() {
    let folder = TempDir::new().unwrap();
    let simulation = Simulation::start(&folder, &small(0), &["--profile", "calm"]).await;
    let config = configured(&folder);
    let all = ["image", "build", "default", "--config", &config];
    let variables = simulation.variables(&[("ALLOWED_REPOS", "acme/w*")]);
    let built = Sandrunner::start(&all, &variables).ended(BOUND).await;
    assert_eq!(built.status.code(), Some(0), "{built:#?}");
    assert!(built.stdout.starts_with("default: im-"), "{built:#?}");
}

#[tokio::test]
async fn what_is_common_to_images_is_built_anew_once_for_all() {
    let folder = TempDir::new().unwrap();
    let simulation = Simulation::start(&folder, &small(0), &["--profile", "calm"]).await;
    let config = configured(&folder);
    let ids = |ended: &Ended| -> Vec<String> {
        let images = json(ended)["images"].as_array().unwrap().clone();
        images.iter().filter_map(|image| image["image_id"].as_str().map(str::to_owned)).collect()
    };
    let build = |more: &'static [&'static str]| {
        let arguments: Vec<&str> = ["build", "good", "default", "--json"].iter().chain(more).copied().collect();
        let (simulation, config) = (&simulation, &config);
        async move { image(simulation, &arguments, config).await }
    };
    let first = ids(&build(&[]).await);
    let anew = ids(&build(&["--rebuild"]).await);
    assert!(anew.len() == 2 && anew.iter().all(|id| !first.contains(id)), "{first:?} {anew:?}");
    assert_eq!(ids(&build(&[]).await), anew, "all of it is known");
}
