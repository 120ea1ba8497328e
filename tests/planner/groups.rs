//! What the runner group of an organization keeps from its runners, and whom it would let in.

use sandrunner::allow::RepoPatterns;
use sandrunner::class::{Risk, Risks};
use sandrunner::ids::RunId;
use sandrunner::plan::{group_holds_jobs, workflow_doubt};
use sandrunner::state::{AdmittedRepos, RunStatus};

use crate::situation::{Situation, scope};

const ONE_JOB: &str = "org acme; job 7 acme/web queued; group acme/web";

/// Changes what the runner group of `acme` is like.
fn with_group(situation: &mut Situation, change: impl Fn(&mut sandrunner::state::RunnerGroup)) {
    change(situation.registry("acme/web").group.as_mut().unwrap());
}

fn is_created(situation: &Situation) -> bool {
    situation.plan().to_string().starts_with("create sr-main-gh-7-1")
}

fn told(situation: &Situation) -> String {
    situation.plan().to_string().trim_end().to_owned()
}

#[test]
fn a_group_that_admits_strangers_is_told_with_three_of_them() {
    let mut situation = Situation::parse(ONE_JOB);
    assert!(is_created(&situation));
    let names = ["acme/web", "acme/a", "acme/b", "acme/c", "acme/d", "acme/e"];
    with_group(&mut situation, |group| {
        group.admits = AdmittedRepos::Selected(names.map(|repo| scope(repo).repo).into());
    });
    let expected = "runner group `Modal` also admits acme/a, acme/b, acme/c, which allowed_repos lacks: their jobs could take our runners";
    assert!(told(&situation).ends_with(expected), "{}", told(&situation));
    with_group(&mut situation, |group| group.admits = AdmittedRepos::Selected([scope("acme/a").repo].into()));
    situation.policy.accounts.values_mut().for_each(|account| account.repos.extend([scope("acme/a").repo]));
    assert!(told(&situation).ends_with("runner group `Modal` does not admit acme/web"), "{}", told(&situation));
}

#[test]
fn a_group_that_names_no_repository_serves_where_every_repository_of_the_organization_is_allowed() {
    for admits in [AdmittedRepos::All, AdmittedRepos::Private] {
        let mut situation = Situation::parse(ONE_JOB);
        with_group(&mut situation, |group| group.admits = admits.clone());
        assert!(told(&situation).contains("admits repositories of acme without naming them"), "{}", told(&situation));
        let all = RepoPatterns { served: vec!["acme/*".parse().unwrap()], excluded: Vec::new() };
        situation.policy.accounts.values_mut().for_each(|account| account.patterns = all.clone());
        assert!(is_created(&situation), "{}", told(&situation));
    }
}

/// A job, of which `which` of class, group and run are for public repositories.
fn public(which: &[&str]) -> Situation {
    let [class, group, run] = ["class", "group", "run"].map(|part| which.contains(&part));
    let mut situation = Situation::parse(ONE_JOB);
    let public = Risks::NONE.with(Risk::Public);
    if class {
        situation.policy.classes.last_mut().unwrap().admits = public;
    }
    with_group(&mut situation, |it| it.allows_public = group);
    if run {
        let repo = situation.observed.repos.get_mut(&scope("acme/web")).unwrap();
        repo.runs.get_mut(&RunId(1)).unwrap().run.risks = public;
    }
    situation
}

#[test]
fn public_repositories_are_served_where_class_and_group_admit_them() {
    assert!(is_created(&public(&["class", "group", "run"])));
    assert!(is_created(&public(&["class", "group"])));
    assert!(is_created(&public(&["class"])));
    let refused = told(&public(&["class", "run"]));
    assert!(refused.ends_with("runner group `Modal` does not admit public repositories"), "{refused}");
    let open = told(&public(&["group"]));
    assert!(open.contains("runner group `Modal` also admits public repositories"), "{open}");
}

fn holds(situation: &Situation) -> bool {
    let (registry, view) = situation.observed.registries.iter().next().unwrap();
    group_holds_jobs(registry, view, &situation.observed, &situation.policy)
}

#[test]
fn a_group_holds_jobs_that_ask_for_us_and_wait() {
    let without_group = |job: &str| Situation::parse(&format!("org acme; {job}"));
    assert!(holds(&without_group("job 7 acme/web queued")));
    assert!(!holds(&Situation::parse(ONE_JOB)), "it admits them");
    assert!(!holds(&Situation::parse("job 7 acme/web queued")), "there is no organization");
    assert!(!holds(&without_group("job 7 acme/web in_progress")));
    assert!(!holds(&without_group("job 7 acme/web queued labels=ubuntu-latest")));
    let mut ended = without_group("job 7 acme/web queued");
    let runs = &mut ended.observed.repos.values_mut().next().unwrap().runs;
    for run in runs.values_mut() {
        run.run.status = RunStatus::Completed;
    }
    assert!(!holds(&ended));
    assert!(!holds(&public(&["class", "group", "run"])), "some class admits them");
}

#[test]
fn a_workflow_of_which_it_is_not_known_whether_the_group_runs_it_is_told() {
    let doubt = |job: &str, group: &str| {
        let situation = Situation::parse(&format!("org acme; job 7 acme/web queued {job}; group acme/web {group}"));
        let action = situation.plan().actions.into_iter().next();
        let Some(sandrunner::plan::Action::Create(create)) = action else { panic!("{action:?}") };
        workflow_doubt(&situation.observed, &create.origin)
    };
    let selected = "workflows=acme/web/.github/workflows/deploy.yml@refs/heads/main";
    let of = |file: &str| Some((file.to_owned(), "Modal".to_owned()));
    assert_eq!(doubt("workflow=.github/workflows/ci.yml calls", selected), of(".github/workflows/ci.yml"));
    assert_eq!(doubt("", selected), of("unknown"));
    assert_eq!(doubt("workflow=.github/workflows/ci.yml", ""), None);
    assert_eq!(doubt("workflow=.github/workflows/deploy.yml@main", selected), None);
}
