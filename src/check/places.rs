//! Judges repositories, the places where runners are registered, runner groups, and the runner's release (pure).

use chrono::{DateTime, TimeDelta, Utc};

use super::facts::{Facts, Failed, NotTried, ProofFacts, ReleaseFacts, RepoChecked, Told};
use super::{Check, Finding};
use crate::class::{Risk, Risks};
use crate::config::{RunnerReleaseChoice, Settings};
use crate::error::ErrorClass;
use crate::ids::AccountName;
use crate::plan::{Joining, Policy, admitted_by_any, group_refusal};
use crate::runner::{RunnerVersion, VersionNotice};
use crate::state::{AdmittedWorkflows, Org, Registry, RegistryView, RepoFacts, RunnerGroup, Scope, Visibility};

/// So long before GitHub takes a release no more it is told, as the daemon does.
const TELL_BEFORE_END: TimeDelta = TimeDelta::days(10);

pub(super) fn judge(settings: &Settings, facts: &Facts) -> Vec<Finding> {
    let policy = &settings.policy;
    let mut findings = Vec::new();
    for ((account, owner), told) in &facts.patterns {
        findings.push(patterns(told).of(format!("{account}/{owner}")));
    }
    for scope in policy.scopes().filter(|scope| !facts.repos.contains_key(scope)) {
        let text = "it was not looked at, because its credential does not work";
        findings.push(Finding::skipped(Check::Repository, text).of(&scope.repo));
    }
    for (scope, repo) in &facts.repos {
        findings.extend(repository(policy, scope, repo));
    }
    for (registry, proof) in &facts.proofs {
        findings.push(registering(settings, facts, (registry, proof)).of(registry));
    }
    for (org, told) in &facts.groups {
        findings.push(group(policy, facts, org, told).of(&org.name));
    }
    for (account, told) in &facts.releases {
        findings.push(release(settings, account, told, facts.now));
    }
    findings
}

fn patterns(told: &Told<Vec<crate::ids::RepoName>>) -> Finding {
    match told {
        Ok(repos) if repos.is_empty() => {
            let fix =
                "correct the pattern in allowed_repos, or give the credential access to the repositories that it means";
            Finding::warning(
                Check::RepoPatterns,
                "the patterns of allowed_repos mean no repository that is visible",
                fix,
            )
        }
        Ok(repos) => Finding::ok(Check::RepoPatterns, format!("the patterns mean {} repositories", repos.len())),
        Err(failed) => Finding::failed(Check::RepoPatterns, failed),
    }
}

fn repository(policy: &Policy, scope: &Scope, repo: &RepoChecked) -> Vec<Finding> {
    let RepoChecked { facts, runs, actions } = repo;
    let of_repo = match facts {
        Ok(facts) => about(policy, scope, facts),
        // Behind an address nothing else can be known.
        Err(failed) => return vec![Finding::failed(Check::Repository, failed).of(&scope.repo)],
    };
    let runs = match runs {
        Ok(()) => Finding::ok(Check::ReadRuns, "its runs can be read"),
        Err(failed) => Finding::failed(Check::ReadRuns, failed),
    };
    let actions = match actions {
        Ok(true) => Finding::ok(Check::ActionsEnabled, "Actions are enabled"),
        Ok(false) => {
            let fix = "enable them in the repository's settings (Actions, General), or in those of its organization";
            Finding::failure(Check::ActionsEnabled, "Actions are disabled", fix)
        }
        Err(failed) if failed.class == ErrorClass::Forbidden && is_of_org(policy, scope) => {
            let text = "the credential may not see that (`administration: read`), and needs not at organization level";
            Finding::skipped(Check::ActionsEnabled, text)
        }
        Err(failed) => Finding::failed(Check::ActionsEnabled, failed),
    };
    [of_repo, runs, actions].into_iter().map(|finding| finding.of(&scope.repo)).collect()
}

fn is_of_org(policy: &Policy, scope: &Scope) -> bool {
    matches!(policy.registry(scope), Registry::Org(_))
}

/// What GitHub says of a repository, and whether its jobs will be served.
fn about(policy: &Policy, scope: &Scope, facts: &RepoFacts) -> Finding {
    let remove = "remove it from allowed_repos, or set it right at GitHub";
    if facts.name != scope.repo {
        let fix = format!("write {} in allowed_repos", facts.name);
        return Finding::failure(Check::Repository, format!("it is now called {}", facts.name), fix);
    }
    if facts.is_archived {
        return Finding::failure(Check::Repository, "it is archived, so nothing runs there", remove);
    }
    if facts.is_disabled {
        return Finding::failure(Check::Repository, "GitHub has disabled it", remove);
    }
    let is_public = facts.visibility == Visibility::Public;
    let serves = |risk| {
        policy
            .classes
            .iter()
            .any(|class| class.admits.contains(risk) && (class.repos.is_empty() || class.repos.contains(&scope.repo)))
    };
    if is_public && !serves(Risk::Public) {
        let fix = "set allow_public_repos = true for a class, if strangers' pull requests are not to be feared, or remove it \
                   from allowed_repos";
        return Finding::warning(Check::Repository, "it is public, and no class serves public repositories", fix);
    }
    let forks = if serves(Risk::Fork) { "runs from forks are served" } else { "runs from forks are not served" };
    Finding::ok(Check::Repository, format!("{}; {forks}", if is_public { "public" } else { "private" }))
}

fn registering(settings: &Settings, facts: &Facts, (registry, proof): (&Registry, &ProofFacts)) -> Finding {
    let check = Check::RegisterRunners;
    match proof {
        ProofFacts::Done => Finding::ok(check, "a runner was registered and deleted"),
        ProofFacts::Refused(failed) if failed.class == ErrorClass::NotFound => {
            let fix = match registry {
                Registry::Repo(_) => {
                    "set runner_group_id to 1, and give the credential the repository permission `administration: write`"
                }
                Registry::Org(_) => {
                    "give the credential the organization permission `organization_self_hosted_runners: write`"
                }
            };
            Finding::failure(check, failed.said.clone(), fix)
        }
        ProofFacts::Refused(failed) | ProofFacts::NotTried(Err(failed), _) => Finding::failed(check, failed),
        ProofFacts::Left { name, why } => {
            let text = format!("runner {name} was registered, or may have been, and could not be deleted: {why}");
            let fix = format!(
                "delete it in the settings of {registry} (Actions, Runners), unless the daemon of deployment `{}` runs: that \
                 deletes it within minutes",
                settings.policy.deployment
            );
            Finding::failure(check, text, fix)
        }
        ProofFacts::NotTried(Ok(()), NotTried::TriedElsewhere) if is_proved(&settings.policy, facts, registry) => {
            Finding::ok(check, "runners can be listed; registering was proved elsewhere with the same credential")
        }
        ProofFacts::NotTried(Ok(()), NotTried::TriedElsewhere) => {
            Finding::skipped(check, "runners can be listed; registering failed elsewhere with the same credential")
        }
        ProofFacts::NotTried(Ok(()), NotTried::ReadOnly) => {
            Finding::skipped(check, "runners can be listed; registering was not tried, as nothing is to be written")
        }
        ProofFacts::NotTried(Ok(()), NotTried::NoGroup) => {
            Finding::skipped(check, "runners can be listed; registering was not tried without the runner group")
        }
    }
}

/// Whether a runner was registered somewhere with the credential of a place.
fn is_proved(policy: &Policy, facts: &Facts, registry: &Registry) -> bool {
    let credential = policy.credential_of(registry);
    let is_done = |proof: &ProofFacts| matches!(proof, ProofFacts::Done);
    facts.proofs.iter().any(|(other, proof)| is_done(proof) && policy.credential_of(other) == credential)
}

fn group(policy: &Policy, facts: &Facts, org: &Org, told: &Told<Option<RunnerGroup>>) -> Finding {
    let check = Check::RunnerGroup;
    let group = match told {
        Ok(Some(group)) => group,
        Ok(None) => {
            let wanted = policy.runner_group(org).map(ToString::to_string).unwrap_or_default();
            let fix = "correct runner_group or runner_group_id in [[github.organizations]], or make such a group";
            return Finding::failure(check, format!("organization {} has no runner group {wanted}", org.name), fix);
        }
        Err(failed) => return Finding::failed(check, failed),
    };
    if let Some(reason) = refusal(policy, facts, org, group) {
        let fix = "in the settings of the group (Actions, Runner groups) select the repositories of allowed_repos, and no other";
        return Finding::failure(check, reason.to_string(), fix);
    }
    match &group.workflows {
        AdmittedWorkflows::All => {
            Finding::ok(check, format!("`{}` admits what is allowed, and nothing else", group.name))
        }
        AdmittedWorkflows::Selected(selected) => {
            let named: Vec<String> = selected.iter().map(ToString::to_string).collect();
            let text = format!("`{}` is kept to selected workflows: {}", group.name, named.join(", "));
            let fix = "let the group run all workflows, unless jobs of no other are to be served";
            Finding::warning(check, text, fix)
        }
    }
}

/// Why no runners of the group would be made for one of the organization's repositories, by the planner's own rule.
fn refusal(policy: &Policy, facts: &Facts, org: &Org, group: &RunnerGroup) -> Option<std::sync::Arc<str>> {
    let view = RegistryView { group: Some(group.clone()), ..RegistryView::default() };
    let registry = Registry::Org(org.clone());
    let admitted = admitted_by_any(policy);
    facts.repos.iter().filter(|(scope, _)| policy.registry(scope) == registry).find_map(|(scope, repo)| {
        let is_public = repo.facts.as_ref().is_ok_and(|facts| facts.visibility == Visibility::Public);
        // One that is not served anyway is told as such.
        if is_public && !admitted.contains(Risk::Public) {
            return None;
        }
        let risks = Risks::of([is_public.then_some(Risk::Public)]);
        let workflow_unknown = None;
        group_refusal(org, &view, Joining { repo: &scope.repo, risks, workflow: workflow_unknown, admitted }, policy)
    })
}

fn release(settings: &Settings, account: &AccountName, told: &Told<ReleaseFacts>, now: DateTime<Utc>) -> Finding {
    let finding = match (told, &settings.runner.release) {
        (Err(failed), _) => Finding::failed(Check::RunnerVersion, failed),
        (Ok(release), RunnerReleaseChoice::Auto) => {
            let text =
                format!("the default image gets {}, which GitHub offers, and follows newer ones", release.offered);
            Finding::ok(Check::RunnerVersion, text)
        }
        (Ok(release), RunnerReleaseChoice::Pinned { version, sha256 }) => {
            pinned(release, *version, sha256.as_deref(), now)
        }
    };
    finding.of(account)
}

fn pinned(release: &ReleaseFacts, version: RunnerVersion, sum: Option<&str>, now: DateTime<Utc>) -> Finding {
    let check = Check::RunnerVersion;
    let ReleaseFacts { offered, notice } = release;
    let fix = "set runner.version = \"auto\", or pin a newer release with its runner.sha256";
    if version != *offered && sum.is_none() {
        let text = format!("{version} is pinned without its checksum, which GitHub gives only for {offered}");
        return Finding::failure(
            check,
            text,
            "set runner.sha256 to the checksum of the pinned release, or runner.version = \"auto\"",
        );
    }
    if version >= *offered {
        return Finding::ok(check, format!("{version} is pinned, and GitHub offers {offered}"));
    }
    let refused_at = notice.as_ref().and_then(|told| told.as_ref().ok()).and_then(VersionNotice::refused_at);
    match (refused_at, notice) {
        (Some(at), _) if at <= now => {
            Finding::failure(check, format!("since {} GitHub takes {version} no more", at.format("%Y-%m-%d")), fix)
        }
        (Some(at), _) if at - now < TELL_BEFORE_END => {
            let text = format!("GitHub takes {version} until {}, and offers {offered}", at.format("%Y-%m-%d"));
            Finding::warning(check, text, fix)
        }
        (Some(at), _) => {
            let until = at.format("%Y-%m-%d");
            Finding::ok(check, format!("{version} is pinned, which GitHub takes until {until}; it offers {offered}"))
        }
        (None, Some(Err(Failed { said, .. }))) => {
            Finding::warning(check, format!("until when GitHub takes {version} is not known: {said}"), fix)
        }
        (None, Some(Ok(_)) | None) => {
            let text = format!(
                "{version} is pinned, and GitHub offers {offered}: it takes each release for about 30 days after the next"
            );
            Finding::warning(check, text, fix)
        }
    }
}
