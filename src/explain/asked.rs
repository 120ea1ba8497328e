//! What somebody asks about: an id, or an address of GitHub's pages or of its API.

use std::fmt;
use std::str::FromStr;

use crate::ids::{InvalidId, RepoName};

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// A job or a run, whose repository is not said.
    Id(u64),
    /// A job.
    Job {
        /// Its repository.
        repo: RepoName,
        /// Its id.
        job: u64,
    },
    /// All jobs of a run.
    Run {
        /// Its repository.
        repo: RepoName,
        /// Its id.
        run: u64,
    },
}

impl FromStr for Asked {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let wrong = || InvalidId {
            value: text.chars().take(200).collect(),
            expected: "the id of a job or run, nor the address of one, such as https://github.com/owner/name/actions/runs/1/job/2",
        };
        if let Ok(id) = text.trim().parse() {
            return Ok(Self::Id(id));
        }
        let path = text.trim().split(['?', '#']).next().unwrap_or_default();
        let (_, path) = path.split_once("://").ok_or_else(wrong)?;
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        // A repository may be called `actions` as well.
        let is_start = |pair: &[&str]| matches!(pair, ["actions", "runs" | "jobs"]);
        let at = parts.windows(2).position(is_start).filter(|at| *at > 2).ok_or_else(wrong)?;
        let repo: RepoName = format!("{}/{}", parts[at - 2], parts[at - 1]).parse().map_err(|_| wrong())?;
        let number = |text: &&str| text.parse::<u64>().ok();
        match &parts[at + 1..] {
            ["runs", _, "job" | "jobs", job, ..]
            | ["runs", _, "attempts", _, "job" | "jobs", job, ..]
            | ["jobs", job, ..] => number(job).map(|job| Self::Job { repo, job }),
            ["runs", run, ..] => number(run).map(|run| Self::Run { repo, run }),
            _ => None,
        }
        .ok_or_else(wrong)
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Job { repo, job } => write!(f, "job {job} of {repo}"),
            Self::Run { repo, run } => write!(f, "run {run} of {repo}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_and_runs_are_named_by_ids_and_addresses() {
        let read = |text: &str| text.parse::<Asked>().map(|asked| asked.to_string());
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(read(" 17 "), ok("17"));
        for (address, means) in [
            ("https://github.com/Acme/Web/actions/runs/5/job/7", "job 7 of acme/web"),
            ("https://github.com/acme/web/actions/runs/5/job/7?pr=3#step:2:1", "job 7 of acme/web"),
            ("https://github.com/acme/web/actions/runs/5/attempts/2/job/7", "job 7 of acme/web"),
            ("https://github.com/acme/web/actions/runs/5/", "run 5 of acme/web"),
            ("https://github.com/acme/web/actions/runs/5/attempts/2", "run 5 of acme/web"),
            ("https://api.github.com/repos/acme/web/actions/jobs/7", "job 7 of acme/web"),
            ("https://ghe.example/api/v3/repos/acme/actions/actions/runs/5", "run 5 of acme/actions"),
        ] {
            assert_eq!(read(address), ok(means), "{address}");
        }
        for wrong in [
            "",
            "acme/web",
            "-3",
            "https://github.com/acme/web",
            "https://github.com/acme/web/actions/runs/x",
            "https://actions/runs/5",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
