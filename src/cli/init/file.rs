//! The configuration as text, and whether the daemon would take it.

use std::fmt::Write;

use secrecy::SecretString;

use super::answers::{Answers, OwnClass};
use super::store::{Kind, Secrets, Store};
use crate::config::{Config, ConfigError, Environment, Settings};

/// The text of the file.
pub(super) fn text(answers: &Answers, store: &Store) -> String {
    let Answers {
        repos,
        host,
        app_id,
        organization,
        modal_environment,
        gpus,
        classes,
        max_sandboxes,
        max_sandboxes_per_repo,
        max_gpus,
        spend_per_day,
    } = answers;
    let file = |kind| store.named(kind).map(|path| path.display().to_string());
    let mut text = Lines(
        "# Written by `sandrunner init`. config.toml.example tells every key, with its unit and default.\n".to_owned(),
    );
    text.line("# A job asks for one of these GPUs by a label such as gpu:t4.");
    text.key("builtin_gpus", list(gpus));
    text.line("\n[limits]");
    text.key("max_sandboxes", max_sandboxes);
    text.key_if("max_sandboxes_per_repo", *max_sandboxes_per_repo);
    text.key("max_gpus", max_gpus);
    text.key_if("spend_per_day", spend_per_day.map(float));
    text.line("\n[modal]");
    text.key_if("environment", modal_environment.as_deref().map(quoted));
    text.key_if("token_id_file", file(Kind::ModalTokenId).as_deref().map(quoted));
    text.key_if("token_secret_file", file(Kind::ModalTokenSecret).as_deref().map(quoted));
    text.line("\n[[github]]");
    text.key_if("host", host.as_deref().map(quoted));
    text.key("allowed_repos", list(repos));
    match app_id {
        Some(id) => {
            text.key("app_id", quoted(id));
            text.key_if("private_key_file", file(Kind::GithubAppKey).as_deref().map(quoted));
        }
        None => text.key_if("token_file", file(Kind::GithubToken).as_deref().map(quoted)),
    }
    if let Some((name, group)) = organization {
        let entry = format!("[{{ name = {}, runner_group = {} }}]", quoted(name.as_str()), quoted(group));
        text.key("organizations", entry);
    }
    for class in classes {
        text.class(class);
    }
    text.0
}

/// What the daemon would say of it. Secrets that come later are stood in for.
pub(super) fn check(text: &str, secrets: &Secrets) -> Result<(), ConfigError> {
    let mut config: Config = toml::from_str(text)
        .map_err(|error| ConfigError::Syntax { path: "config.toml".into(), message: error.to_string() })?;
    let secret = |kind| {
        let known = secrets.get(&kind)?.clone();
        Some(known.unwrap_or_else(|| SecretString::from("later")))
    };
    for account in &mut config.github {
        (account.token, account.token_file) = (secret(Kind::GithubToken), None);
        (account.private_key, account.private_key_file) = (secret(Kind::GithubAppKey), None);
    }
    (config.modal.token_id, config.modal.token_secret) = (secret(Kind::ModalTokenId), secret(Kind::ModalTokenSecret));
    Settings::new(&config, &Environment::new()).map(drop)
}

/// TOML, line by line.
struct Lines(String);

impl Lines {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn key(&mut self, key: &str, value: impl std::fmt::Display) {
        writeln!(self.0, "{key} = {value}").expect("a String takes all text");
    }

    fn key_if(&mut self, key: &str, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.key(key, value);
        }
    }

    /// A job asks for it by its name; labels that differ from run to run are taken as by the built-in classes.
    fn class(&mut self, class: &OwnClass) {
        let OwnClass { name, cpu, memory, gpu } = class;
        self.line("\n[[runner_classes]]");
        self.key("name", quoted(name));
        self.key("labels", list(std::slice::from_ref(name)));
        self.key("extra_label_patterns", list(&["job-*".to_owned()]));
        self.key("cpu", float(*cpu));
        self.key("memory", memory);
        self.key_if("gpu", gpu.as_deref().map(quoted));
    }
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn list(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", texts.join(", "))
}

/// TOML tells 8 from 8.0.
fn float(number: f64) -> String {
    toml::Value::from(number).to_string()
}
