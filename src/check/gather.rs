//! Asks GitHub, Modal and the name server for everything that is judged, at the same time as far as budgets admit.

mod github;
mod modal;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::{join, join_all};
use tokio_util::task::TaskTracker;

use super::facts::Facts;
use super::network;
use crate::clock::Clock;
use crate::config::Settings;
use crate::daemon::Clients;

/// How long a name server may take.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);

/// Whether a runner may be registered for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// To prove that it is allowed.
    OfProofs,
    /// Nothing is written.
    None,
}

/// Tells how far it is: how many steps are done, and how many are known.
pub struct Progress {
    done: AtomicUsize,
    known: AtomicUsize,
    tell: Box<dyn Fn(usize, usize) + Send + Sync>,
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("done", &self.done).field("known", &self.known).finish_non_exhaustive()
    }
}

impl Progress {
    /// Calls `tell` after each step.
    pub fn new(tell: impl Fn(usize, usize) + Send + Sync + 'static) -> Self {
        Self { done: AtomicUsize::new(0), known: AtomicUsize::new(0), tell: Box::new(tell) }
    }

    /// Waits for a step.
    async fn step<T>(&self, step: impl Future<Output = T>) -> T {
        self.known.fetch_add(1, Ordering::Relaxed);
        let came_to = step.await;
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        (self.tell)(done, self.known.load(Ordering::Relaxed));
        came_to
    }
}

/// What everything is asked with.
struct Context<'a> {
    settings: &'a Settings,
    clients: &'a Clients,
    clock: &'a Clock,
    progress: &'a Progress,
    proofs: &'a TaskTracker,
    writes: Writes,
}

/// Asks for everything.
///
/// Runners that are registered for a moment are deleted by tasks in `proofs`: whoever drops this future waits for these.
pub async fn gather(
    settings: &Settings,
    clients: &Clients,
    clock: &Clock,
    (writes, proofs): (Writes, &TaskTracker),
    progress: &Progress,
) -> Facts {
    let context = Context { settings, clients, clock, progress, proofs, writes };
    let of_services = join(github::gather(&context), modal::gather(&context));
    let ((github, modal), addresses) = join(of_services, addresses(&context)).await;
    let github::Gathered { accounts, credentials, repos, patterns, proofs, groups, releases } = github;
    Facts { now: clock.now(), accounts, credentials, repos, patterns, proofs, groups, releases, modal, addresses }
}

/// The addresses of hosts that a network of addresses may shut out.
async fn addresses(context: &Context<'_>) -> BTreeMap<String, Result<Vec<IpAddr>, String>> {
    let hosts = network::hosts_by_address(&context.settings.policy);
    let resolve = |host: String| async move {
        let found = context.progress.step(resolve(&host)).await;
        (host, found)
    };
    join_all(hosts.into_iter().map(resolve)).await.into_iter().collect()
}

async fn resolve(host: &str) -> Result<Vec<IpAddr>, String> {
    if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse() {
        return Ok(vec![address]);
    }
    match tokio::time::timeout(RESOLVE_LIMIT, tokio::net::lookup_host((host, 443))).await {
        Ok(Ok(found)) => Ok(found.map(|address| address.ip()).collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the name server does not answer".to_owned()),
    }
}
