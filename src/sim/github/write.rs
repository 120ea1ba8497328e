//! The writing endpoints: generate a JIT config, delete a runner.

use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::body::Actions;
use super::route::Route;
use super::{Asked, body};
use crate::sim::fault::{FaultMode, Strike};
use crate::sim::jobs::RepoKey;
use crate::sim::runners::{Deletion, MintRefusal, MintRequest, RunnerKey};
use crate::sim::world::State;

/// The one runner group that a repository has.
const DEFAULT_GROUP: u64 = 1;

/// Why a request to mint is not carried out.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    Invalid(String),
    UnknownGroup,
}

impl State {
    pub(super) fn mint_answer(&mut self, repo: RepoKey, asked: &Asked, strike: Option<Strike>) -> Answer {
        let about = &self.repo(repo).about;
        if about.archived {
            return Answer::error(403, "Repository was archived so is read-only.");
        }
        if about.disabled {
            return Answer::error(403, "This repository has been disabled.");
        }
        let request = match parse(&asked.body) {
            Ok(request) => request,
            Err(Refusal::UnknownGroup) => return Answer::not_found(),
            Err(Refusal::Invalid(problem)) => return invalid(&problem),
        };
        let groups = &self.repo(repo).groups;
        let is_known = groups.iter().any(|group| group.id == request.group);
        if !(is_known || groups.is_empty() && request.group == DEFAULT_GROUP) {
            return Answer::not_found();
        }
        match self.mint(repo, &request, asked.product) {
            Ok((id, config)) => {
                let key = RunnerKey { repo, id };
                if let Some(strike) = strike {
                    self.spoil_registration(key, strike);
                }
                let runner = self.runner(key).expect("it was just registered");
                let runner = body::runner_body(runner.view(self.now), self.version_of(runner));
                let is_corrupt = strike.is_some_and(|strike| strike.mode == FaultMode::ConfigCorrupt);
                let config = if is_corrupt { format!("{}-", &config[..config.len() / 2]) } else { config };
                let body = json!({ "runner": runner, "encoded_jit_config": config });
                Answer { status: 201, is_cacheable: false, ..Answer::ok(body.to_string().into_bytes()) }
            }
            Err(MintRefusal::NameTaken) => name_taken(&request.name),
        }
    }

    pub(super) fn delete_runner_answer(&mut self, repo: RepoKey, id: u64, strike: Option<Strike>) -> Answer {
        let key = RunnerKey { repo, id };
        if let Some(strike) = strike.filter(|strike| strike.mode == FaultMode::DeletedWhileBusy) {
            self.delete_working_runner(key);
            let is_found = strike.status != Some(404);
            return if is_found { Answer { status: 204, ..Answer::default() } } else { Answer::not_found() };
        }
        match self.delete_runner(key) {
            Deletion::Deleted => Answer { status: 204, ..Answer::default() },
            Deletion::NotFound => Answer::not_found(),
            Deletion::Busy(name) => still_busy(&name),
        }
    }
}

fn name_taken(name: &str) -> Answer {
    Answer::error(409, &format!("Already exists - A runner with the name {name} already exists."))
}

fn still_busy(name: &str) -> Answer {
    Answer::error(422, &format!("Bad request - Runner \"{name}\" is still running a job\""))
}

/// A refusal that has no reason in the World, in GitHub's words.
pub(super) fn refused(asked: &Asked, status: Option<u16>) -> Answer {
    let status = status.unwrap_or(if asked.is_write() { 422 } else { 403 });
    match (status, &asked.route) {
        (401, _) => Answer::unauthorized(),
        (404, _) => Answer::not_found(),
        (409, Route::Mint(_)) => name_taken(&parse(&asked.body).map(|request| request.name).unwrap_or_default()),
        (422, Route::DeleteRunner(_, id)) => still_busy(&format!("{id}")),
        (422, _) => invalid("Invalid input: simulated fault"),
        (301, _) => Answer::error(301, "Moved Permanently"),
        (403, _) => Answer::error(403, "Resource not accessible by personal access token"),
        (451, _) => Answer::error(451, "Repository access blocked"),
        (status, _) => Answer::error(status, "Simulated fault"),
    }
}

/// The refusal of a repository that must not run anything.
pub(super) fn disabled(asked: &Asked) -> Answer {
    if matches!(asked.route, Route::ActionsPermissions(_)) {
        return Answer::ok(body::actions_permissions(Actions::Disabled));
    }
    let is_about_runners = matches!(
        asked.route,
        Route::Mint(_)
            | Route::DeleteRunner(..)
            | Route::Runners(_)
            | Route::Runner(..)
            | Route::Downloads(_)
            | Route::Deprecation(..)
    );
    Answer::error(
        403,
        if is_about_runners {
            "Repository level self-hosted runners are disabled on this repository."
        } else {
            "GitHub Actions is disabled on this repository."
        },
    )
}

/// The name that a request to mint asks for; empty where it cannot be read.
pub(super) fn name_asked(body: &[u8]) -> String {
    let fields: Option<Map<String, Value>> = serde_json::from_slice(body).ok();
    fields.and_then(|fields| Some(fields.get("name")?.as_str()?.to_owned())).unwrap_or_default()
}

fn invalid(problem: &str) -> Answer {
    let body = json!({
        "message": "Invalid request.",
        "documentation_url": "https://docs.github.com/rest/actions/self-hosted-runners",
        "errors": [problem],
        "status": "422",
    });
    Answer { status: 422, body: body.to_string().into(), ..Answer::default() }
}

fn parse(body: &[u8]) -> Result<MintRequest, Refusal> {
    let invalid = |problem: &str| Refusal::Invalid(problem.to_owned());
    let fields: Map<String, Value> = serde_json::from_slice(body).map_err(|_| invalid("Problems parsing JSON"))?;
    for key in ["name", "runner_group_id", "labels"] {
        if !fields.contains_key(key) {
            return Err(invalid(&format!("Invalid input: object is missing required key: {key}")));
        }
    }
    let name = fields["name"].as_str().ok_or_else(|| invalid("Invalid property /name: not of type string"))?;
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    if name.is_empty() || name.len() > 64 || !name.chars().all(is_allowed) {
        return Err(invalid("Invalid property /name: 1 to 64 letters, digits, `-`, `_`, `.` or `@`"));
    }
    let group = fields["runner_group_id"]
        .as_i64()
        .ok_or_else(|| invalid("Invalid property /runner_group_id: not of type integer"))?;
    let labels = parse_labels(&fields["labels"])?;
    let work_folder = fields.get("work_folder").and_then(Value::as_str).unwrap_or("_work").to_owned();
    let group = u64::try_from(group).map_err(|_| Refusal::UnknownGroup)?;
    Ok(MintRequest { name: name.to_owned(), labels, work_folder, group })
}

fn parse_labels(value: &Value) -> Result<Vec<String>, Refusal> {
    let invalid = |problem: &str| Refusal::Invalid(problem.to_owned());
    let labels = value.as_array().ok_or_else(|| invalid("Invalid property /labels: not of type array"))?;
    if labels.is_empty() {
        return Err(invalid("Invalid property /labels: 1 item required; only 0 were supplied"));
    }
    if labels.len() > 100 {
        return Err(invalid("Invalid property /labels: at most 100 items are allowed"));
    }
    labels
        .iter()
        .map(|label| label.as_str().filter(|text| (1..=256).contains(&text.len())).map(str::to_owned))
        .collect::<Option<Vec<String>>>()
        .ok_or_else(|| invalid("Invalid property /labels: each must be a string of 1 to 256 characters"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(body: &Value) -> String {
        match parse(body.to_string().as_bytes()) {
            Err(Refusal::Invalid(problem)) => problem,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_mint_must_have_a_name_a_group_and_labels() {
        assert!(problem(&json!({"name": "a", "labels": ["x"]})).ends_with("missing required key: runner_group_id"));
        let none = problem(&json!({"name": "a", "labels": [], "runner_group_id": 1}));
        assert_eq!(none, "Invalid property /labels: 1 item required; only 0 were supplied");
        assert!(problem(&json!({"name": "a b", "labels": ["x"], "runner_group_id": 1})).contains("/name"));
        assert!(problem(&json!({"name": "a", "labels": [7], "runner_group_id": 1})).contains("/labels"));
        let group = parse(json!({"name": "a", "labels": ["x"], "runner_group_id": -2}).to_string().as_bytes());
        assert_eq!(group.unwrap_err(), Refusal::UnknownGroup);
        let good = parse(json!({"name": "a", "labels": ["x"], "runner_group_id": 1}).to_string().as_bytes()).unwrap();
        assert_eq!((good.name.as_str(), good.work_folder.as_str()), ("a", "_work"));
    }
}
