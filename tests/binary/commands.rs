//! What the commands print, and how they end.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::Value;

use crate::process::{BOUND, Ended, REPO, Sandrunner, Simulation, config, number, small};

/// A server that nobody may contact.
struct Untouched(TcpListener);

impl Untouched {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }

    fn was_contacted(&self) -> bool {
        self.0.accept().is_ok()
    }
}

/// Runs a command whose services must not be contacted.
async fn refused(arguments: &[&str], extra: &[(&str, &str)]) -> String {
    let server = Untouched::new();
    let url = server.url();
    let defaults = [
        ("GITHUB_API_URL", url.as_str()),
        ("MODAL_SERVER_URL", &url),
        ("GITHUB_TOKEN", "simulated"),
        ("MODAL_TOKEN_ID", "ak-simulated"),
        ("MODAL_TOKEN_SECRET", "as-simulated"),
        ("SANDRUNNER__HTTP__LISTEN", "127.0.0.1:0"),
    ];
    let variables: Vec<(String, String)> =
        defaults.iter().chain(extra).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let ended = Sandrunner::start(arguments, &variables).ended(BOUND).await;
    assert_eq!(ended.status.code(), Some(2), "{arguments:?} {extra:?}: {ended:#?}");
    assert!(!server.was_contacted(), "{arguments:?} {extra:?} contacted a service");
    assert_eq!(ended.stdout, "", "{arguments:?}");
    ended.stderr
}

/// Variables, and what is said about them.
type Wrong = (&'static [(&'static str, &'static str)], &'static [&'static str]);

fn assert_says(text: &str, all: &[&str]) {
    for part in all {
        assert!(text.contains(part), "`{part}` is missing in: {text}");
    }
}

#[tokio::test]
async fn what_dead_sandboxes_printed_is_listed_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    let dir_text = dir.path().display().to_string();
    let logs = async |which: &[&str]| {
        let arguments = [&["logs", "--state-dir", dir_text.as_str()], which].concat();
        Sandrunner::start(&arguments, &[]).ended(BOUND).await
    };
    let nothing = logs(&[]).await;
    assert!(nothing.status.success() && nothing.stdout.starts_with("no sandbox that ended"), "{nothing:#?}");
    let folder = dir.path().join("logs-main");
    std::fs::create_dir(&folder).unwrap();
    for (name, ended) in [("sr-main-gh-7-1", "2026-11-22T10:00:00Z"), ("sr-main-gh-7-2", "2026-11-22T10:05:00Z")] {
        let text = format!("runner: {name}\nrepository: acme/web\nended: {ended}\nreason: crashed\n\nline of {name}\n");
        std::fs::write(folder.join(format!("{name}.log")), text).unwrap();
    }
    let all = logs(&[]).await;
    assert_eq!(all.stdout.lines().count(), 2, "{all:#?}");
    assert_says(&all.stdout, &["2026-11-22T10:00:00Z  crashed", "sr-main-gh-7-1  acme/web"]);
    assert_says(&logs(&["7"]).await.stdout, &["line of sr-main-gh-7-1", "line of sr-main-gh-7-2"]);
    let one = logs(&["sr-main-gh-7-2"]).await;
    assert!(one.stdout.ends_with("\n\nline of sr-main-gh-7-2\n") && !one.stdout.contains("7-1"), "{one:#?}");
    let unknown = logs(&["8"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert_says(&unknown.stderr, &["nothing is kept of `8`; `sandrunner logs` lists what is"]);
    // Of a configuration only the directory counts: it needs no credentials.
    let config = dir.path().join("config.toml");
    std::fs::write(&config, format!("state_dir = \"{dir_text}\"\n[[github]]\n")).unwrap();
    let configured = Sandrunner::start(&["logs", "--config", &config.display().to_string()], &[]).ended(BOUND).await;
    assert_eq!(configured.stdout.lines().count(), 2, "{configured:#?}");
    let odd = logs(&["build"]).await;
    assert_eq!(odd.status.code(), Some(2));
    assert_says(&odd.stderr, &["`build` is not a name of ours", "nor the id of a job"]);
}

#[tokio::test]
async fn a_wrong_configuration_ends_every_command_before_anything_is_contacted() {
    const REPOS: (&str, &str) = ("ALLOWED_REPOS", REPO);
    let wrong: [Wrong; 8] = [
        (&[], &["`github[0].allowed_repos`", "empty", "owner/name"]),
        (&[("ALLOWED_REPOS", "web")], &["allowed_repos", "`web`", "owner/name"]),
        (&[REPOS, ("SANDRUNNER__RECONCILE__INTERVAL", "1h")], &["`reconcile.interval`", "1h", "between 1s and 10m"]),
        (&[REPOS, ("SANDRUNNER__RECONCILE__INTERVALL", "9s")], &["intervall", "expected", "`interval`"]),
        (&[REPOS, ("SANDRUNNER__HTTP__LISTEN", "9464")], &["`http.listen`", "`9464`", "127.0.0.1:9464"]),
        (&[REPOS, ("GITHUB_TOKEN", " ")], &["`github[0].token`", "missing", "github-token"]),
        (
            &[REPOS, ("MODAL_SERVER_URL", "http://example.com")],
            &["`modal.server_url`", "http://example.com", "https://"],
        ),
        (&[REPOS, ("WEBHOOK_SECRET", "hidden-\u{7}value")], &["`http.webhook_secret`", "not shown", "one line"]),
    ];
    for (variables, says) in wrong {
        for command in ["run", "plan"] {
            let text = refused(&[command], variables).await;
            assert_says(&text, says);
            assert!(!text.contains("hidden-"), "{text}");
        }
    }
    let text = refused(&["run"], &[REPOS, ("SANDRUNNER__LOG__LEVEL", "loud=very")]).await;
    assert_says(&text, &["`log.level`", "loud=very", "such as info"]);
}

#[tokio::test]
async fn a_wrong_file_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.toml");
    let missing = missing.to_str().unwrap();
    assert_says(&refused(&["run", "--config", missing], &[]).await, &["cannot read", missing]);
    for (text, says) in [
        ("[reconcile]\ninterval = \"10s\"\nspeed = 3\n", ["line 3", "speed", "expected one of `interval`"]),
        ("[limits]\nmax_gpus = \"many\"\n", ["line 2", "many", "expected u32"]),
        ("[limits\n", ["line 1", "config.toml", "]"]),
    ] {
        let path = config(&folder, text);
        assert_says(&refused(&["plan", "--config", &path], &[]).await, &says);
    }
}

#[tokio::test]
async fn wrong_arguments_are_refused() {
    let replay = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/webhooks");
    let wrong: [(&[&str], &[&str]); 10] = [
        (&["demo", "--faults", "empty_list,mint_replay_lost"], &["`mint_replay_lost`", "`mint_reply_lost`", "list"]),
        (&["demo", "--jobs", "0"], &["--jobs", "0", "1..=100000"]),
        (&["demo", "--speed", "0"], &["--speed", "between 0.1 and 1000"]),
        (&["demo", "--profile", "wild"], &["`wild`", "`calm` or `realistic`"]),
        (&["demo", "--scenario", "/nowhere.json"], &["cannot read", "/nowhere.json"]),
        (&["demo", "--replay", "/nowhere.json"], &["cannot read", "/nowhere.json"]),
        (&["demo", "--map-label", "a=b"], &["--replay"]),
        (&["demo", "--replay", replay, "--map-label", "ubuntu-latest"], &["`ubuntu-latest`", "`from=to`"]),
        (&["demo", "--scenario", "a.json", "--replay", replay], &["cannot be used with"]),
        (&["simulate", "--profile", "wild"], &["`wild`", "`calm` or `realistic`"]),
    ];
    for (arguments, says) in wrong {
        assert_says(&refused(arguments, &[]).await, says);
    }
}

#[tokio::test]
async fn the_faults_of_the_demo_are_listed() {
    let ended = Sandrunner::start(&["demo", "--faults", "list"], &[]).ended(BOUND).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    let line = ended.stdout.lines().find(|line| line.starts_with("github_outage ")).unwrap();
    assert_says(line, &["503", "half an hour", "[github]"]);
}

/// The one JSON object on standard output.
fn object(ended: &Ended) -> Value {
    let mut documents = serde_json::Deserializer::from_str(&ended.stdout).into_iter::<Value>();
    let first = documents.next().unwrap_or_else(|| panic!("no JSON: {ended:#?}")).unwrap();
    assert!(first.is_object() && documents.next().is_none(), "more than one object: {}", ended.stdout);
    first
}

#[tokio::test]
async fn plan_says_what_would_be_done_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let simulation = Simulation::start(&folder, &small(2), &["--profile", "calm"]).await;
    let ended = Sandrunner::start(&["plan", "--json"], &simulation.variables(&[])).ended(BOUND).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    let plan = object(&ended);
    // With the default limits one pass registers one runner; the other job is accounted for.
    let actions = plan["actions"].as_array().unwrap();
    assert_says(actions[0].as_str().unwrap(), &["create sr-main-gh-5000000000-1", REPO, "class default"]);
    let skips = plan["skips"].as_array().unwrap();
    assert_eq!((actions.len(), skips.len(), &skips[0]["reason"]), (1, 1, &"github_budget".into()), "{plan:#}");
    assert_eq!(number(&plan["coverage"], "repositories_known"), 1);
    assert_eq!(changes(&simulation).await, Vec::<Value>::new());
}

/// Every call that is no reading, and everything that came of one.
async fn changes(simulation: &Simulation) -> Vec<Value> {
    let reading = [
        "list_runs",
        "list_jobs",
        "list_runners",
        "get_run",
        "get_repo",
        "hello",
        "auth_token",
        "list_sandboxes",
        "environments",
        "rates",
    ];
    let history = simulation.history().await;
    // An App that is only looked up is not found; one that is made would be.
    let is_lookup = |what: &Value| what["operation"] == "app" && what["status"] == 5;
    let is_change = |what: &Value| match what["event"].as_str().unwrap() {
        "call" if is_lookup(what) => false,
        "call" => !reading.contains(&what["operation"].as_str().unwrap()),
        "job_queued" | "began" | "limits_stated" => false,
        _ => true,
    };
    assert!(history.iter().any(|what| what["operation"] == "list_jobs"), "nothing was read: {history:#?}");
    history.into_iter().filter(is_change).collect()
}

#[tokio::test]
async fn plan_says_what_it_could_not_read_and_fails() {
    let folder = tempfile::tempdir().unwrap();
    let simulation = Simulation::start(&folder, &small(1), &["--profile", "calm"]).await;
    simulation.revoke("revoked").await;
    let variables = simulation.variables(&[("GITHUB_TOKEN", "revoked")]);
    let ended = Sandrunner::start(&["plan", "--json"], &variables).ended(BOUND).await;
    assert_eq!(ended.status.code(), Some(1), "{ended:#?}");
    let coverage = &object(&ended)["coverage"];
    assert_says(coverage["unreachable"][REPO].as_str().unwrap(), &["token"]);

    let gone = Untouched::new().url();
    let variables = simulation.variables(&[("GITHUB_API_URL", &gone), ("MODAL_SERVER_URL", &gone)]);
    let ended = Sandrunner::start(&["plan", "--timeout", "3s"], &variables).ended(BOUND).await;
    assert_eq!(ended.status.code(), Some(1), "{ended:#?}");
    assert_says(&ended.stdout, &["Modal could not be read", &format!("{REPO} could not be read")]);
    assert!(!ended.stdout.contains("nothing to do"), "{}", ended.stdout);
}

#[tokio::test]
async fn recorded_webhooks_are_replayed_and_every_expected_job_is_done() {
    let replay = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/webhooks");
    let labels = ["--map-label", "ubuntu-latest=modal", "--map-label", "k8s=modal"];
    let arguments: Vec<&str> =
        ["demo", "--replay", replay].into_iter().chain(labels).chain(["--exit", "--json", "--speed", "100"]).collect();
    let ended = Sandrunner::start(&arguments, &[]).ended(Duration::from_secs(90)).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    let answer = object(&ended);
    for key in [
        "jobs_expected",
        "jobs_completed",
        "sandboxes_created",
        "sandboxes_live_at_end",
        "runners_left_at_end",
        "surplus_runners",
        "claimed_sandboxes_terminated",
        "foreign_touched",
        "github_requests",
        "github_not_modified",
        "github_points_per_minute_peak",
        "modal_requests",
    ] {
        number(&answer, key);
    }
    for key in ["p50", "p95", "max"] {
        assert!(answer["pickup_seconds"][key].as_f64().is_some_and(|secs| secs > 0.0), "{key}: {answer:#}");
    }
    assert!(answer["wall_seconds"].as_f64().is_some_and(|secs| secs > 0.0), "{answer:#}");
    assert!(answer["jobs_skipped"].is_object(), "{answer:#}");
    assert_eq!((&answer["profile"], &answer["violations"]), (&"realistic".into(), &Value::Array(Vec::new())));
    assert!(number(&answer, "jobs_completed") > 0, "{answer:#}");
    assert_eq!(answer["jobs_completed"], answer["jobs_expected"]);
}

#[tokio::test]
async fn an_interrupt_ends_the_demo() {
    let mut demo = Sandrunner::start(&["demo", "--jobs", "200", "--speed", "5"], &[]);
    demo.printed("Ctrl-C ends it").await;
    let ended = demo.interrupted().await;
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    assert_says(&ended.stdout, &["/api/v1/status", "/metrics", "jobs: "]);
}

#[tokio::test]
async fn an_interrupt_ends_the_simulators() {
    let folder = tempfile::tempdir().unwrap();
    let simulation = Simulation::start(&folder, &small(0), &[]).await;
    let ended = simulation.interrupted().await;
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""));
}
