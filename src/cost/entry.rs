//! One ended sandbox, and its line in the cost file.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::Usd;
use crate::ids::{ClassName, SandboxId};

/// The version of the line: a reader leaves lines of a later one alone.
const VERSION: u32 = 1;

/// What a sandbox that ended has cost. Times are Modal's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its id.
    pub id: SandboxId,
    /// Its name.
    pub name: String,
    /// The GitHub account; empty where it is not known.
    pub account: String,
    /// The repository; empty where it is not known.
    pub repo: String,
    /// The file name of the workflow, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// Its class.
    pub class: ClassName,
    /// Its GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// When it started to run; none where it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<DateTime<Utc>>,
    /// When it ended.
    pub ended: DateTime<Utc>,
    /// What that comes to.
    pub usd: Usd,
    /// Whether Modal did not tell all that this rests on.
    #[serde(default, skip_serializing_if = "is_no")]
    pub estimate: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_no(estimate: &bool) -> bool {
    !estimate
}

/// What a line of the file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// An entry.
    Entry(Box<Entry>),
    /// Of a later version of this program.
    Later,
    /// None: cut off, or written by something else.
    Unreadable,
}

#[derive(Serialize)]
struct Written<'a> {
    v: u32,
    #[serde(flatten)]
    entry: &'a Entry,
}

#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

impl Entry {
    /// How long it ran.
    pub fn ran(&self) -> TimeDelta {
        self.started.map_or(TimeDelta::zero(), |started| (self.ended - started).max(TimeDelta::zero()))
    }

    /// What of its cost falls between two times.
    pub fn usd_between(&self, from: DateTime<Utc>, until: DateTime<Utc>) -> Usd {
        let Some(started) = self.started else { return Usd::ZERO };
        let part = self.ended.min(until) - started.max(from);
        if part <= TimeDelta::zero() { Usd::ZERO } else { self.usd.share(part, self.ran()) }
    }

    /// The entry as a line, without its end.
    ///
    /// # Errors
    /// Never for what this program makes.
    pub fn to_line(&self) -> serde_json::Result<String> {
        serde_json::to_string(&Written { v: VERSION, entry: self })
    }
}

impl Line {
    /// Reads a line without its end.
    pub fn read(text: &str) -> Self {
        match serde_json::from_str::<Versioned>(text) {
            Ok(Versioned { v }) if v > VERSION => Self::Later,
            Ok(Versioned { v: VERSION }) => {
                serde_json::from_str(text).map_or(Self::Unreadable, |entry| Self::Entry(Box::new(entry)))
            }
            Ok(_) | Err(_) => Self::Unreadable,
        }
    }
}

/// The month of a time, as files are named by it: `2026-11`.
pub fn month(at: DateTime<Utc>) -> String {
    at.format("%Y-%m").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::hours(hours)
    }

    fn entry() -> Entry {
        Entry {
            id: SandboxId::new("sb-1"),
            name: "sr-main-gh-7-1".to_owned(),
            account: "gh".to_owned(),
            repo: "acme/web".to_owned(),
            workflow: Some("ci.yml".to_owned()),
            class: ClassName::new("default"),
            gpu: None,
            started: Some(at(20)),
            ended: at(28),
            usd: "8".parse().unwrap(),
            estimate: false,
        }
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let line = entry().to_line().unwrap();
        assert_eq!(
            line,
            r#"{"v":1,"id":"sb-1","name":"sr-main-gh-7-1","account":"gh","repo":"acme/web","workflow":"ci.yml","class":"default","started":"1970-01-01T20:00:00Z","ended":"1970-01-02T04:00:00Z","usd":"8.00"}"#
        );
        assert_eq!(Line::read(&line), Line::Entry(Box::new(entry())));
        let estimate = Entry { estimate: true, gpu: Some("T4".to_owned()), started: None, workflow: None, ..entry() };
        assert_eq!(Line::read(&estimate.to_line().unwrap()), Line::Entry(Box::new(estimate)));
    }

    #[test]
    fn what_is_no_line_of_ours_is_told_apart() {
        let line = entry().to_line().unwrap();
        assert_eq!(Line::read(&line.replace(r#""v":1"#, r#""v":2"#)), Line::Later);
        for bad in
            ["", "{}", "nonsense", &line[..line.len() / 2], &line.replace("8.00", "-8"), r#"{"v":1}"#, r#"{"v":0}"#]
        {
            assert_eq!(Line::read(bad), Line::Unreadable, "{bad}");
        }
    }

    #[test]
    fn a_night_is_paid_on_both_days() {
        let on = |from, until| entry().usd_between(at(from), at(until)).to_string();
        assert_eq!([on(0, 24), on(24, 48), on(48, 72), on(0, 72)], ["4.00", "4.00", "0.00", "8.00"]);
        assert_eq!(Entry { started: None, ..entry() }.usd_between(at(0), at(72)), Usd::ZERO);
    }
}
