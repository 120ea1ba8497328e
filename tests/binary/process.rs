//! The real binary as a child: it never outlives the test, what it prints can be waited for, and nothing of the
//! environment of whoever runs the tests reaches it.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use sandrunner::sim::Scenario;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Longer than anything here takes on a busy machine, so that reaching it is a failure.
pub(crate) const BOUND: Duration = Duration::from_secs(30);
/// How often a state is asked for that nobody announces.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Names and values of the environment of a child.
pub(crate) type Variables = Vec<(String, String)>;

/// A running `sandrunner`. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Sandrunner {
    child: Child,
    readers: JoinSet<()>,
    stdout: watch::Receiver<String>,
    stderr: watch::Receiver<String>,
}

/// What a `sandrunner` that has ended left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Sandrunner {
    pub(crate) fn start(arguments: &[&str], variables: &[(String, String)]) -> Self {
        Self::start_limited("", arguments, variables)
    }

    /// Starts it after commands of the shell that limit it, each closed by a semicolon.
    pub(crate) fn start_limited(limits: &str, arguments: &[&str], variables: &[(String, String)]) -> Self {
        let binary = binary();
        let mut command = Command::new(if limits.is_empty() { &binary } else { "/bin/bash" });
        if !limits.is_empty() {
            command.args(["-c", &format!("{limits} exec \"$0\" \"$@\""), &binary]);
        }
        let mut child = command
            .args(arguments)
            .env_clear()
            .envs(variables.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut readers = JoinSet::new();
        let stdout = collect(&mut readers, child.stdout.take().unwrap());
        let stderr = collect(&mut readers, child.stderr.take().unwrap());
        Self { child, readers, stdout, stderr }
    }

    /// The text after `prefix` on the first line of standard output that has it.
    pub(crate) async fn printed(&mut self, prefix: &str) -> String {
        wait_for(&mut self.stdout, prefix, &self.stderr).await
    }

    /// The text after `prefix` on the first line of standard error that has it.
    pub(crate) async fn logged(&mut self, prefix: &str) -> String {
        wait_for(&mut self.stderr, prefix, &self.stdout).await
    }

    /// Everything on standard error so far.
    pub(crate) fn log(&self) -> String {
        self.stderr.borrow().clone()
    }

    /// The id of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Ends it as the kernel or an impatient operator would: it cannot react.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Sends what Ctrl-C sends.
    pub(crate) async fn interrupt(&self) {
        let id = self.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().await.unwrap().success());
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(mut self, limit: Duration) -> Ended {
        let status = match timeout(limit, self.child.wait()).await {
            Ok(status) => status.unwrap(),
            Err(error) => {
                panic!("{error}: it runs after {limit:?}:\n{}\n{}", *self.stdout.borrow(), *self.stderr.borrow())
            }
        };
        while self.readers.join_next().await.is_some() {}
        Ended { status, stdout: self.stdout.borrow().clone(), stderr: self.stderr.borrow().clone() }
    }

    /// Interrupts it and waits for its end.
    pub(crate) async fn interrupted(self) -> Ended {
        self.interrupt().await;
        self.ended(Duration::from_secs(12)).await
    }
}

/// The binary that is tested: the one that was built with the tests, or another one that the environment names.
fn binary() -> String {
    std::env::var("SANDRUNNER_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_sandrunner").to_owned())
}

fn collect(readers: &mut JoinSet<()>, stream: impl AsyncRead + Unpin + Send + 'static) -> watch::Receiver<String> {
    let (text, seen) = watch::channel(String::new());
    readers.spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            text.send_modify(|text| {
                text.push_str(&line);
                text.push('\n');
            });
        }
    });
    seen
}

async fn wait_for(stream: &mut watch::Receiver<String>, prefix: &str, other: &watch::Receiver<String>) -> String {
    let find = |text: &String| text.lines().find_map(|line| line.split_once(prefix)).map(|(_, rest)| rest.to_owned());
    let found = timeout(BOUND, stream.wait_for(|text| find(text).is_some())).await;
    if let Some(rest) = found.ok().and_then(Result::ok).and_then(|text| find(&text)) {
        return rest;
    }
    panic!("no line with `{prefix}` in\n{}\nand on the other stream\n{}", *stream.borrow(), *other.borrow());
}

/// `sandrunner simulate` with a scenario.
#[derive(Debug)]
pub(crate) struct Simulation {
    github: String,
    variables: Variables,
    http: reqwest::Client,
    process: Sandrunner,
}

impl Simulation {
    pub(crate) async fn start(folder: &TempDir, scenario: &Scenario, arguments: &[&str]) -> Self {
        let path = folder.path().join("scenario.json");
        std::fs::write(&path, serde_json::to_string(scenario).unwrap()).unwrap();
        let given = ["simulate", "--github", "127.0.0.1:0", "--modal", "127.0.0.1:0", "--scenario"];
        let all: Vec<&str> =
            given.into_iter().chain([path.to_str().unwrap()]).chain(arguments.iter().copied()).collect();
        let mut process = Sandrunner::start(&all, &[]);
        let mut variables = Variables::new();
        for name in ["GITHUB_API_URL", "ALLOWED_REPOS", "MODAL_SERVER_URL"] {
            variables.push((name.to_owned(), process.printed(&format!("export {name}=")).await));
        }
        let github = variables[0].1.clone();
        Self { github, variables, http: http(), process }
    }

    /// The addresses of GitHub and Modal for one of the daemons that `--controllers` asked for, from 1.
    pub(crate) async fn of_controller(&mut self, number: usize) -> [String; 2] {
        let line = self.process.printed(&format!("# Controller {number}: GITHUB_API_URL=")).await;
        let (github, modal) = line.split_once(" MODAL_SERVER_URL=").unwrap();
        [github.to_owned(), modal.to_owned()]
    }

    /// The environment of a daemon that uses this simulation; `extra` wins.
    pub(crate) fn variables(&self, extra: &[(&str, &str)]) -> Variables {
        let defaults = [
            ("GITHUB_TOKEN", "ghp_canary7rk2"),
            ("MODAL_TOKEN_ID", "ak-canary9xw4"),
            ("MODAL_TOKEN_SECRET", "as-canary5tz8"),
            ("SANDRUNNER__HTTP__LISTEN", "127.0.0.1:0"),
        ];
        let given = defaults.iter().chain(extra).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.variables.iter().cloned().chain(given).collect()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.github)
    }

    /// The address of the simulated Modal.
    pub(crate) fn modal(&self) -> &str {
        &self.variables[2].1
    }

    /// Makes GitHub refuse a token.
    pub(crate) async fn revoke(&self, token: &str) {
        self.tell("/_sim/revoke", &json!({ "token": token })).await;
    }

    /// Posts something to the control interface.
    pub(crate) async fn tell(&self, path: &str, body: &Value) {
        let request = self.http.post(self.url(path)).body(body.to_string());
        request.send().await.unwrap().error_for_status().unwrap();
    }

    /// Ends it as Ctrl-C does.
    pub(crate) async fn interrupted(self) -> Ended {
        self.process.interrupted().await
    }

    pub(crate) async fn state(&self) -> Value {
        get(&self.http, &self.url("/_sim/state")).await.json().await.unwrap()
    }

    pub(crate) async fn report(&self) -> Value {
        get(&self.http, &self.url("/_sim/report")).await.json().await.unwrap()
    }

    /// What happened, one object each with its name in `event`.
    pub(crate) async fn history(&self) -> Vec<Value> {
        let text = get(&self.http, &self.url("/_sim/history")).await.text().await.unwrap();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["what"].clone()).collect()
    }

    /// Waits for a state of the World, at most for `limit`.
    pub(crate) async fn reaches(&self, limit: Duration, is_reached: impl Fn(&Value) -> bool) -> Value {
        let reached = timeout(limit, async {
            loop {
                let state = self.state().await;
                if is_reached(&state) {
                    return state;
                }
                sleep(LOOK_EVERY).await;
            }
        });
        match reached.await {
            Ok(state) => state,
            Err(error) => {
                panic!("{error}: not reached within {limit:?}: {:#}\n{:#}", self.state().await, self.report().await)
            }
        }
    }
}

/// A client that no proxy stands in front of.
pub(crate) fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap()
}

async fn get(http: &reqwest::Client, url: &str) -> reqwest::Response {
    http.get(url).send().await.unwrap().error_for_status().unwrap()
}

/// The repository of a small workload.
pub(crate) const REPO: &str = "acme/web";

/// A calm World with one repository, and in it `jobs` short jobs in one run.
pub(crate) fn small(jobs: u64) -> Scenario {
    let job = |index| {
        json!({ "id": 5_000_000_000 + index, "run": 6_000_000_000_u64, "repo": REPO,
            "labels": ["self-hosted", "modal"], "duration_secs": 2 })
    };
    let jobs: Vec<Value> = (0..jobs).map(job).collect();
    let knobs = json!({ "image_build_secs": 0.5, "boot": { "median_secs": 0.5, "p95_secs": 0.5 } });
    serde_json::from_value(json!({ "repos": [{ "name": REPO }], "jobs": jobs, "profile": knobs })).unwrap()
}

/// A number of a report or state.
pub(crate) fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("no number `{key}` in {value:#}"))
}

/// Writes a configuration file.
pub(crate) fn config(folder: &TempDir, text: &str) -> String {
    let path = folder.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}
