//! The configuration: the example against the code, the environment, and what bad values are told.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use sandrunner::class::{Docker, Network, Risks, Runtime, SandboxOptions, User, domain_admits, resolve};
use sandrunner::config::{Config, ConfigError, Environment, RunnerReleaseChoice, Settings, load};
use sandrunner::cost::{Prices, Usd};
use sandrunner::github::{GithubAuth, GithubSettings};
use sandrunner::ids::Labels;
use secrecy::ExposeSecret;
use serde_json::Value;

const EXAMPLE: &str = include_str!("../config.toml.example");

fn environment(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

const TOKENS: [(&str, &str); 3] =
    [("GITHUB_TOKEN", "ghp_x"), ("MODAL_TOKEN_ID", "ak-x"), ("MODAL_TOKEN_SECRET", "as-x")];
const MINIMAL: &str = "[[github]]\nallowed_repos = [\"acme/web\"]\n";

fn load_text(text: &str, extra: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    let all: Vec<(&str, &str)> = TOKENS.into_iter().chain(extra.iter().copied()).collect();
    load(Some(&path), &environment(&all))
}

fn with_causes(error: &ConfigError) -> String {
    sandrunner::error::ErrorChain(error).to_string()
}

/// The example with its commented-out keys switched on.
fn whole_example() -> String {
    let is_key = |line: &str| {
        line.strip_prefix("# ")
            .and_then(|rest| rest.split_once(" = "))
            .is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'))
    };
    EXAMPLE.lines().map(|line| if is_key(line) { &line[2..] } else { line }).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_holds_every_key() {
    let config: Config = toml::from_str(&whole_example()).unwrap();
    let keys = serde_json::to_value(&config).unwrap();
    let text: Value =
        toml::from_str::<toml::Table>(&whole_example()).map(|table| serde_json::to_value(table).unwrap()).unwrap();
    let mut missing = Vec::new();
    compare(&keys, &text, "", &mut missing);
    assert!(missing.is_empty(), "config.toml.example lacks {missing:?}");
}

/// Every key that the code knows stands in the example.
fn compare(known: &Value, example: &Value, path: &str, missing: &mut Vec<String>) {
    match (known, example) {
        (Value::Object(known), Value::Object(example)) => {
            for (key, value) in known {
                let path = format!("{path}.{key}");
                match example.get(key) {
                    Some(given) => compare(value, given, &path, missing),
                    None => missing.push(path),
                }
            }
        }
        (Value::Array(known), Value::Array(example)) => {
            for (index, (known, example)) in known.iter().zip(example).enumerate() {
                compare(known, example, &format!("{path}[{index}]"), missing);
            }
        }
        _ => {}
    }
}

#[test]
fn the_example_shows_the_defaults() {
    let example: Config = toml::from_str(EXAMPLE).unwrap();
    let mut defaults = Config::default();
    defaults.github.clone_from(&example.github);
    defaults.images.clone_from(&example.images);
    defaults.runner_classes.clone_from(&example.runner_classes);
    assert_eq!(serde_json::to_value(&example).unwrap(), serde_json::to_value(&defaults).unwrap());
    let account: Config = toml::from_str(MINIMAL).unwrap();
    let mut shown = example.github[0].clone();
    shown.allowed_repos.clone_from(&account.github[0].allowed_repos);
    assert_eq!(serde_json::to_value(&shown).unwrap(), serde_json::to_value(&account.github[0]).unwrap());
}

#[test]
fn the_example_is_accepted() {
    let settings = load_text(EXAMPLE, &[]).unwrap();
    assert_eq!(settings.policy.scopes().count(), 2);
    let names: Vec<String> = settings.policy.classes.iter().map(|class| class.name.to_string()).collect();
    assert_eq!(names, ["large", "gpu:t4", "gpu:l4", "gpu:a100", "gpu:a100-80gb", "gpu:h100", "default"]);
}

#[test]
fn any_gpu_has_a_class_by_its_label_for_the_repositories_that_may_have_it() {
    let text = format!(
        "builtin_gpus = [\"B200\", \"h100:2\"]\nbuiltin_gpu_repos = [\"acme/ml\"]\n{}",
        MINIMAL.replace("acme/web", "acme/*")
    );
    let classes = load_text(&text, &[]).unwrap().policy.classes;
    let found = |label: &str, repo: &str| {
        let labels = Labels::new(["modal", label]);
        let class = resolve(&classes, "modal", (&labels, Risks::NONE), &repo.parse().unwrap());
        class.map(|class| class.machines()[0].to_string()).map_err(|why| why.to_string())
    };
    assert_eq!(found("gpu:b200", "acme/ml"), Ok("B200".to_owned()));
    assert_eq!(found("GPU:H100:2", "acme/ml"), Ok("H100:2".to_owned()));
    assert!(found("gpu:b200", "acme/web").unwrap_err().contains("fails on `acme/web`"));
    assert!(found("gpu:h100", "acme/ml").unwrap_err().contains("fails on `gpu:h100`"), "of that there is no class");
}

#[test]
fn where_no_gpu_is_wanted_a_class_may_name_any() {
    let text = format!("builtin_gpus = [\"h100:8\"]\n{MINIMAL}[limits]\nmax_gpus = 0\n");
    assert_eq!(load_text(&text, &[]).unwrap().policy.limits.gpus, 0);
}

#[test]
fn a_class_says_what_will_do_where_modal_is_short_of_something() {
    let class = "gpu = \"h100\"\ngpu_fallback = [\"a100:2\"]\nregions = [\"us\"]\nregion_fallback = [\"eu\", \"ap\"]";
    let text = format!("{MINIMAL}[[runner_classes]]\nname = \"ml\"\nlabels = [\"ml\"]\nrun_as_root = false\n{class}\n");
    let settings = load_text(&text, &[]).unwrap();
    let ml = &settings.policy.classes[0];
    let machines: Vec<String> = ml.machines().iter().map(ToString::to_string).collect();
    assert_eq!(machines, ["H100 in us", "A100:2 in us", "H100 in eu", "A100:2 in eu", "H100 in ap", "A100:2 in ap"]);
    let users: Vec<User> = settings.policy.classes.iter().map(|class| class.options.user).take(2).collect();
    assert_eq!(users, [User::Runner, User::Root]);
}

#[test]
fn the_environment_overrides_the_file() {
    let settings =
        load_text(MINIMAL, &[("SANDRUNNER__RECONCILE__INTERVAL", "20s"), ("SANDRUNNER__RUNNER__REGIONS", "eu,us")])
            .unwrap();
    assert_eq!(settings.policy.interval.as_secs(), 20);
    assert_eq!(settings.policy.classes[0].regions, ["eu", "us"]);
    let unknown = load_text(MINIMAL, &[("SANDRUNNER__RECONCILE__INTERVALL", "20s")]).unwrap_err();
    assert!(unknown.to_string().contains("intervall"), "{unknown}");
}

#[test]
fn a_line_that_may_hold_a_secret_is_not_shown() {
    let wrong = |text: &str| with_causes(&load_text(text, &[]).unwrap_err());
    let shown = wrong("[limits]\nmax_gpus = 4 4\n");
    assert!(shown.contains("line 2, column 12") && shown.contains("max_gpus = 4 4"), "{shown}");
    for (text, place) in [
        ("[[github]]\ntoken = \"ghp_canary\" 4\n", "line 2, column "),
        ("[[github]]\nToken_ID = \"ghp_canary\n", "line 2, column "),
        ("modal = { token_secret = \"ghp_canary\", app = 4 }\n", "line 1, column "),
        ("[[github]]\ntoken = \"\"\"\nghp_canary\u{7}\n\"\"\"\n", "line 3, column "),
        ("[[github]]\ntoken = [\"ghp_canary\"]\n", "line 2, column "),
        ("[[github]]\nprivate_key = \"-----BEGIN canary\" 4\n", "line 2, column "),
    ] {
        let told = wrong(text);
        assert!(told.contains(place) && !told.contains("canary"), "{told}");
    }
}

#[test]
fn the_state_directory_is_that_of_the_file_else_that_of_systemd() {
    let dir = |text: &str, extra: &[(&str, &str)]| load_text(&format!("{text}\n{MINIMAL}"), extra).unwrap().state_dir;
    let systemd = ("STATE_DIRECTORY", "/var/lib/sandrunner:/var/lib/other");
    assert_eq!(dir("", &[]), None);
    assert_eq!(dir("", &[systemd]), Some("/var/lib/sandrunner".into()));
    assert_eq!(dir("state_dir = \"/srv/state\"", &[systemd]), Some("/srv/state".into()));
    assert_eq!(dir("state_dir = \"\"", &[systemd]), None);
    assert_eq!(dir("", &[systemd, ("SANDRUNNER__STATE_DIR", "/srv/other")]), Some("/srv/other".into()));
}

#[test]
fn what_decides_whether_a_runner_starts_has_a_fingerprint() {
    let of = |text: &str| load_text(&format!("{MINIMAL}{text}"), &[]).unwrap().runner_fingerprint();
    assert_eq!(of(""), of("points_per_minute = 800"));
    let classes = |image| of(&format!("[[runner_classes]]\nname = \"a\"\nlabels = [\"a\"]\nimage = \"{image}\""));
    assert_ne!(classes("acme/runner:1"), classes("acme/runner:2"));
    assert_ne!(of(""), of("[runner]\nversion = \"2.336.0\""));
}

#[test]
fn empty_variables_change_nothing() {
    load_text(MINIMAL, &[("SANDRUNNER__HTTP__LISTEN", ""), ("ALLOWED_REPOS", ""), ("WEBHOOK_SECRET", " ")]).unwrap();
}

#[test]
fn the_names_of_the_earlier_project_work() {
    let settings = load(
        None,
        &environment(&[
            ("GITHUB_TOKEN", "ghp_x"),
            ("MODAL_TOKEN_ID", "ak-x"),
            ("MODAL_TOKEN_SECRET", "as-x"),
            ("ALLOWED_REPOS", "Acme/Web, acme/api"),
            ("RUNNER_VERSION", "2.336.0"),
            ("RUNNER_GROUP_ID", "7"),
            ("MAX_CONCURRENT_PER_REPO", "3"),
            ("MODAL_REGION", "us-east"),
            ("SANDBOX_EXTRA_ENV", r#"{"STAGE": "ci"}"#),
        ]),
    )
    .unwrap();
    let repos: Vec<String> = settings.policy.scopes().map(|scope| scope.repo.to_string()).collect();
    assert_eq!(repos, ["acme/api", "acme/web"]);
    assert_eq!(
        settings.runner.release,
        RunnerReleaseChoice::Pinned { version: "2.336.0".parse().unwrap(), sha256: None }
    );
    assert_eq!(settings.policy.accounts.values().next().unwrap().runner_group_id, 7);
    assert_eq!(settings.policy.limits.sandboxes_per_repo, Some(3));
    assert_eq!(settings.policy.classes[0].regions, ["us-east"]);
    assert_eq!(settings.policy.classes[0].env["STAGE"], "ci");
}

/// Every name that the earlier project's environment file may hold, with what it wrote there.
const EARLIER: [(&str, &str); 20] = [
    ("GITHUB_TOKEN", "ghp_x"),
    ("WEBHOOK_SECRET", "0123456789abcdef"),
    ("ALLOWED_REPOS", "Acme/Web, acme/api,"),
    ("RUNNER_VERSION", "2.333.1"),
    ("RUNNER_GROUP_ID", "1"),
    ("MAX_CONCURRENT_PER_REPO", "3"),
    ("ALLOWED_CIDRS", "10.0.0.0/8, 192.0.2.7/32"),
    ("BLOCK_NETWORK", "False"),
    ("CACHE_VOLUME_NAME", "tools"),
    ("MODAL_REGION", "us-east-1"),
    ("SANDBOX_EXTRA_ENV", r#"{"STAGE": "ci"}"#),
    ("GITHUB_ENTERPRISE_DOMAIN", "github.example.com"),
    ("TIMEOUT_SECONDS", "3600"),
    ("RUNNER_ALLOW_RUNASROOT", "1"),
    ("HTTP_TIMEOUT_SECONDS", "30"),
    ("MAX_BODY_SIZE", "1000000"),
    ("DELIVERY_CACHE_MAX_SIZE", "10000"),
    ("JOB_DEDUP_WINDOW_SECONDS", "300"),
    ("MAX_PROCESSED_CACHE_SIZE", "10000"),
    ("RUN_STALE_THRESHOLD_SECONDS", "86400"),
];

#[test]
fn each_line_of_the_earlier_project_s_environment_file_works_or_is_named_with_what_replaces_it() {
    let guide = include_str!("../docs/migrating.md");
    let modal = [("MODAL_TOKEN_ID", "ak-x"), ("MODAL_TOKEN_SECRET", "as-x")];
    let needed = [("GITHUB_TOKEN", "ghp_x"), ("ALLOWED_REPOS", "acme/web")];
    let without = load(None, &environment(&[modal, needed].concat())).unwrap();
    for (name, value) in EARLIER {
        assert!(guide.contains(&format!("`{name}`")), "docs/migrating.md lacks {name}");
        let mut variables = environment(&[modal, needed].concat());
        let is_needed = variables.insert(name.to_owned(), value.to_owned()).is_some();
        let with = load(None, &variables).unwrap_or_else(|error| panic!("{name}: {}", with_causes(&error)));
        let is_named = with.unused.iter().any(|unused| unused.name == name && !unused.replacement.is_empty());
        // What is written there may be the default; then it works as well.
        let is_default = [("RUNNER_GROUP_ID", "1"), ("BLOCK_NETWORK", "False")].contains(&(name, value));
        let works = format!("{:?}", Settings { unused: Vec::new(), ..with }) != format!("{without:?}");
        assert!(is_named != (works || is_needed || is_default), "{name} does nothing, and nobody says so");
    }
    let whole = load(None, &environment(&[&modal[..], &EARLIER].concat())).unwrap();
    assert_eq!(whole.unused.len(), 8);
    assert_eq!(whole.policy.scopes().count(), 2);
}

#[test]
fn a_webhook_has_a_secret_from_wherever_it_comes_and_may_have_the_one_before() {
    const OLD: &str = "the old one is 16";
    assert!(load_text(MINIMAL, &[]).unwrap().webhook.is_none());
    assert!(load_text(MINIMAL, &[("WEBHOOK_SECRET", "It's a Secret to Everybody")]).unwrap().webhook.is_some());
    let both = |new: &str, old: &str| {
        format!("{MINIMAL}[http]\nwebhook_secret = \"{new}\"\nwebhook_secret_previous = \"{old}\"\n")
    };
    assert!(!format!("{:?}", load_text(&both("the new one is 16", OLD), &[]).unwrap()).contains(OLD));
    for short in [both("fifteen letters", OLD), both("the new one is 16", "old")] {
        let told = load_text(&short, &[]).unwrap_err().to_string();
        assert!(told.contains("not shown: must have 16 characters or more"), "{told}");
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("webhook-secret"), "a secret of systemd\n").unwrap();
    let credentials = dir.path().display().to_string();
    assert!(load_text(MINIMAL, &[("CREDENTIALS_DIRECTORY", &credentials)]).unwrap().webhook.is_some());
    let old = format!("{MINIMAL}[http]\nwebhook_secret_previous = \"{OLD}\"\n");
    assert_eq!(
        load_text(&old, &[]).unwrap_err().to_string(),
        "`http.webhook_secret` is missing: set it beside webhook_secret_previous, which it replaces"
    );
    let lines = format!("{MINIMAL}[http]\nwebhook_secret = \"one\\ntwo\"\n");
    assert_eq!(
        load_text(&lines, &[]).unwrap_err().to_string(),
        "`http.webhook_secret` is not shown: must be one line of visible characters"
    );
}

#[test]
fn classes_admit_strangers_only_where_they_or_the_runner_say_so() {
    use sandrunner::class::Risk;
    let admits = |text: &str| {
        let settings = load_text(&format!("{MINIMAL}{text}"), &[]).unwrap();
        let class = |name: &str| settings.policy.class(&sandrunner::ids::ClassName::new(name)).unwrap().admits;
        [class("own"), class("default")].map(|admits| [Risk::Fork, Risk::Public].map(|risk| admits.contains(risk)))
    };
    let own = |keys: &str| format!("[[runner_classes]]\nname = \"own\"\nlabels = [\"own\"]\n{keys}");
    assert_eq!(admits(&own("")), [[false, false], [false, false]]);
    assert_eq!(admits(&own("allow_forks = true\n")), [[true, false], [false, false]]);
    let all = format!("[runner]\nallow_public_repos = true\n{}", own("allow_public_repos = false\n"));
    assert_eq!(admits(&all), [[false, false], [false, true]]);
}

#[test]
fn classes_with_the_same_labels_may_not_divide_what_one_runner_may_be_given() {
    let class = |name: &str, keys: &str| format!("[[runner_classes]]\nname = \"{name}\"\nlabels = [\"big\"]\n{keys}");
    let pair = |first: &str, second: &str| format!("{}{}", class("one", first), class("two", second));
    let told = |github: &str, classes: &str| load_text(&format!("{github}{classes}"), &[]).err().map(|e| e.to_string());
    let text = |why: &str| {
        Some(format!(
            "`runner_classes.labels` is those of `one` and `two` are the same, and {why}: give one of them a label of its own"
        ))
    };
    let forks = text("only the second has `allow_forks = true`");
    assert_eq!(told(MINIMAL, &pair("", "allow_forks = true\n")), forks);
    assert_eq!(told(MINIMAL, &pair("allow_forks = true\n", "")), None, "the first serves all");
    let of = |repo: &str| format!("repos = [\"{repo}\"]\n");
    let github = "[[github]]\nallowed_repos = [\"acme/web\", \"acme/api\", \"other/x\"]\n";
    assert_eq!(
        told(github, &pair(&of("acme/web"), &(of("acme/api") + "allow_forks = true\n"))),
        None,
        "they never meet"
    );
    assert_eq!(told(github, &pair(&of("acme/web"), "")), None, "runners of a repository take its jobs alone");
    let organization = format!("{github}[[github.organizations]]\nname = \"acme\"\nrunner_group = \"Modal\"\n");
    let repos = text("`repos` of the first lacks some of an organization, whose runners take jobs of all");
    assert_eq!(told(&organization, &pair(&of("acme/web"), "")), repos);
    assert_eq!(told(&organization, &pair(&of("acme/web"), &of("acme/api"))), repos);
    assert_eq!(told(&organization, &pair(&of("other/x"), "")), None);
    assert_eq!(told(&organization, &pair("", &of("acme/web"))), None, "the first serves all");
    let both = "repos = [\"acme/web\", \"acme/api\"]\n";
    assert_eq!(told(&organization, &pair(both, "")), None, "nothing of it is left");
    let pattern = organization.replace("\"acme/api\"", "\"acme/api\", \"acme/new-*\"");
    assert_eq!(told(&pattern, &pair(both, "")), repos);
    let two = organization.replace("\"other/x\"", "\"beta/x\"")
        + "[[github.organizations]]\nname = \"beta\"\nrunner_group = \"Modal\"\n";
    assert_eq!(told(&two, &pair(&of("acme/web"), &of("beta/x"))), None, "no runner is of both organizations");
    // So may not classes that only some jobs match both: those with the labels of both.
    let more = |keys: &str| format!("[[runner_classes]]\nname = \"two\"\nlabels = [\"big\", \"fast\"]\n{keys}");
    let told = |first: &str, second: &str| told(MINIMAL, &format!("{}{}", class("one", first), more(second)));
    let forks = "`runner_classes.labels` is those of `two` and `one` admit the same jobs, and only the second has \
                 `allow_forks = true`: give one of them a label of its own";
    let patterns = "extra_label_patterns = [\"f*\"]\nallow_forks = true\n";
    assert_eq!(told(patterns, "").as_deref(), Some(forks));
    assert_eq!(told(patterns, "allow_forks = true\n"), None);
    assert_eq!(told("allow_forks = true\n", ""), None, "no job of the second matches the first");
}

#[test]
fn an_organization_may_belong_to_a_pattern_for_every_owner() {
    let text = "[[github]]\napp_id = \"1\"\nallowed_repos = [\"*\"]\n[[github.organizations]]\nname = \"acme\"\nrunner_group = \"Modal\"\n";
    let key = [("GITHUB_APP_KEY", include_str!("data/github-app/test-key.pkcs1.pem"))];
    let error = load_text(text, &key).err().map(|error| with_causes(&error));
    assert_eq!(error, None);
    let other = text.replace("\"*\"", "\"other/*\"");
    assert!(load_text(&other, &key).unwrap_err().to_string().contains("no allowed repository belongs to it"));
}

#[test]
fn the_earlier_project_s_network_and_cache_work_for_every_class() {
    let given =
        [("ALLOWED_CIDRS", "10.0.0.0/8, 192.0.2.7"), ("CACHE_VOLUME_NAME", "tools"), ("BLOCK_NETWORK", "false")];
    let settings = load_text(MINIMAL, &given).unwrap();
    for class in &settings.policy.classes {
        let Network::Only { cidrs, domains } = &class.options.network else { panic!("{class:?}") };
        assert_eq!(cidrs.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "192.0.2.7/32"]);
        assert!(domains.iter().any(|domain| domain == "github.com"), "a runner must reach GitHub");
        assert_eq!((&*class.options.volumes[0].name, &*class.options.volumes[0].path), ("tools", "/cache"));
    }
    let blocked = load_text(MINIMAL, &[("BLOCK_NETWORK", "true")]).unwrap_err().to_string();
    assert!(blocked.contains("`BLOCK_NETWORK` is `true`: a runner must reach GitHub"), "{blocked}");
}

/// What a class with such lines comes to.
fn options(lines: &str) -> Result<SandboxOptions, String> {
    let text = format!("{MINIMAL}\n[[runner_classes]]\nname = \"own\"\nlabels = [\"own\"]\n{lines}");
    let settings = load_text(&text, &[]).map_err(|error| with_causes(&error))?;
    Ok(settings.policy.classes.into_iter().find(|class| class.name.as_str() == "own").expect("the class").options)
}

#[test]
fn a_class_says_what_its_sandboxes_have_beside_a_machine() {
    let plain = options("").unwrap();
    assert_eq!(plain, SandboxOptions::default());
    let all = options(
        "cpu_limit = 4\nmemory_limit = 16384\nruntime = \"gvisor\"\ndocker = \"gvisor\"\nsecrets = [\"npm\"]\n\
         network = { domains = [\"PyPI.org\", \"*.pythonhosted.org\"] }\n\
         volumes = [{ name = \"cache-{repo}\" }, { name = \"models\", path = \"/models/\", read_only = true }]",
    )
    .unwrap();
    assert_eq!((all.cpu_limit, all.memory_limit_mib), (Some(4.0), Some(16_384)));
    assert_eq!((all.runtime, all.docker), (Some(Runtime::Gvisor), Some(Docker::Gvisor)));
    assert_eq!(all.secrets, ["npm"]);
    let paths: Vec<(&str, bool)> = all.volumes.iter().map(|mount| (&*mount.path, mount.is_read_only)).collect();
    assert_eq!(paths, [("/cache", false), ("/models", true)]);
    let Network::Only { cidrs, domains } = all.network else { panic!("an allow list") };
    assert!(cidrs.is_empty() && domains.starts_with(&["pypi.org".to_owned(), "*.pythonhosted.org".to_owned()]));
    for host in ["github.com", "api.github.com", "codeload.github.com", "abc.blob.core.windows.net"] {
        assert!(domains.iter().any(|domain| domain_admits(domain, host)), "{host}");
    }
    assert_eq!(options("docker = \"vm\"").unwrap().runtime, Some(Runtime::Vm));
}

#[test]
fn an_allow_list_reaches_the_server_of_each_account() {
    let text = MINIMAL.replace("allowed_repos", "host = \"ghe.acme.example\"\nallowed_repos")
        + "\n[runner.network]\ndomains = [\"pypi.org\"]\n";
    let settings = load_text(&text, &[]).unwrap();
    let Network::Only { domains, .. } = &settings.policy.classes[0].options.network else { panic!("an allow list") };
    assert!(domains.iter().any(|domain| domain == "ghe.acme.example"), "{domains:?}");
    // Modal's lists of domains open port 443 alone.
    let at_port = text.replace("host = \"ghe.acme.example\"", "api_url = \"https://ghe.acme.example:8443/api/v3\"");
    let error = with_causes(&load_text(&at_port, &[]).unwrap_err());
    assert!(error.contains("runner.network.domains") && error.contains("ghe.acme.example:8443"), "{error}");
    let network = "cidrs = [\"192.0.2.0/24\"]\ndomains";
    load_text(&at_port.replace("domains", network), &[]).unwrap();
}

#[test]
fn options_that_modal_or_a_runner_cannot_have_are_refused_with_a_remedy() {
    let cases = [
        ("runtime = \"firecracker\"", "must be `gvisor` or `vm`"),
        ("docker = true", "docker"),
        ("docker = \"vm\"\nruntime = \"gvisor\"", "needs runtime = \"vm\""),
        ("docker = \"gvisor\"\nruntime = \"vm\"", "docker = \"vm\""),
        ("docker = \"vm\"\ngpu = \"T4\"", "`runner_classes[0].docker` is `vm`: Modal's virtual machines have no GPU"),
        ("runtime = \"vm\"\nmemory_limit = 9000", "set `memory` alone"),
        ("cpu = 4\ncpu_limit = 2", "must be between 4 and 128"),
        ("memory_limit = 1", "must be between 8192 and 1048576"),
        ("network = \"blocked\"", "a runner must reach GitHub"),
        ("network = \"shut\"", "must be \"open\", or a table"),
        ("network = { cidr = [] }", "must be \"open\", or a table with `cidrs`, `domains` and `github`"),
        ("network = { cidrs = [\"10.0.0.1/8\"] }", "`10.0.0.1/8`: must be a network such as 10.0.0.0/8"),
        ("network = { domains = [\"https://pypi.org/\"] }", "without scheme, port and path"),
        (
            "network = { domains = [\"pypi.org\", \"api.github.com\"], github = false }",
            "allow github.com, broker.actions.githubusercontent.com too, or leave `github` out",
        ),
        ("network = { domains = [\"10.0.0.5\"] }", "must be a name such as pypi.org"),
        ("volumes = [{ name = \"a\", path = \"/usr/local\" }]", "the system of a sandbox is there"),
        ("volumes = [{ name = \"a\", path = \"/opt/actions-runner/_work\" }]", "must not hide the runner"),
        ("volumes = [{ name = \"a\", path = \"/opt\" }]", "must not hide the runner"),
        ("volumes = [{ name = \"a\" }, { name = \"b\", path = \"/cache/b\" }]", "and none in another"),
        ("allow_forks = true\nvolumes = [{ name = \"a\" }]", "set read_only = true"),
        ("allow_forks = true\nsecrets = [\"npm\"]", "they would read the values"),
        ("volumes = [{ name = \"a/b\" }]", "a name has 1 to 64 characters"),
        ("volumes = [{ name = \"a\", path = \"cache\" }]", "must be a folder of its own, such as /cache"),
        ("volumes = [{ name = \"a\", path = \"/../etc\" }]", "must be a folder of its own"),
        ("volumes = [{ name = \"a\" }, { name = \"b\" }]", "it stands beside `a` at /cache"),
        ("secrets = [\"a b\"]", "name a Modal Secret"),
    ];
    for (lines, expected) in cases {
        let error = options(lines).unwrap_err();
        assert!(error.contains(expected), "{lines}: {error}");
    }
    options("network = { cidrs = [\"10.0.0.0/8\"], github = false }").expect("the operator knows the way to GitHub");
}

#[test]
fn what_looks_like_a_credential_and_is_none_can_be_said() {
    let text = |plain: &str| format!("{MINIMAL}\n[runner]\nenv = {{ TOKENIZERS_PARALLELISM = \"1\" }}\n{plain}");
    let refused = load_text(&text(""), &[]).unwrap_err().to_string();
    assert!(refused.contains("name it in runner.plain_env"), "{refused}");
    load_text(&text("plain_env = [\"TOKENIZERS_PARALLELISM\"]"), &[]).unwrap();
}

#[test]
fn what_sandboxes_cost_and_may_cost_can_be_said() {
    let text = format!(
        "{MINIMAL}[limits]\nspend_per_day = 50.5\n[cost]\ncpu = 0.2\nregion_factor = 1.5\ngpus = {{ H100 = 3.0, X1 = 9 }}\n\
         [[runner_classes]]\nname = \"big\"\nlabels = [\"big\"]\nspend_per_day = 5\nprice = 1.25\n\
         [[runner_classes]]\nname = \"far\"\nlabels = [\"far\"]\nregions = [\"eu\"]\ncpu = 1\nmemory = 1024\n"
    );
    let policy = load_text(&text, &[]).unwrap().policy;
    let usd = |text: &str| text.parse::<Usd>().unwrap();
    assert_eq!((policy.limits.spend_per_day, policy.limits_spend()), (Some(usd("50.5")), true));
    let class = |name: &str| policy.classes.iter().find(|class| class.name.as_str() == name).unwrap();
    assert_eq!((class("big").spend_per_day, class("big").price), (Some(usd("5")), Some(usd("1.25"))));
    let gpus = &policy.prices.rates.gpus;
    assert_eq!([gpus["h100"], gpus["x1"], gpus["t4"]], [usd("3"), usd("9"), usd("0.5904")], "the others stay");
    assert_eq!(policy.prices.of_class(class("big")), Some(usd("1.25")));
    assert_eq!(policy.prices.of_class(class("far")), Some(usd("0.336018")), "half as much again in a region");
    let plain = load_text(MINIMAL, &[]).unwrap().policy;
    assert!(!plain.limits_spend() && plain.prices == Prices::default());
    for (line, says) in [
        ("[limits]\nspend_per_day = 0\n", ["`limits.spend_per_day` is 0", "US dollars"]),
        ("[limits]\nspend_per_day = -3.5\n", ["`limits.spend_per_day` is -3.5", "above 0"]),
        ("[limits]\nspend_per_day = nan\n", ["`limits.spend_per_day`", "above 0"]),
        ("[cost]\nmemory = 0.0\n", ["`cost.memory` is 0", "above 0"]),
        ("[cost]\nregion_factor = 0.5\n", ["`cost.region_factor` is 0.5", "between 1 and 10"]),
        ("[cost]\ngpus = { T4 = -1 }\n", ["`cost.gpus.T4` is -1", "above 0"]),
        ("[cost]\ngpus = { \"!\" = 1 }\n", ["`cost.gpus` is `!`", "as Modal names it"]),
        (
            "[[runner_classes]]\nname = \"a\"\nprice = 1e9\n",
            ["`runner_classes[0].price` is 1000000000", "at most 1000000"],
        ),
        ("[cost]\ngpu = 1\n", ["unknown field `gpu`", "`gpus`"]),
    ] {
        let error = with_causes(&load_text(&format!("{MINIMAL}{line}"), &[]).unwrap_err());
        assert!(says.iter().all(|part| error.contains(part)), "{line}: {error}");
    }
}

#[test]
fn where_costs_are_kept_is_known_without_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, "deployment = \"ci\"\nstate_dir = \"/tmp/x\"\n[[github]]\nallowed_repos = []\n").unwrap();
    let kept = sandrunner::config::kept(Some(&path), &environment(&[])).unwrap();
    assert_eq!((kept.deployment.to_string().as_str(), kept.state_dir.as_deref()), ("ci", Some(Path::new("/tmp/x"))));
    let of_systemd = sandrunner::config::kept(None, &environment(&[("STATE_DIRECTORY", "/var/lib/a:/b")])).unwrap();
    assert_eq!(of_systemd.state_dir.as_deref(), Some(Path::new("/var/lib/a")));
    std::fs::write(&path, "deployment = \"C I\"\n").unwrap();
    let error = sandrunner::config::kept(Some(&path), &environment(&[])).unwrap_err().to_string();
    assert!(error.contains("`deployment` is `C I`"), "{error}");
}

/// Lines of a configuration, and what is said of them.
const BAD_VALUES: &[(&str, &str)] = &[
    ("deployment = \"Main\"", "`deployment` is `Main`: must be 1 to 12 characters of a-z and 0-9"),
    ("[reconcile]\ninterval = \"0s\"", "`reconcile.interval` is 0s: must be between 1s and 10m"),
    ("[limits]\nmax_sandboxes = 0", "`limits.max_sandboxes` is 0: must be between 1 and 100000"),
    ("[http]\nlisten = \"9464\"", "`http.listen` is `9464`: must be an address with a port, such as 127.0.0.1:9464"),
    (
        "[runner]\nversion = \"2.328.9\"",
        "`runner.version` is `2.328.9`: GitHub registers no runner older than 2.329.0: set a newer one, or `auto`",
    ),
    ("[runner]\nversion = \"latest\"", "`runner.version` is `latest`: must be `auto` or a version such as 2.336.0"),
    (
        "[runner.env]\nMY_TOKEN = \"x\"",
        "`runner.env` is `MY_TOKEN`: looks like a credential, which every job could read; pass it to the job as a GitHub secret, or to all jobs of a class as a Modal Secret (`secrets`); if it is none, name it in runner.plain_env",
    ),
    (
        "[modal]\nserver_url = \"http://api.modal.com\"",
        "`modal.server_url` is `http://api.modal.com`: must be an https:// address (http:// only for this machine)",
    ),
    (
        "[[runner_classes]]\nname = \"default\"",
        "`runner_classes.name` is `default` twice: give each class its own name; `default` and `gpu:…` are built in unless builtin_classes = false",
    ),
    (
        "[[runner_classes]]\nname = \"x\"\ngpu = \"H100:9\"",
        "`runner_classes[0].gpu` is `H100:9`: must be a GPU as Modal names it, such as A100 or H100:2",
    ),
    (
        "[[runner_classes]]\nname = \"x\"\ngpu = \"H100\"\ngpu_fallback = [\"l4\", \"h100\"]",
        "`runner_classes[0].gpu_fallback` is `h100`: it is tried before: name each GPU once, the best one as `gpu`",
    ),
    (
        "[[runner_classes]]\nname = \"x\"\ngpu = \"H100\"\ngpu_fallback = [\"l4:9\"]",
        "`runner_classes[0].gpu_fallback` is `l4:9`: must be a GPU as Modal names it, such as A100 or H100:2",
    ),
    (
        "[[runner_classes]]\nname = \"x\"\ngpu_fallback = [\"l4\"]",
        "`runner_classes[0].gpu_fallback` is set: only sandboxes with a GPU wait for a machine: set `gpu`, or leave it out",
    ),
    (
        "[[runner_classes]]\nname = \"x\"\nregions = [\"us\"]\nregion_fallback = [\"eu\"]",
        "`runner_classes[0].region_fallback` is set: only sandboxes with a GPU wait for a machine: set `gpu`, or leave it out",
    ),
    (
        "[[runner_classes]]\nname = \"x\"\ngpu = \"T4\"\nregion_fallback = [\"eu\"]",
        "`runner_classes[0].region_fallback` is set: the class runs anywhere already: set `regions`, or leave it out",
    ),
    (
        "[[runner_classes]]\nname = \"x\"\nregions = [\"US East\"]",
        "`runner_classes[0].regions` is `US East`: must be a region as Modal names it, such as us-east",
    ),
    (
        "builtin_gpus = [\"h100:0\"]",
        "`builtin_gpus` is `h100:0`: must be a GPU as Modal names it, such as A100 or H100:2",
    ),
    (
        "builtin_gpus = [\"H100!\"]",
        "`builtin_gpus` is `H100!`: no label can be made of it: give it a class of your own under [[runner_classes]]",
    ),
    (
        "builtin_gpus = [\"h100:8\"]",
        "`runner_classes `gpu:h100:8` gpu` is `H100:8`: limits.max_gpus is 4: raise it, or ask for fewer at once",
    ),
    (
        "[[runner_classes]]\nname = \"x\"\ngpu = \"T4\"\ngpu_fallback = [\"l4:8\"]",
        "`runner_classes `x` gpu` is `L4:8`: limits.max_gpus is 4: raise it, or ask for fewer at once",
    ),
    ("builtin_gpu_repos = [\"web\"]", "`builtin_gpu_repos` is `web`: each entry must be \"owner/name\""),
    (
        "[[runner_classes]]\nname = \"x\"\ntimeout = \"24h\"",
        "`runner_classes[0].timeout` is 1day: with its other clocks a job may last at most 23h 45m, because Modal ends sandboxes after 24h",
    ),
];

#[test]
fn bad_values_name_key_value_and_remedy() {
    let github = MINIMAL;
    for (text, expected) in BAD_VALUES {
        let error = load_text(&format!("{text}\n{github}"), &[]).unwrap_err();
        assert_eq!(with_causes(&error), *expected);
    }
}

#[test]
fn an_enterprise_server_takes_runners_that_are_too_old_for_every_other_github() {
    let pinned = |accounts: &str| load_text(&format!("{accounts}[runner]\nversion = \"2.328.9\"\n"), &[]);
    let account =
        |name: &str, place: &str| format!("[[github]]\nname = \"{name}\"\n{place}\nallowed_repos = [\"acme/web\"]\n");
    let hosted = "host = \"acme.ghe.com\"";
    let own = account("own", "host = \"ghe.acme.example\"");
    let elsewhere = account("own", "api_url = \"https://ghe.acme.example/api/v3\"");
    for servers in [own.clone(), elsewhere, format!("{own}{}", account("two", "host = \"github.acme.example\""))] {
        let release = pinned(&servers).unwrap().runner.release;
        let expected = RunnerReleaseChoice::Pinned { version: "2.328.9".parse().unwrap(), sha256: None };
        assert_eq!(release, expected, "{servers}");
    }
    for accounts in [account("gh", ""), account("gh", hosted), format!("{own}{}", account("gh", ""))] {
        let told = pinned(&accounts).unwrap_err().to_string();
        assert!(told.contains("GitHub registers no runner older than 2.329.0"), "{accounts}: {told}");
    }
}

#[test]
fn an_account_serves_what_it_lists_and_nothing_else() {
    for (text, expected) in [
        ("", "`github` is missing: add a [[github]] table with `allowed_repos`"),
        (
            "[[github]]\n",
            "`github[0].allowed_repos` is empty: list the repositories to serve, as \"owner/name\" or \"owner/*\"",
        ),
        (
            "[[github]]\nallowed_repos = [\"*\"]",
            "`github[0].allowed_repos` is a pattern for every owner: a token cannot tell what it sees: name owners, as in \"owner/*\", or use a GitHub App",
        ),
        (
            "[[github]]\nallowed_repos = [\"acme\"]",
            "`github[0].allowed_repos` is `acme`: each entry must be \"owner/name\", \"owner/*\", \"owner/prefix-*\", \"*\", or such with `!` before it",
        ),
        (
            "[[github]]\nallowed_repos = [\"!acme/*\"]",
            "`github[0].allowed_repos` is empty: list the repositories to serve, as \"owner/name\" or \"owner/*\"",
        ),
        (
            "[[github]]\nallowed_repos = [\"acme/web\", \"!acme/w*\"]",
            "`github[0].allowed_repos` is `acme/web`: it is named and excluded: remove one of both",
        ),
        (
            "[[github]]\nallowed_repos = [\"a/b\", \"A/B\"]",
            "`github[0].allowed_repos` is `a/b` twice: name each repository once",
        ),
    ] {
        assert_eq!(with_causes(&load_text(text, &[]).unwrap_err()), expected);
    }
}

#[test]
fn unknown_keys_and_wrong_types_are_shown_with_their_line() {
    let unknown = load_text(&format!("[limits]\nmax_sandbox = 3\n{MINIMAL}"), &[]).unwrap_err().to_string();
    assert!(
        unknown.contains("line 2")
            && unknown.contains("unknown field `max_sandbox`")
            && unknown.contains("max_sandboxes"),
        "{unknown}"
    );
    let wrong = load_text(&format!("[limits]\nmax_sandboxes = \"many\"\n{MINIMAL}"), &[]).unwrap_err().to_string();
    assert!(wrong.contains("line 2") && wrong.contains("invalid type"), "{wrong}");
}

#[test]
fn secrets_come_from_files_and_credentials_and_are_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("{MINIMAL}token_file = \"{}\"\n", dir.path().join("token").display());
    std::fs::write(dir.path().join("token"), "ghp_canary\n").unwrap();
    std::fs::write(dir.path().join("modal-token-id"), "ak-canary\n").unwrap();
    std::fs::write(dir.path().join("modal-token-secret"), "as-canary\n").unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, config).unwrap();
    let directory = dir.path().display().to_string();
    let settings = load(Some(&path), &environment(&[("CREDENTIALS_DIRECTORY", &directory)])).unwrap();
    assert!(!format!("{settings:?}").contains("canary"));
    let missing = load(Some(&path), &environment(&[])).unwrap_err().to_string();
    assert!(missing.starts_with("`modal.token_id` is missing: set it"), "{missing}");
}

#[test]
fn a_token_of_several_lines_is_refused_without_being_shown() {
    let error = load_text(MINIMAL, &[("GITHUB_TOKEN", "ghp_canary\nmore")]).unwrap_err().to_string();
    assert_eq!(error, "`github[0].token` is not shown: must be one line of visible ASCII characters");
}

const APP_KEY: &str = include_str!("data/github-app/test-key.pkcs8.pem");

/// The settings of the only account.
fn account(text: &str, extra: &[(&str, &str)]) -> Result<GithubSettings, ConfigError> {
    load_text(&format!("{MINIMAL}{text}\n"), extra).map(|mut settings| settings.github.remove(0))
}

#[test]
fn an_account_has_a_token_or_an_app() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key.pem");
    std::fs::write(&file, format!("\n{APP_KEY}\n")).unwrap();
    let key = format!("private_key_file = {:?}", file.display());
    let app = account(&format!("app_id = \"Iv23li.x\"\n{key}"), &[]).unwrap();
    assert!(matches!(&app.auth, GithubAuth::App { id, .. } if id == "Iv23li.x"), "GITHUB_TOKEN is for others");
    let one_line = APP_KEY.replace('\n', "\\n");
    for given in [APP_KEY, &one_line] {
        let variables = [("GITHUB_APP_ID", "123456"), ("GITHUB_APP_KEY", given)];
        assert!(matches!(account("", &variables).unwrap().auth, GithubAuth::App { .. }));
    }
    let credentials = load_text(&format!("{MINIMAL}app_id = \"1\""), &[("GITHUB_APP_KEY", APP_KEY)]).unwrap();
    let scope = credentials.policy.scopes().next().unwrap();
    assert_eq!(credentials.policy.credential(&scope).to_string(), "gh/acme");
    let told = |text: &str, extra: &[(&str, &str)]| with_causes(&account(text, extra).unwrap_err());
    assert_eq!(
        told(&format!("app_id = \"1\"\ntoken = \"ghp_x\"\n{key}"), &[]),
        "`github[0].app_id` is `1`: an account has a token or a GitHub App: remove one of both"
    );
    assert_eq!(
        told(&key, &[]),
        "`github[0].app_id` is missing: a private key belongs to a GitHub App: set its id, which its settings page shows"
    );
    let missing = told("app_id = \"1\"", &[]);
    assert!(missing.ends_with("GITHUB_APP_KEY, or the systemd credential `github-app-key`"), "{missing}");
    for odd in ["ghp_canary", &APP_KEY[..300], include_str!("data/github-app/test-key.public.pem")] {
        let told = told("app_id = \"1\"", &[("GITHUB_APP_KEY", odd)]);
        assert!(told.starts_with("`github[0].private_key` is not shown: must be the App's private key"), "{told}");
        assert!(!told.contains("canary") && !told.contains("MII"), "{told}");
    }
}

#[test]
fn credentials_of_systemd_are_found_by_account() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("github-token", "ghp_all"),
        ("github-token-two", "ghp_two"),
        ("github-app-key-three", APP_KEY),
        ("modal-token-id", "ak-x"),
        ("modal-token-secret", "as-x"),
    ] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let directory = dir.path().display().to_string();
    let text = "[[github]]\nname = \"one\"\nallowed_repos = [\"a/a\"]\n[[github]]\nname = \"two\"\nallowed_repos = [\"b/b\"]\n\
                [[github]]\nname = \"three\"\napp_id = \"7\"\nallowed_repos = [\"c/c\"]\n";
    let path = dir.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    let settings = load(Some(&path), &environment(&[("CREDENTIALS_DIRECTORY", &directory)])).unwrap();
    let tokens: Vec<Option<&str>> = settings
        .github
        .iter()
        .map(|account| match &account.auth {
            GithubAuth::Token(token) => Some(token.expose_secret()),
            GithubAuth::App { .. } => None,
        })
        .collect();
    assert_eq!(tokens, [Some("ghp_all"), Some("ghp_two"), None]);
}

#[test]
fn the_address_of_the_api_follows_from_the_host() {
    for (text, expected) in [
        ("", "https://api.github.com"),
        ("host = \"GitHub.com\"", "https://api.github.com"),
        ("host = \"acme.ghe.com\"", "https://api.acme.ghe.com"),
        ("host = \"github.acme.example\"", "https://github.acme.example/api/v3"),
        ("host = \"ghe.acme.example:8443\"", "https://ghe.acme.example:8443/api/v3"),
        ("api_url = \"https://x.example/api/v3/\"", "https://x.example/api/v3"),
    ] {
        assert_eq!(account(text, &[]).unwrap().api_url, expected, "{text}");
    }
    assert_eq!(
        account("", &[("GITHUB_ENTERPRISE_DOMAIN", "ghe.x.example")]).unwrap().api_url,
        "https://ghe.x.example/api/v3"
    );
    let told = |text: &str| with_causes(&account(text, &[]).unwrap_err());
    for odd in ["https://github.com", "github", "api.github.com", "a b.com", ""] {
        assert!(told(&format!("host = \"{odd}\"")).contains("must be the name by which people reach it"), "{odd}");
    }
    assert_eq!(
        told("host = \"github.com\"\napi_url = \"https://api.github.com\""),
        "`github[0].api_url` is `https://api.github.com`: it follows from `host`: remove one of both"
    );
}

#[test]
fn a_missing_file_is_named() {
    let error = load(Some(Path::new("/nonexistent/config.toml")), &environment(&[])).unwrap_err();
    assert!(
        with_causes(&error).starts_with("cannot read the configuration file /nonexistent/config.toml: No such file")
    );
}

#[test]
fn an_image_of_the_configuration_is_what_a_class_names() {
    use sandrunner::class::{ImageBase, ImageSource, RunnerIn};
    let text = "[[images]]\nname = \"node\"\napt = [\"nodejs\"]\n[[images]]\nname = \"unused\"\nbase = \"debian:13\"\n\
                runner = false\n[[runner_classes]]\nname = \"a\"\nlabels = [\"a\"]\nimage = \"node\"\n\
                [[runner_classes]]\nname = \"b\"\nlabels = [\"b\"]\nimage = \"node\"\ndocker = \"gvisor\"\n\
                [[runner_classes]]\nname = \"c\"\nlabels = [\"c\"]\nimage = \"acme/runner:1\"\n";
    let settings = load_text(&format!("{MINIMAL}{text}"), &[]).unwrap();
    let names: Vec<String> = settings.images.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["node", "node+docker", "acme/runner:1", "default", "unused"]);
    let ImageSource::Recipe(node) = &settings.images[0] else { panic!("{:?}", settings.images) };
    assert_eq!((&node.base, node.runner), (&ImageBase::Default { has_docker: false }, RunnerIn::Added));
    let ImageSource::Recipe(unused) = &settings.images[4] else { panic!("{:?}", settings.images) };
    assert_eq!((&unused.base, unused.runner), (&ImageBase::Registry("debian:13".to_owned()), RunnerIn::Own));
}

#[test]
fn an_image_that_cannot_be_is_refused_with_what_it_must_be() {
    let image = |keys: &str| format!("{MINIMAL}[[images]]\n{keys}\n");
    let class =
        |image: &str| format!("{MINIMAL}[[runner_classes]]\nname = \"a\"\nlabels = [\"a\"]\nimage = \"{image}\"\n");
    let named = |keys: &str| image(&format!("name = \"own\"\n{keys}"));
    for (text, parts) in [
        (image("name = \"Own\""), ["`images[0].name`", "`Own`", "a-z"]),
        (image("name = \"default\""), ["`images[0].name`", "`default`", "choose another"]),
        (image("name = \"own\"\n[[images]]\nname = \"own\""), ["`images.name`", "`own` twice", "its own name"]),
        (named("base = \"ubuntu\""), ["`images[0].base`", "`ubuntu`", "with its tag"]),
        (named("base = \"a b:1\""), ["`images[0].base`", "`a b:1`", "registry reference"]),
        (named("registry_secret = \"x\""), ["`images[0].registry_secret`", "`x`", "private registry"]),
        (named("base = \"im-1\"\nregistry_secret = \"x\""), ["registry_secret`", "`x`", "private registry"]),
        (named("base = \"a/b:1\"\nregistry_secret = \"x y\""), ["registry_secret`", "`x y`", "Modal Secret"]),
        (named("apt = [\"nodejs; true\"]"), ["`images[0].apt`", "`nodejs; true`", "a package"]),
        (named("apt = [\"-y\"]"), ["`images[0].apt`", "`-y`", "a package"]),
        (named("env = { NPM_TOKEN = \"x\" }"), ["`images[0].env`", "`NPM_TOKEN`", "plain_env"]),
        (named("env = { A = \"x\\\"y\" }"), ["`images[0].env`", "`A`", "one line"]),
        (named("run = [\"a\\nb\"]"), ["`images[0].run`", "`a\\nb`", "one line"]),
        (named("run = [\"cat <<EOF\"]"), ["`images[0].run`", "`cat <<EOF`", "printf"]),
        (named("run = [\"--mount=x y\"]"), ["`images[0].run`", "`--mount=x y`", "/bin/sh"]),
        (named("packages = []"), ["packages", "unknown field", "`apt`"]),
        (class("nod"), ["`runner_classes[0].image`", "`nod`", "[[images]]"]),
        (class("a/b c"), ["`runner_classes[0].image`", "`a/b c`", "[[images]]"]),
    ] {
        let told = load_text(&text, &[]).unwrap_err().to_string();
        assert!(parts.iter().all(|part| told.contains(part)), "{parts:?} in {told}");
    }
}
