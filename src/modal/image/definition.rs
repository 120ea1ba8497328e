//! What an image is made of: pure. Text of others is checked before it becomes part of a command.

use super::super::api;
use super::super::error::ModalError;
use crate::ids::{ImageId, SecretId};

/// The base of the default image.
const BASE: &str = "ubuntu:24.04";

/// What jobs and the supervisor expect besides the runner.
const PACKAGES: &str = "ca-certificates curl git jq locales sudo tar unzip xz-utils zstd";

/// Docker, for classes that want it, and the firewall that it finds under gVisor (Modal docs: Docker in sandboxes).
const DOCKER_PACKAGES: &str = "docker.io docker-buildx docker-compose-v2 iptables";

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

/// How to come by an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageDefinition {
    /// It exists and is known by its id.
    Existing(ImageId),
    /// It is built, each layer on the one before it.
    Layers(Vec<Layer>),
}

/// Some lines of a Dockerfile that are built and kept as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    commands: Vec<String>,
    /// What its commands find in their environment, and nothing else of the image does.
    secrets: Vec<SecretId>,
}

impl ImageDefinition {
    /// The image that is used where none is configured: Ubuntu with the packages that jobs expect, with Docker where it is
    /// wanted, and on it a layer with one release of GitHub's runner, so that a new release keeps the packages.
    ///
    /// # Errors
    /// [`ModalError::Definition`] where an argument has a form that could be more than it says.
    pub fn default_layers(runner: &RunnerContents<'_>, tools: Tools) -> Result<Self, ModalError> {
        let install = |packages: &str| {
            format!(
                "RUN apt-get update && apt-get install -y --no-install-recommends {packages} \
                 && rm -rf /var/lib/apt/lists/*"
            )
        };
        let packages = Layer::new([
            format!("FROM {BASE}"),
            "ENV DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8".to_owned(),
            install(PACKAGES),
        ]);
        let docker =
            (tools == Tools::WithDocker).then(|| Layer::new(["FROM base".to_owned(), install(DOCKER_PACKAGES)]));
        Ok(Self::Layers([Some(packages), docker, Some(runner_layer(runner)?)].into_iter().flatten().collect()))
    }

    /// An image of a registry as it is, but for its entry point: that would run instead of ours.
    ///
    /// # Errors
    /// [`ModalError::Definition`] where the reference has a form that could be more than a reference.
    pub fn registry_layers(reference: &str) -> Result<Self, ModalError> {
        check("image", reference, "a reference such as ubuntu:24.04 or ghcr.io/owner/name:tag", is_reference)?;
        Ok(Self::Layers(vec![Layer::new([format!("FROM {reference}"), "ENTRYPOINT []".to_owned()])]))
    }
}

/// A layer with a release of the runner, and without an entry point of the image's own.
fn runner_layer(runner: &RunnerContents<'_>) -> Result<Layer, ModalError> {
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
    let layer = Layer::new([
        "FROM base".to_owned(),
        format!(
            "RUN {authorization}curl -fsSL --retry 5{header} -o {archive} '{download_url}' \
             && echo '{sha256}  {archive}' | sha256sum --check --strict - \
             && mkdir -p {dir} && tar -xzf {archive} -C {dir} && rm {archive} \
             && {dir}/bin/installdependencies.sh && rm -rf /var/lib/apt/lists/*"
        ),
        "ENTRYPOINT []".to_owned(),
    ]);
    Ok(Layer { secrets: token.into_iter().cloned().collect(), ..layer })
}

impl Layer {
    fn new<const N: usize>(commands: [String; N]) -> Self {
        Self { commands: commands.into(), secrets: Vec::new() }
    }

    /// The layer in Modal's words; the image below goes by the name `base`.
    pub(super) fn image(&self, below: Option<&ImageId>) -> api::Image {
        let base = |id: &ImageId| api::BaseImage { image_id: id.to_string(), docker_tag: "base".to_owned() };
        api::Image {
            base_images: below.map(base).into_iter().collect(),
            dockerfile_commands: self.commands.clone(),
            secret_ids: self.secrets.iter().map(SecretId::to_string).collect(),
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

#[cfg(test)]
mod tests {
    use super::*;

    const SHA256: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const URL: &str =
        "https://github.com/actions/runner/releases/download/v2.330.0/actions-runner-linux-x64-2.330.0.tar.gz";

    fn contents<'a>(version: &'a str, sha256: &'a str, download_url: &'a str, dir: &'a str) -> RunnerContents<'a> {
        RunnerContents { version, sha256, download_url, dir, token: None }
    }

    fn commands(definition: ImageDefinition) -> Vec<Vec<String>> {
        match definition {
            ImageDefinition::Layers(layers) => layers.into_iter().map(|layer| layer.commands).collect(),
            ImageDefinition::Existing(id) => panic!("{id} is not built"),
        }
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
        assert!(layers.concat().iter().all(|line| !line.contains('\n')));
    }

    #[test]
    fn a_download_that_is_authorized_takes_its_token_from_a_secret_of_that_layer_alone() {
        let secret = SecretId::new("st-1");
        let runner = RunnerContents { token: Some(&secret), ..contents("2.330.0", SHA256, URL, "/opt/runner") };
        let image = ImageDefinition::default_layers(&runner, Tools::Usual).unwrap();
        let ImageDefinition::Layers(layers) = image else { panic!("it is built") };
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
        let layer = Layer::new(["FROM base".to_owned()]);
        assert!(layer.image(None).base_images.is_empty());
        let [base] = &layer.image(Some(&ImageId::new("im-1"))).base_images[..] else { panic!("one base is expected") };
        assert_eq!((base.image_id.as_str(), base.docker_tag.as_str()), ("im-1", "base"));
    }
}
