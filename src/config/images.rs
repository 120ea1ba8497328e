//! What `[[images]]` means, and which image a class takes.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::load::ConfigError;
use super::options::is_name;
use super::value::{bad, check_env_name};
use super::{ImageConfig, RunnerConfig};
use crate::class::{Docker, ImageBase, ImageRecipe, ImageSource, RunnerClass, RunnerIn};

/// The most characters of one command: what is longer belongs into a file that the command fetches.
const COMMAND_MAX: usize = 8_192;
/// The most characters of the value of a variable.
const VALUE_MAX: usize = 4_096;

/// The images of the configuration, checked.
#[derive(Debug)]
pub(super) struct Images(Vec<ImageRecipe>);

impl Images {
    pub(super) fn new(configured: &[ImageConfig], runner: &RunnerConfig) -> Result<Self, ConfigError> {
        let mut names = BTreeSet::new();
        let mut recipes = Vec::new();
        for (index, image) in configured.iter().enumerate() {
            recipes.push(recipe(&format!("images[{index}]"), image, runner)?);
            if !names.insert(&image.name) {
                return Err(bad("images.name", format!("`{}` twice", image.name), "give each image its own name"));
            }
        }
        Ok(Self(recipes))
    }

    /// The image that a class names at `key`; Docker is put into what Sandrunner itself defines.
    pub(super) fn source(
        &self,
        key: &str,
        image: Option<&str>,
        docker: Option<Docker>,
    ) -> Result<ImageSource, ConfigError> {
        let Some(image) = image else { return Ok(ImageSource::Default { has_docker: docker.is_some() }) };
        if let Some(recipe) = self.0.iter().find(|recipe| recipe.name == image) {
            return Ok(with_docker(recipe, docker));
        }
        let remedy = "must be the name of an [[images]] table, a registry reference with its tag such as \
                      ghcr.io/acme/runner:1, or im-…";
        Ok(match base(key, image, remedy)? {
            Base::Registry(reference) => ImageSource::Registry(reference),
            Base::Existing(id) => ImageSource::Existing(id),
        })
    }

    /// Every image there is, each once: those of classes, then those that no class names.
    pub(super) fn sources(&self, classes: &[RunnerClass]) -> Vec<ImageSource> {
        let mut sources: Vec<ImageSource> = Vec::new();
        let is_named = |recipe: &ImageRecipe, source: &ImageSource| matches!(source, ImageSource::Recipe(it) if it.name == recipe.name);
        for source in classes.iter().map(|class| &class.image) {
            if !sources.contains(source) {
                sources.push(source.clone());
            }
        }
        let unnamed: Vec<&ImageRecipe> =
            self.0.iter().filter(|recipe| !sources.iter().any(|source| is_named(recipe, source))).collect();
        sources.extend(unnamed.into_iter().map(|recipe| with_docker(recipe, None)));
        sources
    }
}

fn with_docker(recipe: &ImageRecipe, docker: Option<Docker>) -> ImageSource {
    let base = match &recipe.base {
        ImageBase::Default { .. } => ImageBase::Default { has_docker: docker.is_some() },
        base @ (ImageBase::Registry(_) | ImageBase::Existing(_)) => base.clone(),
    };
    ImageSource::Recipe(Arc::new(ImageRecipe { base, ..recipe.clone() }))
}

fn recipe(key: &str, image: &ImageConfig, runner: &RunnerConfig) -> Result<ImageRecipe, ConfigError> {
    // Every key is named, so that a new one cannot be forgotten.
    let ImageConfig { name, base: base_text, registry_secret, apt, env, run, runner: gets_runner } = image;
    let key_of = |field: &str| format!("{key}.{field}");
    check_name(&key_of("name"), name)?;
    let remedy = "must be a registry reference with its tag, such as debian:13, or im-…; without it the image is made \
                  on the default one";
    let base = match base_text.as_deref().map(|text| base(&key_of("base"), text, remedy)).transpose()? {
        None => ImageBase::Default { has_docker: false },
        Some(Base::Registry(reference)) => ImageBase::Registry(reference),
        Some(Base::Existing(id)) => ImageBase::Existing(id),
    };
    if let Some(secret) = registry_secret {
        if !is_name(secret) {
            let remedy = "name a Modal Secret: 1 to 64 characters of a-z, A-Z, 0-9, `-`, `_` and `.`";
            return Err(bad(key_of("registry_secret"), format!("`{secret}`"), remedy));
        }
        if !matches!(base, ImageBase::Registry(_)) {
            let remedy = "belongs to a `base` in a private registry: name that, or remove this";
            return Err(bad(key_of("registry_secret"), format!("`{secret}`"), remedy));
        }
    }
    for package in apt {
        check_package(&key_of("apt"), package)?;
    }
    for (name, value) in env {
        check_env_name(&key_of("env"), name, &runner.plain_env)?;
        if value.len() > VALUE_MAX || value.chars().any(|c| c.is_control() || c == '"' || c == '\\') {
            let remedy = format!(
                "a value is one line of at most {VALUE_MAX} bytes without `\"` and `\\`; `$NAME` stands for a variable"
            );
            return Err(bad(key_of("env"), format!("that of `{name}`"), remedy));
        }
    }
    for command in run {
        check_command(&key_of("run"), command)?;
    }
    Ok(ImageRecipe {
        name: name.clone(),
        base,
        registry_secret: registry_secret.clone(),
        apt: apt.clone(),
        env: env.clone(),
        run: run.clone(),
        runner: if *gets_runner { RunnerIn::Added } else { RunnerIn::Own },
    })
}

enum Base {
    Registry(String),
    Existing(String),
}

/// A registry reference or an image's id. A bare word is refused: it is more likely a name that was misspelt than the
/// `latest` of something in Docker's library.
fn base(key: &str, text: &str, remedy: &str) -> Result<Base, ConfigError> {
    let is_reference = text.len() <= 255
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b));
    if is_reference && text.starts_with("im-") {
        return Ok(Base::Existing(text.to_owned()));
    }
    if is_reference && text.contains(['/', ':', '@']) {
        return Ok(Base::Registry(text.to_owned()));
    }
    Err(bad(key, format!("`{text}`"), remedy))
}

fn check_name(key: &str, name: &str) -> Result<(), ConfigError> {
    let is_allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    let is_name = (1..=40).contains(&name.len())
        && name.bytes().all(is_allowed)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !is_name {
        let remedy = "must be 1 to 40 characters of a-z, 0-9, `.`, `_`, `-`, the first a letter or a digit";
        return Err(bad(key, format!("`{name}`"), remedy));
    }
    if name == "default" || name.starts_with("im-") {
        let remedy = "`default` is the image that Sandrunner defines, `im-…` are Modal's ids: choose another";
        return Err(bad(key, format!("`{name}`"), remedy));
    }
    Ok(())
}

fn check_package(key: &str, package: &str) -> Result<(), ConfigError> {
    let (name, version) = package.split_once('=').map_or((package, None), |(name, version)| (name, Some(version)));
    let is_name = name.len() >= 2
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.:".contains(&b));
    let is_version = |version: &str| {
        version.starts_with(|c: char| c.is_ascii_digit())
            && version.bytes().all(|b| b.is_ascii_alphanumeric() || b".+-:~".contains(&b))
    };
    if is_name && version.is_none_or(is_version) {
        return Ok(());
    }
    Err(bad(
        key,
        format!("`{package}`"),
        "must be a package of apt's, such as nodejs, or with its version nodejs=18.19.1",
    ))
}

fn check_command(key: &str, command: &str) -> Result<(), ConfigError> {
    let refuse = |remedy: &str| {
        let shown: String = command.chars().take(60).collect();
        Err(bad(key, format!("`{}`", shown.escape_debug()), remedy))
    };
    if command.trim().is_empty() || command.len() > COMMAND_MAX || command.chars().any(|c| c.is_control() && c != '\t')
    {
        return refuse("a command is one line of at most 8192 bytes: join what belongs together with &&");
    }
    if command.trim_end().ends_with('\\') || command.contains("<<") {
        return refuse("a command ends on its line: no `\\` at its end, and no `<<`; write files with printf");
    }
    if command.trim_start().starts_with("--") {
        return refuse("a command is for /bin/sh; options of a Dockerfile's RUN can't be used");
    }
    Ok(())
}
