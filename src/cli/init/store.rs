//! Where secrets are kept. Files of them are for their owner alone, and none is replaced.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::InitError;

/// A secret that an installation takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A personal access token.
    GithubToken,
    /// The private key of a GitHub App.
    GithubAppKey,
    /// The id of Modal's token.
    ModalTokenId,
    /// The secret of Modal's token.
    ModalTokenSecret,
}

/// Those that it takes, as far as they are known.
pub(super) type Secrets = BTreeMap<Kind, Option<SecretString>>;

/// Where secrets are kept.
#[derive(Debug)]
pub(super) enum Store {
    /// In a folder, by files that the configuration names.
    Files(PathBuf),
    /// In a folder that the systemd unit takes them from.
    Credstore(PathBuf),
    /// In the environment of the daemon.
    Environment,
}

impl Kind {
    /// In words.
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::GithubToken => "GitHub token",
            Self::GithubAppKey => "private key of the GitHub App",
            Self::ModalTokenId => "Modal token id, ak-…",
            Self::ModalTokenSecret => "Modal token secret, as-…",
        }
    }

    /// The variable that may hold it.
    pub(super) fn variable(self) -> &'static str {
        match self {
            Self::GithubToken => "GITHUB_TOKEN",
            Self::GithubAppKey => "GITHUB_APP_KEY",
            Self::ModalTokenId => "MODAL_TOKEN_ID",
            Self::ModalTokenSecret => "MODAL_TOKEN_SECRET",
        }
    }

    /// Its name as a systemd credential.
    fn credential(self) -> &'static str {
        match self {
            Self::GithubToken => "github-token",
            Self::GithubAppKey => "github-app-key",
            Self::ModalTokenId => "modal-token-id",
            Self::ModalTokenSecret => "modal-token-secret",
        }
    }
}

impl Store {
    /// The file that the configuration has to name.
    pub(super) fn named(&self, kind: Kind) -> Option<PathBuf> {
        match self {
            Self::Files(_) => self.place(kind),
            Self::Credstore(_) | Self::Environment => None,
        }
    }

    fn place(&self, kind: Kind) -> Option<PathBuf> {
        match self {
            Self::Files(dir) => Some(dir.join(kind.credential())),
            Self::Credstore(dir) => Some(dir.join(format!("sandrunner.{}", kind.credential()))),
            Self::Environment => None,
        }
    }

    /// Writes what is known, and tells where the rest belongs.
    pub(super) fn keep(&self, secrets: &Secrets) -> Result<Vec<String>, InitError> {
        if let Self::Files(dir) | Self::Credstore(dir) = self {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.map_err(|source| InitError::Write { path: dir.clone(), source })?;
        }
        secrets.iter().map(|(kind, secret)| self.keep_one(*kind, secret.as_ref())).collect()
    }

    fn keep_one(&self, kind: Kind, secret: Option<&SecretString>) -> Result<String, InitError> {
        let Some(path) = self.place(kind) else {
            return Ok(format!("before the start, set {}: the {}", kind.variable(), kind.what()));
        };
        let shown = path.display();
        let Some(secret) = secret else {
            return Ok(format!("before the start, put the {} there: install -m 600 /dev/stdin {shown}", kind.what()));
        };
        let text = format!("{}\n", secret.expose_secret());
        match create(&path, &text, 0o600) {
            Ok(()) => Ok(format!("wrote {shown}, the {}, readable for its owner alone", kind.what())),
            // The same call, made again after one that ended halfway.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && holds(&path, &text) => {
                Ok(format!("{shown} holds the {} already", kind.what()))
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(InitError::OtherSecret(path)),
            Err(source) => Err(InitError::Write { path, source }),
        }
    }
}

fn holds(path: &Path, text: &str) -> bool {
    std::fs::read_to_string(path).is_ok_and(|held| held == text)
}

/// Makes a file that must not exist, with its mode from the first moment on.
pub(super) fn create(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
