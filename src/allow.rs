//! Which repositories an account serves (pure): some by their names, others by patterns.
//!
//! An empty list serves nothing, and whoever means everything has to say so.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::Arc;

use crate::class::LabelPattern;
use crate::ids::{InvalidId, RepoName};

/// Repositories by a pattern: `owner/*`, `owner/prefix-*`, or `*` for every owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoPattern {
    /// None for every owner.
    owner: Option<Arc<str>>,
    name: LabelPattern,
    text: Box<str>,
}

impl RepoPattern {
    /// Whether it means that repository.
    pub fn matches(&self, repo: &RepoName) -> bool {
        self.owner.as_deref().is_none_or(|owner| owner == repo.owner()) && self.name.matches(repo.name())
    }

    /// The owner that it names; none where it means every owner.
    pub fn owner(&self) -> Option<&Arc<str>> {
        self.owner.as_ref()
    }
}

impl std::fmt::Display for RepoPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for RepoPattern {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId { value: text.to_owned(), expected: "a pattern: owner/*, owner/prefix-*, or *" };
        let folded = text.to_ascii_lowercase();
        let (owner, name) = if folded == "*" { ("*", "*") } else { folded.split_once('/').ok_or_else(invalid)? };
        // With a letter in place of each star it has to be a name.
        let stand_in = |part: &str| part.replace('*', "x");
        let example: Result<RepoName, _> = format!("{}/{}", stand_in(owner), stand_in(name)).parse();
        if example.is_err() || (owner.contains('*') && owner != "*") {
            return Err(invalid());
        }
        let owner = (owner != "*").then(|| owner.into());
        Ok(Self { owner, name: LabelPattern::new(name), text: text.into() })
    }
}

/// The patterns of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepoPatterns {
    /// What is served.
    pub served: Vec<RepoPattern>,
    /// What is not, though a pattern means it.
    pub excluded: Vec<RepoPattern>,
}

impl RepoPatterns {
    /// Whether a repository is served by a pattern.
    pub fn admit(&self, repo: &RepoName) -> bool {
        let is_any = |patterns: &[RepoPattern]| patterns.iter().any(|pattern| pattern.matches(repo));
        is_any(&self.served) && !is_any(&self.excluded)
    }

    /// The owners whose repositories have to be listed.
    pub fn owners(&self) -> BTreeSet<&Arc<str>> {
        self.served.iter().filter_map(RepoPattern::owner).collect()
    }

    /// The patterns for an owner's repositories as `owner/prefix-*`, with `!` before those for what is not served.
    pub fn of_owner<'a>(&'a self, owner: &'a str) -> impl Iterator<Item = String> + 'a {
        let is_of = move |pattern: &&RepoPattern| pattern.owner.as_deref().is_none_or(|named| named == owner);
        let entry = move |pattern: &RepoPattern| format!("{owner}/{}", pattern.name);
        let served = self.served.iter().filter(is_of).map(entry);
        served.chain(self.excluded.iter().filter(is_of).map(move |pattern| format!("!{}", entry(pattern))))
    }

    /// Whether every repository of an owner is served, also one that nobody has made yet.
    pub fn admit_all_of(&self, owner: &str) -> bool {
        let is_of = |pattern: &&RepoPattern| pattern.owner.as_deref().is_none_or(|named| named == owner);
        self.served.iter().filter(is_of).any(|pattern| pattern.name.is_any())
            && !self.excluded.iter().any(|pattern| is_of(&pattern))
    }

    /// Whether the repositories of every owner that can be seen have to be listed.
    pub fn is_for_all_owners(&self) -> bool {
        self.served.iter().any(|pattern| pattern.owner.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(entries: &[&str]) -> RepoPatterns {
        let (excluded, served): (Vec<&str>, Vec<&str>) = entries.iter().partition(|entry| entry.starts_with('!'));
        let read = |entries: Vec<&str>| {
            entries.into_iter().map(|entry| entry.trim_start_matches('!').parse().unwrap()).collect()
        };
        RepoPatterns { served: read(served), excluded: read(excluded) }
    }

    fn admits(entries: &[&str], repo: &str) -> bool {
        patterns(entries).admit(&repo.parse().unwrap())
    }

    #[test]
    fn a_pattern_means_what_it_says_whatever_the_case() {
        assert!(admits(&["Acme/*"], "acme/web") && admits(&["acme/web-*"], "acme/Web-app"));
        assert!(admits(&["acme/*-ci"], "acme/web-ci") && admits(&["acme/a*z"], "acme/az"));
        assert!(!admits(&["acme/*"], "acmex/web") && !admits(&["acme/web-*"], "acme/website"));
        assert!(admits(&["*"], "any/thing") && admits(&["*/*"], "any/thing") && admits(&["*/web"], "any/web"));
        assert!(!admits(&[], "acme/web"), "nothing is not everything");
    }

    #[test]
    fn an_exclusion_wins() {
        let entries = ["acme/*", "!acme/secret", "!acme/old-*", "!*/private"];
        let kept = ["acme/web", "acme/secret", "acme/old-web", "acme/private", "acme/secrets"];
        assert_eq!(kept.map(|repo| admits(&entries, repo)), [true, false, false, false, true]);
    }

    #[test]
    fn all_of_an_owner_are_served_only_where_nothing_is_left_out() {
        let all = |entries: &[&str]| patterns(entries).admit_all_of("acme");
        assert!(all(&["acme/*"]) && all(&["*"]) && all(&["acme/*", "!other/x"]));
        assert!(!all(&["acme/a*"]) && !all(&["acme/*", "!acme/x"]) && !all(&["*", "!*/x"]) && !all(&["other/*"]));
    }

    #[test]
    fn the_patterns_of_an_owner_name_it_and_mean_the_same_for_it() {
        let of = |entries: &[&str]| patterns(entries).of_owner("acme").collect::<Vec<_>>();
        assert_eq!(of(&["acme/web-*", "beta/*", "!acme/web-old", "!beta/x"]), ["acme/web-*", "!acme/web-old"]);
        assert_eq!(of(&["*", "!*/private"]), ["acme/*", "!acme/private"]);
        assert_eq!(of(&["beta/*"]), [""; 0]);
    }

    #[test]
    fn odd_patterns_are_refused() {
        for odd in ["", "acme", "/", "acme/", "/*", "ac*/web", "acme/*/x", "acme/we b*", "**", "a.b/*", "!acme/*"] {
            assert!(odd.parse::<RepoPattern>().is_err(), "{odd} must be refused");
        }
    }

    #[test]
    fn the_owners_to_list_are_those_that_are_named() {
        let some = patterns(&["acme/*", "Acme/web-*", "beta/x*", "!gamma/*"]);
        assert_eq!(some.owners().into_iter().map(|owner| &**owner).collect::<Vec<_>>(), ["acme", "beta"]);
        assert!(!some.is_for_all_owners() && patterns(&["*/web"]).is_for_all_owners());
    }
}
