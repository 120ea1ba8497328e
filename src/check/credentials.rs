//! Judges credentials: whether GitHub takes them, what they may do, and what its limits admit (pure).

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::facts::{AccountFacts, Facts, Failed, ProofFacts};
use super::{Check, Finding};
use crate::budget::Capacity;
use crate::config::Settings;
use crate::github::{AppFacts, GithubAuth, GithubSettings, HourlyQuota, TokenAccess, TokenKind};
use crate::ids::{AccountName, CredentialName};
use crate::plan::{AccountPolicy, Policy};
use crate::poll::{least_interval, least_longest};
use crate::state::{Installed, Permissions};

/// So long before a token's end it is told, as the daemon does.
const TELL_BEFORE_END: TimeDelta = TimeDelta::days(10);

/// A clock that is further off confuses whoever reads logs and times; what the services say is used all the same.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::seconds(5);

pub(super) fn judge(settings: &Settings, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, account) in &settings.policy.accounts {
        let Some(github) = settings.github.get(account.order) else { continue };
        let of_account = AccountContext { name, account, github, policy: &settings.policy, facts };
        match &github.auth {
            GithubAuth::Token(token) => findings.extend(of_account.token(TokenKind::of(token))),
            GithubAuth::App { .. } => findings.extend(of_account.app()),
        }
        findings.push(of_account.clock());
        for credential in of_account.credentials() {
            findings.extend(of_account.ip_allow_list(&credential));
            findings.extend(of_account.budget(&credential));
        }
    }
    findings
}

/// Whose repositories an account serves, as far as that is known: owners that are named, and where patterns mean every
/// owner, those at which the App is installed.
pub(super) fn owners(account: &AccountPolicy, installed: &[Installed]) -> BTreeSet<String> {
    let named = account.repos.iter().map(|repo| repo.owner().to_owned());
    let patterns = account.patterns.owners().into_iter().map(ToString::to_string);
    let organizations = account.organizations.keys().map(|org| org.as_str().to_owned());
    let everywhere = installed.iter().filter(|_| account.patterns.is_for_all_owners());
    named.chain(patterns).chain(organizations).chain(everywhere.map(|one| one.owner.to_string())).collect()
}

/// An account with all that is known of it.
struct AccountContext<'a> {
    name: &'a AccountName,
    account: &'a AccountPolicy,
    github: &'a GithubSettings,
    policy: &'a Policy,
    facts: &'a Facts,
}

impl AccountContext<'_> {
    fn known(&self) -> AccountFacts {
        self.facts.accounts.get(self.name).cloned().unwrap_or_default()
    }

    /// Those credentials that are used.
    fn credentials(&self) -> Vec<CredentialName> {
        self.facts.credentials.keys().filter(|credential| credential.account() == self.name).cloned().collect()
    }

    fn token(&self, kind: TokenKind) -> Vec<Finding> {
        let credential = CredentialName::of_account(self.name.clone());
        let Some(facts) = self.facts.credentials.get(&credential) else { return Vec::new() };
        let access = match &facts.access {
            Ok(access) => access,
            Err(failed) => return vec![Finding::failed(Check::Credential, failed).of(&credential)],
        };
        let has_orgs = !self.account.organizations.is_empty();
        let needed: &[&str] = if has_orgs { &["repo", "admin:org"] } else { &["repo"] };
        vec![
            token_finding(kind, access, self.facts.now).of(&credential),
            scopes_finding(kind, access, needed).of(&credential),
        ]
    }

    fn app(&self) -> Vec<Finding> {
        let (app, installed) = match self.known().app {
            Some(Ok(known)) => known,
            Some(Err(failed)) => return vec![Finding::failed(Check::Credential, &failed).of(self.name)],
            None => return Vec::new(),
        };
        let owners = owners(self.account, &installed);
        if owners.is_empty() {
            let text = format!("the GitHub App {} is installed nowhere", app.name);
            let fix = "install it at the owners of the repositories to be served";
            return vec![Finding::failure(Check::Credential, text, fix).of(self.name)];
        }
        owners.iter().flat_map(|owner| self.installation(&app, owner, &installed)).collect()
    }

    fn installation(&self, app: &AppFacts, owner: &str, installed: &[Installed]) -> Vec<Finding> {
        let credential = self.policy.credential_at(self.name, owner);
        let name = &app.name;
        let Some(one) = installed.iter().find(|one| *one.owner == *owner) else {
            let text = format!("the GitHub App {name} is not installed at {owner}");
            let fix = format!("install it at {owner}, for the repositories to be served");
            return vec![Finding::failure(Check::Credential, text, fix).of(&credential)];
        };
        if one.is_suspended {
            let text = format!("the installation of the GitHub App {name} at {owner} is suspended");
            let fix = format!("end the suspension in the settings of {owner} (Installed GitHub Apps)");
            return vec![Finding::failure(Check::Credential, text, fix).of(&credential)];
        }
        let taken = match self.facts.credentials.get(&credential).map(|facts| &facts.access) {
            Some(Err(failed)) => Finding::failed(Check::Credential, failed),
            Some(Ok(_)) | None => {
                Finding::ok(Check::Credential, format!("the GitHub App {name}, installed at {owner}"))
            }
        };
        vec![taken.of(&credential), self.permissions(app, owner, &one.permissions).of(&credential)]
    }

    fn permissions(&self, app: &AppFacts, owner: &str, granted: &Permissions) -> Finding {
        let is_org = self.account.organizations.keys().any(|org| org.as_str() == owner);
        let of_runners = if is_org { "organization_self_hosted_runners" } else { "administration" };
        let needed = [("actions", "read"), (of_runners, "write")];
        let lacks = |permissions: &Permissions| -> Vec<String> {
            let missing = needed.iter().filter(|(name, access)| !reaches(permissions, name, access));
            missing.map(|(name, access)| format!("`{name}: {access}`")).collect()
        };
        let (missing, not_asked) = (lacks(granted), lacks(&app.permissions));
        let name = &app.name;
        if missing.is_empty() {
            let text = format!("granted by {owner}: `actions: read`, `{of_runners}: write`");
            return Finding::ok(Check::Permissions, text);
        }
        let text = format!("{owner} has not granted {} to the GitHub App {name}", missing.join(", "));
        let fix = if not_asked.is_empty() {
            format!(
                "accept the new permissions of the App in the settings of {owner} (Installed GitHub Apps, Review request)"
            )
        } else {
            format!(
                "add {} to the permissions of the App in its own settings, and accept them in those of {owner}",
                not_asked.join(", ")
            )
        };
        Finding::failure(Check::Permissions, text, fix)
    }

    fn clock(&self) -> Finding {
        let Some(ahead) = self.known().skew else {
            return Finding::skipped(Check::Clock, "GitHub did not answer, and it is its time that counts")
                .of(self.name);
        };
        if ahead.abs() <= CLOCK_TOLERANCE {
            return Finding::ok(Check::Clock, "it agrees with GitHub's").of(self.name);
        }
        let by = humantime::format_duration(Duration::from_secs(ahead.num_seconds().unsigned_abs()));
        let (direction, fix) = (
            if ahead > TimeDelta::zero() { "behind" } else { "ahead of" },
            "set this machine's clock by the network: `timedatectl set-ntp true`",
        );
        Finding::warning(Check::Clock, format!("this machine's clock is {by} {direction} GitHub's"), fix).of(self.name)
    }

    /// Failures of the credential's calls in which an organization refuses this machine's address.
    fn ip_allow_list(&self, credential: &CredentialName) -> Option<Finding> {
        let Facts { credentials, repos, proofs, groups, .. } = self.facts;
        let is_ours = |of: CredentialName| of == *credential;
        let of_repos = repos
            .iter()
            .filter(|(scope, _)| is_ours(self.policy.credential(scope)))
            .flat_map(|(_, repo)| [repo.facts.as_ref().err(), repo.runs.as_ref().err(), repo.actions.as_ref().err()]);
        let of_proofs = proofs.iter().filter(|(registry, _)| is_ours(self.policy.credential_of(registry)));
        let of_proofs = of_proofs.map(|(_, proof)| match proof {
            ProofFacts::Refused(failed) => Some(failed),
            ProofFacts::NotTried(told, _) => told.as_ref().err(),
            ProofFacts::Done | ProofFacts::Left { .. } => None,
        });
        let of_groups =
            groups.iter().filter(|(org, _)| is_ours(self.policy.credential_at(&org.account, org.name.as_str())));
        let of_groups = of_groups.map(|(_, group)| group.as_ref().err());
        let own = credentials.get(credential).map(|facts| facts.access.as_ref().err());
        let failed: Vec<&Failed> =
            own.into_iter().chain(of_repos).chain(of_proofs).chain(of_groups).flatten().collect();
        let finding = match failed.iter().find(|failed| failed.is_of_address()) {
            Some(refused) => Finding::failed(Check::IpAllowList, refused),
            None if credentials.get(credential).is_some_and(|facts| facts.access.is_ok()) => {
                Finding::ok(Check::IpAllowList, "no call was refused for this machine's address")
            }
            None => return None,
        };
        Some(finding.of(credential))
    }

    fn budget(&self, credential: &CredentialName) -> Option<Finding> {
        let access = self.facts.credentials.get(credential)?.access.as_ref().ok()?;
        let lists = self.facts.repos.keys().filter(|scope| self.policy.credential(scope) == *credential).count();
        let kept = self.github.limits.primary_reserve;
        if let Some(finding) = access.quota.and_then(|quota| quota_finding(quota, kept)) {
            return Some(finding.of(credential));
        }
        let capacity = Capacity::of_points(self.github.limits.points_per_minute);
        let (interval, longest) = (self.policy.interval, self.policy.max_interval);
        Some(interval_finding(lists, capacity, [interval, longest]).of(credential))
    }
}

fn token_finding(kind: TokenKind, access: &TokenAccess, now: DateTime<Utc>) -> Finding {
    let called = match kind {
        TokenKind::FineGrained => "a fine-grained token",
        TokenKind::Classic => "a classic token",
        TokenKind::Installation => {
            let text = "it is the token of an App's installation, which lasts an hour";
            let fix = "give the App itself (`app_id` and `private_key_file`), or a personal token";
            return Finding::warning(Check::Credential, text, fix);
        }
        TokenKind::Other if access.scopes.is_some() => "a classic token",
        TokenKind::Other => "a token",
    };
    let Some(ends) = access.ends else {
        return Finding::ok(Check::Credential, format!("{called}, of which GitHub states no end"));
    };
    let days = (ends - now).num_days();
    let text = format!("{called}, which ends on {} (in {days} days)", ends.format("%Y-%m-%d"));
    if ends - now < TELL_BEFORE_END {
        return Finding::warning(Check::Credential, text, "make another token and set it");
    }
    Finding::ok(Check::Credential, text)
}

/// `needed` are the scopes without which a classic token is of no use.
fn scopes_finding(kind: TokenKind, access: &TokenAccess, needed: &[&str]) -> Finding {
    let Some(scopes) = access.scopes.as_ref().filter(|_| kind != TokenKind::FineGrained) else {
        let text = "GitHub does not say what such a token may do: `read_runs`, `actions_enabled` and `register_runners` show it";
        return Finding::skipped(Check::Permissions, text);
    };
    let missing: Vec<String> =
        needed.iter().filter(|scope| !scopes.contains(**scope)).map(|scope| format!("`{scope}`")).collect();
    if missing.is_empty() {
        let all: Vec<&str> = scopes.iter().map(String::as_str).collect();
        return Finding::ok(Check::Permissions, format!("scopes: {}", all.join(", ")));
    }
    let text = format!("the token lacks the scope {}", missing.join(" and "));
    Finding::failure(Check::Permissions, text, "add it in the token's settings at GitHub, or make a fine-grained token")
}

/// What is wrong with a quota by itself.
fn quota_finding(HourlyQuota { limit, remaining }: HourlyQuota, kept: u32) -> Option<Finding> {
    if limit <= kept {
        let text =
            format!("GitHub grants {limit} requests an hour, and `primary_reserve` keeps {kept} of them for writes");
        let fix = format!("set primary_reserve below {}, or use a credential with a larger quota", limit / 2);
        return Some(Finding::failure(Check::ApiBudget, text, fix));
    }
    (remaining < kept).then(|| {
        let text =
            format!("{remaining} of {limit} requests are left for this hour, fewer than `primary_reserve` ({kept})");
        let fix = "find out who else uses this credential, or give Sandrunner one of its own";
        Finding::warning(Check::ApiBudget, text, fix)
    })
}

fn interval_finding(lists: usize, capacity: Capacity, [interval, longest]: [Duration; 2]) -> Finding {
    let text = |duration: Duration| humantime::format_duration(duration).to_string();
    let least = |delta: TimeDelta| delta.to_std().unwrap_or_default();
    let shortest = least(least_interval(lists, capacity));
    if shortest <= interval {
        let shortest = text(shortest.max(Duration::from_secs(1)));
        let said = format!("{lists} run lists, read every {}; GitHub's limits admit every {shortest}", text(interval));
        return Finding::ok(Check::ApiBudget, said);
    }
    let floor = least(least_longest(lists, capacity));
    if floor > longest {
        let said = format!("{lists} run lists cannot be read within reconcile.max_interval, {}", text(longest));
        let fix =
            format!("set reconcile.max_interval to at least {}, or use a GitHub App or more credentials", text(floor));
        return Finding::failure(Check::ApiBudget, said, fix);
    }
    let said = format!(
        "GitHub's limits do not allow to read {lists} run lists every {}: busy repositories are read more often, the others \
         within {}",
        text(interval),
        text(longest)
    );
    let fix = format!(
        "set reconcile.interval to {} if all are to be read alike, or share them among several credentials",
        text(shortest)
    );
    Finding::warning(Check::ApiBudget, said, fix)
}

/// Whether a permission is there and goes so far.
fn reaches(permissions: &Permissions, name: &str, access: &str) -> bool {
    let granted = permissions.get(name).map(|granted| &**granted);
    match granted {
        Some("write" | "admin") => true,
        Some("read") => access == "read",
        Some(_) | None => false,
    }
}
