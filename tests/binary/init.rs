//! What `init` writes is what the daemon takes; it replaces nothing, and no secret is shown.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sandrunner::config::{Environment, Settings, load};
use sandrunner::github::GithubAuth;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{BOUND, Ended, REPO, Sandrunner, Simulation, Variables, small};

const TOKENS: [(&str, &str); 3] =
    [("GITHUB_TOKEN", "ghp_canary7rk2"), ("MODAL_TOKEN_ID", "ak-canary9xw4"), ("MODAL_TOKEN_SECRET", "as-canary5tz8")];

/// An App's private key of nobody.
const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/github-app/test-key.pkcs1.pem");

fn variables(given: &[(&str, &str)]) -> Variables {
    given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// What `init` does in a folder, and how it ends; no secret is in what it prints.
async fn init(folder: &TempDir, arguments: &[&str], given: &[(&str, &str)]) -> Ended {
    let config = folder.path().join("config.toml").display().to_string();
    let arguments = [&["init", "--config", &config], arguments].concat();
    let ended = Sandrunner::start(&arguments, &variables(given)).ended(BOUND).await;
    let printed = format!("{}{}", ended.stdout, ended.stderr);
    assert!(!printed.contains("canary") && !printed.contains("PRIVATE KEY"), "{printed}");
    ended
}

fn loaded(folder: &TempDir, given: &[(&str, &str)]) -> Settings {
    let environment: Environment = variables(given).into_iter().collect();
    let path = folder.path().join("config.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("canary") && !text.contains("PRIVATE KEY"), "{text}");
    load(Some(&path), &environment).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

fn entries(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[tokio::test]
async fn with_a_token_it_writes_what_the_daemon_takes() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--repos", &format!("{REPO}, acme/api-*"), "--max-sandboxes-per-repo", "7"];
    let machines = ["--gpus", "t4,h100:2", "--classes", "large:8:32768,ml:4:16384:A100:2", "--spend-per-day", "50"];
    let ended = init(&folder, &[&arguments[..], &machines].concat(), &TOKENS).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    assert!(ended.stdout.contains("sandrunner plan --config "), "{}", ended.stdout);
    for (name, secret) in ["github-token", "modal-token-id", "modal-token-secret"].iter().zip(TOKENS.map(|(_, it)| it))
    {
        let path = folder.path().join("secrets").join(name);
        assert_eq!((mode(&path), std::fs::read_to_string(&path).unwrap()), (0o600, format!("{secret}\n")));
    }
    assert_eq!(mode(&folder.path().join("secrets")), 0o700);
    let settings = loaded(&folder, &[]);
    let names: Vec<String> = settings.policy.classes.iter().map(|class| class.name.to_string()).collect();
    assert_eq!(names, ["large", "ml", "gpu:t4", "gpu:h100:2", "default"]);
    let limits = settings.policy.limits;
    assert_eq!((limits.sandboxes, limits.sandboxes_per_repo, limits.gpus), (100, Some(7), 4));
    let GithubAuth::Token(token) = &settings.github[0].auth else { panic!("{settings:?}") };
    assert_eq!(token.expose_secret(), TOKENS[0].1);
}

#[tokio::test]
async fn what_it_wrote_plans_at_the_simulated_services() {
    let folder = tempfile::tempdir().unwrap();
    let simulation = Simulation::start(&folder, &small(1), &["--profile", "calm"]).await;
    let ended = init(&folder, &["--repos", REPO], &TOKENS).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    let config = folder.path().join("config.toml").display().to_string();
    let without_secrets =
        simulation.variables(&[("GITHUB_TOKEN", ""), ("MODAL_TOKEN_ID", ""), ("MODAL_TOKEN_SECRET", "")]);
    let ended = Sandrunner::start(&["plan", "--json", "--config", &config], &without_secrets).ended(BOUND).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    let plan: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(plan["actions"].as_array().unwrap().len(), 1, "{plan:#}");
}

#[tokio::test]
async fn with_an_app_it_takes_the_key_and_may_register_in_an_organization() {
    let folder = tempfile::tempdir().unwrap();
    let app = ["--repos", "*", "--app-id", "123456", "--app-key-file", KEY, "--host", "acme.ghe.com"];
    let organization = ["--organization", "acme", "--runner-group", "Modal \"fast\"", "--modal-environment", "ci"];
    let credstore = folder.path().join("credstore").display().to_string();
    let kept = ["--secrets", "credstore", "--secrets-dir", &credstore];
    let ended = init(&folder, &[&app[..], &organization, &kept].concat(), &TOKENS[1..]).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    // As the unit's LoadCredential= names them for the daemon.
    let handed_over = folder.path().join("handed-over");
    std::fs::create_dir(&handed_over).unwrap();
    for name in ["github-app-key", "modal-token-id", "modal-token-secret"] {
        let path = Path::new(&credstore).join(format!("sandrunner.{name}"));
        assert_eq!(mode(&path), 0o600);
        std::fs::copy(path, handed_over.join(name)).unwrap();
    }
    let settings = loaded(&folder, &[("CREDENTIALS_DIRECTORY", &handed_over.display().to_string())]);
    assert!(matches!(&settings.github[0].auth, GithubAuth::App { id, .. } if id == "123456"));
    assert_eq!(settings.github[0].api_url, "https://api.acme.ghe.com");
    assert_eq!(settings.modal.environment, "ci");
    let account = settings.policy.accounts.values().next().unwrap();
    assert!(format!("{:?}", account.organizations).contains("Modal"), "{account:?}");
}

#[tokio::test]
async fn what_is_not_known_is_named_with_the_place_where_it_belongs() {
    let folder = tempfile::tempdir().unwrap();
    let ended = init(&folder, &["--repos", REPO], &TOKENS[..1]).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    let place = folder.path().join("secrets/modal-token-id").display().to_string();
    assert!(ended.stdout.contains(&format!("install -m 600 /dev/stdin {place}")), "{}", ended.stdout);
    assert_eq!(entries(&folder.path().join("secrets")), 1);
    std::fs::write(place, "ak-x\n").unwrap();
    std::fs::write(folder.path().join("secrets/modal-token-secret"), "as-x\n").unwrap();
    loaded(&folder, &[]);

    let folder = tempfile::tempdir().unwrap();
    let ended = init(&folder, &["--repos", REPO, "--secrets", "environment"], &TOKENS).await;
    assert!(ended.stdout.contains("set MODAL_TOKEN_SECRET"), "{ended:#?}");
    assert_eq!(entries(folder.path()), 1, "the configuration alone");
    loaded(&folder, &TOKENS);
}

#[tokio::test]
async fn nothing_is_replaced_and_what_is_refused_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let refused = async |arguments: &[&str], says: &str| {
        let ended = init(&folder, arguments, &TOKENS).await;
        assert_eq!(ended.status.code(), Some(2), "{ended:#?}");
        assert!(ended.stderr.contains(says), "`{says}` is missing in: {}", ended.stderr);
        assert_eq!(entries(folder.path()), 0, "something was written");
    };
    refused(&[], "--repos is missing").await;
    refused(&["--repos", "web"], "`web` is none: write owner/name").await;
    refused(&["--repos", "*"], "use a GitHub App").await;
    refused(&["--repos", REPO, "--gpus", "h100:8"], "limits.max_gpus").await;
    refused(&["--repos", REPO, "--classes", "large:8"], "NAME:CORES:MIB").await;
    refused(&["--repos", REPO, "--classes", "large:800:32768"], "cpu").await;
    refused(&["--repos", REPO, "--max-sandboxes", "0"], "limits.max_sandboxes").await;
    refused(&["--repos", REPO, "--app-id", "1"], "--app-key-file is missing").await;
    refused(&["--repos", REPO, "--github-token-file", "/nowhere"], "cannot read /nowhere").await;

    std::fs::create_dir(folder.path().join("secrets")).unwrap();
    std::fs::write(folder.path().join("secrets/github-token"), "another\n").unwrap();
    let ended = init(&folder, &["--repos", REPO], &TOKENS).await;
    assert_eq!(ended.status.code(), Some(2), "{ended:#?}");
    assert!(ended.stderr.contains("holds another secret"), "{ended:#?}");
    // What an earlier call has left is taken up.
    std::fs::write(folder.path().join("secrets/github-token"), "ghp_canary7rk2\n").unwrap();
    let ended = init(&folder, &["--repos", REPO], &TOKENS).await;
    assert!(ended.status.success() && ended.stdout.contains("already"), "{ended:#?}");
    let before = std::fs::read_to_string(folder.path().join("config.toml")).unwrap();
    let ended = init(&folder, &["--repos", "acme/other"], &TOKENS).await;
    assert_eq!(ended.status.code(), Some(2), "{ended:#?}");
    assert!(ended.stderr.contains("exists, and is left as it is"), "{ended:#?}");
    assert_eq!(std::fs::read_to_string(folder.path().join("config.toml")).unwrap(), before);
}

#[tokio::test]
async fn the_manifest_asks_for_what_is_needed_and_says_where_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let ended = init(&folder, &["--app-manifest", "--organization", "acme"], &[]).await;
    assert_eq!((ended.status.code(), entries(folder.path())), (Some(0), 0), "{ended:#?}");
    let manifest: Value = serde_json::from_str(&ended.stdout).unwrap();
    let permissions = json!({ "actions": "read", "administration": "write", "metadata": "read" });
    assert_eq!(manifest["default_permissions"], permissions);
    assert_eq!((&manifest["public"], &manifest["hook_attributes"]["active"]), (&json!(false), &json!(false)));
    let page = "https://github.com/organizations/acme/settings/apps/new?url=https://github.com/acme&public=false\
                &webhook_active=false&actions=read&administration=write&metadata=read";
    assert!(ended.stderr.contains(page), "{}", ended.stderr);
    assert!(ended.stderr.contains("https://api.github.com/app-manifests/CODE/conversions"), "{}", ended.stderr);

    let grouped = ["--app-manifest", "--organization", "acme", "--runner-group", "Modal", "--host", "ghe.acme.example"];
    let ended = init(&folder, &grouped, &[]).await;
    let manifest: Value = serde_json::from_str(&ended.stdout).unwrap();
    let permissions = json!({ "actions": "read", "organization_self_hosted_runners": "write", "metadata": "read" });
    assert_eq!(manifest["default_permissions"], permissions);
    assert!(ended.stderr.contains("https://ghe.acme.example/api/v3/app-manifests/"), "{}", ended.stderr);
}
