//! The manifest of a GitHub App that may do what is needed and nothing else (GitHub docs: registering a GitHub App from a
//! manifest, and using URL parameters).

use serde_json::{Value, json};

use super::answers::GithubFlags;
use crate::config::api_of;
use crate::ids::OrgName;

/// Where GitHub sends the browser after the App was made. Nobody has to listen there: the code stands in the address.
const REDIRECT: &str = "http://localhost:9464/";

/// What the App has to be granted, by GitHub's names.
fn permissions(github: &GithubFlags) -> [(&'static str, &'static str); 3] {
    // Runners of an organization need nobody who administers repositories.
    let runners = if github.runner_group.is_some() { "organization_self_hosted_runners" } else { "administration" };
    [("actions", "read"), (runners, "write"), ("metadata", "read")]
}

/// The manifest, a JSON object.
pub(super) fn text(github: &GithubFlags) -> String {
    let permissions: serde_json::Map<String, Value> =
        permissions(github).into_iter().map(|(name, access)| (name.to_owned(), access.into())).collect();
    let manifest = json!({
        "url": homepage(github),
        "hook_attributes": { "url": homepage(github), "active": false },
        "redirect_url": REDIRECT,
        "public": false,
        "default_permissions": permissions,
        "default_events": [],
    });
    format!("{manifest:#}")
}

/// What to do with it.
pub(super) fn explanation(github: &GithubFlags) -> String {
    let (page, api) = (page(github), api_of(host(github)));
    let filled: Vec<String> = permissions(github).iter().map(|(name, access)| format!("{name}={access}")).collect();
    let filled = filled.join("&");
    format!(
        "
The page of a new GitHub App with all of this filled in is here; choose a name, create it, and have it generate a private
key, which is downloaded:

  {page}?url={homepage}&public=false&webhook_active=false&{filled}

GitHub takes the manifest itself only from a form. Save this as app.html, open it, paste the manifest and submit it:

  <form action=\"{page}\" method=\"post\"><textarea name=\"manifest\"></textarea><button>Go on</button></form>

GitHub leads you to {REDIRECT}?code=CODE, where nobody need be. Within an hour this gets the App's `id` and its private
key, `pem`:

  curl -X POST {api}/app-manifests/CODE/conversions

Either way install the App then, for the repositories to be served, and run `sandrunner init --app-id ID --app-key-file \
         FILE`.",
        homepage = homepage(github),
    )
}

fn host(github: &GithubFlags) -> &str {
    github.host.as_deref().unwrap_or("github.com")
}

/// An App has to have one; its owner's page will do.
fn homepage(github: &GithubFlags) -> String {
    let owner = github.organization.as_ref().map(OrgName::as_str).unwrap_or_default();
    format!("https://{}/{owner}", host(github))
}

fn page(github: &GithubFlags) -> String {
    match &github.organization {
        Some(organization) => format!("https://{}/organizations/{organization}/settings/apps/new", host(github)),
        None => format!("https://{}/settings/apps/new", host(github)),
    }
}
