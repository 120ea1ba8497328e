//! The faults that wait for their operation.

use super::{Fault, FaultMode};
use crate::sim::draws::{Purpose, Seed, seconds};
use crate::sim::history::Operation;
use crate::sim::jobs::Time;

/// Where something may go wrong: an operation, and the repository that it concerns, in lower case.
#[derive(Debug, Clone, Copy)]
pub(in crate::sim) struct Site<'a> {
    pub(in crate::sim) operation: Operation,
    /// Empty where it concerns none.
    pub(in crate::sim) repo: &'a str,
    /// The process that calls; 0 where that is not known.
    pub(in crate::sim) client: u32,
}

/// What a struck fault does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::sim) struct Strike {
    pub(in crate::sim) mode: FaultMode,
    pub(in crate::sim) seconds: Option<f64>,
    pub(in crate::sim) status: Option<u16>,
    /// The fault's name in the catalogue; empty where it has none.
    pub(in crate::sim) name: &'static str,
    /// When the fault that struck ends; none where it does not end by itself.
    pub(in crate::sim) until: Option<Time>,
    /// Differs from strike to strike, so that each can draw its own chance.
    pub(in crate::sim) number: u64,
}

impl Strike {
    /// The duration, or what the mode takes where none is given.
    pub(in crate::sim) fn seconds_or(self, default: f64) -> f64 {
        self.seconds.unwrap_or(default)
    }
}

/// A fault that was put in.
#[derive(Debug)]
struct Active {
    fault: Fault,
    from: Time,
    until: Option<Time>,
    /// Which of all faults ever put in it is.
    serial: u64,
    /// The calls that it might have struck, those that were to go well before included: what is drawn for one of them
    /// differs from what is drawn for the next.
    calls: u64,
}

impl Active {
    fn is_meant(&self, site: Site<'_>, now: Time) -> bool {
        let fault = &self.fault;
        self.from <= now
            && (fault.operation == site.operation || Some(fault.operation) == site.operation.group())
            && fault.mode.applies_to(site.operation)
            && fault.client.is_none_or(|client| client == site.client)
            && fault.repo.as_ref().is_none_or(|repo| repo.eq_ignore_ascii_case(site.repo))
    }

    /// Counts a call, and tells whether it goes wrong.
    fn has_its_turn(&mut self, seed: Seed) -> bool {
        self.calls += 1;
        if self.fault.after > 0 {
            self.fault.after -= 1;
            return false;
        }
        self.fault.rate >= 1.0 || seed.stream(Purpose::Fault, self.key()).chance(self.fault.rate)
    }

    fn key(&self) -> u64 {
        self.serial << 40 | self.calls
    }
}

/// All faults that wait, the oldest first.
#[derive(Debug, Default)]
pub(in crate::sim) struct Faults {
    waiting: Vec<Active>,
    added: u64,
}

impl Faults {
    pub(in crate::sim) fn add(&mut self, fault: Fault, now: Time) {
        self.added += 1;
        let at = |secs| now + seconds(secs);
        let (from, until) = (at(fault.from_secs), fault.until_secs.map(at));
        self.waiting.push(Active { fault, from, until, serial: self.added, calls: 0 });
    }

    pub(in crate::sim) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes all out.
    pub(in crate::sim) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Counts one use of `site` and tells whether it goes wrong; the oldest fault that `can` strike does.
    pub(in crate::sim) fn strike(
        &mut self,
        site: Site<'_>,
        now: Time,
        seed: Seed,
        mut can: impl FnMut(FaultMode) -> bool,
    ) -> Option<Strike> {
        self.waiting.retain(|active| active.until.is_none_or(|until| now < until));
        let index = self
            .waiting
            .iter_mut()
            .position(|active| active.is_meant(site, now) && can(active.fault.mode) && active.has_its_turn(seed))?;
        let active = &mut self.waiting[index];
        let Fault { mode, seconds, status, name, .. } = active.fault;
        let strike = Strike { mode, seconds, status, name, until: active.until, number: active.key() };
        if active.fault.times != Fault::UNLIMITED {
            active.fault.times -= 1;
            if active.fault.times == 0 {
                self.waiting.remove(index);
            }
        }
        Some(strike)
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};

    use super::*;

    /// Strikes at a second, in a repository.
    fn strike_at(faults: &mut Faults, operation: Operation, second: i64, repo: &str) -> Option<FaultMode> {
        let now = DateTime::UNIX_EPOCH + TimeDelta::seconds(second);
        faults.strike(Site { operation, repo, client: 0 }, now, Seed::new(1), |_| true).map(|strike| strike.mode)
    }

    fn strike(faults: &mut Faults, operation: Operation) -> Option<FaultMode> {
        strike_at(faults, operation, 0, "acme/web")
    }

    fn with(fault: Fault) -> Faults {
        let mut faults = Faults::default();
        faults.add(fault, DateTime::UNIX_EPOCH);
        faults
    }

    #[test]
    fn a_fault_strikes_its_operation_as_often_as_stated() {
        let mut faults = with(Fault { times: 2, after: 1, ..Fault::new(Operation::Mint, FaultMode::Error) });
        assert_eq!(strike(&mut faults, Operation::ListRuns), None);
        assert_eq!(strike(&mut faults, Operation::Mint), None);
        assert_eq!(strike(&mut faults, Operation::Mint), Some(FaultMode::Error));
        assert!(strike(&mut faults, Operation::Mint).is_some());
        assert_eq!(strike(&mut faults, Operation::Mint), None);
    }

    #[test]
    fn what_is_drawn_for_a_strike_depends_on_the_call() {
        let number = |after| {
            let mut faults = with(Fault { after, ..Fault::new(Operation::ListRuns, FaultMode::Stale) });
            let site = Site { operation: Operation::ListRuns, repo: "acme/web", client: 0 };
            let mut strikes = (0..=after).map(|_| faults.strike(site, DateTime::UNIX_EPOCH, Seed::new(1), |_| true));
            strikes.find_map(|strike| strike).expect("it strikes after those that go well").number
        };
        let numbers: std::collections::BTreeSet<u64> = (0..50).map(number).collect();
        assert_eq!(numbers.len(), 50);
        assert_eq!(number(7), number(7));
    }

    #[test]
    fn a_group_means_the_calls_of_one_service_that_can_go_wrong_so() {
        let mut faults = with(Fault::new(Operation::Modal, FaultMode::Error));
        assert_eq!(strike(&mut faults, Operation::Mint), None);
        assert_eq!(strike(&mut faults, Operation::Boot), None);
        assert!(strike(&mut faults, Operation::Wait).is_some());
        let mut faults = with(Fault::new(Operation::Github, FaultMode::Empty));
        assert_eq!(strike(&mut faults, Operation::Mint), None);
        assert!(strike(&mut faults, Operation::ListJobs).is_some());
    }

    #[test]
    fn a_fault_lasts_for_its_span_and_concerns_its_repository() {
        let mut faults = with(Fault {
            times: Fault::UNLIMITED,
            from_secs: 10.0,
            until_secs: Some(20.0),
            repo: Some("Acme/web".to_owned()),
            ..Fault::new(Operation::ListRuns, FaultMode::Error)
        });
        let mut struck = |second, repo| strike_at(&mut faults, Operation::ListRuns, second, repo).is_some();
        assert_eq!([9, 10, 19].map(|second| struck(second, "acme/web")), [false, true, true]);
        assert!(!struck(15, "acme/api"));
        assert!(!struck(20, "acme/web"));
    }

    #[test]
    fn a_rate_is_drawn_from_the_seed_and_hits_as_often_as_stated() {
        let pattern = |seed| {
            let fault = Fault::new(Operation::Mint, FaultMode::Error);
            let mut faults = with(Fault { times: Fault::UNLIMITED, rate: 0.3, ..fault });
            let site = Site { operation: Operation::Mint, repo: "", client: 0 };
            (0..1_000)
                .map(|_| faults.strike(site, DateTime::UNIX_EPOCH, Seed::new(seed), |_| true).is_some())
                .collect::<Vec<bool>>()
        };
        let hits = pattern(1).into_iter().filter(|hit| *hit).count();
        assert!((250..350).contains(&hits), "{hits} of 1000");
        assert_eq!(pattern(1), pattern(1));
        assert_ne!(pattern(1), pattern(2));
    }
}
