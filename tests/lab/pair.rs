//! Two controllers with one configuration and no election (design rule F).

use std::time::Duration;

use sandrunner::sim::{Profile, Scenario, What};

use crate::lab::{Lab, Outcome, is_done_and_clean};

const HOURS_3: Duration = Duration::from_secs(3 * 3600);

/// Needs may be served twice where both controllers decide on readings of the same moment: only that is forgiven.
fn check(outcome: &Outcome, twice: usize, what: &str) {
    let report = &outcome.report;
    let surplus = report.violations.iter().filter(|it| it.starts_with("surplus in")).count();
    assert_eq!(report.violations.len(), surplus, "{what}: {}", outcome.summary());
    assert!(surplus <= twice, "{what}: {}", outcome.summary());
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
