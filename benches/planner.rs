//! The planner on 10,000 jobs, 10,000 sandboxes and 500 repositories, beside the time of touching every
//! record once; and half and double of it, for the growth.

#![expect(clippy::unwrap_used, reason = "situations are written by hand")]

#[path = "../tests/planner/generate.rs"]
mod generate;
#[expect(dead_code, reason = "the text notation is for the tables of the tests")]
#[path = "../tests/planner/situation.rs"]
mod situation;

use divan::{Bencher, black_box};
use generate::Size;
use situation::Situation;

const SIZES: [u64; 4] = [2_500, 5_000, 10_000, 20_000];

fn main() {
    divan::main();
}

fn situation(jobs: u64) -> Situation {
    generate::situation(Size { jobs, sandboxes: jobs, repos: 500 }, 11)
}

/// Reads each field that a plan can depend on, of every record, once.
fn touch(situation: &Situation) -> u64 {
    let mut sum = 0_u64;
    for repo in situation.observed.repos.values() {
        for run in repo.runs.values() {
            sum += run.run.id.0 + u64::from(run.jobs_read.known_at.is_some());
            for job in run.jobs.values() {
                sum += job.id.0 + job.labels.iter().map(|label| label.len() as u64).sum::<u64>();
                sum += u64::from(job.status == sandrunner::state::JobStatus::Queued);
                sum += job.runner_name.as_ref().map_or(0, |name| name.len() as u64);
            }
        }
    }
    for view in situation.observed.registries.values() {
        for (name, runner) in &view.runners {
            sum += name.job.0 + runner.id.0 + runner.connection as u64 + u64::from(runner.is_busy);
        }
    }
    for (name, sandbox) in &situation.observed.fleet.sandboxes {
        sum += name.job.0 + sandbox.origin.run.0 + sandbox.origin.scope.repo.as_str().len() as u64;
        sum += sandbox.origin.class.as_str().len() as u64 + u64::from(sandbox.ended.is_some());
        sum += sandbox.created_at.timestamp().unsigned_abs();
    }
    for (name, evidence) in &situation.evidence.names {
        sum += name.job.0 + u64::from(evidence.claim.is_some()) + u64::from(evidence.online_at.is_some());
    }
    for (job, evidence) in &situation.evidence.jobs {
        sum += job.0 + u64::from(evidence.attempt);
    }
    sum
}

#[divan::bench(args = SIZES)]
fn touch_every_record(bencher: Bencher<'_, '_>, jobs: u64) {
    let situation = situation(jobs);
    bencher.bench_local(|| black_box(touch(black_box(&situation))));
}

#[divan::bench(args = SIZES)]
fn plan(bencher: Bencher<'_, '_>, jobs: u64) {
    let situation = situation(jobs);
    bencher.bench_local(|| black_box(black_box(&situation).plan()));
}
