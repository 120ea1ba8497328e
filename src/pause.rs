//! What the operator holds back (pure): everything, a class, or a repository, each until it is let go again.
//!
//! A pause stops creates alone. What runs, starts or waits goes on, and ends as it would.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::ids::{ClassName, RepoName};

/// What a pause is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// Everything.
    All,
    /// The jobs of a class.
    Class(ClassName),
    /// The jobs of a repository.
    Repo(RepoName),
}

/// A pause.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// Of what.
    pub held: Held,
    /// Since when.
    pub since: DateTime<Utc>,
}

/// All pauses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pauses(BTreeMap<Held, DateTime<Utc>>);

/// What the operator asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Create nothing more of it.
    Pause(Held),
    /// Create of it again; of everything: nothing is held back any more.
    Resume(Held),
}

impl Pauses {
    /// Carries out an order; what is held back already stays so since then.
    pub fn take(&mut self, order: &Order, now: DateTime<Utc>) {
        match order {
            Order::Pause(held) => {
                self.0.entry(held.clone()).or_insert(now);
            }
            Order::Resume(Held::All) => self.0.clear(),
            Order::Resume(held) => {
                self.0.remove(held);
            }
        }
    }

    /// Whether that very thing is held back.
    pub fn holds(&self, held: &Held) -> bool {
        self.0.contains_key(held)
    }

    /// What holds back the jobs of a class in a repository, the widest first.
    pub fn of(&self, class: &ClassName, repo: &RepoName) -> Option<Pause> {
        // Most of the time there is none, and this is asked for every job.
        if self.0.is_empty() {
            return None;
        }
        let candidates = [Held::All, Held::Class(class.clone()), Held::Repo(repo.clone())];
        candidates.into_iter().find_map(|held| {
            let since = *self.0.get(&held)?;
            Some(Pause { held, since })
        })
    }

    /// Each of them.
    pub fn all(&self) -> Vec<Pause> {
        self.0.iter().map(|(held, since)| Pause { held: held.clone(), since: *since }).collect()
    }
}

impl FromIterator<Pause> for Pauses {
    fn from_iter<I: IntoIterator<Item = Pause>>(pauses: I) -> Self {
        Self(pauses.into_iter().map(|pause| (pause.held, pause.since)).collect())
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("everything"),
            Self::Class(class) => write!(f, "class {class}"),
            Self::Repo(repo) => write!(f, "repository {repo}"),
        }
    }
}

impl Held {
    /// The command that lets it go on.
    pub fn resumed_by(&self) -> String {
        match self {
            Self::All => "sandrunner resume".to_owned(),
            Self::Class(class) => format!("sandrunner resume --class {class}"),
            Self::Repo(repo) => format!("sandrunner resume --repo {repo}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn at(secs: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(secs)
    }

    #[test]
    fn what_is_held_back_stays_so_until_it_is_let_go() {
        let (gpu, web) = (Held::Class(ClassName::new("gpu")), Held::Repo("acme/web".parse().unwrap()));
        let mut pauses = Pauses::default();
        pauses.take(&Order::Pause(gpu.clone()), at(1));
        pauses.take(&Order::Pause(web.clone()), at(2));
        pauses.take(&Order::Pause(gpu.clone()), at(3));
        let of = |pauses: &Pauses, class: &str, repo: &str| {
            pauses.of(&ClassName::new(class), &repo.parse().unwrap()).map(|pause| (pause.held.to_string(), pause.since))
        };
        assert_eq!(of(&pauses, "gpu", "acme/web"), Some(("class gpu".to_owned(), at(1))));
        assert_eq!(of(&pauses, "default", "acme/web"), Some(("repository acme/web".to_owned(), at(2))));
        assert_eq!(of(&pauses, "default", "acme/api"), None);
        pauses.take(&Order::Resume(gpu.clone()), at(4));
        assert!(pauses.holds(&web) && !pauses.holds(&gpu));
        pauses.take(&Order::Pause(Held::All), at(5));
        assert_eq!(of(&pauses, "default", "acme/api"), Some(("everything".to_owned(), at(5))));
        pauses.take(&Order::Resume(Held::All), at(6));
        assert_eq!(pauses.all(), []);
    }
}
