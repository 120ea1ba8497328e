//! Where the image of a class comes from (pure).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What stands behind the name of an image that holds Docker too; no name has a `+`.
const DOCKER_SUFFIX: &str = "+docker";

/// Where a class's image comes from. Classes with the same source share one image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageSource {
    /// The image that Sandrunner defines: Ubuntu, common tools, the runner's release.
    Default {
        /// Whether Docker is in it.
        has_docker: bool,
    },
    /// A reference in a public registry, taken as it is; it holds bash and the runner.
    Registry(String),
    /// An image that exists on Modal, taken as it is; it holds bash and the runner.
    Existing(String),
    /// An `[[images]]` table: steps on a base.
    Recipe(Arc<ImageRecipe>),
}

/// An image of the configuration's own: a base, steps on it, and the runner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageRecipe {
    /// Its name.
    pub name: String,
    /// What the steps begin with.
    pub base: ImageBase,
    /// The Modal Secret with `REGISTRY_USERNAME` and `REGISTRY_PASSWORD`, where the base is private.
    pub registry_secret: Option<String>,
    /// Packages that are installed by `apt-get`.
    pub apt: Vec<String>,
    /// Environment variables of the later steps and of the sandbox.
    pub env: BTreeMap<String, String>,
    /// Commands, each run by `/bin/sh`.
    pub run: Vec<String>,
    /// Who puts the runner into it.
    pub runner: RunnerIn,
}

/// What an image is made on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageBase {
    /// What is below the runner in the image that Sandrunner defines.
    Default {
        /// Whether Docker is in it.
        has_docker: bool,
    },
    /// A reference in a registry.
    Registry(String),
    /// An image that exists on Modal.
    Existing(String),
}

/// Who puts the runner into an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunnerIn {
    /// Sandrunner, as the last layer.
    Added,
    /// Whoever made the base, or the image's own steps.
    Own,
}

impl ImageSource {
    /// Whether another image may be behind it tomorrow, with another runner of somebody else's in it: a tag of a registry
    /// moves, what is named by its content does not.
    pub fn may_move(&self) -> bool {
        let moves = |reference: &str| !reference.contains('@');
        match self {
            Self::Registry(reference) => moves(reference),
            Self::Recipe(recipe) => match &recipe.base {
                ImageBase::Registry(reference) => recipe.runner == RunnerIn::Own && moves(reference),
                ImageBase::Default { .. } | ImageBase::Existing(_) => false,
            },
            Self::Default { .. } | Self::Existing(_) => false,
        }
    }

    /// Whether Sandrunner puts the runner into it.
    pub fn gets_runner(&self) -> bool {
        match self {
            Self::Default { .. } => true,
            Self::Recipe(recipe) => recipe.runner == RunnerIn::Added,
            Self::Registry(_) | Self::Existing(_) => false,
        }
    }

    /// Whether Sandrunner puts Docker into it.
    pub fn has_docker(&self) -> bool {
        match self {
            Self::Default { has_docker } => *has_docker,
            Self::Recipe(recipe) => matches!(recipe.base, ImageBase::Default { has_docker: true }),
            Self::Registry(_) | Self::Existing(_) => false,
        }
    }
}

/// What people call it, on the command line and in logs: no two sources are called the same.
impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Default { .. } => "default",
            Self::Registry(reference) => reference,
            Self::Existing(id) => id,
            Self::Recipe(recipe) => &recipe.name,
        };
        f.write_str(name)?;
        if self.has_docker() { f.write_str(DOCKER_SUFFIX) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(base: ImageBase, runner: RunnerIn) -> ImageSource {
        let (apt, run, env) = (Vec::new(), Vec::new(), BTreeMap::new());
        let recipe = ImageRecipe { name: "own".to_owned(), base, registry_secret: None, apt, env, run, runner };
        ImageSource::Recipe(Arc::new(recipe))
    }

    #[test]
    fn only_a_tag_with_a_runner_of_somebody_elses_may_move() {
        let of = |reference: &str| ImageBase::Registry(reference.to_owned());
        for (source, may_move) in [
            (ImageSource::Registry("acme/runner:1".to_owned()), true),
            (ImageSource::Registry("acme/runner@sha256:0".to_owned()), false),
            (ImageSource::Existing("im-1".to_owned()), false),
            (ImageSource::Default { has_docker: true }, false),
            (recipe(of("acme/runner:1"), RunnerIn::Own), true),
            (recipe(of("acme/runner:1"), RunnerIn::Added), false),
            (recipe(of("acme/runner@sha256:0"), RunnerIn::Own), false),
        ] {
            assert_eq!(source.may_move(), may_move, "{source:?}");
        }
    }

    #[test]
    fn no_two_sources_are_called_the_same() {
        let base = |has_docker| ImageBase::Default { has_docker };
        let names = [
            ImageSource::Default { has_docker: false },
            ImageSource::Default { has_docker: true },
            recipe(base(false), RunnerIn::Added),
            recipe(base(true), RunnerIn::Added),
        ]
        .map(|source| source.to_string());
        assert_eq!(names, ["default", "default+docker", "own", "own+docker"]);
    }
}
