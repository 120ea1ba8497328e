//! What a GitHub App asks for, and lists of repositories.

use serde_json::{Value, json};

use super::answer::Answer;
use super::body;
use super::{Asked, Route};
use crate::sim::app::{APP_CLIENT_ID, APP_ID, Installation, Who};
use crate::sim::jobs::Repo;
use crate::sim::world::State;

impl State {
    /// Refuses who may not ask this.
    pub(super) fn refuses(&self, asked: &Asked) -> Option<Answer> {
        let is_of_app = matches!(asked.route, Route::Installations | Route::InstallationToken(_));
        match asked.who {
            Who::Nobody => Some(Answer::unauthorized()),
            Who::App if is_of_app => None,
            Who::App => Some(Answer::error(401, "A JSON web token could not be decoded")),
            Who::Person | Who::Installation(_) if is_of_app => {
                Some(Answer::error(401, "A JSON web token could not be decoded"))
            }
            Who::Person => None,
            Who::Installation(id) => self
                .installation(id)
                .is_some_and(|installation| installation.suspended_at.is_some())
                .then(|| Answer::error(403, "This installation has been suspended")),
        }
    }

    /// Whether the repository is hidden from who asks.
    pub(super) fn is_hidden(&self, repo: &Repo, asked: &Asked) -> bool {
        match asked.who {
            Who::Installation(id) => {
                !self.installation(id).is_some_and(|installation| is_at(repo, &installation.owner))
            }
            Who::Nobody | Who::App | Who::Person => false,
        }
    }

    pub(super) fn list_installations(&self, asked: &Asked) -> Answer {
        let all: Vec<Value> =
            self.installations().map(|(id, installation)| installation_body(id, installation, self.start)).collect();
        let (page, total) = (asked.page(), all.len());
        let link = body::link(page, total, |number| asked.url_of_page(number));
        let shown = page.cut(all, None, self.seed);
        Answer { link, is_cacheable: false, ..Answer::ok(Value::from(shown).to_string().into_bytes()) }
    }

    pub(super) fn installation_token(&mut self, id: u64) -> Answer {
        match self.installation(id) {
            None => Answer::not_found(),
            Some(installation) if installation.suspended_at.is_some() => {
                Answer::error(403, "This installation has been suspended")
            }
            Some(_) => {
                let (token, until) = self.issue_token(id);
                let body = json!({
                    "token": token,
                    "expires_at": body::stamp(until),
                    "permissions": permissions(),
                    "repository_selection": "all",
                });
                Answer { status: 201, is_cacheable: false, ..Answer::ok(body.to_string().into_bytes()) }
            }
        }
    }

    pub(super) fn list_installation_repos(&self, asked: &Asked) -> Answer {
        let Who::Installation(id) = asked.who else {
            return Answer::error(
                403,
                "You must authenticate with an installation access token in order to list repositories for an installation.",
            );
        };
        let owner = self.installation(id).map(|installation| installation.owner.clone()).unwrap_or_default();
        let (shown, total, link) = self.repos_of(&owner, asked);
        let body = json!({ "total_count": total, "repository_selection": "all", "repositories": shown });
        Answer { link, ..Answer::ok(body.to_string().into_bytes()) }
    }

    pub(super) fn list_org_repos(&self, owner: &str, asked: &Asked) -> Answer {
        if self.scenario.users.iter().any(|user| user.eq_ignore_ascii_case(owner)) {
            return Answer::not_found();
        }
        let (shown, total, link) = self.repos_of(owner, asked);
        if total == 0 {
            return Answer::not_found();
        }
        Answer { link, ..Answer::ok(Value::from(shown).to_string().into_bytes()) }
    }

    /// A page of an owner's repositories, how many there are, and the links to other pages.
    fn repos_of(&self, owner: &str, asked: &Asked) -> (Vec<Value>, usize, Option<String>) {
        let at_owner = self.repos.iter().filter(|repo| is_at(repo, owner) && !repo.is_deleted);
        let all: Vec<Value> = at_owner.map(|repo| self.repo_body(repo)).collect();
        let (page, total) = (asked.page(), all.len());
        let link = body::link(page, total, |number| asked.url_of_page(number));
        (page.cut(all, None, self.seed), total, link)
    }
}

fn is_at(repo: &Repo, owner: &str) -> bool {
    repo.full_name.split('/').next().is_some_and(|at| at.eq_ignore_ascii_case(owner))
}

fn permissions() -> Value {
    json!({ "actions": "read", "administration": "write", "metadata": "read" })
}

fn installation_body(id: u64, installation: &Installation, created_at: crate::sim::jobs::Time) -> Value {
    let Installation { owner, suspended_at } = installation;
    let api = "https://api.github.com";
    json!({
        "id": id,
        "client_id": APP_CLIENT_ID,
        "account": body::user_body(owner),
        "access_tokens_url": format!("{api}/app/installations/{id}/access_tokens"),
        "repositories_url": format!("{api}/installation/repositories"),
        "html_url": format!("https://github.com/organizations/{owner}/settings/installations/{id}"),
        "app_id": APP_ID.parse::<u64>().unwrap_or_default(),
        "app_slug": "sandrunner-simulated",
        "target_id": 1_000_000,
        "target_type": "Organization",
        "permissions": permissions(),
        "events": [],
        "created_at": body::stamp(created_at),
        "updated_at": body::stamp(created_at),
        "single_file_name": null,
        "repository_selection": "all",
        "suspended_by": suspended_at.map(|_| body::user_body(owner)),
        "suspended_at": suspended_at.map(body::stamp),
    })
}
