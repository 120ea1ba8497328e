//! What an image is made of: pure. Text of others is checked before it becomes part of a command.

use std::collections::BTreeMap;

use super::super::api;
use super::super::error::ModalError;
use crate::ids::{Fingerprint, ImageId, SecretId};

/// The base of the default image.
const BASE: &str = "ubuntu:24.04";

/// What jobs and the supervisor expect besides the runner: what actions of common workflows call, and what is needed to
/// fetch, check and unpack more. Actions in JavaScript run on the Node that comes with the runner.
const PACKAGES: &str = "bzip2 ca-certificates curl file git gnupg jq locales lsb-release openssh-client procps rsync sudo \
                        tar tzdata unzip wget xz-utils zip zstd";

/// What a sandbox's environment is made of (modal-api.md §15.1), and no questions from packages.
const ENVIRONMENT: &str = "ENV DEBIAN_FRONTEND=noninteractive HOME=/root LANG=C.UTF-8 \
                           PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whom jobs run as where they are not to run as root: it may become root without a password, as on GitHub's own runners,
/// and where there is a group for Docker, it is in it.
const USER: &str = "RUN groupadd --system --force docker && useradd --create-home --shell /bin/bash --groups docker runner \
                    && echo 'runner ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/runner && chmod 440 /etc/sudoers.d/runner";

/// Docker, for classes that want it, and the firewall that it finds under gVisor (Modal docs: Docker in sandboxes). Of
/// whatever version Ubuntu has at the time of the build.
const DOCKER_PACKAGES: &str = "docker.io docker-buildx docker-compose-v2 iptables";

/// What the runner is fetched with, where a base of somebody else's lacks it.
const FETCHED_WITH: &str = "ca-certificates curl";

/// The variable by which a build finds the token that the runner's download is authorized with.
pub const DOWNLOAD_TOKEN: &str = "SANDRUNNER_DOWNLOAD_TOKEN";

/// A release of GitHub's runner, as an image gets it.
#[derive(Debug, Clone, Copy)]
pub struct RunnerContents<'a> {
    /// The release.
    pub version: &'a str,
    /// The SHA-256 of its archive, or the build fails.
    pub sha256: &'a str,
    /// Where its archive is.
    pub download_url: &'a str,
    /// Where it goes.
    pub dir: &'a str,
    /// A Secret that holds the token of a download that has to be authorized, under [`DOWNLOAD_TOKEN`]: the definition
    /// names only the Secret, and what is built holds neither.
    pub token: Option<&'a SecretId>,
}

/// What is in the default image beside the runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tools {
    /// What most jobs expect.
    Usual,
    /// Docker as well.
    WithDocker,
}

/// What an image is made on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base<'a> {
    /// Ubuntu with the packages that jobs expect.
    Default(Tools),
    /// A reference in a registry.
    Registry {
        /// The reference.
        reference: &'a str,
        /// A Secret with `REGISTRY_USERNAME` and `REGISTRY_PASSWORD`, where the registry asks for them.
        secret: Option<&'a SecretId>,
    },
    /// An image that exists.
    Existing(&'a ImageId),
}

/// What is done on a base.
#[derive(Debug, Clone, Copy)]
pub struct Steps<'a> {
    /// Packages to install.
    pub apt: &'a [String],
    /// Variables of the commands and of what is started from the image.
    pub env: &'a BTreeMap<String, String>,
    /// Commands for `/bin/sh`.
    pub run: &'a [String],
}

/// How to come by an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageDefinition {
    /// What the first layer is built on, where that exists.
    pub(super) on: Option<ImageId>,
    /// Each is built on the one before it.
    pub(super) layers: Vec<Layer>,
}

/// Some lines of a Dockerfile that are built and kept as one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Layer {
    commands: Vec<String>,
    /// What its commands find in their environment, and nothing else of the image does.
    secrets: Vec<SecretId>,
    /// What the registry of its base is asked with.
    registry_secret: Option<SecretId>,
}

impl ImageDefinition {
    /// The image that is used where none is configured: Ubuntu with the packages that jobs expect, with Docker where it is
    /// wanted, and on it a layer with one release of GitHub's runner, so that a new release keeps the packages.
    ///
    /// # Errors
    /// [`ModalError::Definition`] where an argument has a form that could be more than it says.
    pub fn default_layers(runner: &RunnerContents<'_>, tools: Tools) -> Result<Self, ModalError> {
        Self::made(Base::Default(tools), Steps { apt: &[], env: &BTreeMap::new(), run: &[] }, Some(runner))
    }

    /// An image of a registry as it is, but for its entry point: that would run instead of ours.
    ///
    /// # Errors
    /// [`ModalError::Definition`] where the reference has a form that could be more than a reference.
    pub fn registry_layers(reference: &str) -> Result<Self, ModalError> {
        let base = Base::Registry { reference, secret: None };
        Self::made(base, Steps { apt: &[], env: &BTreeMap::new(), run: &[] }, None)
    }

    /// Steps on a base, in layers that change ever more often: packages, commands, and last the runner, where it is not of
    /// the image's own. None of it has an entry point, which would run instead of ours.
    ///
    /// # Errors
    /// [`ModalError::Definition`] where an argument has a form that could be more than it says.
    pub fn made(base: Base<'_>, steps: Steps<'_>, runner: Option<&RunnerContents<'_>>) -> Result<Self, ModalError> {
        let (on, mut layers) = match base {
            Base::Default(tools) => (None, default_base(tools)),
            Base::Registry { reference, secret } => {
                check("image", reference, "a reference such as ubuntu:24.04 or ghcr.io/owner/name:tag", is_reference)?;
                let layer = Layer { registry_secret: secret.cloned(), ..Layer::of(vec![format!("FROM {reference}")]) };
                (None, vec![layer])
            }
            Base::Existing(id) => (Some(id.clone()), Vec::new()),
        };
        layers.extend(packages_layer(steps)?);
        layers.extend(commands_layer(steps)?);
        match (runner, layers.last_mut()) {
            (Some(runner), _) => layers.push(runner_layer(runner, base)?),
            (None, Some(last)) => last.commands.push(NO_ENTRYPOINT.to_owned()),
            (None, None) => layers.push(Layer::of(vec!["FROM base".to_owned(), NO_ENTRYPOINT.to_owned()])),
        }
        Ok(Self { on, layers })
    }

    /// Stands for what it is made on and its lines, whatever Secrets they are carried out with.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&format!("{:?} {:?}", self.on, self.commands()))
    }

    /// The lines of each layer, for people.
    pub fn commands(&self) -> Vec<&[String]> {
        self.layers.iter().map(|layer| &*layer.commands).collect()
    }
}

/// Takes an image's own entry point away.
const NO_ENTRYPOINT: &str = "ENTRYPOINT []";

fn install(packages: &str) -> String {
    format!(
        "RUN apt-get update && apt-get install -y --no-install-recommends {packages} && rm -rf /var/lib/apt/lists/*"
    )
}

fn default_base(tools: Tools) -> Vec<Layer> {
    let packages = Layer::of(vec![
        format!("FROM {BASE}"),
        ENVIRONMENT.to_owned(),
        install(PACKAGES),
        "RUN locale-gen en_US.UTF-8".to_owned(),
        USER.to_owned(),
    ]);
    let docker =
        (tools == Tools::WithDocker).then(|| Layer::of(vec!["FROM base".to_owned(), install(DOCKER_PACKAGES)]));
    [Some(packages), docker].into_iter().flatten().collect()
}

/// Variables and packages, where there are any.
fn packages_layer(steps: Steps<'_>) -> Result<Option<Layer>, ModalError> {
    let mut commands = vec!["FROM base".to_owned()];
    for (name, value) in steps.env {
        check("variable", name, "letters, digits and `_`", |name| is_made_of(name, "_"))?;
        check("value of a variable", value, "one line without `\"` and `\\`", is_value)?;
        commands.push(format!("ENV {name}=\"{value}\""));
    }
    for package in steps.apt {
        check("package", package, "a package such as nodejs or nodejs=18.19.1", |it| is_made_of(it, "+-.:=~"))?;
    }
    if !steps.apt.is_empty() {
        // The front end may ask where the base is somebody else's.
        let install =
            install(&steps.apt.join(" ")).replace("apt-get install", "DEBIAN_FRONTEND=noninteractive apt-get install");
        commands.push(install);
    }
    Ok((commands.len() > 1).then(|| Layer::of(commands)))
}

fn commands_layer(steps: Steps<'_>) -> Result<Option<Layer>, ModalError> {
    let mut commands = vec!["FROM base".to_owned()];
    for command in steps.run {
        check("command", command, "one line that does not end in `\\`", is_command)?;
        commands.push(format!("RUN {command}"));
    }
    Ok((commands.len() > 1).then(|| Layer::of(commands)))
}

/// A layer with a release of the runner, and without an entry point of the image's own.
fn runner_layer(runner: &RunnerContents<'_>, base: Base<'_>) -> Result<Layer, ModalError> {
    let RunnerContents { version, sha256, download_url, dir, token } = *runner;
    check("runner version", version, "digits and dots, such as 2.330.0", is_version)?;
    check("runner checksum", sha256, "64 hexadecimal digits", is_sha256)?;
    check("runner download address", download_url, "a plain https:// address", is_download_url)?;
    check("runner directory", dir, "an absolute path of letters, digits, `/`, `.`, `_` and `-`", is_dir)?;
    let archive = format!("/tmp/actions-runner-{version}.tar.gz");
    // By standard input, as arguments are seen by every process; curl sends it to no other host.
    let (authorization, header) = match token {
        Some(_) => (format!("printf 'Authorization: Bearer %s\\n' \"${DOWNLOAD_TOKEN}\" | "), " -H @-"),
        None => (String::new(), ""),
    };
    let fetcher = match base {
        Base::Default(_) => None,
        Base::Registry { .. } | Base::Existing(_) => {
            // Where there is neither apt nor curl, the build fails and its log says so.
            Some(format!("RUN if ! command -v curl > /dev/null; then {}; fi", &install(FETCHED_WITH)["RUN ".len()..]))
        }
    };
    // Jobs may run as that user, where there is one.
    let owned = match base {
        Base::Default(_) => format!("chown -R runner {dir}"),
        Base::Registry { .. } | Base::Existing(_) => {
            format!("if id -u runner > /dev/null 2>&1; then chown -R runner {dir}; fi")
        }
    };
    let commands = [
        Some("FROM base".to_owned()),
        fetcher,
        Some(format!(
            "RUN {authorization}curl -fsSL --retry 5{header} -o {archive} '{download_url}' \
             && echo '{sha256}  {archive}' | sha256sum --check --strict - \
             && mkdir -p {dir} && tar -xzf {archive} -C {dir} && rm {archive} \
             && {dir}/bin/installdependencies.sh && rm -rf /var/lib/apt/lists/* && {owned}"
        )),
        Some(NO_ENTRYPOINT.to_owned()),
    ];
    let layer = Layer::of(commands.into_iter().flatten().collect());
    Ok(Layer { secrets: token.into_iter().cloned().collect(), ..layer })
}

impl Layer {
    fn of(commands: Vec<String>) -> Self {
        Self { commands, ..Self::default() }
    }

    /// The layer in Modal's words; the image below goes by the name `base`.
    pub(super) fn image(&self, below: Option<&ImageId>) -> api::Image {
        let registry = |secret: &SecretId| api::ImageRegistryConfig {
            registry_auth_type: api::RegistryAuthType::StaticCreds.into(),
            secret_id: secret.to_string(),
        };
        let base = |id: &ImageId| api::BaseImage { image_id: id.to_string(), docker_tag: "base".to_owned() };
        api::Image {
            base_images: below.map(base).into_iter().collect(),
            dockerfile_commands: self.commands.clone(),
            secret_ids: self.secrets.iter().map(SecretId::to_string).collect(),
            image_registry_config: self.registry_secret.as_ref().map(registry),
            ..Default::default()
        }
    }
}

fn check(what: &str, value: &str, expected: &str, is_allowed: fn(&str) -> bool) -> Result<(), ModalError> {
    if is_allowed(value) {
        return Ok(());
    }
    Err(ModalError::Definition {
        subject: format!("{what} `{}`", value.escape_debug()),
        problem: format!("expected {expected}"),
    })
}

/// Whether all is letters, digits and `more`, none of which means anything to a shell or a Dockerfile.
fn is_made_of(text: &str, more: &str) -> bool {
    !text.is_empty() && text.len() <= 500 && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
}

fn is_version(text: &str) -> bool {
    text.len() <= 32
        && text.split('.').count() >= 2
        && text.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_download_url(text: &str) -> bool {
    // Stands in single quotes, so `&` and `?` are safe there.
    text.strip_prefix("https://").is_some_and(|rest| is_made_of(rest, "-._~:/?&=%+,@"))
}

fn is_dir(text: &str) -> bool {
    is_made_of(text, "-._/")
        && text.len() > 1
        && text.starts_with('/')
        && text[1..].split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
}

fn is_reference(text: &str) -> bool {
    is_made_of(text, "-._/:@") && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// What stands between double quotes in a Dockerfile, where `$NAME` stands for a variable of the image.
fn is_value(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || c == '"' || c == '\\')
}

fn is_command(text: &str) -> bool {
    let is_one_line = !text.chars().any(|c| c.is_control() && c != '\t') && !text.trim_end().ends_with('\\');
    !text.trim().is_empty() && is_one_line && !text.contains("<<") && !text.trim_start().starts_with("--")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA256: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const URL: &str =
        "https://github.com/actions/runner/releases/download/v2.330.0/actions-runner-linux-x64-2.330.0.tar.gz";

    fn contents<'a>(version: &'a str, sha256: &'a str, download_url: &'a str, dir: &'a str) -> RunnerContents<'a> {
        RunnerContents { version, sha256, download_url, dir, token: None }
    }

    fn layers_of(definition: ImageDefinition) -> Vec<Layer> {
        assert_eq!(definition.on, None);
        definition.layers
    }

    fn commands(definition: ImageDefinition) -> Vec<Vec<String>> {
        layers_of(definition).into_iter().map(|layer| layer.commands).collect()
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn the_default_image_checks_the_runner_before_it_unpacks_it() {
        let image =
            ImageDefinition::default_layers(&contents("2.330.0", SHA256, URL, "/opt/actions-runner"), Tools::Usual)
                .unwrap();
        let layers = commands(image);
        assert_eq!(layers[0][0], "FROM ubuntu:24.04");
        assert_eq!((layers[1][0].as_str(), layers[1].last().unwrap().as_str()), ("FROM base", "ENTRYPOINT []"));
        let run = &layers[1][1];
        let place = |part: &str| run.find(part).unwrap_or_else(|| panic!("`{part}` in {run}"));
        assert!(place(URL) < place("| sha256sum --check --strict - &&"));
        assert!(place("sha256sum") < place("tar -xzf"));
        assert!(place("tar -xzf") < place("/opt/actions-runner/bin/installdependencies.sh"));
        assert!(!run.contains(';') && !run.contains("||"), "a failed step must end the build: {run}");
        let user = layers[0].last().unwrap();
        assert!(user.contains(" runner ") && !user.contains(';') && !user.contains("||"), "{user}");
        assert!(place("tar -xzf") < place("chown -R runner /opt/actions-runner"));
        assert!(layers.concat().iter().all(|line| !line.contains('\n')));
    }

    #[test]
    fn a_download_that_is_authorized_takes_its_token_from_a_secret_of_that_layer_alone() {
        let secret = SecretId::new("st-1");
        let runner = RunnerContents { token: Some(&secret), ..contents("2.330.0", SHA256, URL, "/opt/runner") };
        let image = ImageDefinition::default_layers(&runner, Tools::Usual).unwrap();
        let layers = layers_of(image);
        let secrets: Vec<Vec<String>> = layers.iter().map(|layer| layer.image(None).secret_ids).collect();
        assert_eq!(secrets, [vec![], vec!["st-1".to_owned()]]);
        let run = &layers[1].commands[1];
        let begin =
            r#"RUN printf 'Authorization: Bearer %s\n' "$SANDRUNNER_DOWNLOAD_TOKEN" | curl -fsSL --retry 5 -H @- -o "#;
        assert!(run.starts_with(begin), "{run}");
        assert!(!run.contains(';') && !run.contains("||"), "a failed step must end the build: {run}");
    }

    #[test]
    fn nothing_can_be_put_into_a_command() {
        let refused = |version: &str, sha256: &str, url: &str, dir: &str| {
            let error =
                ImageDefinition::default_layers(&contents(version, sha256, url, dir), Tools::Usual).unwrap_err();
            assert!(!error.to_string().contains('\n'), "{error}");
        };
        for version in ["", "2", "2.330.0; rm -rf /", "2.330.0\nRUN x", "$(x)", "2..0", "latest"] {
            refused(version, SHA256, URL, "/opt/runner");
        }
        for sha256 in ["", "abc", &SHA256[1..], &format!("{}'", &SHA256[1..]), &format!("{SHA256} ")] {
            refused("2.330.0", sha256, URL, "/opt/runner");
        }
        for url in ["", "http://github.com/x", "https://", "https://a/'; x '", "https://a/$(x)", "https://a/\nRUN x"] {
            refused("2.330.0", SHA256, url, "/opt/runner");
        }
        for dir in ["", "/", "opt/runner", "/opt/../etc", "/opt//x", "/opt/a b", "/opt/`x`", "/opt/x\n", "/opt/"] {
            refused("2.330.0", SHA256, URL, dir);
        }
    }

    #[test]
    fn docker_is_a_layer_between_the_packages_and_the_runner() {
        let layers = |tools| {
            let runner = contents("2.330.0", SHA256, URL, "/opt/runner");
            commands(ImageDefinition::default_layers(&runner, tools).unwrap())
        };
        let (plain, docker) = (layers(Tools::Usual), layers(Tools::WithDocker));
        assert_eq!((&docker[0], &docker[2]), (&plain[0], &plain[1]), "nothing is built twice");
        assert!(docker[1][1].contains(" docker.io "));
    }

    #[test]
    fn a_registry_image_loses_its_entry_point() {
        let reference = "ghcr.io/acme/runner:v1@sha256:0123";
        let layers = commands(ImageDefinition::registry_layers(reference).unwrap());
        assert_eq!(layers, [[format!("FROM {reference}"), "ENTRYPOINT []".to_owned()]]);
        for odd in ["", "ubuntu AS x", "ubuntu\nRUN x", "--platform=x ubuntu", "-x", "$IMAGE", "a\\b"] {
            assert!(ImageDefinition::registry_layers(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_further_layer_names_the_one_below() {
        let layer = Layer::of(vec!["FROM base".to_owned()]);
        assert!(layer.image(None).base_images.is_empty());
        let [base] = &layer.image(Some(&ImageId::new("im-1"))).base_images[..] else { panic!("one base is expected") };
        assert_eq!((base.image_id.as_str(), base.docker_tag.as_str()), ("im-1", "base"));
    }

    #[test]
    fn steps_are_layers_that_change_ever_more_often_and_the_runner_is_the_last() {
        let (apt, run) = (texts(&["nodejs", "gcc=4:13.2.0-7ubuntu1"]), texts(&["npm i -g pnpm", "echo $HOME"]));
        let env = BTreeMap::from([("PATH".to_owned(), "/opt/x/bin:$PATH".to_owned())]);
        let steps = Steps { apt: &apt, env: &env, run: &run };
        let runner = contents("2.330.0", SHA256, URL, "/opt/runner");
        let layers = commands(ImageDefinition::made(Base::Default(Tools::Usual), steps, Some(&runner)).unwrap());
        assert_eq!(layers.len(), 4);
        assert_eq!(layers[1][..2], texts(&["FROM base", "ENV PATH=\"/opt/x/bin:$PATH\""]));
        assert!(layers[1][2].contains(" nodejs gcc=4:13.2.0-7ubuntu1 &&"), "{}", layers[1][2]);
        assert_eq!(layers[2], texts(&["FROM base", "RUN npm i -g pnpm", "RUN echo $HOME"]));
        assert!(layers[3][1].contains("sha256sum") && layers[3][2] == NO_ENTRYPOINT);

        let own = layers_of(ImageDefinition::made(Base::Default(Tools::Usual), steps, None).unwrap());
        assert_eq!((own.len(), own[2].commands.last().unwrap().as_str()), (3, NO_ENTRYPOINT));
    }

    #[test]
    fn a_private_registry_is_asked_with_its_secret_for_the_base_alone() {
        let secret = SecretId::new("st-1");
        let base = Base::Registry { reference: "ghcr.io/acme/base:1", secret: Some(&secret) };
        let steps = Steps { apt: &[], env: &BTreeMap::new(), run: &[] };
        let runner = contents("2.330.0", SHA256, URL, "/opt/runner");
        let layers = layers_of(ImageDefinition::made(base, steps, Some(&runner)).unwrap());
        let configs: Vec<_> = layers.iter().map(|layer| layer.image(None).image_registry_config).collect();
        let expected = api::ImageRegistryConfig { registry_auth_type: 4, secret_id: "st-1".to_owned() };
        assert_eq!(configs, [Some(expected), None]);
        // Somebody else's base may lack what the runner is fetched with.
        assert!(layers[1].commands[1].starts_with("RUN if ! command -v curl"), "{}", layers[1].commands[1]);
    }

    #[test]
    fn an_image_that_exists_is_a_base_and_loses_its_entry_point() {
        let (id, env) = (ImageId::new("im-1"), BTreeMap::new());
        let run = texts(&["true"]);
        let made = |run| ImageDefinition::made(Base::Existing(&id), Steps { apt: &[], env: &env, run }, None).unwrap();
        let on_it = |lines: &[&str]| ImageDefinition { on: Some(id.clone()), layers: vec![Layer::of(texts(lines))] };
        assert_eq!(made(&[]), on_it(&["FROM base", NO_ENTRYPOINT]));
        assert_eq!(made(&run), on_it(&["FROM base", "RUN true", NO_ENTRYPOINT]));
    }

    #[test]
    fn no_step_can_be_more_than_one_line() {
        let made = |apt: &[&str], env: &[(&str, &str)], run: &[&str]| {
            let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let (apt, run) = (texts(apt), texts(run));
            ImageDefinition::made(Base::Default(Tools::Usual), Steps { apt: &apt, env: &env, run: &run }, None)
        };
        assert!(made(&["g++"], &[("A", "b c")], &["printf 'a\\n' > /x"]).is_ok());
        for (apt, env, run) in [
            (&["a; b"][..], &[][..], &[][..]),
            (&["a b"], &[], &[]),
            (&[], &[("A B", "c")], &[]),
            (&[], &[("A", "c\" B=\"d")], &[]),
            (&[], &[("A", "c\\")], &[]),
            (&[], &[("A", "c\nRUN x")], &[]),
            (&[], &[], &["a\nUSER x"]),
            (&[], &[], &["a \\"]),
            (&[], &[], &["cat <<EOF"]),
            (&[], &[], &["--mount=type=secret x"]),
            (&[], &[], &[" "]),
        ] {
            assert!(made(apt, env, run).is_err(), "{apt:?} {env:?} {run:?}");
        }
    }
}
