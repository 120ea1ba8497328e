//! What holds for every plan, checked without the planner's own code.

use std::collections::{BTreeMap, BTreeSet};

use crate::generate::{self, Size};
use crate::situation::{Situation, now};
use proptest::prelude::*;
use sandrunner::ids::{Fingerprint, JobId};
use sandrunner::plan::{Action, Plan};
use sandrunner::state::{Creating, JobStatus, Scope};

fn situations() -> impl Strategy<Value = Situation> {
    (0_u64..120, 0_u64..120, 1_u64..8, any::<u64>())
        .prop_map(|(jobs, sandboxes, repos, seed)| generate::situation(Size { jobs, sandboxes, repos }, seed))
}

fn creates(plan: &Plan) -> impl Iterator<Item = &sandrunner::plan::Create> {
    plan.actions.iter().filter_map(|action| match action {
        Action::Create(create) => Some(create),
        Action::PrepareImage { .. }
        | Action::Deregister { .. }
        | Action::Terminate { .. }
        | Action::DeleteSecret { .. } => None,
    })
}

/// Living sandboxes, whatever their state.
fn living(situation: &Situation) -> Vec<&sandrunner::state::OurSandbox> {
    situation.observed.fleet.sandboxes.values().filter(|sandbox| sandbox.ended.is_none()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_same_input_gives_the_same_plan(situation in situations()) {
        prop_assert_eq!(situation.plan(), situation.clone().plan());
    }

    #[test]
    fn every_queued_job_is_accounted_for_once(situation in situations()) {
        let plan = situation.plan();
        let queued: BTreeSet<JobId> = situation.observed.repos.values()
            .flat_map(|repo| repo.runs.values()).flat_map(|run| run.jobs.values())
            .filter(|job| job.status == JobStatus::Queued).map(|job| job.id).collect();
        let mut told: Vec<JobId> = creates(&plan).map(|create| create.name.job).chain(plan.skips.iter().map(|skip| skip.job)).collect();
        told.sort();
        prop_assert_eq!(told, queued.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn limits_hold_with_everything_that_lives(situation in situations()) {
        let plan = situation.plan();
        let living = living(&situation);
        let new = creates(&plan).count();
        let limits = situation.policy.limits;
        if new > 0 {
            prop_assert!(living.len() + new <= limits.sandboxes as usize);
        }
        let mut repos: BTreeMap<&Scope, usize> = BTreeMap::new();
        for create in creates(&plan) {
            *repos.entry(&create.origin.scope).or_default() += 1;
        }
        for (scope, new) in repos {
            let live = living.iter().filter(|sandbox| sandbox.origin.scope == *scope).count();
            prop_assert!(limits.sandboxes_per_repo.is_none_or(|limit| live + new <= limit as usize));
        }
        let is_gpu = |class: &sandrunner::ids::ClassName| class.as_str().starts_with("gpu");
        let new_gpus = creates(&plan).filter(|create| is_gpu(&create.origin.class)).count();
        let gpus = living.iter().filter(|sandbox| is_gpu(&sandbox.origin.class)).count() + new_gpus;
        prop_assert!(new_gpus == 0 || gpus <= limits.gpus as usize);
    }

    #[test]
    fn no_create_raises_free_runners_above_queued_jobs(situation in situations()) {
        let plan = situation.plan();
        let mut groups: BTreeMap<(&Scope, Fingerprint), (usize, usize)> = BTreeMap::new();
        for create in creates(&plan) {
            groups.entry((&create.origin.scope, create.origin.group)).or_default().1 += 1;
        }
        for ((scope, group), (_, new)) in groups {
            let queued = situation.observed.repos[scope].runs.values().flat_map(|run| run.jobs.values())
                .filter(|job| job.status == JobStatus::Queued && job.labels.fingerprint() == group).count();
            let free = situation.observed.fleet.sandboxes.iter().filter(|(name, sandbox)| {
                let evidence = &situation.evidence.names[*name];
                // One whose registration was deleted finds it gone.
                let is_failed = evidence.fenced_at.is_some()
                    || evidence.never_online.is_some() && (now() - sandbox.created_at).num_seconds() > 180
                    || !sandbox.is_scheduled && (now() - sandbox.created_at).num_seconds() > 120;
                sandbox.ended.is_none() && sandbox.origin.scope == *scope && sandbox.origin.group == group
                    && evidence.claim.is_none() && evidence.busy_at.is_none() && (evidence.online_at.is_some() || !is_failed)
            }).count();
            prop_assert!(free + new <= queued, "{} free and {} new for {} queued", free, new, queued);
        }
    }

    #[test]
    fn names_are_new_and_made_once(situation in situations()) {
        let plan = situation.plan();
        let names: Vec<_> = creates(&plan).map(|create| create.name.clone()).collect();
        let distinct: BTreeSet<_> = names.iter().cloned().collect();
        prop_assert_eq!(names.len(), distinct.len());
    }

    #[test]
    fn planning_on_the_result_of_the_plan_creates_nothing(situation in situations()) {
        let plan = situation.plan();
        let mut after = situation.clone();
        for create in creates(&plan) {
            after.observed.in_flight.insert(create.name.clone(), Creating { origin: create.origin.clone(), since: now(), asked_at: None });
            after.evidence.started(&create.name, &create.origin, now());
        }
        let again = after.plan();
        prop_assert_eq!(creates(&again).count(), 0);
    }

    #[test]
    fn a_runner_that_was_ever_online_is_never_terminated(situation in situations()) {
        for action in situation.plan().actions {
            if let Action::Terminate { name, .. } = action {
                let evidence = &situation.evidence.names[&name];
                prop_assert!(evidence.online_at.is_none() && evidence.claim.is_none() && evidence.busy_at.is_none());
            }
        }
    }

    #[test]
    fn with_an_unknown_fleet_nothing_is_created(mut situation in situations()) {
        situation.observed.fleet.read = sandrunner::state::ReadState::default();
        prop_assert_eq!(creates(&situation.plan()).count(), 0);
    }
}
