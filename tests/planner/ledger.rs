//! What sandboxes have cost: from Modal's lists to entries and to what was spent today, and what is read for that.

use crate::situation::{Situation, name, now};
use chrono::{DateTime, TimeDelta, Utc};
use sandrunner::budget::Capacity;
use sandrunner::class::{Gpu, Machine};
use sandrunner::cost::{Entry, Known, Ledger, Payer, Reach, Resources, Usd};
use sandrunner::error::{CallFailure, ErrorClass};
use sandrunner::evidence::Claim;
use sandrunner::ids::{ClassName, JobId, SandboxId};
use sandrunner::poll::{self, Read};
use sandrunner::state::{EndedSandbox, SandboxEnd};

/// A daemon at noon; `now()` of situations is midnight.
struct Day {
    situation: Situation,
    ledger: Ledger,
    now: DateTime<Utc>,
}

fn usd(text: &str) -> Usd {
    text.parse().unwrap()
}

impl Day {
    fn new(text: &str) -> Self {
        let mut situation = Situation::parse(text);
        // A sandbox of the class `default`, 2 cores and 4 GiB, costs a dollar an hour.
        situation.policy.prices.rates.cpu = usd("0.4");
        situation.policy.prices.rates.memory = usd("0.05");
        situation.policy.prices.rates.gpus = [("t4".to_owned(), usd("2"))].into();
        let ledger = Ledger::new(&situation.policy);
        Self { situation, ledger, now: now() + TimeDelta::hours(12) }
    }

    fn after(mut self, entries: &[Entry], reach: Reach) -> Self {
        self.ledger = self.ledger.with_entries(entries, reach, self.now);
        self
    }

    /// After two complete lists that agree, a minute apart; it is noon again.
    fn settled(mut self) -> Self {
        self.wait(-2).list(Vec::new());
        self.wait(1).list(Vec::new());
        self.wait(1);
        self
    }

    /// A pass in which a complete list has arrived.
    fn list(&mut self, listed: Vec<EndedSandbox>) -> Vec<Entry> {
        self.situation.observed.fleet.ended_read.succeeded(self.now);
        self.pass(listed)
    }

    /// A pass in which a list has arrived that was cut off.
    fn cut_off(&mut self, listed: Vec<EndedSandbox>) -> Vec<Entry> {
        let failure = CallFailure { class: ErrorClass::Unavailable, message: "cut".into(), retry_after: None };
        self.situation.observed.fleet.ended_read.failed(self.now, failure);
        self.pass(listed)
    }

    fn pass(&mut self, listed: Vec<EndedSandbox>) -> Vec<Entry> {
        let Self { situation, ledger, now } = self;
        ledger.note_claims(&situation.observed, &situation.evidence);
        let entries = ledger.take(&situation.observed, listed, &situation.policy, *now);
        situation.observed.spend = ledger.spend(&situation.observed, &situation.policy, *now);
        entries
    }

    fn wait(&mut self, minutes: i64) -> &mut Self {
        self.now += TimeDelta::minutes(minutes);
        self
    }

    fn spent(&self) -> String {
        self.situation.observed.spend.total.to_string()
    }

    fn list_since(&self) -> Option<TimeDelta> {
        self.situation.observed.spend.list_since.map(|since| self.now - since)
    }
}

/// The id of a sandbox of the older interface.
const V1: &str = "sb-0123456789abcdefghijAB";

/// An ended sandbox of the class `default`, whose times are minutes of the day.
fn ended(id: &str, started: Option<i64>, finished: i64) -> EndedSandbox {
    let at = |minutes| now() + TimeDelta::minutes(minutes);
    EndedSandbox {
        id: SandboxId::new(id),
        name: "sr-main-gh-7-1".to_owned(),
        account: "gh".to_owned(),
        repo: "acme/web".to_owned(),
        workflow: Some("ci.yml".to_owned()),
        class: ClassName::new("default"),
        created_at: at(started.unwrap_or(finished)) - TimeDelta::minutes(1),
        started_at: started.map(at),
        finished_at: Some(at(finished)),
        resources: Resources { milli_cpu: Some(2000), memory_mib: Some(4096), gpu: None, machine: None },
    }
}

#[test]
fn a_sandbox_costs_its_time_by_the_price_of_its_machine_and_is_accounted_once() {
    let mut day = Day::new("");
    let large = Resources { milli_cpu: Some(8000), memory_mib: Some(16_384), gpu: None, machine: None };
    let listed = vec![
        ended("sb-1", Some(600), 630),
        EndedSandbox { resources: large, ..ended("sb-2", Some(600), 615) },
        ended(V1, None, 610),
        EndedSandbox {
            class: ClassName::new("gpu:t4"),
            resources: Resources::default(),
            ..ended("sb-4", Some(600), 660)
        },
    ];
    let entries = day.list(listed.clone());
    let costs: Vec<String> = entries.iter().map(|entry| format!("{} {}", entry.id, entry.usd)).collect();
    assert_eq!(costs, ["sb-1 0.50", "sb-2 1.00", &format!("{V1} 0.00"), "sb-4 3.00"]);
    assert!(entries.iter().all(|entry| !entry.estimate));
    assert_eq!((entries[0].repo.as_str(), entries[0].workflow.as_deref()), ("acme/web", Some("ci.yml")));
    assert_eq!((entries[3].gpu.as_deref(), day.spent().as_str()), (Some("T4"), "4.50"));
    assert_eq!(day.wait(1).list(listed), [], "each once");
    assert_eq!(day.spent(), "4.50");
}

#[test]
fn what_a_class_costs_is_what_the_operator_says_and_else_what_modal_tells() {
    let mut day = Day::new("");
    let mut rates = day.situation.policy.prices.rates.clone();
    rates.cpu = usd("0.9");
    day.situation.observed.rates.rates = Some(rates);
    assert_eq!(day.list(vec![ended("sb-1", Some(600), 660)])[0].usd, usd("2"));
    day.situation.policy.classes[1].price = Some(usd("7"));
    assert_eq!(day.wait(1).list(vec![ended("sb-2", Some(600), 660)])[0].usd, usd("7"));
    let price = |name: &str| {
        let class = day.situation.policy.class(&ClassName::new(name)).unwrap();
        day.situation.observed.spend.price(class).unwrap()
    };
    assert_eq!(["default", "gpu:t4"].map(price), [usd("7"), usd("4")]);
}

#[test]
fn what_modal_does_not_tell_is_marked_as_an_estimate() {
    let mut day = Day::new("");
    let gone =
        |machine| EndedSandbox { class: ClassName::new("gone"), resources: machine, ..ended("sb-1", Some(600), 660) };
    let told = Resources { milli_cpu: Some(1000), memory_mib: Some(1024), gpu: None, machine: None };
    let with_gpu = Resources { gpu: Some("Z9".to_owned()), ..told.clone() };
    let entry = |day: &mut Day, id: &str, machine| {
        let entries = day.wait(1).list(vec![EndedSandbox { id: SandboxId::new(id), ..gone(machine) }]);
        (entries[0].usd.to_string(), entries[0].estimate)
    };
    assert_eq!(entry(&mut day, "sb-1", told), ("0.45".to_owned(), false), "a class that is no more");
    assert_eq!(entry(&mut day, "sb-2", with_gpu), ("0.45".to_owned(), true), "a GPU without a price");
    assert!(entry(&mut day, "sb-3", Resources::default()).1, "no machine and no class");
}

#[test]
fn the_day_is_paid_from_midnight_to_midnight_and_begins_at_nothing() {
    // It began at 11:30, and is still there.
    let mut day = Day::new("sandbox 7-1 acme/web claimed 0s; sandbox 8-1 acme/web ended=0 0s");
    for sandbox in day.situation.observed.fleet.sandboxes.values_mut() {
        sandbox.started_at = Some(now() + TimeDelta::minutes(690));
    }
    let other = day.situation.observed.fleet.sandboxes.values_mut().nth(1).unwrap();
    other.ended.as_mut().unwrap().at = now() + TimeDelta::minutes(705);
    let yesterday = EndedSandbox { repo: "acme/api".to_owned(), ..ended("sb-1", Some(-60), 60) };
    day.list(vec![yesterday]);
    // An hour of what began yesterday, half an hour of what lives, a quarter of what ended and is not listed yet.
    assert_eq!(day.spent(), "1.75");
    let spend = &day.situation.observed.spend;
    let of = |repo: &str| spend.by_payer[&Payer { repo: repo.to_owned(), class: ClassName::new("default") }];
    assert_eq!((of("acme/api"), of("acme/web")), (usd("1"), usd("0.75")));
    assert_eq!((spend.rate_in_all(), spend.of_class(&ClassName::new("default"))), (usd("1"), usd("1.75")));
    assert_eq!(spend.day_ends_at, now() + TimeDelta::days(1));
    let listed = EndedSandbox { name: "sr-main-gh-8-1".to_owned(), ..ended("sb-8-1", Some(690), 705) };
    day.wait(1).list(vec![listed]);
    assert_eq!(day.spent(), usd("1.75").to_string().replace("1.75", "1.766666666667"), "a minute more of what lives");
    day.now = now() + TimeDelta::minutes(24 * 60 + 15);
    day.pass(Vec::new());
    assert_eq!(day.spent(), "0.25", "what lives, since midnight");
}

#[test]
fn midnight_is_that_of_modals_clock() {
    let mut day = Day::new("");
    day.now = now() + TimeDelta::minutes(24 * 60 - 5);
    day.situation.observed.skew = TimeDelta::minutes(10);
    day.list(vec![ended("sb-1", Some(24 * 60 - 60), 24 * 60 + 3)]);
    assert_eq!(day.spent(), "0.05", "by Modal's clock it is tomorrow");
    let ends = day.situation.observed.spend.day_ends_at;
    assert_eq!(ends, now() + TimeDelta::days(2) - TimeDelta::minutes(10), "by ours");
}

#[test]
fn a_clock_that_was_a_day_ahead_at_the_start_hides_nothing_that_was_spent() {
    let mut day = Day::new("");
    day.now += TimeDelta::days(1);
    day.list(vec![ended("sb-1", Some(600), 660)]);
    assert_eq!(day.spent(), "0.00", "as far as is known it was yesterday");
    day.situation.observed.skew = -TimeDelta::days(1);
    day.pass(Vec::new());
    assert_eq!(day.spent(), "1.00");
}

#[test]
fn lists_reach_back_to_what_is_not_accounted_and_then_there_are_none() {
    let mut day = Day::new("sandbox 7-1 acme/web ended=0 0s");
    day.situation.observed.fleet.sandboxes.values_mut().for_each(|sandbox| {
        sandbox.created_at = now() + TimeDelta::hours(9);
        sandbox.started_at = Some(now() + TimeDelta::hours(9));
    });
    let mut day = day.settled();
    assert_eq!(day.list_since(), Some(TimeDelta::hours(3) + TimeDelta::minutes(5)));
    let listed = EndedSandbox { ..ended("sb-7-1", Some(540), 700) };
    assert_eq!(day.wait(1).list(vec![listed]).len(), 1);
    assert_eq!(day.list_since(), None);
}

#[test]
fn one_that_complete_lists_lack_is_accounted_by_what_we_know() {
    let mut day = Day::new("sandbox 7-1 acme/web ended=0 0s; sandbox 8-1 acme/web unplaced 0s");
    let fleet = &mut day.situation.observed.fleet;
    let end = fleet.sandboxes[&name("7-1")].ended.clone();
    fleet.sandboxes.get_mut(&name("8-1")).unwrap().id = SandboxId::new(V1);
    for sandbox in fleet.sandboxes.values_mut() {
        sandbox.started_at = sandbox.is_scheduled.then(|| now() + TimeDelta::hours(10));
        sandbox.ended = end.clone();
        sandbox.ended.as_mut().unwrap().at = now() + TimeDelta::hours(11);
    }
    let unplaced = fleet.sandboxes.get_mut(&name("8-1")).unwrap();
    unplaced.ended.as_mut().unwrap().result.as_mut().unwrap().status = SandboxEnd::Terminated;
    day.list(Vec::new());
    // The view forgets them; what they cost does not depend on that.
    day.situation.observed.fleet.sandboxes.clear();
    for _ in 0..2 {
        assert_eq!(day.wait(6).list(Vec::new()), []);
    }
    for _ in 0..4 {
        assert_eq!(day.wait(6).cut_off(Vec::new()), [], "a list that was cut off may have shown them");
    }
    assert_eq!(day.spent(), "1.00", "it counts all the while");
    let entries = day.wait(1).list(Vec::new());
    let told: Vec<_> = entries.iter().map(|entry| (entry.id.as_str(), entry.usd.to_string(), entry.estimate)).collect();
    assert_eq!(told, [(V1, "0.00".to_owned(), true), ("sb-7-1", "1.00".to_owned(), true)]);
    assert_eq!((day.list_since(), day.spent().as_str()), (None, "1.00"));
    assert_eq!(day.wait(1).list(vec![ended("sb-7-1", Some(600), 661)]), [], "it is accounted");
}

#[test]
fn three_quick_lists_are_not_enough_to_estimate() {
    let mut day = Day::new("sandbox 7-1 acme/web ended=0 0s");
    for _ in 0..5 {
        assert_eq!(day.wait(1).list(Vec::new()), []);
    }
}

#[test]
fn what_was_spent_is_unknown_until_a_whole_list_or_three_parts_of_one() {
    let mut day = Day::new("");
    let known = |day: &Day| day.situation.observed.spend.known == Known::Yes;
    day.pass(Vec::new());
    assert!(!known(&day) && day.list_since() == Some(TimeDelta::hours(12 + 25)));
    for _ in 0..9 {
        day.wait(1).cut_off(Vec::new());
    }
    assert!(!known(&day), "nothing was read");
    for left in [false, false, true] {
        let seen = day.wait(1).cut_off(vec![ended("sb-1", Some(600), 660)]);
        assert_eq!((known(&day), day.spent().as_str()), (left, "1.00"), "{seen:?}");
    }
    let mut day = Day::new("");
    day.ledger = day.ledger.with_one_list();
    day.list(vec![ended("sb-1", Some(600), 660)]);
    assert!(known(&day) && day.spent() == "1.00", "who only looks does not wait");
    let mut day = Day::new("");
    day.list(Vec::new());
    assert!(!known(&day), "one list may be empty, or lack something");
    day.now += TimeDelta::seconds(59);
    day.list(Vec::new());
    assert!(!known(&day), "too soon after it");
    day.now += TimeDelta::seconds(1);
    day.list(vec![ended("sb-1", Some(600), 660)]);
    assert_eq!((known(&day), day.spent().as_str()), (false, "1.00"), "the first one lacked it");
    day.wait(1).list(vec![ended("sb-2", Some(700), 720)]);
    assert!(known(&day) && day.list_since().is_none(), "it ended meanwhile");
}

#[test]
fn a_restart_counts_what_was_kept_and_reads_what_may_be_missing() {
    let mut first = Day::new("");
    let entries = first.list(vec![ended("sb-1", Some(600), 660), ended("sb-2", Some(-90), -30)]);
    let last = now() + TimeDelta::minutes(660);
    let mut again = Day::new("").after(&entries, Reach::After(last));
    again.pass(Vec::new());
    assert_eq!((again.spent().as_str(), again.situation.observed.spend.known), ("1.00", Known::NotYet));
    assert_eq!(again.list_since(), Some(TimeDelta::hours(12 + 25)), "today first");
    assert_eq!(again.list(vec![ended("sb-1", Some(600), 660)]), [], "it stands in the file");
    again.wait(1).list(Vec::new());
    assert_eq!((again.spent().as_str(), again.list_since()), ("1.00", None));
    for (reach, hours) in [
        (Reach::AllThereIs, Some(7 * 24)),
        (Reach::After(now() - TimeDelta::days(90)), Some(7 * 24)),
        (Reach::After(now() - TimeDelta::days(2)), Some(12 + 48 + 25)),
        (Reach::After(now() + TimeDelta::days(9)), None),
    ] {
        let mut day = Day::new("").after(&[], reach).settled();
        day.pass(Vec::new());
        assert_eq!(day.situation.observed.spend.known, Known::Yes, "nothing waits for what the file lacks");
        assert_eq!(day.list_since(), hours.map(TimeDelta::hours), "{reach:?}");
        let gone = ended("sb-3", Some(-60 * 24 * 3), -60 * 24 * 3 + 60);
        assert_eq!(day.list(vec![gone]).len(), 1);
        day.wait(1).list(Vec::new());
        assert_eq!((day.list_since(), day.spent().as_str()), (None, "0.00"), "{reach:?}");
    }
}

#[test]
fn after_midnight_the_day_before_is_read_once_more() {
    let mut day = Day::new("").settled();
    assert_eq!(day.list_since(), None);
    day.wait(13 * 60).pass(Vec::new());
    assert_eq!(day.list_since(), Some(TimeDelta::hours(1 + 24 + 25)));
    assert_eq!(day.situation.observed.spend.known, Known::Yes);
    assert_eq!(day.list(vec![ended("sb-1", Some(600), 660)]).len(), 1, "which nothing showed meanwhile");
    day.wait(1).list(Vec::new());
    assert_eq!(day.list_since(), None);
}

#[test]
fn one_that_could_not_be_read_is_looked_for_once_it_lives_no_more() {
    let mut day = Day::new("unreadable sb-1").settled();
    day.pass(Vec::new());
    assert_eq!(day.list_since(), None, "it lives");
    day.situation.observed.fleet.unreadable.clear();
    day.pass(Vec::new());
    assert_eq!(day.list_since(), Some(TimeDelta::hours(25)));
    day.list(vec![EndedSandbox { repo: "acme/gone".to_owned(), ..ended("sb-1", Some(600), 660) }]);
    day.wait(1).list(Vec::new());
    assert_eq!((day.list_since(), day.spent().as_str()), (None, "1.00"));
}

#[test]
fn one_that_a_list_shows_as_ended_and_the_view_as_living_counts_once() {
    for finished in [Some(now() + TimeDelta::minutes(720)), None] {
        let mut day = Day::new("sandbox 7-1 acme/web claimed 0s");
        let sandbox = day.situation.observed.fleet.sandboxes.get_mut(&name("7-1")).unwrap();
        sandbox.started_at = Some(now() + TimeDelta::minutes(660));
        day.pass(Vec::new());
        assert_eq!((day.spent().as_str(), day.situation.observed.spend.rate_in_all()), ("1.00", usd("1")));
        day.list(vec![EndedSandbox { finished_at: finished, ..ended("sb-7-1", Some(660), 720) }]);
        assert_eq!((day.spent().as_str(), day.situation.observed.spend.rate_in_all()), ("1.00", Usd::ZERO));
    }
}

#[test]
fn what_lives_costs_what_it_was_made_with() {
    let mut day = Day::new("sandbox 7-1 acme/web claimed 0s; sandbox 8-1 acme/web claimed 0s");
    let sandboxes = &mut day.situation.observed.fleet.sandboxes;
    for sandbox in sandboxes.values_mut() {
        (sandbox.created_at, sandbox.started_at) = (now() + TimeDelta::hours(11), Some(now() + TimeDelta::hours(11)));
    }
    let large = Resources { milli_cpu: Some(8000), memory_mib: Some(16_384), gpu: None, machine: None };
    let sandbox = sandboxes.get_mut(&name("7-1")).unwrap();
    // Modal tells no start: of the newer interface it has run all the while.
    (sandbox.resources, sandbox.started_at) = (large, None);
    day.pass(Vec::new());
    assert_eq!((day.spent().as_str(), day.situation.observed.spend.rate_in_all()), ("5.00", usd("5")));
}

#[test]
fn our_tag_tells_the_gpu_and_then_modal_and_then_the_class() {
    let mut day = Day::new("");
    day.situation.policy.prices.rates.gpus.insert("h100".to_owned(), usd("4"));
    let of_tag = |gpu: &str| Some(Machine { gpu: Gpu::parse(gpu), regions: Vec::new() });
    let priced = |listed: Option<&str>, machine| {
        let resources = Resources { gpu: listed.map(str::to_owned), machine, ..Resources::default() };
        let sandbox = EndedSandbox { class: ClassName::new("gpu:t4"), resources, ..ended("sb-1", Some(600), 660) };
        let mut day = Day { situation: day.situation.clone(), ledger: Ledger::new(&day.situation.policy), ..day };
        let entry = day.list(vec![sandbox]).remove(0);
        (entry.gpu.unwrap_or_default(), entry.usd.to_string(), entry.estimate)
    };
    let is = |gpu: &str, usd: &str, estimate| (gpu.to_owned(), usd.to_owned(), estimate);
    assert_eq!(priced(Some("H100"), of_tag("T4:2")), is("T4", "5.00", false));
    assert_eq!(priced(Some("T4"), of_tag("X1")), is("X1", "1.00", true), "one without a price");
    assert_eq!(priced(Some("H100"), None), is("H100", "5.00", false));
    assert_eq!(priced(Some("NVIDIA-T4-16GB"), None), is("T4", "3.00", false), "a name of Modal's own");
    assert_eq!(priced(None, None), is("T4", "3.00", false));
}

#[test]
fn missing_times_are_made_up_for() {
    let mut day = Day::new("").settled();
    let entries = day.list(vec![ended("sb-1", None, 610)]);
    assert_eq!((entries[0].usd, entries[0].estimate), (usd("1").for_time(TimeDelta::minutes(1)), true));
    // It waited for a machine until it was over.
    let never = day.wait(1).list(vec![EndedSandbox { finished_at: None, ..ended(V1, None, 610) }]);
    assert_eq!((never[0].usd, never[0].estimate), (Usd::ZERO, false));
    assert_eq!((never[0].ended, day.list_since()), (now() + TimeDelta::minutes(609), None), "at once");
    // Nobody was there to see its end: it lived for no more than a day.
    let before = day.spent();
    day.wait(1).list(vec![EndedSandbox { finished_at: None, ..ended("sb-2", Some(-25 * 60), 0) }]);
    assert_eq!(day.spent(), before);
    let entries: Vec<Entry> = (0..3).flat_map(|_| day.wait(6).list(Vec::new())).collect();
    assert_eq!((entries[0].ended, entries[0].usd, entries[0].estimate), (now() - TimeDelta::hours(1), usd("24"), true));
}

#[test]
fn a_sandbox_is_accounted_to_the_job_that_it_ran() {
    let mut day = Day::new(
        "sandbox 7-1 acme/web claimed 0s; job 9 acme/api in_progress run=2 workflow=.github/workflows/nightly.yml",
    );
    let evidence = day.situation.evidence.names.get_mut(&name("7-1")).unwrap();
    evidence.claim = Some(Claim { job: JobId(9), runner: None, at: now() });
    day.pass(Vec::new());
    // Its run is over and out of sight before a list shows the sandbox.
    day.situation.observed.repos.clear();
    let entries = day.list(vec![ended("sb-7-1", Some(600), 660), ended("sb-8-1", Some(600), 660)]);
    let told: Vec<_> = entries.iter().map(|entry| (entry.repo.as_str(), entry.workflow.as_deref())).collect();
    assert_eq!(told, [("acme/api", Some("nightly.yml")), ("acme/web", Some("ci.yml"))]);
}

#[test]
fn rates_are_read_before_ended_sandboxes_and_those_at_most_every_minute() {
    let due = |day: &Day| -> Vec<Read> {
        let Situation { observed, evidence, policy } = &day.situation;
        let capacities = [("gh".parse().unwrap(), Capacity::of_points(450.0))].into();
        let all = poll::due(observed, evidence, policy, &capacities, day.now);
        all.into_iter().map(|due| due.read).filter(|read| matches!(read, Read::Rates | Read::Ended)).collect()
    };
    let failed = |class| CallFailure { class, message: "no".into(), retry_after: None };
    for has_gpus in [true, false] {
        let mut day = Day::new("");
        if !has_gpus {
            day.situation.policy.classes.retain(|class| class.gpu.is_none());
            assert_eq!(due(&day), [], "nothing is to be accounted");
        }
        day.pass(Vec::new());
        let mut slow = Day { situation: day.situation.clone(), ledger: Ledger::new(&day.situation.policy), ..day };
        for _ in 0..3 {
            assert_eq!(due(&slow), [Read::Rates], "what is listed is priced by them");
            slow.situation.observed.rates.read.failed(slow.now, failed(ErrorClass::Unavailable));
            slow.wait(1);
        }
        assert!(due(&slow).contains(&Read::Ended), "they are not waited for for ever");
        day.situation.observed.rates.read.failed(day.now, failed(ErrorClass::Forbidden));
        assert_eq!(due(&day), [Read::Ended], "without rates the table counts");
        day.wait(-1).list(Vec::new());
        day.wait(1).list(vec![EndedSandbox { finished_at: None, ..ended("sb-1", Some(600), 660) }]);
        assert_eq!(due(&day), [], "one is pending, and was just looked for");
        day.now += TimeDelta::seconds(60);
        assert_eq!(due(&day), [Read::Ended]);
        day.list(vec![ended("sb-1", Some(600), 660)]);
        day.wait(5);
        assert_eq!(due(&day), [], "all is accounted");
        day.situation.observed.rates.read.succeeded(day.now);
        day.situation.policy.classes.retain(|class| class.gpu.is_none());
        day.wait(24 * 60 - 1);
        assert_eq!(due(&day), []);
        assert_eq!(due(day.wait(1)), [Read::Rates]);
    }
}
