//! What ended sandboxes cost, by whom.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::{Entry, Usd};

/// By what entries are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The repository.
    Repo,
    /// The repository and the workflow's file.
    Workflow,
    /// The class.
    Class,
}

impl By {
    /// The words by which an entry is put with others; empty where they are not known.
    fn key(self, entry: &Entry) -> Vec<String> {
        match self {
            Self::Repo => vec![entry.repo.clone()],
            Self::Workflow => vec![entry.repo.clone(), entry.workflow.clone().unwrap_or_default()],
            Self::Class => vec![entry.class.to_string()],
        }
    }
}

/// Some sandboxes together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// What they cost.
    pub usd: Usd,
    /// How many there are.
    pub sandboxes: u64,
    /// How long they ran.
    pub ran: TimeDelta,
    /// How many of them rest on an estimate.
    pub estimates: u64,
}

impl Row {
    fn add(&mut self, entry: &Entry, from: DateTime<Utc>, until: DateTime<Utc>) {
        let ran = entry.started.map_or(TimeDelta::zero(), |started| entry.ended.min(until) - started.max(from));
        self.usd += entry.usd_between(from, until);
        self.ran += ran.max(TimeDelta::zero());
        self.sandboxes += 1;
        self.estimates += u64::from(entry.estimate);
    }
}

/// What sandboxes cost in a time: of one that began before it, only what falls within.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// By key; the dearest first.
    pub rows: Vec<(Vec<String>, Row)>,
    /// All of them.
    pub total: Row,
    /// By day, named by its begin.
    pub days: BTreeMap<DateTime<Utc>, Usd>,
}

impl Summary {
    /// Puts entries together that end after `from` and begin before `until`.
    pub fn of<'a>(
        entries: impl IntoIterator<Item = &'a Entry>,
        by: By,
        (from, until): (DateTime<Utc>, DateTime<Utc>),
    ) -> Self {
        let mut rows: BTreeMap<Vec<String>, Row> = BTreeMap::new();
        let mut summary = Self::default();
        for entry in entries {
            let begin = entry.started.unwrap_or(entry.ended);
            if entry.ended <= from || begin >= until {
                continue;
            }
            rows.entry(by.key(entry)).or_default().add(entry, from, until);
            summary.total.add(entry, from, until);
            let mut day = begin.max(from).date_naive().and_time(chrono::NaiveTime::MIN).and_utc();
            while day < entry.ended.min(until) {
                let next = day + TimeDelta::days(1);
                *summary.days.entry(day).or_default() += entry.usd_between(day.max(from), next.min(until));
                day = next;
            }
        }
        summary.rows = rows.into_iter().collect();
        summary.rows.sort_by_key(|(_, row)| Reverse(row.usd));
        summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ClassName, SandboxId};

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::hours(hours)
    }

    fn entry(repo: &str, workflow: Option<&str>, hours: (i64, i64)) -> Entry {
        Entry {
            id: SandboxId::new("sb-1"),
            name: String::new(),
            account: "gh".to_owned(),
            repo: repo.to_owned(),
            workflow: workflow.map(str::to_owned),
            class: ClassName::new("default"),
            gpu: None,
            started: Some(at(hours.0)),
            ended: at(hours.1),
            usd: Usd::try_from(1.0).unwrap().times((hours.1 - hours.0).into()),
            estimate: workflow.is_none(),
        }
    }

    #[test]
    fn costs_are_put_together_by_what_is_asked_for() {
        let entries = [
            entry("acme/web", Some("ci.yml"), (1, 2)),
            entry("acme/web", Some("nightly.yml"), (20, 30)),
            entry("acme/api", Some("ci.yml"), (5, 8)),
            entry("acme/api", None, (6, 8)),
        ];
        let rows = |by, from, until| -> Vec<String> {
            let summary = Summary::of(&entries, by, (at(from), at(until)));
            let row = |(key, row): &(Vec<String>, Row)| {
                format!("{} {} {} {}", key.join(":"), row.usd, row.sandboxes, row.estimates)
            };
            summary.rows.iter().map(row).collect()
        };
        assert_eq!(rows(By::Repo, 0, 48), ["acme/web 11.00 2 0", "acme/api 5.00 2 1"]);
        assert_eq!(
            rows(By::Workflow, 0, 48),
            [
                "acme/web:nightly.yml 10.00 1 0",
                "acme/api:ci.yml 3.00 1 0",
                "acme/api: 2.00 1 1",
                "acme/web:ci.yml 1.00 1 0"
            ]
        );
        assert_eq!(rows(By::Class, 2, 24), ["default 9.00 3 1"], "what falls within the time");
        let summary = Summary::of(&entries, By::Class, (at(0), at(28)));
        assert_eq!(summary.days, BTreeMap::from([(at(0), "10".parse().unwrap()), (at(24), "4".parse().unwrap())]));
        assert_eq!((summary.total.usd, summary.total.ran), ("14".parse().unwrap(), TimeDelta::hours(14)));
    }
}
