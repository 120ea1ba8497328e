//! `sandrunner cost`: what sandboxes have cost, from the files of the state directory. No daemon has to run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::{ConfigArguments, Failure, say};
use crate::clock::Clock;
use crate::config::{Kept, LogFormat};
use crate::cost::{By, Row, Summary, Usd};
use crate::error::ErrorChain;
use crate::ids::Deployment;
use crate::modal::{self, Billed, ModalReader};
use crate::observe::tag;
use crate::state_dir::{Costs, read_costs};
use crate::telemetry;

/// Arguments of `cost`.
#[expect(clippy::struct_excessive_bools, reason = "two options that have nothing to do with each other")]
#[derive(Debug, Args)]
pub struct CostArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// The state directory, in place of `state_dir`.
    #[arg(long, value_name = "DIR", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    state_dir: Option<PathBuf>,
    /// How far to look back.
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = humantime::parse_duration)]
    since: Duration,
    /// By what costs are put together.
    #[arg(long, value_enum, default_value = "repo")]
    by: ByArgument,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Compare with Modal's own report for whole days (Team and Enterprise plans); needs Modal's token.
    #[arg(long)]
    reconcile: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ByArgument {
    Repo,
    Workflow,
    Class,
}

impl From<ByArgument> for By {
    fn from(by: ByArgument) -> Self {
        match by {
            ByArgument::Repo => Self::Repo,
            ByArgument::Workflow => Self::Workflow,
            ByArgument::Class => Self::Class,
        }
    }
}

/// The answer as a document. Amounts are decimal texts.
#[derive(Debug, Serialize)]
struct Document {
    since: DateTime<Utc>,
    until: DateTime<Utc>,
    by: By,
    rows: Vec<RowDocument>,
    total: RowDocument,
    unreadable_lines: u64,
    lines_of_later_versions: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    modal: Option<Comparison>,
}

#[derive(Debug, Serialize)]
struct RowDocument {
    #[serde(skip_serializing_if = "Option::is_none")]
    repo: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workflow: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<String>,
    usd: Usd,
    sandboxes: u64,
    hours: f64,
    estimates: u64,
}

/// Our account beside Modal's.
#[derive(Debug, Serialize)]
struct Comparison {
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// What of Modal's report is compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<BillScope>,
    days: Vec<DayDocument>,
}

/// Whose sandboxes a sum of Modal's report is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum BillScope {
    /// Of this deployment.
    Deployment,
    /// Of all in the App: Modal's report tells none of our tags.
    App,
}

#[derive(Debug, Serialize)]
struct DayDocument {
    day: String,
    ours: Usd,
    modal: Usd,
    /// What we lack of Modal's, in percent; negative where ours is more.
    lacking_percent: Option<f64>,
}

/// Prints what sandboxes have cost.
///
/// # Errors
/// [`Failure`] where the configuration is wrong, or there is no state directory. That Modal gives no report is part of
/// the answer.
pub async fn run(arguments: CostArguments) -> Result<ExitCode, Failure> {
    let kept = arguments.config.kept().map_err(Failure::usage)?;
    let Kept { state_dir, deployment } = kept;
    let dir = arguments.state_dir.or(state_dir).ok_or_else(|| {
        Failure::usage(
            "`state_dir` is not set, and there is no STATE_DIRECTORY: give --state-dir, for a daemon with systemd's \
             StateDirectory=sandrunner --state-dir /var/lib/sandrunner",
        )
    })?;
    let clock = Clock::system();
    let until = clock.now();
    let since = TimeDelta::from_std(arguments.since).ok().and_then(|span| until.checked_sub_signed(span));
    let since = since.ok_or_else(|| Failure::usage("--since reaches back further than time does"))?;
    let costs = read_costs(&dir, &deployment, since).map_err(Failure::work)?;
    if costs.files == 0 {
        let told = format!(
            "there are no costs of deployment `{deployment}` in {} yet: no sandbox has ended, or the daemon keeps them elsewhere",
            dir.display()
        );
        return Err(Failure::work(told));
    }
    let by = By::from(arguments.by);
    let summary = Summary::of(&costs.entries, by, (since, until));
    let modal = if arguments.reconcile {
        telemetry::start(LogFormat::Text, "warn").map_err(Failure::usage)?;
        Some(compare(&arguments.config, &deployment, (&costs, since, until), clock).await?)
    } else {
        None
    };
    let document = document(&summary, by, (since, until), &costs, modal);
    if arguments.json {
        say(&serde_json::to_string_pretty(&document).map_err(Failure::work)?)?;
    } else {
        print(&document)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn document(
    summary: &Summary,
    by: By,
    (since, until): (DateTime<Utc>, DateTime<Utc>),
    costs: &Costs,
    modal: Option<Comparison>,
) -> Document {
    let rows = summary.rows.iter().map(|(key, row)| {
        let word = |at: usize| key.get(at).cloned().filter(|word| !word.is_empty());
        let document = row_document(row);
        match by {
            By::Repo => RowDocument { repo: word(0), ..document },
            By::Workflow => RowDocument { repo: word(0), workflow: word(1), ..document },
            By::Class => RowDocument { class: word(0), ..document },
        }
    });
    Document {
        since,
        until,
        by,
        rows: rows.collect(),
        total: row_document(&summary.total),
        unreadable_lines: costs.unreadable,
        lines_of_later_versions: costs.later,
        modal,
    }
}

fn row_document(row: &Row) -> RowDocument {
    RowDocument {
        repo: None,
        workflow: None,
        class: None,
        usd: row.usd,
        sandboxes: row.sandboxes,
        hours: row.ran.as_seconds_f64() / 3_600.0,
        estimates: row.estimates,
    }
}

fn print(document: &Document) -> Result<(), Failure> {
    let Document { since, until, by, rows, total, unreadable_lines, lines_of_later_versions, modal } = document;
    let heads: &[&str] = match by {
        By::Repo => &["repository"],
        By::Workflow => &["repository", "workflow"],
        By::Class => &["class"],
    };
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(heads.iter().copied().chain(["USD", "sandboxes", "hours"]));
    let mut add = |words: Vec<String>, row: &RowDocument| {
        let mark = if row.estimates > 0 { " *" } else { "" };
        let numbers = [format!("{:.4}{mark}", row.usd), row.sandboxes.to_string(), format!("{:.2}", row.hours)];
        table.add_row(words.into_iter().chain(numbers));
    };
    let known = |word: &Option<String>| word.clone().unwrap_or_else(|| "(not known)".to_owned());
    for row in rows {
        let words = match by {
            By::Repo => vec![known(&row.repo)],
            By::Workflow => vec![known(&row.repo), known(&row.workflow)],
            By::Class => vec![known(&row.class)],
        };
        add(words, row);
    }
    add(std::iter::once("in all".to_owned()).chain(heads.iter().skip(1).map(|_| String::new())).collect(), total);
    for index in heads.len()..heads.len() + 3 {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let minute = |at: &DateTime<Utc>| at.format("%Y-%m-%d %H:%M UTC").to_string();
    say(&format!("Ended sandboxes, {} to {}, as asked for by Modal's rates or [cost]:", minute(since), minute(until)))?;
    say(&table.to_string())?;
    if total.estimates > 0 {
        say(&format!(
            "* {} of them by our own times, or without the price of their GPU: Modal did not tell all",
            total.estimates
        ))?;
    }
    if *unreadable_lines > 0 || *lines_of_later_versions > 0 {
        say(&format!(
            "{unreadable_lines} lines are cut off or none of ours, {lines_of_later_versions} are of a later version"
        ))?;
    }
    modal.as_ref().map_or(Ok(()), print_comparison)
}

fn print_comparison(comparison: &Comparison) -> Result<(), Failure> {
    if let Some(problem) = &comparison.problem {
        return say(&format!("No comparison with Modal's report: {problem}"));
    }
    say(match comparison.scope {
        Some(BillScope::App) => {
            "Beside Modal's own report of the whole App, as it tells none of our tags, by day (UTC):"
        }
        Some(BillScope::Deployment) | None => "Beside Modal's own report of this deployment, by day (UTC):",
    })?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["day", "ours", "Modal's", "we lack"]);
    for day in &comparison.days {
        let lacking = day.lacking_percent.map_or_else(String::new, |percent| format!("{percent:.2} %"));
        table.add_row([day.day.clone(), format!("{:.4}", day.ours), format!("{:.4}", day.modal), lacking]);
    }
    say(&table.to_string())
}

/// Lays Modal's report of the whole days beside ours.
async fn compare(
    config: &ConfigArguments,
    deployment: &Deployment,
    (costs, since, until): (&Costs, DateTime<Utc>, DateTime<Utc>),
    clock: Clock,
) -> Result<Comparison, Failure> {
    let settings = config.load().map_err(Failure::usage)?;
    let (reader, _) = modal::connect(settings.modal.clone(), clock).map_err(Failure::work)?;
    Ok(compare_by(&reader, &settings.modal.app_name, deployment, (costs, since, until)).await)
}

async fn compare_by(
    reader: &ModalReader,
    app: &str,
    deployment: &Deployment,
    (costs, since, until): (&Costs, DateTime<Utc>, DateTime<Utc>),
) -> Comparison {
    let none = |problem: String| Comparison { problem: Some(problem), scope: None, days: Vec::new() };
    let midnight = |at: DateTime<Utc>| at.date_naive().and_time(chrono::NaiveTime::MIN).and_utc();
    let from = if since == midnight(since) { since } else { midnight(since) + TimeDelta::days(1) };
    let days = (from, midnight(until));
    if days.0 >= days.1 {
        return none("the time holds no whole day (UTC); give a longer --since".to_owned());
    }
    let (scope, billed) = match billed(reader, app, days, deployment).await {
        Ok(billed) => billed,
        Err(problem) => return none(problem),
    };
    let ours = Summary::of(&costs.entries, By::Class, days).days;
    let all: BTreeSet<DateTime<Utc>> = ours.keys().chain(billed.keys()).copied().collect();
    let day = |at: DateTime<Utc>| {
        let (ours, modal) = (ours.get(&at).copied().unwrap_or_default(), billed.get(&at).copied().unwrap_or_default());
        let lacking = (modal.dollars() - ours.dollars()) / modal.dollars() * 100.0;
        let lacking_percent = (!modal.is_zero()).then_some(lacking);
        DayDocument { day: at.format("%Y-%m-%d").to_string(), ours, modal, lacking_percent }
    };
    Comparison { problem: None, scope: Some(scope), days: all.into_iter().map(day).collect() }
}

/// What Modal bills for the sandboxes of a deployment, by day; where it tells no tags, for the whole App.
async fn billed(
    reader: &ModalReader,
    app: &str,
    days: (DateTime<Utc>, DateTime<Utc>),
    deployment: &Deployment,
) -> Result<(BillScope, BTreeMap<DateTime<Utc>, Usd>), String> {
    let told = |error: modal::ModalError| ErrorChain(&error).to_string();
    let id = reader.lookup_app().await.map_err(told)?.ok_or_else(|| format!("there is no App `{app}`"))?;
    let items = reader.billing_report(&id, days, &[tag::DEPLOYMENT]).await;
    let items = items.map_err(|error| format!("{} (Modal gives it on Team and Enterprise plans)", told(error)))?;
    let has_tags = items.iter().any(|item| item.tags.contains_key(tag::DEPLOYMENT));
    let scope = if has_tags { BillScope::Deployment } else { BillScope::App };
    let is_ours = |item: &&Billed| {
        !has_tags || item.tags.get(tag::DEPLOYMENT).is_some_and(|name| *name == deployment.to_string())
    };
    let mut billed: BTreeMap<DateTime<Utc>, Usd> = BTreeMap::new();
    for item in items.iter().filter(is_ours) {
        *billed.entry(item.day).or_default() += item.usd;
    }
    Ok((scope, billed))
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use super::*;
    use crate::cost::Entry;
    use crate::ids::{ClassName, SandboxId};
    use crate::modal::{ImageDefinition, ModalSettings, SandboxNetwork, SandboxSpec};
    use crate::sim::{Fault, FaultMode, Operation, Profile, Scenario, World};

    /// The day before the time of the comparison, in which a sandbox with our tag, or with none, ran for half an hour beside
    /// one of another deployment; and what is said of that day, before and after Modal refuses to tell it.
    async fn compared(ours: Option<&str>, others: &[&str]) -> [Comparison; 2] {
        let begin: DateTime<Utc> = "2026-05-30T22:00:00Z".parse().expect("it is simulated");
        let clock = Clock::scaled(begin, 1.0);
        let profile = Profile { modal_latency_secs: 0.0, ..Profile::calm() };
        let world = World::new(profile, Scenario::default(), 7, clock.clone());
        let settings = ModalSettings {
            server_url: "http://modal.invalid".to_owned(),
            ..ModalSettings::new("ak-sim".into(), "as-sim-secret".into(), "sandrunner")
        };
        let (reader, writer) =
            modal::connect_with_service(world.modal_service(), settings, clock.clone()).expect("it is simulated");
        let app = writer.ensure_app().await.expect("it is simulated");
        let definition = ImageDefinition::registry_layers("ubuntu:24.04").expect("it is simulated");
        let image = modal::build(&writer, &app, &definition, |_| ()).await.expect("it is simulated");
        for (number, deployment) in std::iter::once(ours).chain(others.iter().copied().map(Some)).enumerate() {
            let tag = deployment.map(|name| (tag::DEPLOYMENT.to_owned(), name.to_owned()));
            let spec = SandboxSpec {
                app: app.clone(),
                name: format!("sr-main-gh-7-{number}"),
                image: image.clone(),
                entrypoint: vec!["/bin/true".to_owned()],
                env: Vec::new(),
                secret_ids: Vec::new(),
                tags: tag.into_iter().collect(),
                cpu: 2.0,
                cpu_limit: None,
                memory_mib: 4096,
                memory_limit_mib: None,
                gpu: None,
                timeout: Duration::from_secs(1800),
                regions: Vec::new(),
                workdir: None,
                runtime: None,
                network: SandboxNetwork::Open,
                volumes: Vec::new(),
                experimental: BTreeMap::new(),
            };
            writer.create_sandbox(&spec).await.expect("it is simulated");
        }
        clock.sleep(Duration::from_secs(3 * 3600)).await;
        let entry = Entry {
            id: SandboxId::new("sb-1"),
            name: String::new(),
            account: "gh".to_owned(),
            repo: "acme/web".to_owned(),
            workflow: None,
            class: ClassName::new("default"),
            gpu: None,
            started: Some(begin),
            ended: begin + TimeDelta::minutes(30),
            usd: "0.189936".parse().expect("it is simulated"),
            estimate: false,
        };
        let costs = Costs { entries: vec![entry], ..Costs::default() };
        let (deployment, since) = ("main".parse().expect("it is simulated"), begin - TimeDelta::hours(30));
        let compare = async || compare_by(&reader, "sandrunner", &deployment, (&costs, since, clock.now())).await;
        let told = compare().await;
        let refused = Fault { status: Some(7), ..Fault::new(Operation::Bill, FaultMode::Error) };
        world.add_fault(refused).expect("it is simulated");
        [told, compare().await]
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_day_is_laid_beside_modals_report_of_it() {
        let [told, refused] = compared(Some("main"), &["other"]).await;
        assert_eq!((told.scope, told.days.len()), (Some(BillScope::Deployment), 1), "{told:?}");
        let day = &told.days[0];
        assert_eq!((day.day.as_str(), day.ours.dollars()), ("2026-05-30", 0.189_936));
        assert!(day.lacking_percent.is_some_and(|percent| percent.abs() < 0.01), "{told:?}");
        assert_eq!((refused.scope, refused.days.len()), (None, 0));
        assert!(refused.problem.is_some_and(|problem| problem.contains("Team and Enterprise plans")));
        let json = serde_json::to_value(&told).unwrap();
        assert_eq!((&json["scope"], &json["days"][0]["ours"]), (&"deployment".into(), &"0.189936".into()));
        let [told, _] = compared(None, &[]).await;
        assert_eq!((told.problem, told.scope), (None, Some(BillScope::App)));
    }
}
