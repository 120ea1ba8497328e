//! Lists of repositories, and what GitHub says of a single one.

use super::GithubError;
use super::call::{Call, Operation};
use super::pages::List;
use super::reader::{GithubReader, Paging};
use crate::budget::Purpose;
use crate::ids::RepoName;
use crate::state::{Reading, RepoFacts};

/// 10,000 repositories of one owner.
const REPO_PAGES_MAX: u32 = 100;

impl GithubReader {
    /// Lists the repositories that the installation of a GitHub App was given.
    pub async fn list_installation_repos(&self) -> Reading<Vec<RepoFacts>> {
        let subject = format!("the GitHub App ({})", self.credential());
        let call = Call::new(Operation::ListInstallationRepos, subject);
        self.list_repos(call, "/installation/repositories?per_page=100".to_owned()).await
    }

    /// Lists the repositories of an organization, as far as the token may see them. A user's cannot be listed.
    pub async fn list_org_repos(&self, owner: &str) -> Reading<Vec<RepoFacts>> {
        let call = Call::new(Operation::ListOrgRepos, owner.to_owned());
        self.list_repos(call, format!("/orgs/{owner}/repos?type=all&per_page=100")).await
    }

    async fn list_repos(&self, call: Call, path: String) -> Reading<Vec<RepoFacts>> {
        let list = List { call, purpose: Purpose::Other, path, max_pages: REPO_PAGES_MAX };
        match self.client.read_list(&list, |_: &[RepoFacts]| Paging::Continue).await {
            Ok(listed) => listed.or_cut(&list).into_reading(|listed| listed.rows),
            Err(error) => Reading::Unknown(error.into()),
        }
    }

    /// Reads what GitHub says of a repository.
    ///
    /// # Errors
    /// [`GithubError`]; of class `NotFound` where there is none of that name, or it is hidden, and of class `Policy`
    /// where it has moved.
    pub async fn repo(&self, repo: &RepoName) -> Result<RepoFacts, GithubError> {
        let call = Call::new(Operation::GetRepo, repo.to_string());
        self.client.read_one(&call, Purpose::Other, &format!("/repos/{repo}")).await
    }
}
