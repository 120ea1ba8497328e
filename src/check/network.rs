//! Judges whether the runner of a class reaches GitHub through the network that the class has (pure).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::facts::Facts;
use super::{Check, Finding};
use crate::class::{Network, RunnerClass, domain_admits, needed_hosts};
use crate::config::Settings;
use crate::plan::Policy;

/// The hosts that a runner cannot do without, of all accounts.
fn hosts(policy: &Policy) -> BTreeSet<String> {
    let addresses = policy.accounts.values().filter_map(|account| account.host.parse::<http::Uri>().ok());
    addresses
        .filter_map(|uri| Some(uri.host()?.to_owned()))
        .flat_map(|host| needed_hosts(&host).into_iter().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// Those hosts that a class reaches by its addresses alone, if at all: their addresses have to be looked up.
pub(super) fn hosts_by_address(policy: &Policy) -> BTreeSet<String> {
    let hosts = hosts(policy);
    let by_address = policy.classes.iter().flat_map(|class| unnamed(class, &hosts));
    by_address.cloned().collect()
}

/// Those hosts that no domain of a class's list means.
fn unnamed<'a>(class: &'a RunnerClass, hosts: &'a BTreeSet<String>) -> impl Iterator<Item = &'a String> {
    let domains = match &class.options.network {
        Network::Open => None,
        Network::Only { domains, .. } => Some(domains),
    };
    hosts
        .iter()
        .filter(move |host| domains.is_some_and(|domains| !domains.iter().any(|domain| domain_admits(domain, host))))
}

pub(super) fn judge(settings: &Settings, facts: &Facts) -> Vec<Finding> {
    let hosts = hosts(&settings.policy);
    let mut by_network: BTreeMap<String, (Vec<&str>, Finding)> = BTreeMap::new();
    for class in &settings.policy.classes {
        let key = format!("{:?}", class.options.network);
        by_network
            .entry(key)
            .or_insert_with(|| (Vec::new(), of_class(class, &hosts, facts)))
            .0
            .push(class.name.as_str());
    }
    by_network.into_values().map(|(classes, finding)| finding.of(classes.join(", "))).collect()
}

fn of_class(class: &RunnerClass, hosts: &BTreeSet<String>, facts: &Facts) -> Finding {
    let check = Check::Network;
    let Network::Only { cidrs, .. } = &class.options.network else { return Finding::ok(check, "open") };
    let by_address: Vec<&String> = unnamed(class, hosts).collect();
    let mut unknown = Vec::new();
    for host in &by_address {
        let is_in = |address: &IpAddr| cidrs.iter().any(|cidr| cidr.contains(*address));
        match facts.addresses.get(*host) {
            Some(Ok(addresses)) if addresses.iter().any(is_in) => {}
            Some(Ok(addresses)) => {
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                let text =
                    format!("it shuts {host} ({}) out, without which no runner gets a job", addresses.join(", "));
                let fix = "leave `github` out of the network's table, which allows GitHub by its names, or add its networks to `cidrs`";
                return Finding::failure(check, text, fix);
            }
            Some(Err(why)) => unknown.push(format!("{host} ({why})")),
            None => unknown.push((*host).clone()),
        }
    }
    if !unknown.is_empty() {
        let text = format!("whether it admits GitHub is not known: no address is known of {}", unknown.join(", "));
        return Finding::warning(
            check,
            text,
            "leave `github` out of the network's table: it allows GitHub by its names then",
        );
    }
    let how = if by_address.is_empty() { "by name" } else { "by its addresses, which GitHub may change" };
    Finding::ok(check, format!("GitHub is reached {how}"))
}
