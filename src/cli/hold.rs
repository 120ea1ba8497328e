//! `sandrunner pause`, `resume` and `drain`: orders to the running daemon.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use super::admin::AdminArguments;
use super::{Failure, say};
use crate::admin::{Ordered, Request};
use crate::ids::{ClassName, RepoName};
use crate::pause::{Held, Order};

/// How often it is looked how many sandboxes are left.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Arguments of `pause` and `resume`.
#[derive(Debug, Args)]
pub struct HoldArguments {
    #[command(flatten)]
    admin: AdminArguments,
    /// Only the jobs of this runner class.
    #[arg(long, value_name = "CLASS", conflicts_with = "repo")]
    class: Option<String>,
    /// Only the jobs of this repository.
    #[arg(long, value_name = "OWNER/NAME")]
    repo: Option<RepoName>,
}

/// Arguments of `drain`.
#[derive(Debug, Args)]
pub struct DrainArguments {
    #[command(flatten)]
    admin: AdminArguments,
    /// Do not wait until no sandbox is left.
    #[arg(long)]
    no_wait: bool,
}

/// What is read of a status.
#[derive(Debug, Deserialize)]
struct Left {
    classes: BTreeMap<String, OfClass>,
}

#[derive(Debug, Deserialize)]
struct OfClass {
    sandboxes: BTreeMap<String, u32>,
}

impl HoldArguments {
    fn held(&self) -> Held {
        match (&self.class, &self.repo) {
            (Some(class), _) => Held::Class(ClassName::new(class.as_str())),
            (None, Some(repo)) => Held::Repo(repo.clone()),
            (None, None) => Held::All,
        }
    }
}

/// Holds something back.
///
/// # Errors
/// [`Failure`] where there is no daemon, or it refuses.
pub async fn pause(arguments: HoldArguments) -> Result<ExitCode, Failure> {
    let held = arguments.held();
    let ordered = order(&arguments.admin, Order::Pause(held.clone())).await?;
    say(&format!(
        "{held} is paused: nothing more is created of it, and what runs goes on. `{}` lets it go on",
        held.resumed_by()
    ))?;
    warn(&ordered)
}

/// Lets something go on.
///
/// # Errors
/// [`Failure`] where there is no daemon, or it refuses.
pub async fn resume(arguments: HoldArguments) -> Result<ExitCode, Failure> {
    let held = arguments.held();
    let ordered = order(&arguments.admin, Order::Resume(held.clone())).await?;
    say(&format!("{held} goes on"))?;
    for pause in &ordered.pauses {
        say(&format!(
            "{} is still paused, since {}: `{}` lets it go on",
            pause.held,
            pause.since,
            pause.held.resumed_by()
        ))?;
    }
    warn(&ordered)
}

/// Pauses everything, and waits until no sandbox is left; an interrupt ends the wait, not the pause.
///
/// # Errors
/// [`Failure`] where there is no daemon, or it stops to answer.
pub async fn drain(arguments: DrainArguments) -> Result<ExitCode, Failure> {
    let ordered = order(&arguments.admin, Order::Pause(Held::All)).await?;
    say("everything is paused; `sandrunner resume` lets it go on")?;
    warn(&ordered)?;
    if arguments.no_wait {
        return Ok(ExitCode::SUCCESS);
    }
    let mut told = None;
    loop {
        let Left { classes } = arguments.admin.ask(&Request::Status).await?;
        let mut states: BTreeMap<String, u32> = BTreeMap::new();
        for (state, count) in classes.into_values().flat_map(|class| class.sandboxes).filter(|(_, count)| *count > 0) {
            *states.entry(state).or_default() += count;
        }
        if states.is_empty() {
            say("drained: no sandbox is left")?;
            return Ok(ExitCode::SUCCESS);
        }
        let line: Vec<String> = states.iter().map(|(state, count)| format!("{count} {state}")).collect();
        if told.as_ref() != Some(&line) {
            say(&format!("sandboxes that are left: {}", line.join(", ")))?;
            told = Some(line);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn order(admin: &AdminArguments, order: Order) -> Result<Ordered, Failure> {
    admin.ask(&Request::Order(order)).await
}

fn warn(ordered: &Ordered) -> Result<ExitCode, Failure> {
    if let Some(why) = &ordered.not_kept {
        say(&format!("a restart of the daemon forgets this: {why}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
