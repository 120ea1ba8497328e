//! No secret leaves the daemon, however much it is asked to log.

use serde_json::{Value, json};

use crate::process::{BOUND, REPO, Sandrunner, Simulation, http, number, small};

const TOKENS: [(&str, &str); 3] =
    [("GITHUB_TOKEN", "ghp_canary7Rk2"), ("MODAL_TOKEN_ID", "ak-canary9Xw4"), ("MODAL_TOKEN_SECRET", "as-canary5Tz8")];
/// Everything, also of the libraries whose noise is off unless it is asked for.
const EVERYTHING: &str = "trace,hyper=trace,h2=trace,tower=trace,octocrab=trace,tokio_cron_scheduler=trace";

/// How every JIT config of this World begins: with the name of the file that holds the credentials.
async fn jit_config_start(simulation: &Simulation) -> String {
    let url = simulation.url(&format!("/repos/{REPO}/actions/runners/generate-jitconfig"));
    let body = json!({ "name": "canary-1", "runner_group_id": 1, "labels": ["other"] }).to_string();
    let request = http().post(url).header("authorization", "Bearer other").header("user-agent", "test").body(body);
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    answer["encoded_jit_config"].as_str().unwrap()[..20].to_owned()
}

#[tokio::test]
async fn no_secret_is_logged_or_served_at_the_highest_log_level() {
    let folder = tempfile::tempdir().unwrap();
    let simulation = Simulation::start(&folder, &small(2), &["--profile", "calm"]).await;
    let jit_config = jit_config_start(&simulation).await;
    let extra = [("SANDRUNNER__RECONCILE__INTERVAL", "1s"), ("SANDRUNNER__LOG__LEVEL", EVERYTHING)];
    let all: Vec<(&str, &str)> = TOKENS.into_iter().chain(extra).collect();
    let mut daemon = Sandrunner::start(&["run"], &simulation.variables(&all));
    let address = daemon.logged("address=").await;
    simulation.reaches(BOUND, |state| number(state, "jobs_completed") == 2).await;
    let mut texts = Vec::new();
    for path in ["/metrics", "/api/v1/status", "/readyz"] {
        texts.push(http().get(format!("http://{address}{path}")).send().await.unwrap().text().await.unwrap());
    }
    let ended = daemon.interrupted().await;
    texts.extend([ended.stdout, ended.stderr.clone()]);
    let everything = texts.join("\n");
    // The search can find: what is no secret stands there, from our own lines and from those of libraries.
    for control in [REPO, "TRACE", "frame=Headers", "created sandbox"] {
        assert!(everything.contains(control), "without `{control}` this shows nothing:\n{everything}");
    }
    for secret in TOKENS.iter().map(|(_, token)| *token).chain([jit_config.as_str()]) {
        let found = everything.lines().find(|line| line.contains(secret));
        assert_eq!(found, None, "the secret {secret} came out");
    }
}
