//! What `demo --faults list` prints.

use crate::sim::{NamedFault, Operation};

/// Every fault that has a name, one a line: the name, what goes wrong, and where.
pub(super) fn catalogue() -> String {
    let width = NamedFault::all().map(|fault| fault.name.len()).max().unwrap_or_default();
    let lines: Vec<String> = NamedFault::all()
        .map(|fault| {
            let places: Vec<String> = fault.operations().into_iter().map(Operation::name).collect();
            format!("{:width$}  {} [{}]", fault.name, fault.description, places.join(" "))
        })
        .collect();
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
        assert_eq!(text.lines().count(), NamedFault::all().count());
    }
}
