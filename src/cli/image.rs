//! `sandrunner image`: what images there are, what they are made of, what came of their last builds; and builds them.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{ConfigArguments, Failure, complain, say};
use crate::act::{Anew, BuiltImage, NotMade, Order, Telling, layers_for_people};
use crate::class::ImageSource;
use crate::clock::Clock;
use crate::config::{Defined, Kept, LogFormat};
use crate::daemon::{self, Clients};
use crate::error::CallFailure;
use crate::ids::AppId;
use crate::modal::{ModalError, Rebuilt};
use crate::state_dir::{BuildLogs, BuildRecord, KeptBuild};
use crate::telemetry;

/// The most builds that are shown of an image.
const BUILDS_SHOWN: usize = 5;

/// Arguments of `image`.
#[derive(Debug, Args)]
pub struct ImageArguments {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Build images, or make sure that they are there; what their builders write goes to standard error.
    Build(BuildArguments),
    /// List the images of the configuration with their classes and last builds.
    List(ListArguments),
    /// Show what an image is made of, its last builds, and the log of the last one.
    Show(ShowArguments),
}

#[expect(clippy::struct_excessive_bools, reason = "two options that have nothing to do with each other")]
#[derive(Debug, Args)]
struct BuildArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// The images by name, as `image list` shows them; all where none is named.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Build every layer again, also what is known: packages and tags may have changed. A daemon uses it from its next
    /// start on.
    #[arg(long)]
    rebuild: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ListArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ShowArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// The image by name, as `image list` shows it.
    #[arg(value_name = "NAME")]
    name: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// An image in a list.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    /// Who puts the runner into it.
    runner: &'static str,
    classes: Vec<String>,
    last_build: Option<BuildRecord>,
}

/// An image by itself.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    listed: Listed,
    /// The lines of each layer.
    layers: Vec<Vec<String>>,
    /// The last builds, the newest first.
    builds: Vec<BuildRecord>,
    /// The end of the last one's log.
    log: Option<String>,
}

/// What came of building an image.
#[derive(Debug, Serialize)]
struct Built {
    name: String,
    image_id: Option<String>,
    runner_version: Option<String>,
    problem: Option<String>,
}

/// Why an image cannot be shown or built.
#[derive(Debug, thiserror::Error)]
enum ImageError {
    #[error("there is no image `{name}`: name one of {known}")]
    Unknown { name: String, known: String },
    #[error("{0} could not be built")]
    NotBuilt(String),
    #[error("cannot reach Modal's App: {0}")]
    App(CallFailure),
    #[error("cannot read the logs of builds in {}", dir.display())]
    Builds {
        dir: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Carries out what is asked of images.
///
/// # Errors
/// [`Failure`] where the configuration or a name is wrong (2), or where an image could not be built (1).
pub async fn run(arguments: ImageArguments) -> Result<ExitCode, Failure> {
    match arguments.command {
        ImageCommand::Build(arguments) => build(arguments).await?,
        ImageCommand::List(arguments) => list(&arguments)?,
        ImageCommand::Show(arguments) => show(&arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn build(arguments: BuildArguments) -> Result<(), Failure> {
    let settings = arguments.config.load().map_err(Failure::usage)?;
    telemetry::start(LogFormat::Text, "info").map_err(Failure::usage)?;
    let sources = chosen(&settings.images, &arguments.names)?;
    let clock = Clock::system();
    let clients = Clients::connect(&settings, &clock).map_err(Failure::work)?;
    let maker = daemon::image_maker(&settings, clients, clock);
    let app: Result<AppId, ModalError> = maker.modal.ensure_app().await;
    let app = app.map_err(|error| Failure::work(ImageError::App(error.into())))?;
    let mut rebuilt = Rebuilt::default();
    let mut built = Vec::new();
    for source in sources {
        let anew = if arguments.rebuild { Anew::Yes(&mut rebuilt) } else { Anew::No };
        let made = maker.make(&app, source, Order { scope: None, anew, telling: Telling::Lines }).await;
        built.push(told(source, made));
        if let Some(last) = built.last().filter(|_| !arguments.json) {
            say(&line_of(last))?;
        }
    }
    if arguments.json {
        say(&serde_json::to_string_pretty(&serde_json::json!({ "images": built })).map_err(Failure::work)?)?;
    }
    let failed: Vec<String> =
        built.iter().filter(|built| built.problem.is_some()).map(|built| format!("`{}`", built.name)).collect();
    if failed.is_empty() { Ok(()) } else { Err(Failure::work(ImageError::NotBuilt(failed.join(", ")))) }
}

fn told(source: &ImageSource, made: Result<BuiltImage, NotMade>) -> Built {
    let name = source.to_string();
    match made {
        Ok(BuiltImage { image, runner, made_of: _ }) => Built {
            name,
            image_id: Some(image.to_string()),
            runner_version: runner.map(|runner| runner.to_string()),
            problem: None,
        },
        Err(failure) => Built { name, image_id: None, runner_version: None, problem: Some(failure.to_string()) },
    }
}

fn line_of(built: &Built) -> String {
    let Built { name, image_id, runner_version, problem } = built;
    match (image_id, problem) {
        (Some(id), _) => {
            let runner = runner_version.as_ref().map(|version| format!(", runner {version}")).unwrap_or_default();
            format!("{name}: {id}{runner}")
        }
        (None, problem) => format!("{name}: {}", problem.as_deref().unwrap_or("nothing came of it")),
    }
}

fn list(arguments: &ListArguments) -> Result<(), Failure> {
    let (defined, kept) = arguments.config.defined().map_err(Failure::usage)?;
    let builds = kept_builds(&kept);
    let images: Vec<Listed> = defined.images.iter().map(|source| listed(source, &defined, &builds)).collect();
    if arguments.json {
        return say(&serde_json::to_string_pretty(&serde_json::json!({ "images": images })).map_err(Failure::work)?);
    }
    for image in &images {
        let classes = if image.classes.is_empty() { "no class".to_owned() } else { image.classes.join(" ") };
        let build = image.last_build.as_ref().map_or_else(|| "no build is kept".to_owned(), told_build);
        say(&format!("{} ({classes}; runner: {}): {build}", image.name, image.runner))?;
    }
    Ok(())
}

fn show(arguments: &ShowArguments) -> Result<(), Failure> {
    let (defined, kept) = arguments.config.defined().map_err(Failure::usage)?;
    let source = chosen(&defined.images, std::slice::from_ref(&arguments.name))?[0];
    let builds = kept_builds(&kept);
    let of_image: Vec<&KeptBuild> = builds.iter().filter(|build| build.record.image == arguments.name).collect();
    let shown = Shown {
        listed: listed(source, &defined, &builds),
        layers: layers_for_people(source, &defined.runner).map_err(Failure::usage)?,
        builds: of_image.iter().take(BUILDS_SHOWN).map(|build| build.record.clone()).collect(),
        log: of_image.first().map(|build| build.log.clone()),
    };
    if arguments.json {
        return say(&serde_json::to_string_pretty(&shown).map_err(Failure::work)?);
    }
    say(&format!("image {}, runner: {}", shown.listed.name, shown.listed.runner))?;
    for (number, layer) in (1..).zip(&shown.layers) {
        say(&format!("layer {number}:"))?;
        for line in layer {
            say(&format!("  {line}"))?;
        }
    }
    for build in &shown.builds {
        say(&told_build(build))?;
    }
    match &shown.log {
        Some(log) => say(&format!("the log of the last build:\n{}", log.trim_end())),
        None if kept.state_dir.is_none() => say("no log is kept: set state_dir"),
        None => say("no build is kept"),
    }
}

fn listed(source: &ImageSource, defined: &Defined, builds: &[KeptBuild]) -> Listed {
    let name = source.to_string();
    let classes = defined.classes.iter().filter(|class| class.image == *source);
    Listed {
        runner: if source.gets_runner() { "added" } else { "its own" },
        classes: classes.map(|class| class.name.to_string()).collect(),
        last_build: builds.iter().find(|build| build.record.image == name).map(|build| build.record.clone()),
        name,
    }
}

fn told_build(build: &BuildRecord) -> String {
    let BuildRecord { image: _, began, took_seconds, layers_built, image_id, problem } = build;
    let came_to = match (image_id, problem) {
        (Some(id), _) => id.to_string(),
        (None, problem) => problem.clone().unwrap_or_else(|| "nothing came of it".to_owned()),
    };
    let began = began.format("%Y-%m-%d %H:%M:%S UTC");
    format!("built {layers_built} layers at {began} in {took_seconds:.0} s: {came_to}")
}

/// The images of those names; all where none is named.
fn chosen<'a>(images: &'a [ImageSource], names: &[String]) -> Result<Vec<&'a ImageSource>, Failure> {
    if names.is_empty() {
        return Ok(images.iter().collect());
    }
    let find = |name: &String| {
        let found = images.iter().find(|source| source.to_string() == *name);
        found.ok_or_else(|| {
            let known: Vec<String> = images.iter().map(ToString::to_string).collect();
            Failure::usage(ImageError::Unknown { name: name.clone(), known: known.join(", ") })
        })
    };
    names.iter().map(find).collect()
}

/// What is kept of builds; that it cannot be read is told, and the rest of the answer is given all the same.
fn kept_builds(kept: &Kept) -> Vec<KeptBuild> {
    let Some(dir) = &kept.state_dir else { return Vec::new() };
    let logs = BuildLogs::new(dir, &kept.deployment);
    logs.list().unwrap_or_else(|source| {
        complain(&ImageError::Builds { dir: logs.dir().to_owned(), source });
        Vec::new()
    })
}
