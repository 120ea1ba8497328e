//! Puts the pages of a listing together: pure.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::{api, wire};
use crate::ids::SandboxId;
use crate::state::Sandbox;

/// Which sandboxes are wanted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted {
    /// Those that live.
    Live,
    /// Those that were created after a time, living or ended.
    CreatedAfter(DateTime<Utc>),
}

/// What the pages read so far hold.
#[derive(Debug, Default)]
pub(super) struct Listing {
    sandboxes: BTreeMap<SandboxId, Sandbox>,
    before: f64,
    pages: usize,
    has_unreadable: bool,
}

impl Listing {
    /// Adds a page that is not empty, newest entry first.
    ///
    /// Entries with one id are one sandbox, the later reading of it counts. The next page begins before the
    /// time of the last entry, so a page that does not lead further back would be asked for for ever.
    pub(super) fn add(&mut self, page: Vec<api::SandboxInfo>) -> Result<(), &'static str> {
        self.pages += 1;
        let last = page.last().map_or(0.0, |info| info.created_at);
        for info in page {
            match wire::sandbox(info) {
                Some(sandbox) => drop(self.sandboxes.insert(sandbox.id.clone(), sandbox)),
                None => self.has_unreadable = true,
            }
        }
        let is_further_back = last > 0.0 && last.is_finite() && (self.pages == 1 || last < self.before);
        self.before = last;
        if is_further_back { Ok(()) } else { Err("a page leads no further back than the one before it") }
    }

    /// The time before which the next page begins; 0 for the first page.
    pub(super) fn before(&self) -> f64 {
        self.before
    }

    /// Whether later pages show nothing that is wanted.
    pub(super) fn reaches_back_to(&self, wanted: &Wanted) -> bool {
        match wanted {
            Wanted::Live => false,
            Wanted::CreatedAfter(since) => self.before < (*since - DateTime::UNIX_EPOCH).as_seconds_f64(),
        }
    }

    /// How many pages were added.
    pub(super) fn pages(&self) -> usize {
        self.pages
    }

    /// Whether there was an entry without an id, which is no sandbox that could be looked at.
    pub(super) fn has_unreadable(&self) -> bool {
        self.has_unreadable
    }

    /// The sandboxes that are wanted, in order of id: the last page may go on beyond them.
    pub(super) fn into_sandboxes(self, wanted: &Wanted) -> Vec<Sandbox> {
        let is_wanted = |sandbox: &Sandbox| match wanted {
            Wanted::Live => true,
            Wanted::CreatedAfter(since) => sandbox.created_at >= *since,
        };
        self.sandboxes.into_values().filter(is_wanted).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(id: &str, created_at: f64) -> api::SandboxInfo {
        api::SandboxInfo { id: id.to_owned(), created_at, ..Default::default() }
    }

    fn ids(listing: Listing) -> Vec<String> {
        listing.into_sandboxes(&Wanted::Live).into_iter().map(|sandbox| sandbox.id.to_string()).collect()
    }

    #[test]
    fn pages_are_merged_by_id() {
        let mut listing = Listing::default();
        listing.add(vec![info("sb-c", 30.0), info("sb-b", 20.0)]).unwrap();
        assert!((listing.before() - 20.0).abs() < f64::EPSILON);
        listing.add(vec![info("sb-b", 20.0), info("sb-a", 10.0)]).unwrap();
        assert_eq!(ids(listing), ["sb-a", "sb-b", "sb-c"]);
    }

    #[test]
    fn what_the_last_page_shows_beyond_the_time_is_left_out() {
        let mut listing = Listing::default();
        let wanted = Wanted::CreatedAfter(DateTime::UNIX_EPOCH + chrono::TimeDelta::seconds(20));
        listing.add(vec![info("sb-c", 30.0), info("sb-b", 20.0), info("sb-a", 10.0)]).unwrap();
        assert!(listing.reaches_back_to(&wanted));
        let ids: Vec<_> = listing.into_sandboxes(&wanted).into_iter().map(|sandbox| sandbox.id.to_string()).collect();
        assert_eq!(ids, ["sb-b", "sb-c"]);
    }

    #[test]
    fn a_page_without_progress_ends_the_reading_and_keeps_what_was_seen() {
        for (second, why) in
            [(20.0, "the same page"), (25.0, "forwards"), (f64::NAN, "no time"), (0.0, "the first page")]
        {
            let mut listing = Listing::default();
            listing.add(vec![info("sb-b", 20.0)]).unwrap();
            assert!(listing.add(vec![info("sb-a", second)]).is_err(), "{why}");
            assert_eq!(ids(listing), ["sb-a", "sb-b"]);
        }
    }

    #[test]
    fn an_entry_without_an_id_is_remembered() {
        let mut listing = Listing::default();
        listing.add(vec![info("", 30.0), info("sb-a", 20.0)]).unwrap();
        assert!(listing.has_unreadable());
        assert_eq!(ids(listing), ["sb-a"]);
    }
}
