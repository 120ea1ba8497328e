//! What `demo` says of faults: which there are, and which were asked for in vain.

use crate::sim::{Event, Mishap, NamedFault, Operation, What};

/// Every fault that has a name, one a line: the name, what goes wrong, and where.
pub(super) fn catalogue() -> String {
    let of_services = NamedFault::all().map(|fault| {
        let places: Vec<String> = fault.operations().into_iter().map(Operation::name).collect();
        (fault.name, fault.description, places.join(" "))
    });
    let of_machines = Mishap::ALL.iter().map(|mishap| (mishap.name(), mishap.description(), "machine".to_owned()));
    let all: Vec<_> = of_services.chain(of_machines).collect();
    let width = all.iter().map(|(name, ..)| name.len()).max().unwrap_or_default();
    let lines: Vec<String> =
        all.iter().map(|(name, description, place)| format!("{name:width$}  {description} [{place}]")).collect();
    lines.join("\n")
}

/// Those of the names that were asked for which never took effect: what they strike did not happen.
pub(super) fn idle(names: &[String], history: &[Event]) -> Vec<String> {
    let is_turned = |event: &Event| matches!(&event.what, What::KnobsChanged { knobs } if !knobs.is_empty());
    let has_turned = history.iter().any(is_turned);
    let has_struck = |name: &str| {
        history.iter().any(|event| {
            matches!(&event.what, What::FaultStruck { fault, .. } if **fault == *name)
                || matches!(&event.what, What::MachineStruck { mishap, .. } if mishap.name() == name)
        })
    };
    let is_of_knobs = |name: &str| NamedFault::all().any(|fault| fault.name == name && fault.parts.is_empty());
    let is_idle = |name: &&String| !(has_struck(name) || has_turned && is_of_knobs(name));
    names.iter().filter(is_idle).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_printed_with_what_it_does_and_where() {
        let text = catalogue();
        let line = text.lines().find(|line| line.starts_with("mint_reply_lost ")).unwrap();
        assert!(line.contains("gets lost") && line.ends_with("[mint]"), "{line}");
        let line = text.lines().find(|line| line.starts_with("clock_day_ahead ")).unwrap();
        assert!(line.ends_with("[machine]"), "{line}");
        assert_eq!(text.lines().count(), NamedFault::all().count() + Mishap::ALL.len());
    }

    #[test]
    fn what_was_asked_for_in_vain_is_named() {
        let names = ["mint_409", "clock_day_ahead", "gpu_sold_out"].map(str::to_owned);
        assert_eq!(idle(&names, &[]), names);
        let at = chrono::DateTime::UNIX_EPOCH;
        let event = |what| Event { seq: 0, at, what };
        let mishap = event(What::MachineStruck { client: 1, mishap: Mishap::ClockDayAhead });
        assert_eq!(idle(&names, &[mishap]), ["mint_409", "gpu_sold_out"]);
        let (operation, mode, subject) = (Operation::Mint, crate::sim::FaultMode::Refused, "acme/web".into());
        let fault = event(What::FaultStruck { operation, mode, fault: "mint_409".into(), subject });
        let knobs = [("modal_gpus_sold_out".to_owned(), serde_json::json!([]))].into();
        assert_eq!(idle(&names, &[fault, event(What::KnobsChanged { knobs })]), ["clock_day_ahead"]);
    }
}
