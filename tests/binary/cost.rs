//! `sandrunner cost`: what it prints of the files of a state directory.

use std::fs;
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{BOUND, Ended, Sandrunner, Simulation, config, small};

/// A line of the cost file: an hour for two dollars, that ended so many hours ago.
fn line(id: &str, hours: i64, rest: &str, now: DateTime<Utc>) -> String {
    let ended = now - TimeDelta::hours(hours);
    let started = ended - TimeDelta::hours(1);
    format!(
        "{{\"v\":1,\"id\":\"{id}\",\"name\":\"n\",\"account\":\"gh\",\"class\":\"default\",\"started\":\"{}\",\"ended\":\"{}\",\"usd\":\"2\",{rest}}}\n",
        started.to_rfc3339(),
        ended.to_rfc3339()
    )
}

/// The file of the month of `now`; what ended in another is found there as well, as the files before it are read too.
fn keep(dir: &Path, lines: &[String], now: DateTime<Utc>) {
    fs::write(dir.join(format!("cost-main-{}.jsonl", now.format("%Y-%m"))), lines.concat()).unwrap();
}

async fn cost(folder: &TempDir, arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let dir = folder.path().join("state");
    let path =
        config(folder, &format!("state_dir = \"{}\"\n[[github]]\nallowed_repos = [\"acme/web\"]\n", dir.display()));
    let all: Vec<&str> = ["cost", "--config", &path].into_iter().chain(arguments.iter().copied()).collect();
    let variables: Vec<_> = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Sandrunner::start(&all, &variables).ended(BOUND).await
}

/// The time, from a file of this moment: tests ask no clock.
fn now(folder: &TempDir) -> DateTime<Utc> {
    let path = folder.path().join("now");
    fs::write(&path, "").unwrap();
    fs::metadata(path).unwrap().modified().unwrap().into()
}

fn kept() -> (TempDir, DateTime<Utc>) {
    let folder = tempfile::tempdir().unwrap();
    let now = now(&folder);
    fs::create_dir(folder.path().join("state")).unwrap();
    let lines = [
        line("sb-1", 2, "\"repo\":\"acme/web\",\"workflow\":\"ci.yml\"", now),
        line("sb-1", 2, "\"repo\":\"acme/web\",\"workflow\":\"ci.yml\"", now),
        line("sb-2", 5, "\"repo\":\"acme/web\",\"workflow\":\"nightly.yml\",\"gpu\":\"Z9\",\"estimate\":true", now),
        line("sb-3", 7, "\"repo\":\"acme/api\"", now),
        line("sb-4", 24 * 20, "\"repo\":\"acme/old\"", now),
        "{\"v\":1,\"id\":\"sb-5\",\"na".to_owned(),
    ];
    keep(&folder.path().join("state"), &lines, now);
    (folder, now)
}

#[tokio::test]
async fn costs_are_printed_by_repository_workflow_or_class() {
    let (folder, _) = kept();
    let printed = |ended: Ended| -> Vec<String> {
        assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
        ended.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    let by_repo = printed(cost(&folder, &[], &[]).await);
    for wanted in [
        "repository USD sandboxes hours",
        "acme/web 4.0000 * 2 2.00",
        "acme/api 2.0000 1 1.00",
        "in all 6.0000 * 3 3.00",
        "1 lines are cut off or none of ours, 0 are of a later version",
    ] {
        assert!(by_repo.iter().any(|line| line == wanted), "{wanted}: {by_repo:#?}");
    }
    let by_workflow = printed(cost(&folder, &["--by", "workflow", "--since", "6h"], &[]).await);
    for wanted in ["acme/web ci.yml 2.0000 1 1.00", "acme/web nightly.yml 2.0000 * 1 1.00", "in all 4.0000 * 2 2.00"] {
        assert!(by_workflow.iter().any(|line| line == wanted), "{wanted}: {by_workflow:#?}");
    }
}

#[tokio::test]
async fn costs_are_one_json_object_where_a_program_reads_them() {
    let (folder, _) = kept();
    let ended = cost(&folder, &["--json", "--by", "class"], &[]).await;
    let answer: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&answer["by"], &answer["unreadable_lines"]), (&"class".into(), &1.into()), "{answer:#}");
    let [row] = &answer["rows"].as_array().unwrap()[..] else { panic!("{answer:#}") };
    assert_eq!(
        (&row["class"], &row["usd"], &row["sandboxes"], &row["estimates"]),
        (&"default".into(), &"6.00".into(), &3.into(), &1.into())
    );
    assert_eq!(row["usd"], answer["total"]["usd"]);
}

#[tokio::test]
async fn where_nothing_is_kept_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let says = |ended: &Ended, code: i32, parts: &[&str]| {
        assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(code), ""), "{ended:#?}");
        for part in parts {
            assert!(ended.stderr.contains(part), "{part}: {ended:#?}");
        }
    };
    says(&cost(&folder, &[], &[]).await, 1, &["there is no state directory", "has the daemon run with it?"]);
    fs::create_dir(folder.path().join("state")).unwrap();
    says(&cost(&folder, &[], &[]).await, 1, &["there are no costs of deployment `main`"]);
    let none = Sandrunner::start(&["cost"], &[]).ended(BOUND).await;
    says(&none, 2, &["`state_dir` is not set", "STATE_DIRECTORY", "--state-dir"]);
    says(&cost(&folder, &["--since", "soon"], &[]).await, 2, &["--since", "soon"]);
}

#[tokio::test]
async fn that_modal_gives_no_report_is_part_of_the_answer() {
    let (folder, _) = kept();
    let simulation = Simulation::start(&folder, &small(0), &["--profile", "calm"]).await;
    let variables = simulation.variables(&[]);
    let variables: Vec<(&str, &str)> = variables
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| *name != "ALLOWED_REPOS")
        .collect();
    let ended = cost(&folder, &["--reconcile", "--since", "1h"], &variables).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    assert!(ended.stdout.contains("the time holds no whole day"), "{ended:#?}");
    let ended = cost(&folder, &["--reconcile", "--json"], &variables).await;
    let answer: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:#?}"));
    assert_eq!(answer["modal"]["problem"], "there is no App `sandrunner`", "{answer:#}");
}
