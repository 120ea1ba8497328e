//! What `demo --faults list` prints.

use crate::sim::{Mishap, NamedFault, Operation};

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
}
