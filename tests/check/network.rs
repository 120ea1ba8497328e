//! Whether runners reach GitHub through the network of their class.

use std::net::IpAddr;

use sandrunner::check::{Check, Facts, Finding, Verdict};

use crate::modal::class;
use crate::setup::{Setup, is_well, says};

const HOSTS: [&str; 3] = ["api.github.com", "broker.actions.githubusercontent.com", "github.com"];

/// What is said of a class's network where GitHub's hosts have these addresses; none where a name server does not tell.
async fn told(network: &str, addresses: Option<[&str; 3]>) -> Finding {
    let setup = Setup::plain().configure(|config| {
        config.runner_classes = vec![class("own", &format!("network = {network}"))];
        config.builtin_classes = false;
    });
    let mut facts: Facts = Setup::plain().facts().await;
    facts.addresses = match addresses {
        Some(all) => {
            let address = |text: &str| -> Result<Vec<IpAddr>, String> { Ok(vec![text.parse().unwrap()]) };
            HOSTS.into_iter().zip(all).map(|(host, text)| (host.to_owned(), address(text))).collect()
        }
        None => HOSTS.map(|host| (host.to_owned(), Err("no such host".to_owned()))).into(),
    };
    setup.judge(&facts).of(Check::Network, "own").clone()
}

#[tokio::test(start_paused = true)]
async fn an_open_network_and_one_that_names_github_are_well() {
    is_well(&told("\"open\"", None).await, "open");
    is_well(&told("{ domains = [\"pypi.org\"] }", None).await, "by name");
    is_well(&told("{ cidrs = [\"10.0.0.0/8\"] }", None).await, "by name");
    is_well(
        &told(
            "{ github = false, domains = [\"github.com\", \"*.github.com\", \"*.actions.githubusercontent.com\"] }",
            None,
        )
        .await,
        "by name",
    );
}

#[tokio::test(start_paused = true)]
async fn a_list_of_networks_that_shuts_github_out_is_a_failure() {
    let addresses = Some(["140.82.121.6", "140.82.114.21", "140.82.121.4"]);
    let network = |cidrs: &str| format!("{{ github = false, cidrs = [{cidrs}] }}");
    is_well(&told(&network("\"140.82.112.0/20\""), addresses).await, "which GitHub may change");
    is_well(&told(&network("\"0.0.0.0/0\""), addresses).await, "");
    let shut = told(&network("\"10.0.0.0/8\""), addresses).await;
    says(&shut, Verdict::Failure, "api.github.com (140.82.121.6)", "leave `github` out");
    let broker = told(&network("\"140.82.121.0/24\""), addresses).await;
    says(&broker, Verdict::Failure, "broker.actions.githubusercontent.com", "");
    let unknown = told(&network("\"140.82.112.0/20\""), None).await;
    says(&unknown, Verdict::Warning, "no such host", "by its names");
}
