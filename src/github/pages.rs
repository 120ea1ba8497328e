//! Lists: page after page by number, and single things, each asked for conditionally.
//!
//! The `next` link of an answer only tells that there is a page; its address is never used, as a
//! credential would have to follow it.

use std::collections::HashSet;
use std::sync::Arc;

use http::header::LINK;
use http::{HeaderMap, StatusCode};

use super::call::Call;
use super::client::{Client, Request};
use super::error::Malformed;
use super::etag::{Page, PageKey};
use super::reader::Paging;
use super::token::Token;
use super::wire::{self, Row};
use super::{Answer, GithubError};
use crate::budget::Purpose;
use crate::error::{CallFailure, ErrorClass};
use crate::mutant::{self, Mutant};
use crate::state::Reading;

/// A list to be read.
pub(super) struct List {
    pub(super) call: Call,
    pub(super) purpose: Purpose,
    /// The relative path with its query, which the page number is appended to.
    pub(super) path: String,
    /// The most pages that are read.
    pub(super) max_pages: u32,
}

/// What was read of a list.
#[expect(clippy::struct_excessive_bools, reason = "two facts that have nothing to do with each other")]
pub(super) struct Listed<T> {
    pub(super) rows: Vec<T>,
    /// Whether the last page was among those read.
    pub(super) reaches_end: bool,
    /// Whether GitHub said of every page that it is as it was.
    pub(super) is_unchanged: bool,
    /// Why some of the rows on the pages asked for are missing.
    pub(super) missing: Option<CallFailure>,
}

impl<T> Listed<T> {
    /// As a reading, of which `take` makes what is given to the caller.
    pub(super) fn into_reading<U>(mut self, take: impl FnOnce(Self) -> U) -> Reading<U> {
        match self.missing.take().filter(|_| !mutant::is(Mutant::PartialIsFull)) {
            None => Reading::Known(take(self)),
            Some(missing) => Reading::Partial { seen: take(self), missing },
        }
    }

    /// Makes a list that was to be read to its end say so where it was not.
    pub(super) fn or_cut(mut self, list: &List) -> Self {
        if !self.reaches_end && self.missing.is_none() {
            let message = format!("cannot {}: the list goes on after {} pages", list.call, list.max_pages);
            self.missing = Some(CallFailure { class: ErrorClass::Invalid, message, retry_after: None });
        }
        self
    }
}

impl Client {
    /// Reads pages until the last, until `stop` has seen enough, or up to the list's cap, but at least one.
    ///
    /// # Errors
    /// Where not even the first page could be read; what fails later is told in the result.
    pub(super) async fn read_list<T: Row>(
        &self,
        list: &List,
        mut stop: impl FnMut(&[T]) -> Paging + Send,
    ) -> Result<Listed<T>, GithubError> {
        let mut listed = Listed { rows: Vec::new(), reaches_end: false, is_unchanged: true, missing: None };
        let mut seen = HashSet::new();
        let mut unreadable = 0;
        for number in 1..=list.max_pages.max(1) {
            let (page, is_unchanged) = match self.read_page::<T>(list, number).await {
                Ok(page) => page,
                Err(error) if number == 1 => return Err(error),
                Err(error) => {
                    listed.missing = Some(error.into());
                    return Ok(listed);
                }
            };
            listed.is_unchanged &= is_unchanged;
            unreadable += page.unreadable;
            // A row that arrives between two pages pushes another one onto both.
            listed.rows.extend(page.rows.iter().filter(|row| seen.insert(row.id())).cloned());
            if page.rows.is_empty() && page.unreadable == 0 && page.has_next {
                // No end: GitHub itself names a page after it, so rows are missing (design rule B).
                listed.missing = Some(empty_page(&list.call, number));
                return Ok(listed);
            }
            listed.reaches_end = !page.has_next || mutant::is(Mutant::FirstPageOnly);
            if listed.reaches_end || matches!(stop(&page.rows), Paging::Stop) {
                break;
            }
        }
        if unreadable > 0 {
            listed.missing = Some(unreadable_rows(&list.call, unreadable));
        }
        Ok(listed)
    }

    /// Reads one page, and tells whether it is as it was.
    async fn read_page<T: Row>(&self, list: &List, number: u32) -> Result<(Page<T>, bool), GithubError> {
        let path = format!("{}&page={number}", list.path);
        let mut token = self.token(&list.call, list.purpose, Some(&path)).await?;
        let key = |token: &Token| PageKey::new(token.identity, &path);
        let cache = T::cache(&self.caches);
        let cached = cache.get(&key(&token));
        let known = cached.as_ref().map(|cached| &cached.etag);
        let request = Request::Get { path: &path, known };
        let answer = self.send_with(&mut token, &list.call, list.purpose, request).await?;
        if answer.status == StatusCode::NOT_MODIFIED {
            let cached = cached.ok_or_else(|| unreadable(&list.call, &answer, Malformed::NotModified))?;
            let mut page = cached.page.clone();
            // A 304 repeats the links only sometimes.
            page.has_next = names_next(&answer.headers).unwrap_or(page.has_next);
            return Ok((page, true));
        }
        let (rows, unreadable_rows) = wire::read_list(&answer.body, &list.call.subject)
            .map_err(|malformed| unreadable(&list.call, &answer, malformed))?;
        let has_next = names_next(&answer.headers).unwrap_or(false);
        let mut page = Page { rows, unreadable: unreadable_rows, has_next };
        if let Some(cached) = cached.filter(|_| mutant::is(Mutant::OldRowsKept)) {
            page.rows.clone_from(&cached.page.rows);
        }
        match answer.etag() {
            Some(etag) => cache.put(key(&token), etag.clone(), page.clone()),
            None => cache.remove(&key(&token)),
        }
        Ok((page, false))
    }

    /// Reads one thing by its own path, conditionally; it is kept like a page with a single row.
    ///
    /// # Errors
    /// [`GithubError`], of class [`ErrorClass::NotFound`] where there is no such thing.
    pub(super) async fn read_one<T: Row>(&self, call: &Call, purpose: Purpose, path: &str) -> Result<T, GithubError> {
        let mut token = self.token(call, purpose, Some(path)).await?;
        let cache = T::cache(&self.caches);
        let cached = cache.get(&PageKey::new(token.identity, path));
        let known = cached.as_ref().map(|cached| &cached.etag);
        let answer = self.send_with(&mut token, call, purpose, Request::Get { path, known }).await?;
        if answer.status == StatusCode::NOT_MODIFIED {
            let row = cached.as_ref().and_then(|cached| cached.page.rows.first());
            return row.cloned().ok_or_else(|| unreadable(call, &answer, Malformed::NotModified));
        }
        let text = std::str::from_utf8(&answer.body).unwrap_or_default();
        let row = T::read(text).map_err(|error| unreadable(call, &answer, Malformed::json("the answer", &error)))?;
        let key = PageKey::new(token.identity, path);
        match answer.etag() {
            Some(etag) => {
                let page = Page { rows: Arc::from([row.clone()]), unreadable: 0, has_next: false };
                cache.put(key, etag.clone(), page);
            }
            None => cache.remove(&key),
        }
        Ok(row)
    }
}

/// An answer that is not what GitHub's description promises.
pub(super) fn unreadable(call: &Call, answer: &Answer, source: Malformed) -> GithubError {
    GithubError::Unreadable { call: call.clone(), request_id: answer.request_id(), source }
}

fn empty_page(call: &Call, number: u32) -> CallFailure {
    let message = format!("cannot {call} in full: page {number} is empty, and is not the last");
    CallFailure { class: ErrorClass::Unreadable, message, retry_after: None }
}

fn unreadable_rows(call: &Call, count: usize) -> CallFailure {
    let message = format!("cannot {call} in full: {count} rows cannot be read");
    CallFailure { class: ErrorClass::Unreadable, message, retry_after: None }
}

/// Whether the `Link` header names a next page; none where there is no such header.
pub fn names_next(headers: &HeaderMap) -> Option<bool> {
    let links = headers.get(LINK)?.to_str().ok()?;
    let is_next = |link: &str| link.split(';').skip(1).any(|parameter| parameter.trim() == "rel=\"next\"");
    Some(links.split(',').any(is_next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_link_to_the_next_page_counts() {
        let next = |link: &'static str| names_next(&HeaderMap::from_iter([(LINK, link.parse().unwrap())]));
        let first = r#"<https://api.github.com/x?page=2>; rel="next", <https://api.github.com/x?page=9>; rel="last""#;
        let last = r#"<https://api.github.com/x?page=1>; rel="prev", <https://api.github.com/x?page=1>; rel="first""#;
        assert_eq!((next(first), next(last)), (Some(true), Some(false)));
        assert_eq!(next(r#"<https://evil.example/?rel="next">; rel="last""#), Some(false));
        assert_eq!(names_next(&HeaderMap::new()), None);
    }
}
