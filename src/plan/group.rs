//! Whether runners of an organization's runner group may be made for a repository.
//!
//! A runner of a group takes jobs of every repository and workflow that the group admits. So the group has to admit those
//! of the run, else its jobs stay queued for ever, which GitHub does not say; and no repository that is not allowed, else
//! strangers get our runners.

use std::sync::Arc;

use crate::class::{Risk, Risks};
use crate::ids::RepoName;
use crate::plan::Policy;
use crate::state::{
    AdmittedRepos, Fit, JobStatus, Observed, Org, Origin, Registry, RegistryView, RunStatus, RunView, Workflow,
    WorkflowFile, WorkflowJob,
};

/// How many repositories a reason names.
const NAMED: usize = 3;

/// Whose runner would join a group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Joining<'a> {
    /// The repository of the run.
    pub(crate) repo: &'a RepoName,
    /// What is risky about the run.
    pub(crate) risks: Risks,
    /// Its workflow, where that is known.
    pub(crate) workflow: Option<&'a Workflow>,
    /// What the class of the runner admits.
    pub(crate) admitted: Risks,
}

/// What some class admits.
pub(crate) fn admitted_by_any(policy: &Policy) -> Risks {
    let is_admitted = |risk: &Risk| policy.classes.iter().any(|class| class.admits.contains(*risk));
    Risks::of([Risk::Fork, Risk::Public].map(|risk| Some(risk).filter(is_admitted)))
}

/// Why no runner of the group is made for a run of a repository; none where one may be.
pub(crate) fn refusal(
    org: &Org,
    view: &RegistryView,
    Joining { repo, risks, workflow, admitted }: Joining<'_>,
    policy: &Policy,
) -> Option<Arc<str>> {
    let Some(wanted) = policy.runner_group(org) else {
        return Some(format!("organization {} has no runner group in the configuration", org.name).into());
    };
    let Some(group) = &view.group else {
        let text = match (&view.group_read.failure, view.group_read.known_at) {
            (Some(failure), _) => format!("cannot read the runner groups of organization {}: {failure}", org.name),
            (None, Some(_)) => format!("organization {} has no runner group {wanted}", org.name),
            (None, None) => format!("the runner groups of organization {} were not read yet", org.name),
        };
        return Some(text.into());
    };
    let name = &group.name;
    match &group.admits {
        AdmittedRepos::Selected(repos) => {
            let account = policy.accounts.get(&org.account);
            let mut strangers = repos.iter().filter(|repo| account.is_none_or(|account| !account.serves(repo)));
            if let Some(first) = strangers.next() {
                let more: Vec<&str> = strangers.map(RepoName::as_str).take(NAMED - 1).collect();
                let named = [&[first.as_str()], &more[..]].concat().join(", ");
                let text = format!(
                    "runner group `{name}` also admits {named}, which allowed_repos lacks: their jobs could take our runners"
                );
                return Some(text.into());
            }
            if !repos.contains(repo) {
                return Some(format!("runner group `{name}` does not admit {repo}").into());
            }
        }
        AdmittedRepos::All | AdmittedRepos::Private if serves_all(org, policy) => {}
        AdmittedRepos::All | AdmittedRepos::Private => {
            let text = format!(
                "runner group `{name}` admits repositories of {} without naming them: select those in allowed_repos, or allow \"{}/*\"",
                org.name, org.name
            );
            return Some(text.into());
        }
    }
    if risks.contains(Risk::Public) && !group.allows_public {
        return Some(format!("runner group `{name}` does not admit public repositories").into());
    }
    if group.allows_public && !admitted.contains(Risk::Public) {
        let text = format!(
            "runner group `{name}` also admits public repositories, whose jobs could take our runners: turn that off in its settings, or give the class `allow_public_repos = true`"
        );
        return Some(text.into());
    }
    let is_shut = group.workflows.fit(workflow, repo) == Fit::Refused;
    is_shut.then(|| workflow_text(name, workflow, repo).into())
}

/// What keeps the jobs of a workflow from the runners of a group, and the remedy.
fn workflow_text(group: &str, workflow: Option<&Workflow>, repo: &RepoName) -> String {
    let Some(Workflow { file, branch, jobs: _ }) = workflow else {
        return format!(
            "runner group `{group}` is kept to selected workflows and none is selected: select some, or let it run all"
        );
    };
    let at = file.at.as_ref().or(branch.as_ref()).map_or("<branch>", String::as_str);
    let whole =
        WorkflowFile { repo: file.repo.clone().or(Some(repo.clone())), at: Some(at.to_owned()), ..file.clone() };
    format!(
        "runner group `{group}` is kept to selected workflows and does not run {file}: add {whole} to them, or let it run all"
    )
}

/// Whether the runner group of an organization, as it was last read, keeps queued jobs that ask for us from its runners.
pub fn group_holds_jobs(registry: &Registry, view: &RegistryView, observed: &Observed, policy: &Policy) -> bool {
    let Registry::Org(org) = registry else { return false };
    let admitted = admitted_by_any(policy);
    let asks = |job: &WorkflowJob| job.status == JobStatus::Queued && job.labels.contains(&policy.required_label);
    let is_waiting = |run: &&RunView| run.run.status != RunStatus::Completed && run.jobs.values().any(asks);
    observed.repos_of(registry).any(|(scope, repo)| {
        let mut waiting = repo.runs.values().filter(is_waiting).map(|run| &run.run);
        waiting.any(|run| {
            let (risks, workflow) = (run.risks, run.workflow.as_deref());
            refusal(org, view, Joining { repo: &scope.repo, risks, workflow, admitted }, policy).is_some()
        })
    })
}

/// What a sandbox was made for although what is known of its run does not tell whether the runner group takes its jobs:
/// the workflow, and the group.
pub fn workflow_doubt(observed: &Observed, origin: &Origin) -> Option<(String, String)> {
    let (_, view) = observed.registry(&origin.scope)?;
    let group = view.group.as_ref()?;
    let run = observed.repos.get(&origin.scope)?.runs.get(&origin.run);
    let workflow = run.and_then(|run| run.run.workflow.as_deref());
    let is_unsure = group.workflows.fit(workflow, &origin.scope.repo) == Fit::Unsure;
    let told = || workflow.map_or_else(|| "unknown".to_owned(), |workflow| workflow.file.to_string());
    is_unsure.then(|| (told(), group.name.clone()))
}

/// Whether no repository of the organization is a stranger.
fn serves_all(org: &Org, policy: &Policy) -> bool {
    policy.accounts.get(&org.account).is_some_and(|account| account.patterns.admit_all_of(org.name.as_str()))
}
