//! Two controllers with one configuration and no election (design rule F).

use std::time::Duration;

use sandrunner::sim::{Fault, FaultMode, Operation, Profile, Scenario, What};

use crate::lab::{Lab, Outcome, is_done_and_clean};

const HOURS_3: Duration = Duration::from_secs(3 * 3600);

/// Needs may be served twice where both controllers decide on readings of the same moment: only that is forgiven.
fn check(outcome: &Outcome, twice: usize, what: &str) {
    let report = &outcome.report;
    let surplus = report.violations.iter().filter(|it| it.starts_with("surplus in")).count();
    assert_eq!(report.violations.len(), surplus, "{what}: {}", outcome.summary());
    assert!(report.surplus_runners <= twice, "{what}: {}", outcome.summary());
    assert!(report.jobs_expected > 0 && report.jobs_completed == report.jobs_expected, "{what}: {}", outcome.summary());
    assert_eq!((report.sandboxes_live_at_end, report.runners_left_at_end), (0, 0), "{what}: {}", outcome.summary());
}

#[tokio::test(start_paused = true)]
async fn two_controllers_share_the_work_and_do_no_harm() {
    let lab = Lab::new(Profile::realistic(), Scenario::generate(40, 6, 1), 1).controllers(2);
    let outcome = lab.run(HOURS_3, is_done_and_clean).await;
    check(&outcome, 2, "both well");
    for number in 1..=2 {
        let calls = outcome.times(|what| matches!(what, What::Call { client, .. } if *client == number));
        assert!(calls.len() > 100, "controller {number} made {} calls", calls.len());
    }
}

/// Cuts one controller off from a service for twenty minutes, one minute from the start.
fn cut_off(client: u32, operation: Operation, mode: FaultMode) -> Fault {
    Fault {
        client: Some(client),
        times: Fault::UNLIMITED,
        from_secs: 60.0,
        until_secs: Some(1_260.0),
        ..Fault::new(operation, mode)
    }
}

fn struck(outcome: &Outcome) -> usize {
    outcome.times(|what| matches!(what, What::FaultStruck { .. })).len()
}

#[tokio::test(start_paused = true)]
async fn one_of_two_controllers_is_cut_off_from_one_side() {
    for (service, mode) in [(Operation::Github, FaultMode::Silent), (Operation::Modal, FaultMode::Cut)] {
        let lab = Lab::new(Profile::realistic(), Scenario::generate(40, 6, 2), 2).controllers(2);
        lab.world.add_fault(cut_off(1, service, mode)).expect("a fault");
        let outcome = lab.run(HOURS_3, is_done_and_clean).await;
        check(&outcome, 4, &format!("{service:?} {mode:?}"));
        assert!(struck(&outcome) > 20, "{service:?} {mode:?}: {}", outcome.summary());
    }
}

#[tokio::test(start_paused = true)]
async fn each_of_two_controllers_is_cut_off_from_another_side() {
    let lab = Lab::new(Profile::realistic(), Scenario::generate(40, 6, 3), 3).controllers(2);
    lab.world.add_fault(cut_off(1, Operation::Github, FaultMode::Cut)).expect("a fault");
    lab.world.add_fault(cut_off(2, Operation::Modal, FaultMode::Cut)).expect("a fault");
    let outcome = lab.run(HOURS_3, is_done_and_clean).await;
    // While it lasts the one sees no demand, and the other has nothing to serve it with.
    check(&outcome, 6, "one each");
    assert!(struck(&outcome) > 100, "{}", outcome.summary());
}
