//! The reading endpoints.

use std::hash::{Hash, Hasher};

use bytes::Bytes;
use chrono::TimeDelta;
use rustc_hash::FxHasher;
use serde_json::json;

use super::answer::{Answer, etag};
use super::body::{self, JobBody, RunBody};
use super::{Asked, Page, Product, Route};
use crate::sim::draws::Purpose;
use crate::sim::fault::{FaultMode, Strike};
use crate::sim::jobs::{JobView, Repo, RepoKey, Run, RunChange, RunStatus, Time};
use crate::sim::runners::{Connection, RunnerView};
use crate::sim::scenario::ScenarioGroup;
use crate::sim::world::State;

/// The most runs that can be paged through without a filter, and with one.
const MAX_RUNS: usize = 40_000;
const MAX_FILTERED_RUNS: usize = 1_000;

/// What GitHub can filter runs by and is not played.
const OTHER_FILTERS: [&str; 6] = ["actor", "branch", "check_suite_id", "created", "event", "head_sha"];

/// A list without entries.
pub(super) fn empty_list(route: &Route) -> Vec<u8> {
    let key = match route {
        Route::Jobs(..) => "jobs",
        Route::Runners(_) => "runners",
        Route::Groups(_) => "runner_groups",
        Route::GroupRepos(..) | Route::InstallationRepos => "repositories",
        Route::Installations | Route::OrgRepos(_) => return b"[]".to_vec(),
        Route::Runs(_)
        | Route::Run(..)
        | Route::Job(..)
        | Route::Repo(_)
        | Route::ActionsPermissions(_)
        | Route::App
        | Route::Runner(..)
        | Route::DeleteRunner(..)
        | Route::Mint(_)
        | Route::Downloads(_)
        | Route::Deprecation(..)
        | Route::InstallationToken(_)
        | Route::RateLimit
        | Route::Unknown => "workflow_runs",
    };
    body::list::<()>(key, 0, &[])
}

/// A page of a run list that shows the present: while its repository does not change it need not be written again.
#[derive(Debug)]
pub(in crate::sim) struct KeptList {
    changes: u64,
    body: Bytes,
    etag: String,
    link: Option<String>,
}

impl KeptList {
    /// Stands for everything that the page and its ETag depend on.
    fn key(repo: RepoKey, asked: &Asked) -> u64 {
        let mut hash = FxHasher::default();
        (repo.0, &asked.query, &asked.token, &asked.accept, &asked.url).hash(&mut hash);
        hash.finish()
    }
}

impl State {
    pub(super) fn list_runs(&mut self, repo: RepoKey, asked: &Asked, strike: Option<Strike>) -> Answer {
        let page = self.page_of(asked);
        let filter = asked.query.get("status");
        if let Some(other) = OTHER_FILTERS.iter().find(|filter| asked.query.contains_key(**filter)) {
            // To be told is better than a list that only seems to be filtered.
            return Answer::error(422, &format!("the simulated GitHub does not know the filter `{other}`"));
        }
        if filter.is_none() && page.number.saturating_mul(page.size) > MAX_RUNS {
            return Answer::error(
                422,
                "In order to keep the API fast for everyone, pagination is limited for this resource.",
            );
        }
        let max_lag =
            if filter.is_some() { self.profile.filtered_list_lag_secs } else { self.profile.github_list_lag_secs };
        let when = self.list_moment(max_lag, strike);
        let is_plain = filter.is_none() && strike.is_none() && when == self.now;
        let kept = is_plain.then(|| KeptList::key(repo, asked));
        let changes = self.repo(repo).changes;
        if let Some(kept) = kept.and_then(|key| self.kept_lists.get(&key)).filter(|kept| kept.changes == changes) {
            let (etag, link) = (Some(kept.etag.clone()), kept.link.clone());
            return Answer { etag, link, ..Answer::ok(kept.body.clone()) };
        }
        let shown = match filter {
            None => self.runs_at(repo, when),
            Some(filter) => self.filtered_runs(repo, when, filter),
        };
        let entry = self.repo(repo);
        let total = shown.len();
        let bodies: Vec<RunBody<'_>> = page
            .cut(shown, strike, self.seed)
            .into_iter()
            .map(|(run, change)| RunBody::new(run, change, run.created_at().unwrap_or(when), entry))
            .collect();
        let link = body::link(page, total, |number| asked.url_of_page(number));
        let body = Bytes::from(body::list("workflow_runs", total, &bodies));
        if let Some(key) = kept {
            let etag = etag(asked, &body);
            self.kept_lists.insert(key, KeptList { changes, body: body.clone(), etag, link: link.clone() });
        }
        Answer { link, ..Answer::ok(body) }
    }

    /// The runs as of a moment, newest first.
    fn runs_at(&self, repo: RepoKey, when: Time) -> Vec<(&Run, &RunChange)> {
        let runs = self.repo(repo).runs.iter().rev();
        runs.filter_map(|id| self.runs.get(id)).filter_map(|run| run.at(when).map(|change| (run, change))).collect()
    }

    fn filtered_runs(&self, repo: RepoKey, when: Time, filter: &str) -> Vec<(&Run, &RunChange)> {
        let matches = |status: RunStatus| {
            let is_conclusion = matches!(status, RunStatus::Completed(ended) if body::conclusion_name(ended) == filter);
            is_conclusion || body::status_name(status) == filter
        };
        let is_in_index = |run: &Run| {
            let mut draw = self.seed.stream(Purpose::Omission, self.answers ^ run.id.rotate_left(20));
            !draw.chance(self.profile.filtered_list_omits)
        };
        let mut runs = self.runs_at(repo, when);
        runs.retain(|(run, change)| matches(change.status) && is_in_index(run));
        runs.truncate(MAX_FILTERED_RUNS);
        runs
    }

    pub(super) fn get_run(&self, repo: RepoKey, id: u64) -> Answer {
        let found = self.runs.get(&id).filter(|run| run.repo == repo);
        let Some((run, change)) = found.and_then(|run| run.at(self.now).map(|change| (run, change))) else {
            return Answer::not_found();
        };
        let run = RunBody::new(run, change, run.created_at().unwrap_or(self.now), self.repo(repo));
        Answer::ok(to_json(&run))
    }

    pub(super) fn list_jobs(&mut self, repo: RepoKey, id: u64, asked: &Asked, strike: Option<Strike>) -> Answer {
        let when = self.list_moment(self.profile.github_list_lag_secs, strike);
        let Some(run) = self.runs.get(&id).filter(|run| run.repo == repo && run.at(self.now).is_some()) else {
            return Answer::not_found();
        };
        let all = asked.query.get("filter").is_some_and(|filter| filter == "all");
        let attempt = run.at(when).map(|change| change.attempt);
        let is_shown = |view: &JobView<'_>| all || Some(view.job.spec.attempt) == attempt;
        let views: Vec<JobView<'_>> =
            run.jobs.iter().filter_map(|job| self.jobs.get(job)?.at(when)).filter(is_shown).collect();
        let page = self.page_of(asked);
        let entry = self.repo(repo);
        let total = views.len();
        let bodies: Vec<JobBody<'_>> = page
            .cut(views, strike, self.seed)
            .into_iter()
            .map(|view| JobBody::new(view, entry, when, self.profile.step_secs))
            .collect();
        let link = body::link(page, total, |number| asked.url_of_page(number));
        Answer { link, ..Answer::ok(body::list("jobs", total, &bodies)) }
    }

    pub(super) fn get_job(&self, repo: RepoKey, id: u64) -> Answer {
        let found = self.jobs.get(&id).filter(|job| job.repo == repo);
        let Some(view) = found.and_then(|job| job.at(self.now)) else { return Answer::not_found() };
        Answer::ok(to_json(&JobBody::new(view, self.repo(repo), self.now, self.profile.step_secs)))
    }

    pub(super) fn get_repo(&self, repo: RepoKey) -> Answer {
        Answer::ok(to_json(&self.repo_body(self.repo(repo))))
    }

    /// A repository as it is shown by itself and in lists of repositories.
    pub(super) fn repo_body(&self, repo: &Repo) -> serde_json::Value {
        // Any time before the World began will do, as long as it stays the same.
        body::full_repository(repo, self.start - TimeDelta::days(365))
    }

    pub(super) fn list_runners(&mut self, repo: RepoKey, asked: &Asked, strike: Option<Strike>) -> Answer {
        let when = self.list_moment(self.profile.github_list_lag_secs, strike);
        let wanted = asked.query.get("name");
        let views: Vec<RunnerView<'_>> = self
            .repo(repo)
            .runners
            .values()
            .filter(|runner| wanted.is_none_or(|name| *name == runner.name))
            .filter_map(|runner| runner.at(when))
            .collect();
        let page = self.page_of(asked);
        let total = views.len();
        let bodies: Vec<serde_json::Value> = page
            .cut(views, strike, self.seed)
            .into_iter()
            .map(|view| {
                let is_busy = view.is_busy && !self.flips(&view);
                let version = self.version_of(view.runner);
                body::runner_body(seen_wrongly(RunnerView { is_busy, ..view }, strike), version)
            })
            .collect();
        let link = body::link(page, total, |number| asked.url_of_page(number));
        Answer { link, ..Answer::ok(body::list("runners", total, &bodies)) }
    }

    /// The runner groups of an organization.
    pub(super) fn list_groups(&self, organization: RepoKey, asked: &Asked, strike: Option<Strike>) -> Answer {
        let page = self.page_of(asked);
        let place = self.repo(organization);
        let groups: Vec<&ScenarioGroup> = place.groups.iter().collect();
        let total = groups.len();
        let shown = page.cut(groups, strike, self.seed);
        let bodies: Vec<_> = shown.into_iter().map(|group| body::group_body(&place.name, group)).collect();
        let link = body::link(page, total, |number| asked.url_of_page(number));
        Answer { link, ..Answer::ok(body::list("runner_groups", total, &bodies)) }
    }

    /// The repositories that a runner group names.
    pub(super) fn list_group_repos(
        &self,
        organization: RepoKey,
        (id, asked): (u64, &Asked),
        strike: Option<Strike>,
    ) -> Answer {
        let page = self.page_of(asked);
        let Some(repos) = self.repos_in_group(organization, id) else { return Answer::not_found() };
        let total = repos.len();
        let link = body::link(page, total, |number| asked.url_of_page(number));
        Answer { link, ..Answer::ok(body::list("repositories", total, &page.cut(repos, strike, self.seed))) }
    }

    /// None where there is no such group, or it names none.
    fn repos_in_group(&self, organization: RepoKey, id: u64) -> Option<Vec<&serde_json::Value>> {
        let names = self.repo(organization).groups.iter().find(|group| group.id == id)?.repos.as_ref()?;
        let known = names.iter().filter_map(|name| self.repo_by_name.get(name.to_lowercase().as_str()));
        Some(known.map(|key| &self.repo(*key).body).collect())
    }

    /// The page that is asked for, no larger than GitHub's own limit.
    pub(super) fn page_of(&self, asked: &Asked) -> Page {
        let page = asked.page();
        Page { size: page.size.min(usize::try_from(self.profile.github_list_page).unwrap_or(usize::MAX)), ..page }
    }

    /// Whether a list has an entry at present.
    pub(super) fn shows_entries(&self, asked: &Asked) -> bool {
        let Some(repo) = self.repo_of(asked) else { return self.shows_places(asked) };
        match (&asked.route, asked.query.get("status")) {
            (Route::Runs(_), None) => !self.repo(repo).runs.is_empty(),
            (Route::Runs(_), Some(filter)) => !self.filtered_runs(repo, self.now, filter).is_empty(),
            (Route::Jobs(_, run), _) => self.runs.get(run).is_some_and(|run| run.at(self.now).is_some()),
            (Route::Runners(_), _) => self.repo(repo).runners.values().any(|runner| runner.at(self.now).is_some()),
            (Route::Groups(_), _) => !self.repo(repo).groups.is_empty(),
            (Route::GroupRepos(_, id), _) => self.repos_in_group(repo, *id).is_some_and(|repos| !repos.is_empty()),
            _ => false,
        }
    }

    fn flips(&self, view: &RunnerView<'_>) -> bool {
        let mut draw = self.seed.stream(Purpose::Omission, self.answers ^ view.runner.id.rotate_left(40));
        draw.chance(self.profile.busy_flip_chance)
    }

    pub(super) fn get_runner(&self, repo: RepoKey, id: u64) -> Answer {
        match self.repo(repo).runners.get(&id).filter(|runner| runner.is_registered()) {
            Some(runner) => Answer::ok(to_json(&body::runner_body(runner.view(self.now), self.version_of(runner)))),
            None => Answer::not_found(),
        }
    }

    pub(super) fn downloads_answer(&mut self, asked: &Asked) -> Answer {
        let token = (asked.product == Product::Server).then(|| self.issue_download_token());
        let host = asked.url.split('/').nth(2).unwrap_or_default();
        let server = token.as_deref().map(|token| (host, token));
        Answer::ok(to_json(&body::downloads(self.offered_release(), server)))
    }

    /// Until when a version is taken; both dates are the same here.
    pub(super) fn deprecation_answer(&self, version: &str) -> Answer {
        let at = self.refused_from(version).map(body::stamp);
        let body = json!({ "runner_version": version, "registration_deprecates_at": at, "runtime_deprecates_at": at });
        Answer::ok(to_json(&body))
    }

    pub(super) fn rate_limit(&mut self, token: &str) -> Answer {
        let now = self.now;
        let Some(limiter) = self.tokens.get_mut(token) else { return Answer::unauthorized() };
        let quota = limiter.quota(now, &self.profile);
        let of = |limit: u32, used: u32| {
            json!({
                "limit": limit,
                "used": used,
                "remaining": limit.saturating_sub(used),
                "reset": quota.reset.timestamp(),
            })
        };
        let core = of(quota.limit, quota.used);
        let body = json!({
            "resources": {
                "core": core,
                "search": of(30, 0),
                "graphql": of(5_000, 0),
                "actions_runner_registration": of(10_000, 0),
            },
            "rate": core,
        });
        Answer { is_cacheable: false, ..Answer::ok(to_json(&body)) }
    }
}

/// A runner as a fault shows it.
fn seen_wrongly(view: RunnerView<'_>, strike: Option<Strike>) -> RunnerView<'_> {
    match strike.map(|strike| strike.mode) {
        Some(FaultMode::BusyHidden) => RunnerView { is_busy: false, ..view },
        Some(FaultMode::OnlineHidden) if view.is_online() => RunnerView { connection: Connection::Gone, ..view },
        Some(_) | None => view,
    }
}

fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("answers hold nothing that JSON cannot")
}
