//! The status page, for people: all of it is made here, works without a script, and holds nothing of other hosts.
//!
//! Everything in it that anybody else wrote (names of repositories, jobs and labels, what GitHub and Modal said) goes
//! through [`Text`]. What can grow is cut, so that it stays small with hundreds of repositories.

mod chart;
mod html;

use std::fmt::{self, Display, Formatter};

use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

use self::chart::Chart;
use self::html::{Text, short};
use crate::explain::{Explanation, span};
use crate::plan::SandboxState;
use crate::status::{BudgetStatus, ClassStatus, Coverage, GroupStatus, JobStatus, Point, RecentAction, Status};

/// Where the style is.
pub(super) const STYLE: &str = include_str!("page/style.css");
/// Where the script is.
pub(super) const SCRIPT: &str = include_str!("page/script.js");

/// How many waiting jobs, repositories and actions are listed; the rest is counted.
const JOBS_SHOWN: usize = 40;
const GROUPS_SHOWN: usize = 100;
const ACTIONS_SHOWN: usize = 20;
/// How much of a reason or an action is shown.
const TEXT_SHOWN: usize = 200;

/// Nothing but what this server itself serves is loaded, and nothing frames it.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; \
         base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::CACHE_CONTROL, "no-store"),
];

/// The page.
#[derive(Debug)]
pub(super) struct Page<'a> {
    pub(super) status: &'a Status,
    pub(super) points: &'a [Point],
    /// What somebody asked for, as he wrote it, and the answer.
    pub(super) explained: Option<(&'a str, Result<Explanation, String>)>,
}

impl Page<'_> {
    /// The page as an answer.
    pub(super) fn answer(&self) -> Response {
        (HEADERS, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], self.to_string()).into_response()
    }
}

/// A file of the page as an answer.
pub(super) fn file(content_type: &'static str, text: &'static str) -> Response {
    (HEADERS, [(header::CONTENT_TYPE, content_type)], text).into_response()
}

impl Display for Page<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { status, points, explained } = self;
        let queued: u32 = status.classes.values().map(|class| class.queued).sum();
        let asked = explained.as_ref().map_or("", |(asked, _)| asked);
        write!(
            f,
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <title>Sandrunner: {queued} queued, {} sandboxes</title>\
             <link rel=\"stylesheet\" href=\"style.css\"><script src=\"script.js\" defer></script></head><body>\
             <a class=\"skip\" href=\"#main\">Skip to the content</a><header><h1>Sandrunner</h1>\
             <form role=\"search\" method=\"get\" action=\"./\"><label for=\"job\">Why does a job wait? Address or id of a job or run</label>\
             <input id=\"job\" name=\"job\" autocomplete=\"off\" maxlength=\"300\" value=\"{}\"> <button>Explain</button></form>\
             </header><main id=\"main\" tabindex=\"-1\">",
            status.sandboxes.live,
            Text(asked)
        )?;
        if let Some((asked, answer)) = explained {
            explanation(f, asked, answer)?;
        }
        summary(f, status)?;
        classes(f, status)?;
        facts(f, status)?;
        charts(f, points, status.now)?;
        jobs(f, status)?;
        groups(f, status)?;
        actions(f, status)?;
        write!(
            f,
            "</main><footer>Sandrunner {}, <time id=\"at\">{}</time>, <span id=\"live\">reload to update</span>. \
             <a href=\"api/v1/status\">All of it as JSON</a>, <a href=\"metrics\">metrics</a></footer></body></html>",
            Text(status.version),
            time(status.now)
        )
    }
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn explanation(f: &mut Formatter<'_>, asked: &str, answer: &Result<Explanation, String>) -> fmt::Result {
    write!(f, "<section aria-labelledby=\"h-why\"><h2 id=\"h-why\">{}</h2>", Text(short(asked, TEXT_SHOWN)))?;
    match answer {
        Ok(explanation) => write!(f, "<pre>{}</pre>", Text(explanation))?,
        Err(why) => write!(f, "<p class=\"bad\">{}</p>", Text(why))?,
    }
    f.write_str("</section>")
}

fn summary(f: &mut Formatter<'_>, status: &Status) -> fmt::Result {
    let Coverage { modal_known_at, modal_failure, repositories, repositories_known, unreachable, .. } =
        &status.coverage;
    let (class, word) = if status.coverage.is_ready() { ("good", "Ready") } else { ("bad", "Still reading") };
    write!(f, "<p><span class=\"{class}\">{word}</span>: {repositories_known} of {repositories} repositories known")?;
    if let Some(at) = modal_known_at {
        write!(f, ", Modal read {} ago", span(status.now - *at))?;
    }
    if let Some(pass) = &status.last_pass {
        write!(f, ", last pass {} ago in {:.0} ms", span(status.now - pass.at), pass.seconds * 1_000.0)?;
    }
    f.write_str(".</p>")?;
    let modal = modal_failure.iter().map(|why| format!("Modal could not be read, the last time: {why}"));
    let lost = unreachable.iter().take(5).map(|(repo, why)| format!("{repo} cannot be read: {why}"));
    let more = unreachable.len().checked_sub(5).filter(|more| *more > 0);
    let more = more.map(|more| format!("{more} more repositories cannot be read"));
    let paused = status.pauses.iter().map(|pause| {
        format!("Paused: {}, since {}. {} lets it go on", pause.held, time(pause.since), pause.held.resumed_by())
    });
    let spent = status.modal.spend_limit_reached.then(|| "The spend limit of Modal's workspace is reached".to_owned());
    for problem in modal.chain(lost).chain(more).chain(paused).chain(spent) {
        write!(f, "<p class=\"bad\">{}.</p>", Text(short(&problem, TEXT_SHOWN)))?;
    }
    Ok(())
}

/// Begins a section with a table, and names its columns; numbers stand to the right.
fn table(f: &mut Formatter<'_>, id: &str, title: &str, columns: &[&str]) -> fmt::Result {
    write!(
        f,
        "<section aria-labelledby=\"h-{id}\"><h2 id=\"h-{id}\">{title}</h2>\
         <div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-labelledby=\"h-{id}\"><table><thead><tr>"
    )?;
    for column in columns {
        let class = if column.starts_with('#') { " class=\"n\"" } else { "" };
        write!(f, "<th scope=\"col\"{class}>{}</th>", column.trim_start_matches('#'))?;
    }
    f.write_str("</tr></thead><tbody>")
}

fn end_table(f: &mut Formatter<'_>, more: usize) -> fmt::Result {
    f.write_str("</tbody></table></div>")?;
    if more > 0 {
        write!(f, "<p class=\"soft\">and {more} more</p>")?;
    }
    f.write_str("</section>")
}

fn classes(f: &mut Formatter<'_>, status: &Status) -> fmt::Result {
    let columns = ["Class", "#Queued", "#Oldest", "#Starting", "#Idle", "#Claimed", "#Limit", "Breaker, image"];
    table(f, "classes", "Runner classes", &columns)?;
    for (name, class) in &status.classes {
        let of = |states: &[SandboxState]| states.iter().filter_map(|state| class.sandboxes.get(state)).sum::<u32>();
        let starting = of(&[SandboxState::Creating, SandboxState::Unscheduled, SandboxState::Starting]);
        let (idle, claimed) = (of(&[SandboxState::Idle]), of(&[SandboxState::Claimed]));
        let oldest = class.oldest_queued_seconds.map_or_else(String::new, |secs| span(TimeDelta::seconds(secs)));
        let limit = class.limit.map_or_else(String::new, |limit| limit.to_string());
        write!(f, "<tr><th scope=\"row\">{}</th>", Text(name))?;
        for number in
            [class.queued.to_string(), oldest, starting.to_string(), idle.to_string(), claimed.to_string(), limit]
        {
            write!(f, "<td class=\"n\">{number}</td>")?;
        }
        write!(f, "<td>{}</td></tr>", Text(short(&troubles(class, status.now), TEXT_SHOWN)))?;
    }
    end_table(f, 0)
}

fn troubles(class: &ClassStatus, now: DateTime<Utc>) -> String {
    let breaker = class.breaker.as_ref().map(|breaker| {
        let again = span(breaker.again_at - now);
        format!("open after {} failures ({}), next try in {again}", breaker.failures, breaker.reason)
    });
    let image = class.image.as_ref().filter(|image| !image.starts_with("im-")).map(|image| format!("image {image}"));
    let overdue = class.image_overdue.as_ref().map(|late| format!("an earlier image serves: {}", late.why));
    let short = class.short_of.keys().next().map(|machine| format!("Modal is short of {machine}"));
    let all: Vec<String> = [breaker, image, overdue, short].into_iter().flatten().collect();
    all.join("; ")
}

fn facts(f: &mut Formatter<'_>, status: &Status) -> fmt::Result {
    let Status { now, sandboxes, budgets, modal, spend, pickup_seconds, .. } = status;
    f.write_str("<section aria-labelledby=\"h-facts\"><h2 id=\"h-facts\">Limits, budgets and spend</h2><dl>")?;
    write!(f, "<dt>Sandboxes</dt><dd>{} of {}</dd>", sandboxes.live, sandboxes.limit)?;
    let of = |used: Option<u32>, most: Option<u32>| {
        let used = used.map_or_else(|| "?".to_owned(), |used| used.to_string());
        most.map_or_else(|| used.clone(), |most| format!("{used} of {most}"))
    };
    let (tasks, gpus) = (of(modal.tasks, modal.max_tasks), of(modal.gpus, modal.max_gpus));
    write!(f, "<dt>Modal's workspace</dt><dd>{tasks} containers, {gpus} GPUs</dd>")?;
    let limit = spend.limit.map_or_else(String::new, |limit| format!(" of {limit:.2}"));
    let known = if spend.is_known { "" } else { " or more, what was spent before the start is not known yet" };
    write!(f, "<dt>Spend</dt><dd>{:.2}{limit} USD today, {:.2} USD per hour{known}</dd>", spend.today, spend.per_hour)?;
    if let (Some(p50), Some(p95)) = (pickup_seconds.p50, pickup_seconds.p95) {
        let jobs = pickup_seconds.jobs;
        write!(
            f,
            "<dt>From queued to started</dt><dd>half within {p50:.0} s, 95 % within {p95:.0} s, of the last {jobs} jobs</dd>"
        )?;
    }
    for BudgetStatus { credential, resource, limit, remaining, reset, held_until } in budgets.iter().take(20) {
        let held = held_until.map_or_else(String::new, |until| format!(", held for {}", span(until - *now)));
        let full = span(*reset - *now);
        write!(f, "<dt>GitHub, {} ({})</dt>", Text(credential), Text(resource))?;
        write!(f, "<dd>{remaining} of {limit} requests left, full in {full}{held}</dd>")?;
    }
    f.write_str("</dl></section>")
}

fn charts(f: &mut Formatter<'_>, points: &[Point], now: DateTime<Utc>) -> fmt::Result {
    let values = |value: &dyn Fn(&Point) -> Option<f64>| {
        points.iter().filter_map(|point| Some((point.at, value(point)?))).collect()
    };
    let queued = Chart { title: "Queued jobs", unit: "", values: values(&|point| Some(f64::from(point.queued))), now };
    let sandboxes =
        Chart { title: "Sandboxes", unit: "", values: values(&|point| Some(f64::from(point.sandboxes))), now };
    let pickups = Chart {
        title: "Longest time from queued to started",
        unit: " s",
        values: values(&|point| point.pickup_seconds),
        now,
    };
    write!(
        f,
        "<section aria-labelledby=\"h-time\"><h2 id=\"h-time\">The last six hours</h2><div class=\"charts\">{queued}{sandboxes}{pickups}</div></section>"
    )
}

fn jobs(f: &mut Formatter<'_>, status: &Status) -> fmt::Result {
    table(f, "jobs", "Jobs that wait", &["Job", "Repository", "Class", "#Waits", "Why"])?;
    for JobStatus { repo, job_id, class, reason, text, queued_since, .. } in status.jobs.iter().take(JOBS_SHOWN) {
        let class = class.as_ref().map_or("", |class| class.as_str());
        let waits = queued_since.map_or_else(String::new, |since| span(status.now - since));
        write!(
            f,
            "<tr><th scope=\"row\"><a href=\"?job={job_id}\">{job_id}</a></th><td>{}</td><td>{}</td>\
             <td class=\"n\">{waits}</td><td><strong>{reason}</strong>: {}</td></tr>",
            Text(repo),
            Text(class),
            Text(short(text, TEXT_SHOWN))
        )?;
    }
    let all: usize = status.skipped.values().map(|count| usize::try_from(*count).unwrap_or(0)).sum();
    end_table(f, all.saturating_sub(JOBS_SHOWN))
}

fn groups(f: &mut Formatter<'_>, status: &Status) -> fmt::Result {
    let mut groups: Vec<&GroupStatus> = status.groups.iter().collect();
    let busy = |group: &GroupStatus| group.queued + group.starting + group.idle + group.claimed;
    groups.sort_by(|one, other| busy(other).cmp(&busy(one)).then_with(|| one.repo.cmp(&other.repo)));
    let columns = ["Repository", "Class", "#Queued", "#Starting", "#Idle", "#Claimed", "#Served"];
    table(f, "repos", "Repositories", &columns)?;
    for group in groups.iter().take(GROUPS_SHOWN) {
        let GroupStatus { repo, class, queued, starting, idle, claimed, served } = group;
        write!(f, "<tr><th scope=\"row\">{}</th><td>{}</td>", Text(repo), Text(class))?;
        for number in [u64::from(*queued), u64::from(*starting), u64::from(*idle), u64::from(*claimed), *served] {
            write!(f, "<td class=\"n\">{number}</td>")?;
        }
        f.write_str("</tr>")?;
    }
    end_table(f, groups.len().saturating_sub(GROUPS_SHOWN))
}

fn actions(f: &mut Formatter<'_>, status: &Status) -> fmt::Result {
    table(f, "actions", "Last actions", &["Time", "What was done, and what came of it", "What it rests on"])?;
    for RecentAction { at, text, evidence } in status.recent.iter().rev().take(ACTIONS_SHOWN) {
        write!(
            f,
            "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
            time(*at),
            Text(short(text, TEXT_SHOWN)),
            Text(evidence)
        )?;
    }
    end_table(f, 0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ids::{ClassName, JobId, RunId};
    use crate::pause::{Held, Pause};
    use crate::status::{ModalStatus, PickupStatus, SandboxesStatus, SpendStatus};

    /// A status with so many repositories, each with a job that waits.
    fn status(repos: u32) -> Status {
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
        let repo = |n: u32| format!("organization/a-repository-with-a-long-name-{n}").parse().unwrap();
        let class = ClassName::new("default");
        let job = |n: u32| JobStatus {
            repo: repo(n),
            run_id: RunId(u64::from(n)),
            job_id: JobId(6_000_000_000 + u64::from(n)),
            class: Some(class.clone()),
            reason: "image_failed",
            text: "<b>no space left</b> ".repeat(40),
            again_at: now,
            queued_since: Some(now - TimeDelta::seconds(90)),
        };
        let group = |n: u32| GroupStatus {
            repo: repo(n),
            class: class.clone(),
            queued: 1,
            starting: 2,
            idle: 3,
            claimed: 4,
            served: 5,
        };
        let action = |n: u32| RecentAction {
            evidence: "its runner was never seen <online>".to_owned(),
            at: now,
            text: format!("create {n} <script>alert(1)</script> {}", "x".repeat(500)),
        };
        Status {
            version: "1.0.0",
            now,
            coverage: Coverage {
                repositories: repos,
                unreachable: (0..repos).map(|n| (repo(n), "<i>not found</i>".repeat(50))).collect(),
                modal_failure: Some("no answer & \"more\"".to_owned()),
                ..Coverage::default()
            },
            last_pass: None,
            pauses: vec![Pause { held: Held::All, since: now }],
            sandboxes: SandboxesStatus { live: 5, limit: 100 },
            classes: BTreeMap::from([(class.clone(), ClassStatus { queued: repos, ..ClassStatus::default() })]),
            groups: (0..repos).map(group).collect(),
            skipped: BTreeMap::from([("image_failed", repos)]),
            jobs: (0..repos).map(job).collect(),
            planned: Vec::new(),
            recent: (0..50).map(action).collect(),
            pickup_seconds: PickupStatus { jobs: 3, p50: Some(20.0), p95: Some(40.0) },
            paused: BTreeMap::new(),
            modal: ModalStatus::default(),
            accounts: Vec::new(),
            organizations: Vec::new(),
            owners: Vec::new(),
            credentials: Vec::new(),
            budgets: Vec::new(),
            spend: SpendStatus {
                is_known: true,
                today: 1.25,
                per_hour: 0.5,
                limit: Some(50.0),
                resets_at: now,
                rates_of_table: None,
                classes: BTreeMap::new(),
            },
            sweep_interval_seconds: 600,
        }
    }

    fn points(now: DateTime<Utc>) -> Vec<Point> {
        let at = |n: i64| now - TimeDelta::minutes(2 * (180 - n));
        (0..180).map(|n| Point { at: at(n), queued: 7, sandboxes: 1_000, pickup_seconds: Some(21.0) }).collect()
    }

    #[test]
    fn with_hundreds_of_repositories_it_stays_small_and_tells_what_it_leaves_out() {
        let status = status(500);
        let explained = Some(("<svg onload=x>", Err("`<svg onload=x>` is not an id".to_owned())));
        let page = Page { status: &status, points: &points(status.now), explained }.to_string();
        assert!(page.len() <= 60_000, "{} bytes", page.len());
        for told in [
            "<p class=\"soft\">and 460 more</p>",
            "<p class=\"soft\">and 400 more</p>",
            "495 more repositories cannot be read",
        ] {
            assert!(page.contains(told), "{told} is missing");
        }
        for markup in ["<script>", "<svg onload", "<b>", "<i>", "style=\"", "onclick", "http://", "https://"] {
            assert!(!page.contains(markup), "{markup}");
        }
    }

    #[test]
    fn every_part_has_a_name_and_every_name_is_there() {
        let status = status(2);
        let page = Page { status: &status, points: &points(status.now), explained: None }.to_string();
        let ids: Vec<&str> = page.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        let unique: std::collections::BTreeSet<&&str> = ids.iter().collect();
        assert_eq!(ids.len(), unique.len(), "{ids:?}");
        let labels = page.split("aria-labelledby=\"").skip(1).filter_map(|rest| rest.split('"').next());
        for label in labels.chain(["job", "main", "live", "at"]) {
            assert!(ids.contains(&label), "{label}");
        }
        let count = |part: &str| page.matches(part).count();
        for tag in ["section", "table", "main", "header", "footer", "figure", "svg", "dl", "form", "tr", "td", "p"] {
            let opened = count(&format!("<{tag}>")) + count(&format!("<{tag} "));
            assert_eq!(opened, count(&format!("</{tag}>")), "{tag}");
        }
        assert_eq!((count("<h1"), count("<svg "), count("role=\"img\" aria-label=\"")), (1, 3, 3));
    }
}
