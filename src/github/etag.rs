//! Pages of lists as they were last read, each with the `ETag` by which GitHub tells whether it is still true.
//!
//! A page is kept as the few fields that are used, never as its body, and never served without asking.
//! The key is the credential and the whole path with its query: GitHub's ETags depend on both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use http::HeaderValue;
use sha2::{Digest, Sha256};

use crate::ids::Fingerprint;
use crate::mutant::{self, Mutant};
use crate::state::{RepoFacts, Runner, WorkflowJob, WorkflowRun};

/// Stands for a token at an address, without being either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Credential(u64);

impl Credential {
    pub(super) fn new(api_url: &str, token: &str) -> Self {
        let digest = Sha256::new().chain_update(api_url).chain_update([0]).chain_update(token).finalize();
        Self(u64::from_be_bytes(digest[..8].try_into().expect("a SHA-256 has 32 bytes")))
    }
}

impl Credential {
    /// What stands for it on a disk.
    pub(super) fn fingerprint(self) -> Fingerprint {
        Fingerprint::of(&format!("{:016x}", self.0))
    }
}

/// Where a page came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PageKey {
    /// Of the token that it was read with.
    pub(super) credential: Credential,
    pub(super) path: Box<str>,
}

impl PageKey {
    pub(super) fn new(credential: Credential, path: &str) -> Self {
        let credential = if mutant::is(Mutant::CacheKeyWithoutCredential) { Credential(0) } else { credential };
        Self { credential, path: path.into() }
    }
}

/// One page of a list; clones share the rows.
#[derive(Debug)]
pub(super) struct Page<T> {
    /// The rows that could be read.
    pub(super) rows: Arc<[T]>,
    /// How many could not.
    pub(super) unreadable: usize,
    /// Whether GitHub named a next page.
    pub(super) has_next: bool,
}

impl<T> Clone for Page<T> {
    fn clone(&self) -> Self {
        Self { rows: Arc::clone(&self.rows), unreadable: self.unreadable, has_next: self.has_next }
    }
}

/// A page with the version it had.
#[derive(Debug)]
pub(super) struct Cached<T> {
    pub(super) etag: HeaderValue,
    pub(super) page: Page<T>,
    used: AtomicU64,
}

/// What a page weighs beside its rows (key, ETag, map entry), in rows: most pages of a sweep are empty.
const PAGE_WEIGHT: usize = 5;

/// Run rows are about 72 bytes, so that these are 10 MB at most. 500 repositories with one page each and
/// five sweep lists need 65,000.
const RUN_ROWS: usize = 138_000;
/// Job rows are about 250 bytes with their names, so that these are 5 MB at most: the jobs of 200 runs of 100.
const JOB_ROWS: usize = 20_000;
/// Runner rows are about 100 bytes. Only scopes with sandboxes are listed often.
const RUNNER_ROWS: usize = 20_000;

/// Repository rows are about 100 bytes; a directory of 10,000 fits.
const REPO_ROWS: usize = 20_000;

/// The caches of one client, by what they hold.
#[derive(Debug)]
pub(super) struct PageCaches {
    pub(super) runs: EtagCache<WorkflowRun>,
    pub(super) jobs: EtagCache<WorkflowJob>,
    pub(super) runners: EtagCache<Runner>,
    pub(super) repos: EtagCache<RepoFacts>,
}

impl Default for PageCaches {
    fn default() -> Self {
        Self {
            runs: EtagCache::new(RUN_ROWS),
            jobs: EtagCache::new(JOB_ROWS),
            runners: EtagCache::new(RUNNER_ROWS),
            repos: EtagCache::new(REPO_ROWS),
        }
    }
}

impl PageCaches {
    /// How often any page has changed.
    pub(super) fn changes(&self) -> u64 {
        self.runs.changes.load(Ordering::Relaxed)
            + self.jobs.changes.load(Ordering::Relaxed)
            + self.runners.changes.load(Ordering::Relaxed)
            + self.repos.changes.load(Ordering::Relaxed)
    }
}

/// Pages up to a total weight; beyond it those not asked for the longest go.
#[derive(Debug)]
pub(super) struct EtagCache<T> {
    pages: DashMap<PageKey, Arc<Cached<T>>>,
    capacity: usize,
    weight: AtomicUsize,
    uses: AtomicU64,
    changes: AtomicU64,
}

impl<T> EtagCache<T> {
    fn new(capacity: usize) -> Self {
        Self {
            pages: DashMap::new(),
            capacity,
            weight: AtomicUsize::new(0),
            uses: AtomicU64::new(0),
            changes: AtomicU64::new(0),
        }
    }

    /// The page, which the caller holds while it asks: eviction meanwhile cannot part ETag and rows.
    pub(super) fn get(&self, key: &PageKey) -> Option<Arc<Cached<T>>> {
        let cached = self.pages.get(key).map(|page| Arc::clone(&page))?;
        cached.used.store(self.next_use(), Ordering::Relaxed);
        Some(cached)
    }

    /// Keeps a page in place of the one that was there.
    pub(super) fn put(&self, key: PageKey, etag: HeaderValue, page: Page<T>) {
        self.changes.fetch_add(1, Ordering::Relaxed);
        let used = AtomicU64::new(self.next_use());
        let added = weight(&page);
        let before = self.pages.insert(key, Arc::new(Cached { etag, page, used }));
        self.weight.fetch_add(added, Ordering::Relaxed);
        self.lighten(before.as_deref());
        if self.weight.load(Ordering::Relaxed) > self.capacity {
            self.evict();
        }
    }

    /// Drops a page.
    pub(super) fn remove(&self, key: &PageKey) {
        let before = self.pages.remove(key);
        self.lighten(before.as_ref().map(|(_, page)| &**page));
    }

    /// Shows every page, in no order.
    pub(super) fn each(&self, mut show: impl FnMut(&PageKey, &Cached<T>)) {
        for page in &self.pages {
            show(page.key(), page.value());
        }
    }

    fn lighten(&self, removed: Option<&Cached<T>>) {
        if let Some(removed) = removed {
            self.weight.fetch_sub(weight(&removed.page), Ordering::Relaxed);
        }
    }

    fn next_use(&self) -> u64 {
        self.uses.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes room for a tenth at once, so that a full cache is not sorted at every page.
    fn evict(&self) {
        let mut by_use: Vec<(u64, PageKey)> =
            self.pages.iter().map(|page| (page.used.load(Ordering::Relaxed), page.key().clone())).collect();
        by_use.sort_unstable_by_key(|(used, _)| *used);
        let enough = self.capacity / 10 * 9;
        for (_, key) in by_use {
            if self.weight.load(Ordering::Relaxed) <= enough {
                return;
            }
            self.remove(&key);
        }
    }
}

fn weight<T>(page: &Page<T>) -> usize {
    page.rows.len() + PAGE_WEIGHT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(token: &str, path: &str) -> PageKey {
        PageKey::new(Credential::new("https://api.github.com", token), path)
    }

    fn page(rows: usize) -> Page<u8> {
        Page { rows: vec![0; rows].into(), unreadable: 0, has_next: false }
    }

    fn put(cache: &EtagCache<u8>, path: &str, rows: usize) {
        cache.put(key("a", path), HeaderValue::from_static("W/\"1\""), page(rows));
    }

    #[test]
    fn pages_of_another_token_or_query_are_not_mixed_up() {
        let cache = EtagCache::new(1_000);
        put(&cache, "/runs?page=1", 1);
        assert!(cache.get(&key("a", "/runs?page=1")).is_some());
        assert!(cache.get(&key("b", "/runs?page=1")).is_none());
        assert!(cache.get(&key("a", "/runs?page=2")).is_none());
    }

    #[test]
    fn the_pages_not_used_for_the_longest_go_first() {
        let cache = EtagCache::new(10 * (95 + PAGE_WEIGHT));
        for number in 0..10 {
            put(&cache, &number.to_string(), 95);
        }
        cache.get(&key("a", "0"));
        put(&cache, "10", 95);
        let left: Vec<usize> = (0..=10).filter(|number| cache.get(&key("a", &number.to_string())).is_some()).collect();
        assert_eq!(left, [0, 3, 4, 5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn the_weight_follows_what_is_kept() {
        let cache = EtagCache::new(1_000);
        put(&cache, "a", 50);
        put(&cache, "a", 10);
        put(&cache, "b", 0);
        assert_eq!(cache.weight.load(Ordering::Relaxed), 10 + 2 * PAGE_WEIGHT);
        cache.remove(&key("a", "a"));
        cache.remove(&key("a", "a"));
        assert_eq!(cache.weight.load(Ordering::Relaxed), PAGE_WEIGHT);
    }

    #[test]
    fn a_full_cache_of_runs_takes_its_ten_megabytes() {
        assert!(size_of::<WorkflowRun>() * RUN_ROWS <= 10_000_000, "{} bytes a run", size_of::<WorkflowRun>());
    }

    #[test]
    fn a_page_in_use_survives_its_eviction() {
        let cache = EtagCache::new(1);
        put(&cache, "a", 3);
        assert!(cache.get(&key("a", "a")).is_none(), "heavier than the whole cache");
        let roomy = EtagCache::new(100);
        put(&roomy, "a", 3);
        let held = roomy.get(&key("a", "a")).unwrap();
        roomy.remove(&key("a", "a"));
        assert_eq!((held.page.rows.len(), held.etag.as_bytes()), (3, &b"W/\"1\""[..]));
    }
}
