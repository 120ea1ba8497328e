//! Judges a recorded history: `cargo run --example check-history -- FILE.jsonl`.
//!
//! `sandrunner simulate --history FILE` and `sandrunner demo --history FILE` record one. Every violation is
//! printed with the numbers of the events that it concerns; the exit code is 1 where there is any, and 2
//! where the arguments are wrong.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

#[expect(dead_code, reason = "what tests need of it")]
#[path = "checker.rs"]
mod checker;

use std::path::PathBuf;
use std::process::ExitCode;

use checker::{Checker, Limits, Rules, Violation};
use chrono::TimeDelta;
use clap::Parser;
use serde_json::json;

/// Judges the history of a simulated run.
#[derive(Debug, Parser)]
#[command(name = "check-history")]
struct Arguments {
    /// The history: JSON lines, as `sandrunner simulate --history` writes them.
    history: PathBuf,
    /// A limit beside those that the history states: sandboxes=N, repo=N, gpus=N, class:NAME=N.
    #[arg(long, value_name = "KEY=N")]
    limit: Vec<String>,
    /// How many controllers ran at a time.
    #[arg(long, default_value_t = 1)]
    controllers: usize,
    /// The deployment in the names of runners.
    #[arg(long, default_value = "main")]
    deployment: String,
    /// The account in the names of runners.
    #[arg(long, default_value = "gh")]
    account: String,
    /// How long a job may wait with nothing in its way, in seconds.
    #[arg(long, default_value_t = 240)]
    serve_within: i64,
    /// How long the run of a job may go unread beside, in seconds: the longest interval where the quota is small.
    #[arg(long, default_value_t = 0)]
    unread_within: i64,
    /// The same for re-runs of old runs, which only a sweep shows, in seconds.
    #[arg(long, default_value_t = 600)]
    swept_within: i64,
    /// How long after the last fault that begins to count, in seconds.
    #[arg(long, default_value_t = 0)]
    recover_within: i64,
    /// For how many seconds nothing may have been changed at the end; without it, the end is not judged.
    #[arg(long)]
    quiet: Option<i64>,
    /// A text that must not occur, beside how configs and tokens of the simulators begin.
    #[arg(long)]
    canary: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match judged(&arguments) {
        Ok((lines, violations)) => {
            print(&arguments, lines, &violations);
            ExitCode::from(u8::from(!violations.is_empty()))
        }
        Err(error) => {
            eprintln!("check-history: {error}");
            ExitCode::from(2)
        }
    }
}

fn judged(arguments: &Arguments) -> Result<(usize, Vec<Violation>), String> {
    let rules = rules(arguments)?;
    let history = std::fs::read_to_string(&arguments.history)
        .map_err(|error| format!("cannot read {}: {error}", arguments.history.display()))?;
    let mut checker = Checker::new(rules);
    let mut lines = 0;
    // A kill leaves its last line unfinished.
    for line in history.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        checker.take(line.trim_end());
        lines += 1;
    }
    Ok((lines, checker.finish(None)))
}

fn rules(arguments: &Arguments) -> Result<Rules, String> {
    let mut rules = Rules::default();
    rules.names.deployment.clone_from(&arguments.deployment);
    rules.names.account.clone_from(&arguments.account);
    rules.controllers = arguments.controllers;
    rules.serve_within = TimeDelta::seconds(arguments.serve_within);
    rules.unread_within = TimeDelta::seconds(arguments.unread_within);
    rules.swept_within = TimeDelta::seconds(arguments.swept_within);
    rules.recover_within = TimeDelta::seconds(arguments.recover_within);
    rules.quiet = arguments.quiet.map(TimeDelta::seconds);
    rules.canaries.extend_from_slice(&arguments.canary);
    for limit in &arguments.limit {
        set(&mut rules.limits, limit)?;
    }
    Ok(rules)
}

fn set(limits: &mut Limits, text: &str) -> Result<(), String> {
    let wrong = || format!("`--limit {text}`: write sandboxes=N, repo=N, gpus=N or class:NAME=N");
    let (key, number) = text.rsplit_once('=').ok_or_else(wrong)?;
    let number = number.parse().map_err(|_| wrong())?;
    match (key, key.strip_prefix("class:")) {
        ("sandboxes", _) => limits.sandboxes = Some(number),
        ("repo", _) => limits.sandboxes_per_repo = Some(number),
        ("gpus", _) => limits.gpus = Some(number),
        (_, Some(class)) => drop(limits.classes.insert(class.to_owned(), number)),
        (_, None) => return Err(wrong()),
    }
    Ok(())
}

fn print(arguments: &Arguments, lines: usize, violations: &[Violation]) {
    if arguments.json {
        let all: Vec<_> = violations
            .iter()
            .map(|it| json!({ "invariant": it.invariant, "events": it.events, "at": it.at, "text": it.text }))
            .collect();
        println!("{}", json!({ "lines": lines, "violations": all }));
        return;
    }
    for violation in violations {
        println!("{violation}");
    }
    println!("{lines} events, {} violations", violations.len());
}
