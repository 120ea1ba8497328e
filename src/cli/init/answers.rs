//! What is asked, and what the arguments say of it.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use secrecy::{ExposeSecret, SecretString};

use super::InitError;
use super::dialogue::{Question, Respondent};
use super::store::{Kind, Secrets};
use crate::allow::RepoPattern;
use crate::class::Gpu;
use crate::config::Environment;
use crate::github::AppKey;
use crate::ids::{OrgName, RepoName};

/// What is said of GitHub.
#[derive(Debug, Args)]
#[command(next_help_heading = "GitHub")]
pub(super) struct GithubFlags {
    /// The repositories whose jobs are served: owner/name, owner/*, owner/prefix-*, with an App also *; ! before one takes
    /// it out.
    #[arg(long, value_name = "REPO,…")]
    repos: Option<Repos>,
    /// github.com (default), SUBDOMAIN.ghe.com, or the name of an Enterprise Server.
    #[arg(long, value_name = "HOST")]
    pub(super) host: Option<String>,
    /// The id or client id of a GitHub App; without it a personal access token is used.
    #[arg(long, value_name = "ID", conflicts_with = "github_token_file")]
    app_id: Option<String>,
    /// The file with the App's private key. Also from `GITHUB_APP_KEY`.
    #[arg(long, value_name = "FILE")]
    app_key_file: Option<PathBuf>,
    /// A file with the personal access token. Also from `GITHUB_TOKEN`.
    #[arg(long, value_name = "FILE")]
    github_token_file: Option<PathBuf>,
    /// The organization whose App the manifest is for, or, with --runner-group, in which runners are registered.
    #[arg(long, value_name = "NAME")]
    pub(super) organization: Option<OrgName>,
    /// Register runners in this runner group of the organization, in place of each repository.
    #[arg(long, value_name = "NAME", requires = "organization")]
    pub(super) runner_group: Option<String>,
}

/// What is said of Modal.
#[derive(Debug, Args)]
#[command(next_help_heading = "Modal")]
pub(super) struct ModalFlags {
    /// A file with the token's id, ak-…. Also from `MODAL_TOKEN_ID`.
    #[arg(id = "modal_token_id_file", long = "modal-token-id-file", value_name = "FILE")]
    token_id_file: Option<PathBuf>,
    /// A file with the token's secret, as-…. Also from `MODAL_TOKEN_SECRET`.
    #[arg(id = "modal_token_secret_file", long = "modal-token-secret-file", value_name = "FILE")]
    token_secret_file: Option<PathBuf>,
    /// The environment in Modal; by default the token's own.
    #[arg(id = "modal_environment", long = "modal-environment", value_name = "NAME")]
    environment: Option<String>,
}

/// What is said of machines and limits.
#[derive(Debug, Args)]
#[command(next_help_heading = "Machines")]
pub(super) struct MachineFlags {
    /// The GPUs that jobs may ask for by a label gpu:NAME, such as t4,h100:2; none by default.
    #[arg(long, value_name = "GPU,…")]
    gpus: Option<Gpus>,
    /// Further classes, each NAME:CORES:MIB or NAME:CORES:MIB:GPU, such as large:8:32768; jobs ask for one by its name.
    #[arg(long, value_name = "CLASS,…")]
    classes: Option<Classes>,
    /// The most sandboxes at a time [default: 100].
    #[arg(long, value_name = "N")]
    max_sandboxes: Option<u32>,
    /// The most sandboxes of one repository at a time; no limit by default.
    #[arg(long, value_name = "N")]
    max_sandboxes_per_repo: Option<u32>,
    /// The most GPUs at a time [default: 4, or 0 where none was named].
    #[arg(long, value_name = "N")]
    max_gpus: Option<u32>,
    /// US dollars per day after which nothing more is created; no limit by default.
    #[arg(long, value_name = "USD")]
    spend_per_day: Option<f64>,
}

/// Entries of `allowed_repos`.
#[derive(Debug, Clone)]
struct Repos(Vec<String>);

/// GPUs as Modal names them.
#[derive(Debug, Clone)]
struct Gpus(Vec<String>);

#[derive(Debug, Clone)]
struct Classes(Vec<OwnClass>);

/// A class beside the built-in ones.
#[derive(Debug, Clone)]
pub(super) struct OwnClass {
    /// Its name, and the label by which jobs ask for it.
    pub(super) name: String,
    /// Physical cores.
    pub(super) cpu: f64,
    /// Memory in MiB.
    pub(super) memory: u32,
    /// A GPU.
    pub(super) gpu: Option<String>,
}

/// All that the configuration is made of, but for secrets.
#[derive(Debug)]
pub(super) struct Answers {
    /// Entries of `allowed_repos`.
    pub(super) repos: Vec<String>,
    /// The host, where it is not github.com.
    pub(super) host: Option<String>,
    /// The GitHub App; none for a personal access token.
    pub(super) app_id: Option<String>,
    /// An organization in which runners are registered, and their runner group.
    pub(super) organization: Option<(OrgName, String)>,
    /// Modal's environment.
    pub(super) modal_environment: Option<String>,
    /// GPUs with a built-in class.
    pub(super) gpus: Vec<String>,
    /// Other classes.
    pub(super) classes: Vec<OwnClass>,
    /// Of sandboxes.
    pub(super) max_sandboxes: u32,
    /// Of sandboxes of a repository.
    pub(super) max_sandboxes_per_repo: Option<u32>,
    /// Of GPUs.
    pub(super) max_gpus: u32,
    /// US dollars.
    pub(super) spend_per_day: Option<f64>,
}

impl Answers {
    pub(super) fn ask(
        github: &GithubFlags,
        modal: &ModalFlags,
        machines: &MachineFlags,
        respondent: &mut Respondent<'_>,
    ) -> Result<Self, InitError> {
        let question = |what, default, flag| Question { what, default, flag };
        let repos = question("Repositories to serve, by commas, such as acme/web, acme/api-*", None, "--repos");
        let Repos(repos) = respondent.answer(github.repos.clone(), &repos, str::parse)?;
        let host = question("Host of GitHub", Some("github.com"), "--host");
        let host = respondent.answer(github.host.clone(), &host, |text| Ok(text.to_owned()))?;
        let has_token = github.github_token_file.is_some();
        let app = question("Id of your GitHub App (empty: a personal access token)", Some(""), "--app-id");
        let given = github.app_id.clone().map(Some).or(has_token.then_some(None));
        let app_id = respondent.answer(given, &app, |text| Ok(Some(text.to_owned()).filter(|id| !id.is_empty())))?;
        let gpus = question("GPUs that jobs may ask for, such as t4, h100:2 (empty: none)", Some(""), "--gpus");
        let Gpus(gpus) = respondent.answer(machines.gpus.clone(), &gpus, str::parse)?;
        let classes = "Further classes, NAME:CORES:MIB, such as large:8:32768 (empty: none)";
        let classes = question(classes, Some(""), "--classes");
        let Classes(classes) = respondent.answer(machines.classes.clone(), &classes, str::parse)?;
        let most = question("Sandboxes at a time, at most", Some("100"), "--max-sandboxes");
        let per_repo = "Sandboxes at a time of one repository, at most (empty: no limit)";
        let per_repo = question(per_repo, Some(""), "--max-sandboxes-per-repo");
        let has_gpus = !gpus.is_empty() || classes.iter().any(|class| class.gpu.is_some());
        let most_gpus = question("GPUs at a time, at most", Some("4"), "--max-gpus");
        let spend = "US dollars per day, after which nothing more is created (empty: no limit)";
        let spend = question(spend, Some(""), "--spend-per-day");
        Ok(Self {
            repos,
            host: Some(host).filter(|host| host != "github.com"),
            app_id,
            organization: github.organization.clone().zip(github.runner_group.clone()),
            modal_environment: modal.environment.clone(),
            max_sandboxes: respondent.answer(machines.max_sandboxes, &most, number)?,
            max_sandboxes_per_repo: respondent.answer(
                machines.max_sandboxes_per_repo.map(Some),
                &per_repo,
                number_if_any,
            )?,
            max_gpus: respondent.answer(machines.max_gpus.or((!has_gpus).then_some(0)), &most_gpus, number)?,
            spend_per_day: respondent.answer(machines.spend_per_day.map(Some), &spend, number_if_any)?,
            gpus,
            classes,
        })
    }

    /// The secrets that it takes.
    pub(super) fn kinds(&self) -> [Kind; 3] {
        let github = if self.app_id.is_some() { Kind::GithubAppKey } else { Kind::GithubToken };
        [github, Kind::ModalTokenId, Kind::ModalTokenSecret]
    }
}

/// Each secret from the file that was named, else the environment, else the person; what is left may come later.
pub(super) fn secrets_of(
    answers: &Answers,
    (github, modal): (&GithubFlags, &ModalFlags),
    environment: &Environment,
    respondent: &mut Respondent<'_>,
) -> Result<Secrets, InitError> {
    let mut secrets = Secrets::new();
    for kind in answers.kinds() {
        let named = match kind {
            Kind::GithubToken => &github.github_token_file,
            Kind::GithubAppKey => &github.app_key_file,
            Kind::ModalTokenId => &modal.token_id_file,
            Kind::ModalTokenSecret => &modal.token_secret_file,
        };
        let of_environment = || environment.get(kind.variable()).filter(|value| !value.trim().is_empty());
        let secret = match (named, of_environment()) {
            (Some(path), _) => read(path)?,
            (None, Some(value)) => SecretString::from(value.trim().to_owned()),
            (None, None) if kind == Kind::GithubAppKey => app_key(respondent)?,
            (None, None) => respondent.secret(kind.what())?,
        };
        secrets.insert(kind, Some(secret).filter(|secret| !secret.expose_secret().is_empty()));
    }
    Ok(secrets)
}

/// A key has many lines: it is in a file, which is named.
fn app_key(respondent: &mut Respondent<'_>) -> Result<SecretString, InitError> {
    let question =
        Question { what: "File with the private key of the GitHub App", default: None, flag: "--app-key-file" };
    respondent.answer(None, &question, |text| {
        let key = std::fs::read_to_string(text).map_err(|error| format!("cannot read {text}: {error}"))?;
        AppKey::read(&key).map_err(|_| format!("{text} holds no private key"))?;
        Ok(SecretString::from(key.trim().to_owned()))
    })
}

fn read(path: &Path) -> Result<SecretString, InitError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| InitError::Read { path: path.to_owned(), source })?;
    Ok(SecretString::from(text.trim().to_owned()))
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is no number that can be meant"))
}

fn number_if_any<T: FromStr>(text: &str) -> Result<Option<T>, String> {
    if text.is_empty() { Ok(None) } else { number(text).map(Some) }
}

fn entries(text: &str) -> impl Iterator<Item = String> {
    text.split(',').map(|entry| entry.trim().to_owned()).filter(|entry| !entry.is_empty())
}

impl FromStr for Repos {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let repos: Vec<String> = entries(text).collect();
        for repo in &repos {
            let name = repo.strip_prefix('!').unwrap_or(repo);
            if name.parse::<RepoPattern>().is_err() && name.parse::<RepoName>().is_err() {
                return Err(format!("`{repo}` is none: write owner/name, owner/* or owner/prefix-*"));
            }
        }
        if repos.is_empty() { Err("name at least one repository".to_owned()) } else { Ok(Self(repos)) }
    }
}

impl FromStr for Gpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let gpus: Vec<String> = entries(text).collect();
        match gpus.iter().find(|gpu| Gpu::parse(gpu).is_none()) {
            Some(odd) => Err(format!("`{odd}` is no GPU: write such as t4 or h100:2")),
            None => Ok(Self(gpus)),
        }
    }
}

impl FromStr for Classes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        entries(text).map(|entry| entry.parse()).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for OwnClass {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let odd = || format!("`{text}` is no class: write NAME:CORES:MIB or NAME:CORES:MIB:GPU");
        let mut parts = text.splitn(4, ':');
        let mut next = || parts.next().filter(|part| !part.is_empty());
        let (Some(name), Some(cpu), Some(memory)) = (next(), next(), next()) else { return Err(odd()) };
        let gpu = next().map(str::to_owned);
        if gpu.as_deref().is_some_and(|gpu| Gpu::parse(gpu).is_none()) {
            return Err(odd());
        }
        Ok(Self {
            name: name.to_owned(),
            cpu: cpu.parse().map_err(|_| odd())?,
            memory: memory.parse().map_err(|_| odd())?,
            gpu,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::dialogue::Dialogue;
    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        github: GithubFlags,
        #[command(flatten)]
        modal: ModalFlags,
        #[command(flatten)]
        machines: MachineFlags,
    }

    /// What a person who types these lines, and these unseen ones, comes to, and what was shown.
    fn asked(arguments: &[&str], lines: &str, unseen: &[&str]) -> (Result<(Answers, Secrets), InitError>, String) {
        let Flags { github, modal, machines } = Flags::parse_from([&["init"], arguments].concat());
        let mut unseen = unseen.iter().map(|line| (*line).to_owned());
        let mut shown = Vec::new();
        let hidden = Box::new(move || unseen.next().ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into()));
        let mut person = Respondent::Person(Dialogue::new(lines.as_bytes(), &mut shown, hidden));
        let answers = Answers::ask(&github, &modal, &machines, &mut person).and_then(|answers| {
            let secrets = secrets_of(&answers, (&github, &modal), &Environment::new(), &mut person)?;
            Ok((answers, secrets))
        });
        drop(person);
        (answers, String::from_utf8(shown).unwrap())
    }

    #[test]
    fn a_person_is_asked_until_the_answer_can_be_used() {
        let lines = "web\nacme/web, acme/api\n\n\nt4\n\nmany\n20\n\n2\n\n";
        let (answers, shown) = asked(&[], lines, &["ghp_canary", "", "as-canary"]);
        let (answers, secrets) = answers.unwrap();
        assert_eq!((answers.repos, answers.gpus), (vec!["acme/web".into(), "acme/api".into()], vec!["t4".to_owned()]));
        assert_eq!((answers.host, answers.app_id, answers.spend_per_day), (None, None, None));
        assert_eq!((answers.max_sandboxes, answers.max_sandboxes_per_repo, answers.max_gpus), (20, None, 2));
        assert!(shown.contains("  `web` is none") && shown.contains("  `many` is no number"), "{shown}");
        assert!(!shown.contains("canary"), "{shown}");
        let known = secrets.values().map(|secret| secret.as_ref().map(ExposeSecret::expose_secret));
        assert_eq!(known.collect::<Vec<_>>(), [Some("ghp_canary"), None, Some("as-canary")]);
    }

    #[test]
    fn what_the_arguments_say_is_not_asked() {
        let key = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/github-app/test-key.pkcs1.pem");
        let machines = ["--gpus", "", "--classes", "", "--max-sandboxes", "5", "--spend-per-day", "9"];
        let arguments = [&["--repos", "*", "--host", "github.com", "--app-id", "7"], &machines[..]].concat();
        let (answers, shown) = asked(&arguments, &format!("3\n/nowhere\n{key}\n"), &["", ""]);
        let (answers, secrets) = answers.unwrap();
        assert_eq!((answers.app_id.as_deref(), answers.max_sandboxes_per_repo), (Some("7"), Some(3)));
        assert!(secrets[&Kind::GithubAppKey].is_some(), "{shown}");
        assert!(shown.contains("cannot read /nowhere") && !shown.contains("Repositories"), "{shown}");
    }

    #[test]
    fn answers_that_end_early_are_no_answers() {
        let (answers, _) = asked(&[], "acme/web\n", &[]);
        assert!(matches!(answers.unwrap_err(), InitError::NoAnswer));
    }
}
