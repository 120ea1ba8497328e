//! The supervisor script under a real bash, with a script in place of the runner's listener.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures::future::join_all;
use sandrunner::runner::{ENTRYPOINT, Exit, variable};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// Longer than any of these sandboxes lives, so that reaching it is a failure.
const BOUND: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_job_that_ran_is_served() {
    let ended = Sandbox::new("connect; run_job 0; exit 0").run().await;
    assert_eq!(ended.exit, Exit::Served);
    assert!(ended.output.contains("Job build completed with result: Succeeded"), "output passes through");
}

#[tokio::test]
async fn a_job_that_ran_is_served_whatever_the_listener_says_afterwards() {
    let ended = Sandbox::new("connect; run_job 0; exit 2").run().await;
    assert_eq!(ended.exit, Exit::Served);
}

#[tokio::test]
async fn a_worker_may_outlive_its_listener_but_not_the_sandbox() {
    let sandbox = Sandbox::new("connect; start_worker 1; sleep 0.2; kill -KILL $$");
    assert_eq!(sandbox.run().await.exit, Exit::Served);
    assert!(sandbox.path("runner/finished").exists(), "the sandbox waited for the worker");
}

#[tokio::test]
async fn docker_answers_before_the_listener_starts() {
    let stays = "sleep 0.4; touch \"$up\"; while [[ -d /proc/$PPID ]]; do sleep 0.1; done";
    for (kind, options) in [("gvisor", "--iptables=false --ip6tables=false"), ("vm", "")] {
        let sandbox = Sandbox::new("docker info || exit 9; connect; run_job 0; exit 0").with_docker(kind, stays);
        let ended = sandbox.run().await;
        assert_eq!(ended.exit, Exit::Served, "{}", ended.output);
        assert_eq!(fs::read_to_string(sandbox.path("docker/up.args")).expect("it was started").trim(), options);
        assert!(ended.output.contains("sandrunner: dockerd answers after"), "{}", ended.output);
    }
}

#[tokio::test]
async fn a_docker_that_does_not_start_says_why_and_no_listener_starts() {
    let dies = Sandbox::new("connect; run_job 0; exit 0").with_docker("gvisor", "echo 'no bridge here'; exit 1");
    let hangs = Sandbox::new("connect; run_job 0; exit 0")
        .with_docker("vm", "touch \"$up.hangs\"; while [[ -d /proc/$PPID ]]; do sleep 0.1; done")
        .with(variable::START_TIMEOUT_SECS, "1");
    let silent = Sandbox::new("connect; run_job 0; exit 0")
        .with_docker("vm", "while [[ -d /proc/$PPID ]]; do sleep 0.1; done")
        .with(variable::START_TIMEOUT_SECS, "1");
    let silent_told = "dockerd does not answer";
    for (sandbox, told) in [(dies, "no bridge here"), (silent, silent_told), (hangs, silent_told)] {
        let ended = sandbox.run().await;
        assert_eq!(ended.exit, Exit::RegistrationFailed);
        assert!(ended.output.contains(told) && !ended.output.contains("Connected"), "{}", ended.output);
    }
    let none = Sandbox::new("exit 0").with(variable::DOCKER, "podman").run().await;
    assert!(none.output.contains("SANDRUNNER_DOCKER is neither gvisor nor vm"), "{}", none.output);
}

#[tokio::test]
async fn the_listener_and_its_job_run_as_another_user_where_they_are_not_to_be_root() {
    let listener = "echo \"listener: $HOME $USER\"; connect; run_job 0; exit 0";
    let sandbox = Sandbox::new(listener).with_user(&["runner"]);
    let ended = sandbox.run().await;
    assert_eq!(ended.exit, Exit::Served, "{}", ended.output);
    let runs = fs::read_to_string(sandbox.path("users/setpriv.args")).expect("it was used");
    let last = runs.lines().last().expect("a line");
    assert!(last.starts_with("--reuid=") && last.contains("--init-groups -- env HOME=/home/runner"), "{last}");
    assert!(last.ends_with("bin/Runner.Listener run"), "{last}");
    assert!(!runs.contains(&sandbox.config), "the config is in no arguments");
    assert!(ended.output.contains("listener: /home/runner runner"), "{}", ended.output);
    let root = Sandbox::new(listener);
    assert_eq!(root.run().await.exit, Exit::Served);
}

#[tokio::test]
async fn the_hook_refuses_a_job_that_runs_as_another_user() {
    let hook = "bash -c 'GITHUB_REPOSITORY=evil/repo bash $ACTIONS_RUNNER_HOOK_JOB_STARTED'";
    let listener = format!("connect; {hook}; run_job 0; exit 0");
    let ended = Sandbox::new(&listener).with_user(&["runner"]).run().await;
    assert_eq!(ended.exit, Exit::PolicyRefused, "{}", ended.output);
}

#[tokio::test]
async fn an_image_that_cannot_run_jobs_as_another_user_says_what_to_do() {
    let listener = "connect; run_job 0; exit 0";
    let missing = Sandbox::new(listener).with_user(&[]);
    let without_setpriv = Sandbox::new(listener).with_user(&["runner"]);
    fs::remove_file(without_setpriv.path("users/setpriv")).expect("it is there");
    let no_setpriv = "command() { [[ ${2-} != setpriv ]] && builtin command \"$@\"; }; export -f command; exec \"$@\"";
    let read_only = Sandbox::new(listener).with_user(&["runner"]);
    fs::write(read_only.path("users/test"), "#!/bin/bash\nexit 1\n").expect("a writable directory");
    fs::set_permissions(read_only.path("users/test"), fs::Permissions::from_mode(0o755)).expect("our own file");
    for (running, told) in [
        (missing.start(), "there is no user runner in the image: add it, or set run_as_root = true"),
        (
            without_setpriv.start_by(&["bash", "-c", no_setpriv, "without"]),
            "there is no setpriv (util-linux) in the image",
        ),
        (read_only.start(), "runner cannot write to"),
    ] {
        let ended = running.end().await;
        assert_eq!(ended.exit, Exit::RegistrationFailed, "{}", ended.output);
        assert!(ended.output.contains(told) && !ended.output.contains("Connected"), "{}", ended.output);
    }
    let odd = Sandbox::new(listener).with(variable::RUN_AS, "-u0").run().await;
    assert!(odd.output.contains("SANDRUNNER_RUN_AS is no name of a user"), "{}", odd.output);
}

#[tokio::test]
async fn a_job_counts_that_was_announced_but_not_yet_read() {
    let ended = Sandbox::new("printf 'Connected to GitHub\\nRunning job: build\\n'; sleep 0.5; exit 0")
        .with(variable::IDLE_TIMEOUT_SECS, "0")
        .run()
        .await;
    assert_eq!(ended.exit, Exit::Served);
    assert!(!ended.output.contains("listener: interrupted"), "{}", ended.output);
}

#[tokio::test]
async fn an_idle_runner_is_interrupted_at_the_idle_limit() {
    let ended = Sandbox::new("connect; listen; exit 0").with(variable::IDLE_TIMEOUT_SECS, "1").run().await;
    assert_eq!(ended.exit, Exit::Unclaimed);
    assert!(ended.output.contains("listener: interrupted"));
}

#[tokio::test]
async fn an_idle_runner_is_interrupted_also_where_interrupts_were_ignored() {
    let sandbox = Sandbox::new("connect; listen; exit 0").with(variable::IDLE_TIMEOUT_SECS, "1");
    let ended = sandbox.start_by(&["bash", "-c", "trap '' INT; exec \"$@\"", "ignoring"]).end().await;
    assert_eq!(ended.exit, Exit::Unclaimed);
    assert!(ended.output.contains("listener: interrupted"), "{}", ended.output);
}

#[tokio::test]
async fn a_listener_that_ignores_the_idle_limit_is_killed() {
    let ended = Sandbox::new("trap 'echo ignored' INT; trap '' TERM; connect; listen")
        .with(variable::IDLE_TIMEOUT_SECS, "1")
        .with(variable::STOP_GRACE_SECS, "1")
        .run()
        .await;
    assert_eq!(ended.exit, Exit::Unclaimed);
    assert!(ended.output.contains("ignored"));
    assert!(ended.output.contains("sending SIGTERM"));
    assert!(ended.output.contains("sending SIGKILL"));
}

#[tokio::test]
async fn a_worker_at_the_idle_limit_is_left_alone() {
    // The listener says nothing of the job: the worker alone has to be noticed.
    let ended = Sandbox::new("connect; start_worker 3; finish_worker; exit 0")
        .with(variable::IDLE_TIMEOUT_SECS, "1")
        .with(variable::STOP_GRACE_SECS, "0")
        .run()
        .await;
    assert_eq!(ended.exit, Exit::Served);
    assert!(!ended.output.contains("listener: interrupted"), "{}", ended.output);
}

/// What a worker does whose job-started hook runs as late as that, in seconds after the worker began.
const LATE_HOOK: &str = "run_hook() {
        sleep $1
        GITHUB_REPOSITORY=$2 GITHUB_EVENT_PATH=/dev/null bash $ACTIONS_RUNNER_HOOK_JOB_STARTED && echo 'hook: passed'
    }";

#[tokio::test]
async fn a_job_whose_start_hook_is_late_outlives_the_idle_limit() {
    // Neither has the listener told of the job when the limit is reached, nor has the hook left its mark.
    let ended =
        Sandbox::new(&format!("{LATE_HOOK}; connect; start_worker 4; run_hook 2.5 acme/web; finish_worker; exit 0"))
            .with(variable::IDLE_TIMEOUT_SECS, "1")
            .with(variable::STOP_GRACE_SECS, "0")
            .run()
            .await;
    assert_eq!(ended.exit, Exit::Served);
    assert!(ended.output.contains("hook: passed"), "{}", ended.output);
    assert!(!ended.output.contains("listener: interrupted"), "{}", ended.output);
}

#[tokio::test]
async fn a_start_hook_that_is_late_still_refuses_its_job() {
    let ended =
        Sandbox::new(&format!("{LATE_HOOK}; connect; start_worker 4; run_hook 2.5 acme/other; finish_worker; exit 0"))
            .with(variable::IDLE_TIMEOUT_SECS, "1")
            .with(variable::STOP_GRACE_SECS, "0")
            .run()
            .await;
    assert_eq!(ended.exit, Exit::PolicyRefused);
    assert!(!ended.output.contains("hook: passed"), "{}", ended.output);
    assert!(!ended.output.contains("listener: interrupted"), "{}", ended.output);
}

#[tokio::test]
async fn a_start_hook_confirms_a_job_that_nothing_else_shows() {
    // The worker has ended when the limit is reached, and what the listener printed was not understood.
    let ended = Sandbox::new(&format!("{LATE_HOOK}; connect; run_hook 0 acme/web; sleep 2; exit 0"))
        .with(variable::IDLE_TIMEOUT_SECS, "1")
        .with(variable::STOP_GRACE_SECS, "0")
        .run()
        .await;
    assert_eq!(ended.exit, Exit::Served);
    assert!(!ended.output.contains("listener: interrupted"), "{}", ended.output);
}

#[tokio::test]
async fn a_job_that_crosses_the_interrupt_is_never_killed() {
    let ended = Sandbox::new("connect; listen; run_job 3; exit 0")
        .with(variable::IDLE_TIMEOUT_SECS, "1")
        .with(variable::STOP_GRACE_SECS, "1")
        .run()
        .await;
    assert_eq!(ended.exit, Exit::Served);
    assert!(ended.output.contains("listener: interrupted"));
    assert!(!ended.output.contains("told to terminate"), "{}", ended.output);
    assert!(ended.output.contains("completed with result: Succeeded"));
}

#[tokio::test]
async fn a_refused_version_is_told_by_code_or_by_text() {
    let code = Sandbox::new("echo Connecting; exit 7").run().await;
    assert_eq!(code.exit, Exit::VersionRefused);
    let text = "connect; echo 'Runner version v2.311.0 is deprecated and cannot receive messages.' >&2; exit 1";
    assert_eq!(Sandbox::new(text).run().await.exit, Exit::VersionRefused);
}

#[tokio::test]
async fn a_listener_that_never_connects_failed_to_register() {
    for listener in ["echo 'bad credentials'; exit 1", "exit 2", "exit 5", "exit 0"] {
        assert_eq!(Sandbox::new(listener).run().await.exit, Exit::RegistrationFailed, "{listener}");
    }
    let slow = Sandbox::new("listen; exit 0").with(variable::START_TIMEOUT_SECS, "1").run().await;
    assert_eq!(slow.exit, Exit::RegistrationFailed);
    assert!(slow.output.contains("listener: interrupted"));
}

#[tokio::test]
async fn an_image_without_a_runner_failed_to_register() {
    let sandbox = Sandbox::new("");
    fs::remove_file(sandbox.path("runner/bin/Runner.Listener")).expect("it was there");
    assert_eq!(sandbox.run().await.exit, Exit::RegistrationFailed);
}

#[tokio::test]
async fn bad_settings_end_before_the_listener_starts() {
    for (name, value) in [
        (variable::JIT_CONFIG, ""),
        (variable::REPOSITORIES, "acme"),
        (variable::REPOSITORIES, "acme/web acme/$(touch hit)"),
        (variable::IDLE_TIMEOUT_SECS, "a[$(touch hit)]"),
        (variable::TRUSTED_ONLY, "yes"),
    ] {
        let ended = Sandbox::new("connect; run_job 0").with(name, value).run().await;
        assert_eq!(ended.exit, Exit::RegistrationFailed, "{name}={value}");
        assert!(ended.output.contains(name), "the output names {name}: {}", ended.output);
        assert!(!ended.output.contains("Connected"), "{}", ended.output);
    }
}

#[tokio::test]
async fn a_registration_removed_while_idle_is_unclaimed() {
    for listener in [
        "connect; echo 'The runner no longer exists on the server. Cleaning up local configuration.'; exit 0",
        "connect; echo 'Registration 0f3c was not found.'; exit 1",
    ] {
        assert_eq!(Sandbox::new(listener).run().await.exit, Exit::Unclaimed, "{listener}");
    }
}

#[tokio::test]
async fn a_connected_listener_that_fails_has_crashed() {
    for listener in ["connect; exit 1", "connect; exit 5", "connect; kill -KILL $$"] {
        assert_eq!(Sandbox::new(listener).run().await.exit, Exit::Crashed, "{listener}");
    }
}

#[tokio::test]
async fn sigterm_ends_an_idle_runner_at_once() {
    let sandbox = Sandbox::new("connect; listen; exit 0");
    let mut running = sandbox.start();
    running.until("Listening for Jobs").await;
    running.signal("TERM").await;
    let ended = running.end().await;
    assert_eq!(ended.exit, Exit::Stopped);
    assert!(ended.output.contains("listener: interrupted"));
}

#[tokio::test]
async fn sigterm_during_a_job_waits_for_it() {
    let sandbox = Sandbox::new("connect; run_job 10; exit 0").with(variable::STOP_GRACE_SECS, "0");
    let mut running = sandbox.start();
    running.until("step: ").await;
    running.signal("TERM").await;
    running.until("listener: interrupted").await;
    fs::write(sandbox.path("runner/release"), "").expect("a writable directory");
    let ended = running.end().await;
    assert_eq!(ended.exit, Exit::Served);
    assert!(ended.output.contains("completed with result: Succeeded"));
    assert!(!ended.output.contains("told to terminate"), "{}", ended.output);
}

#[tokio::test]
async fn the_machine_is_described_to_the_job() {
    let description = r#"[{"Group":"Machine","Detail":"class default\n2 cores"}]"#;
    let sandbox = Sandbox::new("connect; run_job 0; exit 0").with(variable::SETUP_INFO, description);
    assert_eq!(sandbox.run().await.exit, Exit::Served);
    let written = fs::read_to_string(sandbox.path("runner/.setup_info")).expect("the file is written");
    assert_eq!(written, description);
}

#[tokio::test]
async fn the_machine_s_region_is_what_modal_says_inside_the_sandbox() {
    let description = r#"[{"group":"Modal sandbox","detail":"Region: {region}\nPrice: 0.4764 USD per hour"}]"#;
    for (region, told) in [(Some("us-east-1"), "us-east-1"), (Some("a\"}]\\ &$(id)"), "aid"), (None, "not told")] {
        let mut sandbox = Sandbox::new("connect; run_job 0; exit 0").with(variable::SETUP_INFO, description);
        if let Some(region) = region {
            sandbox = sandbox.with("MODAL_REGION", region);
        }
        assert_eq!(sandbox.run().await.exit, Exit::Served);
        let written = fs::read_to_string(sandbox.path("runner/.setup_info")).expect("the file is written");
        let told = format!("Region: {told}\nPrice: 0.4764 USD per hour");
        assert_eq!(
            serde_json::from_str::<Value>(&written).expect("it is JSON"),
            json!([{"group": "Modal sandbox", "detail": told}])
        );
    }
}

#[tokio::test]
async fn a_job_gets_the_environment_of_its_class_and_no_setting_of_the_supervisor() {
    // The names are those of variables in the script.
    let ended = Sandbox::new("echo \"mine: $(compgen -e SANDRUNNER) $job $CRASHED\"; connect; run_job 0; exit 0")
        .with("job", "of the class")
        .with("CRASHED", "no")
        .run()
        .await;
    assert!(ended.output.lines().any(|line| line == "mine:  of the class no"), "{}", ended.output);
}

/// What the job-started hook has to decide about one job.
struct HookCase {
    repository: &'static str,
    trusted_only: &'static str,
    event: String,
    expected: Exit,
}

#[tokio::test]
async fn the_hook_admits_the_repository_and_refuses_others() {
    let push = json!({"ref": "refs/heads/main"}).to_string();
    check_hook([
        HookCase { repository: "acme/web", trusted_only: "0", event: push.clone(), expected: Exit::Served },
        HookCase { repository: "ACME/Web", trusted_only: "1", event: push.clone(), expected: Exit::Served },
        HookCase { repository: "acme/web2", trusted_only: "0", event: push.clone(), expected: Exit::PolicyRefused },
        HookCase { repository: "", trusted_only: "0", event: push, expected: Exit::PolicyRefused },
    ])
    .await;
}

#[tokio::test]
async fn the_hook_knows_patterns_and_what_they_do_not_mean() {
    let case = |repository, expected| HookCase { repository, trusted_only: "0", event: "{}".to_owned(), expected };
    let cases = [
        case("acme/web", Exit::Served),
        case("Acme/Team-api", Exit::Served),
        case("acme/team-", Exit::Served),
        case("acme/team-secret", Exit::PolicyRefused),
        case("acme/team-secret-2", Exit::PolicyRefused),
        case("acme/other", Exit::PolicyRefused),
        case("mallory/team-api", Exit::PolicyRefused),
        case("acme/team-api/more", Exit::PolicyRefused),
        case("acme/*", Exit::PolicyRefused),
    ];
    check_hook_for("acme/web acme/team-* !acme/team-secret*", cases).await;
}

#[tokio::test]
async fn the_hook_refuses_forks_where_told_to() {
    let fork = pull_request(&json!({"full_name": "mallory/web"}));
    let own = pull_request(&json!({"full_name": "Acme/Web"}));
    let gone = pull_request(&Value::Null);
    let pretty = |event: &Value| serde_json::to_string_pretty(event).expect("JSON");
    let trusted = |event: String, expected| HookCase { repository: "acme/web", trusted_only: "1", event, expected };
    check_hook([
        trusted(fork.to_string(), Exit::PolicyRefused),
        trusted(pretty(&fork), Exit::PolicyRefused),
        trusted(own.to_string(), Exit::Served),
        trusted(pretty(&own), Exit::Served),
        trusted(gone.to_string(), Exit::PolicyRefused),
        trusted(json!({"pull_request": null, "head": {"repo": {}}}).to_string(), Exit::Served),
        trusted(json!({"issue": {"pull_request": {"url": "x"}}}).to_string(), Exit::Served),
        trusted(String::new(), Exit::PolicyRefused),
        trusted(fork.to_string().replace("}}}", ""), Exit::PolicyRefused),
        HookCase { repository: "acme/web", trusted_only: "0", event: fork.to_string(), expected: Exit::Served },
    ])
    .await;
}

/// A pull request event whose other texts try to be taken for structure.
fn pull_request(head_repo: &Value) -> Value {
    json!({
        "action": "opened",
        "number": 7,
        "labels": ["a", "b", {"pull_request": {"head": {"repo": {"full_name": "decoy/one"}}}}],
        "pull_request": {
            "base": {"repo": {"full_name": "decoy/two", "tags": []}},
            "body": "},{ \\\" ]] \"pull_request\":{\"head\":{\"repo\":{\"full_name\":\"decoy/three\"}}} \\\\",
            "head": {"label": "a:b\\", "repo": head_repo, "user": {"full_name": "decoy/four"}},
        },
        "repository": {"full_name": "decoy/five", "pushed_at": 1.5e3, "private": true},
    })
}

/// Runs each case in a sandbox of its own; the hook starts as the runner starts it, and its failure fails the job.
async fn check_hook(cases: impl IntoIterator<Item = HookCase>) {
    check_hook_for("Acme/web", cases).await;
}

/// The same where these repositories are allowed.
async fn check_hook_for(allowed: &str, cases: impl IntoIterator<Item = HookCase>) {
    join_all(cases.into_iter().map(|case| async move {
        let listener = "connect; echo '1: Running job: build'
            GITHUB_REPOSITORY=$(<../repository) GITHUB_EVENT_PATH=$PWD/../event.json bash -e $ACTIONS_RUNNER_HOOK_JOB_STARTED
            echo \"hook: $?\"; exit 0";
        let sandbox = Sandbox::new(listener).with(variable::REPOSITORIES, allowed);
        let sandbox = sandbox.with(variable::TRUSTED_ONLY, case.trusted_only);
        fs::write(sandbox.path("repository"), case.repository).expect("a writable directory");
        fs::write(sandbox.path("event.json"), &case.event).expect("a writable directory");
        let ended = sandbox.run().await;
        assert_eq!(ended.exit, case.expected, "{} {}: {}", case.repository, case.event, ended.output);
        let code = if case.expected == Exit::Served { "hook: 0" } else { "hook: 1" };
        assert!(ended.output.contains(code), "{}", ended.output);
    }))
    .await;
}

#[tokio::test]
async fn the_config_is_in_no_argument_no_file_and_no_environment_but_the_listeners() {
    // A variable of the script that was in its environment from the start must not become a way out.
    let sandbox = Sandbox::new("echo \"listener: $$\"; connect; run_job 10; exit 0").with("config", "of the class");
    let mut running = sandbox.start();
    let listener = number_after(&running.until("listener: ").await, "listener: ");
    let job = running.until("step: ").await;
    let (worker, step) = (number_after(&job, "worker: "), number_after(&job, "step: "));

    let secret = sandbox.config.as_bytes();
    assert_eq!(processes_with("cmdline", secret), BTreeSet::new());
    // The listener's environment is the one place, which also shows that this search finds what there is to find.
    assert_eq!(processes_with("environ", secret), BTreeSet::from([listener]));
    let told = processes_with("environ", b"RUNNER_ALLOW_RUNASROOT=1");
    assert!(told.is_superset(&BTreeSet::from([listener, worker, step])), "these were searched: {told:?}");
    assert!(processes_with("cmdline", b"read_settings").contains(&running.pid()), "so was the supervisor");

    assert_eq!(files_with(sandbox.dir.path(), secret), Vec::<PathBuf>::new());
    let planted = sandbox.path("runner/planted");
    fs::write(&planted, secret).expect("a writable directory");
    assert_eq!(files_with(sandbox.dir.path(), secret), [planted]);

    let mut careless =
        Running::of(Command::new("bash").args(["-c", "echo ready; while sleep 0.1; do :; done", &sandbox.config]));
    careless.until("ready").await;
    assert!(processes_with("cmdline", secret).contains(&careless.pid()), "arguments were searched, too");
    drop(careless);

    fs::write(sandbox.path("runner/release"), "").expect("a writable directory");
    let ended = running.end().await;
    assert_eq!(ended.exit, Exit::Served);
    assert!(!ended.output.contains(&sandbox.config));
}

/// The processes whose `cmdline` or `environ` contains `text`.
fn processes_with(file: &str, text: &[u8]) -> BTreeSet<u32> {
    let entries = fs::read_dir("/proc").expect("Linux").filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // Processes of others and those that just ended cannot be read; neither is part of the sandbox.
    pids.filter(|pid| fs::read(format!("/proc/{pid}/{file}")).is_ok_and(|bytes| contains(&bytes, text))).collect()
}

/// The regular files below `dir` whose content contains `text`.
fn files_with(dir: &Path, text: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory").filter_map(Result::ok) {
        let (path, kind) = (entry.path(), entry.file_type().expect("a file type"));
        if kind.is_dir() {
            found.extend(files_with(&path, text));
        } else if kind.is_file() && contains(&fs::read(&path).expect("a readable file"), text) {
            found.push(path);
        }
    }
    found
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

fn number_after(line: &str, label: &str) -> u32 {
    let (_, rest) = line.split_once(label).expect("the label is in the line");
    let digits = rest.split_whitespace().next().expect("a number follows");
    digits.parse().expect("a process id")
}

/// A directory that stands for the sandbox's file system, and the settings the supervisor will get.
struct Sandbox {
    dir: TempDir,
    config: String,
    settings: Vec<(&'static str, String)>,
}

/// How a sandbox ended, and all it printed.
struct Ended {
    exit: Exit,
    output: String,
}

impl Sandbox {
    /// Prepares a runner whose listener does what `listener` says, in the words of `supervisor/listener.sh`.
    fn new(listener: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(dir.path().join("runner/bin")).expect("a writable directory");
        fs::create_dir(dir.path().join("tmp")).expect("a writable directory");
        let scripts = [
            ("Runner.Listener", format!("{}\n{listener}\n", include_str!("supervisor/listener.sh"))),
            ("Runner.Worker", include_str!("supervisor/worker.sh").to_owned()),
        ];
        for (name, text) in scripts {
            let path = dir.path().join("runner/bin").join(name);
            fs::write(&path, text).expect("a writable directory");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("our own file");
        }
        let config = format!("eyJ-config-of-{}-{}", std::process::id(), dir.path().display()).replace('/', "_");
        let settings = vec![
            (variable::JIT_CONFIG, config.clone()),
            (variable::RUNNER_DIR, dir.path().join("runner").display().to_string()),
            (variable::REPOSITORIES, "Acme/web".to_owned()),
        ];
        Self { dir, config, settings }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.settings.push((name, value.to_owned()));
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&self) -> Running {
        self.start_by(&[])
    }

    /// Starts the supervisor by way of another command, which has to become it.
    fn start_by(&self, launcher: &[&str]) -> Running {
        let mut words = launcher.iter().copied().chain(ENTRYPOINT);
        let mut command = Command::new(words.next().expect("the entry point is not empty"));
        command
            .args(words)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").expect("a PATH"))
            .env("TMPDIR", self.path("tmp"))
            .envs(self.settings.iter().map(|(name, value)| (name, value)));
        Running::of(&mut command)
    }

    async fn run(&self) -> Ended {
        self.start().end().await
    }

    /// With an image in which there are such users beside the one that this test runs as, whom they stand for; jobs run as
    /// `runner`.
    fn with_user(self, users: &[&str]) -> Self {
        fs::create_dir(self.path("users")).expect("a writable directory");
        let begin = "#!/bin/bash\n";
        let log = self.path("users/setpriv.args").display().to_string();
        let known = users.join("|");
        let scripts = [
            // As the real one, it becomes the command that follows.
            (
                "setpriv",
                format!("{begin}echo \"$*\" >>{log}\nwhile [[ $1 != -- ]]; do shift; done\nshift\nexec \"$@\"\n"),
            ),
            ("id", format!("{begin}case \"$2\" in {known}) exec /usr/bin/id \"$1\" ;; *) exit 1 ;; esac\n")),
            ("getent", format!("{begin}exit 2\n")),
        ];
        for (name, text) in scripts {
            let path = self.path("users").join(name);
            fs::write(&path, text.replace("in )", "in none)")).expect("a writable directory");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("our own file");
        }
        let path = format!("{}:{}", self.path("users").display(), std::env::var("PATH").expect("a PATH"));
        self.with("PATH", &path).with(variable::RUN_AS, "runner")
    }

    /// With a Docker whose daemon does what `daemon` says; `up` in its folder has it answer.
    fn with_docker(self, kind: &str, daemon: &str) -> Self {
        fs::create_dir(self.path("docker")).expect("a writable directory");
        let up = self.path("docker/up").display().to_string();
        let begin = "#!/bin/bash\n";
        let scripts = [
            ("dockerd", format!("{begin}echo \"dockerd: $*\"\nup={up}\necho \"$@\" >{up}.args\n{daemon}\n")),
            ("docker", format!("{begin}[[ ! -e {up}.hangs ]] || sleep 60\n[[ $1 == info && -e {up} ]]\n")),
        ];
        for (name, text) in scripts {
            let path = self.path("docker").join(name);
            fs::write(&path, text).expect("a writable directory");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("our own file");
        }
        let path = format!("{}:{}", self.path("docker").display(), std::env::var("PATH").expect("a PATH"));
        self.with("PATH", &path).with(variable::DOCKER, kind)
    }
}

/// A process at work, as a rule a supervisor.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    output: String,
}

impl Running {
    fn of(command: &mut Command) -> Self {
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn();
        let mut child = spawned.expect("bash is there");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Self { child, lines, output: String::new() }
    }

    fn pid(&self) -> u32 {
        self.child.id().expect("it has not been waited for")
    }

    /// Reads on until a line contains `text`, and returns that line.
    async fn until(&mut self, text: &str) -> String {
        let found = timeout(BOUND, async {
            while let Some(line) = self.lines.next_line().await.expect("readable output") {
                self.output.push_str(&line);
                self.output.push('\n');
                if line.contains(text) {
                    return Some(line);
                }
            }
            None
        });
        let line = found.await.unwrap_or_else(|_| panic!("no `{text}` in time: {}", self.output));
        line.unwrap_or_else(|| panic!("it ended without `{text}`: {}", self.output))
    }

    async fn signal(&self, name: &str) {
        let sent = Command::new("bash").args(["-c", "kill -s \"$0\" \"$1\"", name, &self.pid().to_string()]).status();
        assert!(sent.await.expect("bash is there").success());
    }

    async fn end(mut self) -> Ended {
        self.until("sandrunner: ").await;
        let status = timeout(BOUND, async {
            while let Some(line) = self.lines.next_line().await.expect("readable output") {
                self.output.push_str(&line);
                self.output.push('\n');
            }
            self.child.wait().await.expect("it is our child")
        });
        let status = status.await.unwrap_or_else(|_| panic!("did not end: {}", self.output));
        Ended { exit: Exit::from_code(status.code().expect("it was not killed")), output: self.output }
    }
}
