//! Which runner is in the images, and what GitHub says of it.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::{Observed, ReadState};
use crate::ids::{AccountName, ClassName};
use crate::runner::{RunnerVersion, VersionNotice};

/// What GitHub says of the runner's releases to one account; it offers a new one to some before others.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReleaseView {
    /// The release that new runners should have.
    pub offered: Option<RunnerVersion>,
    /// Until when it takes those that are in use.
    pub notices: BTreeMap<RunnerVersion, VersionNotice>,
    /// How that was read.
    pub read: ReadState,
}

impl ReleaseView {
    /// Since when, or from when on, runners of a version are refused. What is offered is not refused, whatever else is
    /// said of it.
    pub fn refused_at(&self, version: RunnerVersion) -> Option<DateTime<Utc>> {
        let is_older = self.offered.is_none_or(|offered| version < offered);
        self.notices.get(&version).filter(|_| is_older).and_then(VersionNotice::refused_at)
    }
}

/// How often an image was made anew in vain, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilds {
    count: u32,
    at: DateTime<Utc>,
}

/// After what time a refused image is made anew once more, each time after twice as long: its owner may take a while.
const REBUILD_AGAIN: (TimeDelta, TimeDelta) = (TimeDelta::minutes(10), TimeDelta::days(1));

impl Rebuilds {
    /// One more begins.
    #[must_use]
    pub fn next(before: Option<Self>, now: DateTime<Utc>) -> Self {
        Self { count: before.map_or(0, |before| before.count).saturating_add(1), at: now }
    }

    /// When the next one is due.
    pub fn again_at(self) -> DateTime<Utc> {
        let doublings = self.count.saturating_sub(1).min(16);
        self.at + (REBUILD_AGAIN.0 * (1 << doublings)).min(REBUILD_AGAIN.1)
    }
}

impl Observed {
    /// The versions that are in images of classes.
    pub fn runner_versions(&self) -> BTreeSet<RunnerVersion> {
        self.runners_in_use.values().copied().collect()
    }

    /// The newest release that is offered to any account.
    pub fn newest_release(&self) -> Option<RunnerVersion> {
        self.releases.values().filter_map(|view| view.offered).max()
    }

    /// Since when GitHub refuses an account's runners of a class, and which version they have.
    pub fn refused_version(
        &self,
        account: &AccountName,
        class: &ClassName,
        now: DateTime<Utc>,
    ) -> Option<(RunnerVersion, DateTime<Utc>)> {
        let version = *self.runners_in_use.get(class)?;
        self.refused_since(account, version, now).map(|at| (version, at))
    }

    /// Since when GitHub refuses an account's runners of a version.
    pub fn refused_since(
        &self,
        account: &AccountName,
        version: RunnerVersion,
        now: DateTime<Utc>,
    ) -> Option<DateTime<Utc>> {
        self.releases.get(account)?.refused_at(version).filter(|at| *at <= now + self.skew)
    }

    /// When the first account refuses runners of a class, where GitHub has set a date.
    pub fn ends_at(&self, class: &ClassName) -> Option<DateTime<Utc>> {
        let version = *self.runners_in_use.get(class)?;
        self.releases.values().filter_map(|view| view.refused_at(version)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn a_refused_image_is_made_anew_ever_more_seldom_up_to_once_a_day() {
        let mut rebuilds = None;
        let pauses = [10, 20, 40, 80, 160, 320, 640, 1_280, 1_440, 1_440];
        for minutes in pauses {
            let next = Rebuilds::next(rebuilds, at(0));
            assert_eq!(next.again_at(), at(0) + TimeDelta::minutes(minutes));
            rebuilds = Some(next);
        }
    }

    #[test]
    fn a_version_is_refused_from_its_date_on_unless_it_is_the_one_offered() {
        let (account, class): (AccountName, ClassName) = ("gh".parse().unwrap(), ClassName::new("cpu"));
        let (old, new): (RunnerVersion, RunnerVersion) = ("2.330.0".parse().unwrap(), "2.336.0".parse().unwrap());
        let mut observed = Observed::default();
        let refused = |observed: &Observed, now| observed.refused_version(&account, &class, at(now));
        assert_eq!(refused(&observed, 50), None, "nothing is known");
        observed.runners_in_use.insert(class.clone(), old);
        let notice = VersionNotice { registers_until: None, runs_until: Some(at(100)) };
        let view = ReleaseView { offered: Some(new), notices: [(old, notice)].into(), ..ReleaseView::default() };
        observed.releases.insert(account.clone(), view);
        assert_eq!((refused(&observed, 99), refused(&observed, 100)), (None, Some((old, at(100)))));
        assert_eq!(observed.ends_at(&class), Some(at(100)));
        observed.releases.get_mut(&account).unwrap().offered = Some(old);
        assert_eq!((refused(&observed, 100), observed.ends_at(&class)), (None, None));
    }
}
