//! Labels of jobs and runners.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::Fingerprint;
use super::fingerprint::fingerprint;

/// The set of labels of a job, folded to lower case, sorted, without repetition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels {
    fingerprint: Fingerprint,
    labels: Arc<[Box<str>]>,
}

impl Labels {
    /// Folds, sorts and removes repetitions.
    pub fn new<T: AsRef<str>>(labels: impl IntoIterator<Item = T>) -> Self {
        let mut labels: Vec<Box<str>> =
            labels.into_iter().map(|label| label.as_ref().to_lowercase().into_boxed_str()).collect();
        labels.sort();
        labels.dedup();
        let fingerprint = fingerprint(&labels.iter().map(|label| &**label).collect::<Vec<_>>());
        Self { fingerprint, labels: labels.into() }
    }

    /// What stands for this set in tags.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The labels in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.labels.iter().map(|label| &**label)
    }

    /// Whether `label` (in lower case) is one of them.
    pub fn contains(&self, label: &str) -> bool {
        self.labels.binary_search_by(|have| (**have).cmp(label)).is_ok()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Whether a runner with these labels may take a job that asks for `asked`.
    pub fn covers(&self, asked: &Self) -> bool {
        asked.iter().all(|label| self.contains(label))
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.labels.join(","))
    }
}

impl Serialize for Labels {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_a_set_without_case() {
        let labels = Labels::new(["Modal", "self-hosted", "modal"]);
        assert_eq!(labels, Labels::new(["self-hosted", "modal"]));
        assert_ne!(labels.fingerprint(), Labels::new(["self-hosted"]).fingerprint());
        assert!(labels.covers(&Labels::new(["MODAL"])) && !Labels::new(["modal"]).covers(&labels));
        assert_eq!(labels.fingerprint().to_string().parse::<Fingerprint>().unwrap(), labels.fingerprint());
    }
}
