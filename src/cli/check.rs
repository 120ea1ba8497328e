//! `sandrunner check`: whether everything is as it must be, and what to do where it is not.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use tokio_util::task::TaskTracker;

use super::{ConfigArguments, Failure, say, stopped};
use crate::check::{self, Finding, Progress, Verdict, Writes};
use crate::clock::Clock;
use crate::config::{LogFormat, Settings};
use crate::daemon::Clients;
use crate::telemetry;

/// Of so many checks in a row of one name that are all well the first is shown, and the others are counted.
const ALIKE_SHOWN: usize = 3;

/// Arguments of `check`.
#[expect(clippy::struct_excessive_bools, reason = "three flags that have nothing to do with each other")]
#[derive(Debug, Args)]
pub struct CheckArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Register no runner, not even for a moment: then whether that is allowed is not known of every kind of token.
    #[arg(long)]
    read_only: bool,
    /// Print every check, also where many are alike and well.
    #[arg(long)]
    all: bool,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Document<'a> {
    result: Verdict,
    ok: usize,
    warnings: usize,
    failures: usize,
    skipped: usize,
    checks: &'a [Finding],
}

impl<'a> Document<'a> {
    fn new(checks: &'a [Finding]) -> Self {
        let count = |verdict| checks.iter().filter(|finding| finding.result == verdict).count();
        Self {
            result: check::worst(checks),
            ok: count(Verdict::Ok),
            warnings: count(Verdict::Warning),
            failures: count(Verdict::Failure),
            skipped: count(Verdict::Skipped),
            checks,
        }
    }
}

/// Checks everything, and prints what came of it. The exit code is 0 where all is well, 1 where there are warnings, and 2
/// where something fails.
///
/// # Errors
/// [`Failure`] where it was interrupted, or nothing can be printed.
pub async fn run(arguments: &CheckArguments) -> Result<ExitCode, Failure> {
    let findings = match arguments.config.load() {
        Ok(settings) => {
            // What is logged on the way stands in what is found as well.
            telemetry::start(LogFormat::Text, "error").map_err(Failure::usage)?;
            look(&settings, arguments).await?
        }
        Err(error) => vec![check::config_failure(&error)],
    };
    let document = Document::new(&findings);
    if arguments.json {
        say(&serde_json::to_string_pretty(&document).map_err(Failure::work)?)?;
    } else {
        say(&text(&document, if arguments.all { usize::MAX } else { ALIKE_SHOWN }))?;
    }
    Ok(match document.result {
        Verdict::Ok | Verdict::Skipped => ExitCode::SUCCESS,
        Verdict::Warning => ExitCode::from(1),
        Verdict::Failure => ExitCode::from(2),
    })
}

async fn look(settings: &Settings, arguments: &CheckArguments) -> Result<Vec<Finding>, Failure> {
    let stop = stopped();
    let clock = Clock::system();
    let clients = Clients::connect(settings, &clock).map_err(Failure::usage)?;
    let writes = if arguments.read_only { Writes::None } else { Writes::OfProofs };
    let (proofs, progress) = (TaskTracker::new(), progress());
    let gathered = check::gather(settings, &clients, &clock, (writes, &proofs), &progress);
    let facts = tokio::select! {
        facts = gathered => Some(facts),
        () = stop => None,
    };
    clear();
    // Runners that were registered are deleted first.
    proofs.close();
    proofs.wait().await;
    let facts = facts.ok_or_else(|| Failure::work("interrupted"))?;
    Ok(check::judge(settings, &facts))
}

/// Tells on a terminal how far it is.
fn progress() -> Progress {
    let is_terminal = std::io::stderr().is_terminal();
    Progress::new(move |done, known| {
        if is_terminal {
            // A terminal that is gone changes nothing.
            drop(write!(std::io::stderr(), "\r\x1b[Kchecking: {done} of {known}"));
        }
    })
}

/// Takes the progress off the terminal.
fn clear() {
    if std::io::stderr().is_terminal() {
        drop(write!(std::io::stderr(), "\r\x1b[K"));
    }
}

/// One line for each check, with the fix below it; a line with the sum.
fn text(document: &Document<'_>, alike_shown: usize) -> String {
    let mut lines = Vec::new();
    let is_alike = |one: &Finding, other: &Finding| {
        (one.name, one.result) == (other.name, other.result) && one.result == Verdict::Ok
    };
    for alike in by_name(document.checks).chunk_by(|one, other| is_alike(one, other)) {
        let shown = if alike.len() > alike_shown { 1 } else { alike.len() };
        lines.extend(alike.iter().take(shown).flat_map(|finding| of_one(finding)));
        if shown < alike.len() {
            let rest = alike.len() - shown;
            lines.push(format!("{:<8} {:<18} and {rest} more like it (--all shows them)", Verdict::Ok, alike[0].name));
        }
    }
    let Document { result, ok, warnings, failures, skipped, checks } = document;
    let count = checks.len();
    lines.push(format!(
        "\n{result}: of {count} checks {ok} are ok, {warnings} warn, {failures} fail and {skipped} were skipped"
    ));
    lines.join("\n")
}

/// In the order in which names are listed: what belongs together stands together.
fn by_name(checks: &[Finding]) -> Vec<&Finding> {
    let mut sorted: Vec<&Finding> = checks.iter().collect();
    sorted.sort_by_key(|finding| (finding.name, std::cmp::Reverse(finding.result)));
    sorted
}

fn of_one(finding: &Finding) -> Vec<String> {
    let Finding { name, subject, result, text, fix } = finding;
    let of = subject.as_ref().map(|subject| format!("{subject}: ")).unwrap_or_default();
    let mut lines = vec![format!("{result:<8} {name:<18} {of}{text}")];
    lines.extend(fix.as_ref().map(|fix| format!("{:<8} {:<18} fix: {fix}", "", "")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Check;

    fn finding(name: Check, subject: Option<&str>, result: Verdict) -> Finding {
        let fix = (result > Verdict::Ok).then(|| "do this".to_owned());
        Finding { name, subject: subject.map(str::to_owned), result, text: "it is so".to_owned(), fix }
    }

    #[test]
    fn what_is_alike_and_well_is_counted_and_what_is_not_is_shown_with_its_fix() {
        let repos = ["acme/a", "acme/b", "acme/c", "acme/d", "acme/e"];
        let result = |repo: &str| if repo == "acme/c" { Verdict::Failure } else { Verdict::Ok };
        let mut findings: Vec<Finding> =
            repos.iter().map(|repo| finding(Check::Repository, Some(repo), result(repo))).collect();
        findings.insert(0, finding(Check::Config, None, Verdict::Ok));
        findings.push(finding(Check::Webhook, None, Verdict::Skipped));
        let document = Document::new(&findings);
        assert_eq!((document.result, document.ok, document.failures, document.skipped), (Verdict::Failure, 5, 1, 1));
        let expected = "\
ok       config             it is so
failure  repository         acme/c: it is so
                            fix: do this
ok       repository         acme/a: it is so
ok       repository         and 3 more like it (--all shows them)
skipped  webhook            it is so

failure: of 7 checks 5 are ok, 0 warn, 1 fail and 1 were skipped";
        assert_eq!(text(&document, ALIKE_SHOWN), expected);
        assert_eq!(text(&document, usize::MAX).lines().count(), expected.lines().count() + 2);
    }
}
