//! Lays what Modal says of ended sandboxes and of its rates into the data.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::read::ENDED_SINCE;
use super::{View, class_of_tag, tag};
use crate::class::{Gpu, Machine};
use crate::cost::Resources;
use crate::error::CallFailure;
use crate::ids::{RepoName, SecretId};
use crate::state::{EndedSandbox, EndedSecret, Reading, Sandbox};

impl View {
    pub(super) fn apply_ended(&mut self, reading: Reading<Vec<Sandbox>>, began_at: DateTime<Utc>) {
        if let Some(failure) = reading.failure().filter(|_| self.observed.fleet.ended_read.failures == 0) {
            tracing::warn!(error = %failure, "the list of ended sandboxes is incomplete");
        }
        let seen = reading.seen().map(Vec::as_slice).unwrap_or_default().iter();
        // It shows the living as well, which the list of those may have lacked.
        self.apply_sandboxes(seen.clone().filter(|sandbox| sandbox.result.is_none()), began_at);
        let ended: Vec<&Sandbox> = seen.filter(|sandbox| sandbox.result.is_some()).collect();
        // One that is accounted may be days old, and its Secret long deleted.
        let since = began_at + self.observed.skew - ENDED_SINCE;
        let secrets = ended.iter().filter(|sandbox| sandbox.created_at >= since).filter_map(|sandbox| {
            let (name, _) = self.ours(sandbox).ok()?;
            let id = SecretId::new(sandbox.tags.get(tag::SECRET)?.as_str());
            Some((id, EndedSecret { name, created_at: sandbox.created_at }))
        });
        let secrets: BTreeMap<SecretId, EndedSecret> = secrets.collect();
        let ended: Vec<EndedSandbox> = ended.into_iter().map(|sandbox| self.ended_sandbox(sandbox)).collect();
        let fleet = &mut self.observed.fleet;
        fleet.ended.extend(ended);
        match reading {
            Reading::Known(_) => {
                if fleet.ended_read.is_refused() {
                    fleet.read.resume();
                }
                fleet.ended_read.succeeded(began_at);
                fleet.ended_secrets = secrets;
            }
            Reading::Partial { missing: failure, .. } | Reading::Unknown(failure) => {
                fleet.ended_read.failed(began_at, failure);
                fleet.ended_secrets.extend(secrets);
            }
        }
    }

    /// Reads the tags of a sandbox that ended, as far as they go: what is not allowed any more has cost something too.
    fn ended_sandbox(&self, sandbox: &Sandbox) -> EndedSandbox {
        let value = |name: &str| sandbox.tags.get(name).cloned().unwrap_or_default();
        let class = value(tag::CLASS);
        let repo = match self.ours(sandbox) {
            Ok((_, origin)) => Some(origin.scope.repo),
            Err(_) => RepoName::from_tag(&value(tag::REPO)),
        };
        let gpu = sandbox.tags.get(tag::GPU).and_then(|tag| Gpu::from_tag(tag));
        let regions = sandbox.tags.get(tag::REGIONS).map(|tag| Machine::regions_of_tag(tag)).unwrap_or_default();
        // One of the older interface has a GPU, whether or not a tag says which.
        let machine = (gpu.is_some() || !sandbox.id.is_v1()).then_some(Machine { gpu, regions });
        EndedSandbox {
            id: sandbox.id.clone(),
            name: sandbox.name.clone(),
            account: value(tag::ACCOUNT),
            repo: repo.map_or_else(|| value(tag::REPO), |repo| repo.to_string()),
            workflow: sandbox.tags.get(tag::WORKFLOW).cloned(),
            class: self.classes_by_tag.get(&class).cloned().unwrap_or_else(|| class_of_tag(&class)),
            created_at: sandbox.created_at,
            started_at: sandbox.started_at,
            finished_at: sandbox.finished_at,
            resources: Resources { machine, ..sandbox.resources.clone() },
        }
    }

    pub(super) fn apply_rates(
        &mut self,
        found: Result<BTreeMap<String, String>, CallFailure>,
        began_at: DateTime<Utc>,
    ) {
        let view = &mut self.observed.rates;
        match found {
            Ok(told) => {
                let (rates, of_table) = self.readers.policy.prices.rates.told(&told);
                if !of_table.is_empty() && of_table != view.of_table {
                    let missing = Vec::from_iter(&of_table);
                    tracing::info!(
                        ?missing,
                        "Modal's rates do not tell these in a form that is understood: those of [cost] count"
                    );
                }
                view.read.succeeded(began_at);
                (view.rates, view.of_table) = (Some(rates), of_table);
            }
            Err(failure) => {
                if view.read.failures == 0 && view.rates.is_none() {
                    tracing::warn!(error = %failure, "cannot read Modal's rates: those of [cost] count");
                }
                view.read.failed(began_at, failure);
            }
        }
    }
}
