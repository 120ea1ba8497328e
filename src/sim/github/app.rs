//! What a GitHub App asks for, and lists of repositories.

use serde_json::{Value, json};

use super::answer::Answer;
use super::body;
use super::{Asked, Route};
use crate::sim::app::{APP_CLIENT_ID, APP_ID, Access, Grants, Installation, NOT_DECODED, Permission, Who};
use crate::sim::fault::Strike;
use crate::sim::jobs::{Repo, RepoKey, Time};
use crate::sim::scenario::Visibility;
use crate::sim::world::State;

/// The App's name in addresses.
const APP_SLUG: &str = "sandrunner-simulated";

impl State {
    /// Refuses who may not ask this.
    pub(super) fn refuses(&self, asked: &Asked) -> Option<Answer> {
        let is_of_app = matches!(asked.route, Route::App | Route::Installations | Route::InstallationToken(_));
        match asked.who {
            Who::Nobody(why) => Some(Answer::error(401, why)),
            Who::App if is_of_app => None,
            Who::App => Some(Answer::error(401, NOT_DECODED)),
            Who::Person | Who::Installation(_) if is_of_app => Some(Answer::error(401, NOT_DECODED)),
            Who::Person => None,
            Who::Installation(id) => self
                .installation(id)
                .is_some_and(|installation| installation.suspended_at.is_some())
                .then(|| Answer::error(403, "This installation has been suspended")),
        }
    }

    /// Whether the repository, or organization, is hidden from who asks.
    pub(super) fn is_hidden(&self, repo: RepoKey, asked: &Asked) -> bool {
        match asked.who {
            Who::Installation(id) => !self.is_given(id, repo),
            Who::Nobody(_) | Who::App | Who::Person => false,
        }
    }

    /// Refuses an installation that was not granted what the call needs, or a personal token that may not do it. Runs of
    /// public repositories are everybody's.
    pub(super) fn lacks_permission(&self, repo: RepoKey, asked: &Asked) -> Option<Answer> {
        let need = asked.route.needs()?;
        let is_open = need.permission == Permission::Actions
            && need.access == Access::Read
            && self.repo(repo).about.visibility == Visibility::Public;
        let (is_granted, whose) = match asked.who {
            Who::Installation(id) => {
                let installation = self.installation(id);
                (installation.is_some_and(|installation| need.is_met_by(&installation.grants)), "integration")
            }
            Who::Person => {
                let grants = self.profile.personal_token_permissions.as_ref();
                (grants.is_none_or(|grants| need.is_met_by(grants)), "personal access token")
            }
            Who::App | Who::Nobody(_) => return None,
        };
        (!is_open && !is_granted).then(|| Answer::error(403, &format!("Resource not accessible by {whose}")))
    }

    /// The App as it is shown to itself: it asks for what it needs at both levels.
    pub(super) fn app_answer(&self) -> Answer {
        let created_at = body::stamp(self.start);
        let body = json!({
            "id": APP_ID.parse::<u64>().unwrap_or_default(),
            "slug": APP_SLUG,
            "node_id": "A_simulated",
            "client_id": APP_CLIENT_ID,
            "owner": body::user_body("acme"),
            "name": "Sandrunner simulated",
            "description": null,
            "external_url": "https://example.com",
            "html_url": format!("https://github.com/apps/{APP_SLUG}"),
            "created_at": created_at,
            "updated_at": created_at,
            "permissions": permissions(&Permission::all_granted()),
            "events": [],
            "installations_count": self.installations().count(),
        });
        Answer::ok(body.to_string().into_bytes())
    }

    pub(super) fn list_installations(&self, asked: &Asked, strike: Option<Strike>) -> Answer {
        let all: Vec<Value> =
            self.installations().map(|(id, installation)| installation_body(id, installation, self.start)).collect();
        let (page, total) = (self.page_of(asked), all.len());
        let link = body::link(page, total, |number| asked.url_of_page(number));
        let shown = page.cut(all, strike, self.seed);
        Answer { link, is_cacheable: false, ..Answer::ok(Value::from(shown).to_string().into_bytes()) }
    }

    pub(super) fn installation_token(&mut self, id: u64) -> Answer {
        match self.installation(id).cloned() {
            None => Answer::not_found(),
            Some(Installation { suspended_at: Some(_), .. }) => {
                Answer::error(403, "This installation has been suspended")
            }
            Some(installation) => {
                let (token, until) = self.issue_token(id);
                let body = json!({
                    "token": token,
                    "expires_at": body::stamp(until),
                    "permissions": permissions(&installation.grants),
                    "repository_selection": selection(&installation),
                });
                Answer { status: 201, is_cacheable: false, ..Answer::ok(body.to_string().into_bytes()) }
            }
        }
    }

    pub(super) fn list_installation_repos(&self, asked: &Asked, strike: Option<Strike>) -> Answer {
        let Who::Installation(id) = asked.who else {
            return Answer::error(
                403,
                "You must authenticate with an installation access token in order to list repositories for an installation.",
            );
        };
        let Some(installation) = self.installation(id) else { return Answer::unauthorized() };
        let (shown, total, link) = self.listed_repos(self.repos_given(id), asked, strike);
        let selection = selection(installation);
        let body = json!({ "total_count": total, "repository_selection": selection, "repositories": shown });
        Answer { link, ..Answer::ok(body.to_string().into_bytes()) }
    }

    pub(super) fn list_org_repos(&self, owner: &str, asked: &Asked, strike: Option<Strike>) -> Answer {
        if self.scenario.users.iter().any(|user| user.eq_ignore_ascii_case(owner)) {
            return Answer::not_found();
        }
        let is_known = self.repos.iter().any(|repo| repo.owner().eq_ignore_ascii_case(owner));
        if !is_known {
            return Answer::not_found();
        }
        let (shown, _, link) = self.listed_repos(self.repos_at(owner, asked), asked, strike);
        Answer { link, ..Answer::ok(Value::from(shown).to_string().into_bytes()) }
    }

    /// The repositories of an owner that whoever asks may see.
    fn repos_at<'a>(&'a self, owner: &'a str, asked: &'a Asked) -> impl Iterator<Item = &'a Repo> {
        let keys = (0..self.repos.len()).map(RepoKey);
        let visible = keys.filter(|key| !self.is_hidden(*key, asked)).map(|key| self.repo(key));
        visible.filter(|repo| repo.owner().eq_ignore_ascii_case(owner))
    }

    /// A page of repositories, how many there are, and the links to other pages.
    fn listed_repos<'a>(
        &self,
        repos: impl Iterator<Item = &'a Repo>,
        asked: &Asked,
        strike: Option<Strike>,
    ) -> (Vec<Value>, usize, Option<String>) {
        let all: Vec<Value> = repos.filter(|repo| is_listed(repo)).map(|repo| self.repo_body(repo)).collect();
        let (page, total) = (self.page_of(asked), all.len());
        let link = body::link(page, total, |number| asked.url_of_page(number));
        (page.cut(all, strike, self.seed), total, link)
    }

    /// Whether a list of installations or of repositories has an entry at present.
    pub(super) fn shows_places(&self, asked: &Asked) -> bool {
        match (&asked.route, asked.who) {
            (Route::Installations, _) => self.installations().next().is_some(),
            (Route::InstallationRepos, Who::Installation(id)) => self.repos_given(id).any(is_listed),
            (Route::OrgRepos(owner), _) => self.repos_at(owner, asked).any(is_listed),
            _ => false,
        }
    }
}

/// An organization stands among the repositories, as a place where runners are registered, and is none.
fn is_listed(repo: &Repo) -> bool {
    !repo.is_deleted && !repo.is_organization()
}

/// What was granted, and what always is.
fn permissions(grants: &Grants) -> Value {
    let mut permissions = json!(grants);
    permissions["metadata"] = "read".into();
    permissions
}

fn selection(installation: &Installation) -> &'static str {
    if installation.repos.is_some() { "selected" } else { "all" }
}

fn installation_body(id: u64, installation: &Installation, created_at: Time) -> Value {
    let Installation { owner, suspended_at, repos: _, grants } = installation;
    let api = "https://api.github.com";
    json!({
        "id": id,
        "client_id": APP_CLIENT_ID,
        "account": body::user_body(owner),
        "access_tokens_url": format!("{api}/app/installations/{id}/access_tokens"),
        "repositories_url": format!("{api}/installation/repositories"),
        "html_url": format!("https://github.com/organizations/{owner}/settings/installations/{id}"),
        "app_id": APP_ID.parse::<u64>().unwrap_or_default(),
        "app_slug": APP_SLUG,
        "target_id": 1_000_000,
        "target_type": "Organization",
        "permissions": permissions(grants),
        "events": [],
        "created_at": body::stamp(created_at),
        "updated_at": body::stamp(created_at),
        "single_file_name": null,
        "repository_selection": selection(installation),
        "suspended_by": suspended_at.map(|_| body::user_body(owner)),
        "suspended_at": suspended_at.map(body::stamp),
    })
}
