//! What Modal takes: its rates, what each sandbox has cost, and the report on it. An account of its own, for others to be
//! measured by.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, TimeDelta, Utc};
use tonic::Status;

use crate::modal::api;
use crate::sim::jobs::Time;
use crate::sim::sandboxes::Sandbox;
use crate::sim::world::State;

/// US dollars per second of a physical core of a sandbox, and of a GiB of its memory (`modal-api.md` §14.3).
const CORE: f64 = 0.000_039_42;
const GIB: f64 = 0.000_006_67;
/// The same of those GPUs that scenarios ask for.
const GPUS: [(&str, f64); 6] = [
    ("T4", 0.000_164),
    ("L4", 0.000_222),
    ("A100", 0.000_583),
    ("A100-80GB", 0.000_694),
    ("H100", 0.001_097),
    ("H200", 0.001_261),
];
/// What a sandbox gets that asks for nothing: thousandths of a core, and MiB.
const LEAST: (u32, u32) = (125, 128);
const SECS_PER_HOUR: f64 = 3_600.0;

/// What a sandbox costs per second, in its parts.
struct Parts {
    cpu: f64,
    memory: f64,
    gpu: f64,
}

impl Parts {
    fn of(sandbox: &Sandbox) -> Self {
        let or = |asked: u32, least: u32| f64::from(if asked == 0 { least } else { asked });
        let rate = GPUS.iter().find(|(name, _)| *name == sandbox.gpu).map_or(0.0, |(_, rate)| *rate);
        Self {
            cpu: or(sandbox.milli_cpu, LEAST.0) / 1_000.0 * CORE,
            memory: or(sandbox.memory_mb, LEAST.1) / 1_024.0 * GIB,
            gpu: f64::from(sandbox.gpus) * rate,
        }
    }

    fn sum(&self) -> f64 {
        self.cpu + self.memory + self.gpu
    }
}

/// How long a sandbox ran within some time, in seconds.
fn ran(sandbox: &Sandbox, from: Time, until: Time) -> f64 {
    let Some(started) = sandbox.started_at else { return 0.0 };
    let end = sandbox.ended.map_or(until, |(at, _)| at.min(until));
    (end - started.max(from)).as_seconds_f64().max(0.0)
}

impl State {
    /// What a sandbox has cost so far.
    pub(in crate::sim) fn dollars(&self, sandbox: &Sandbox) -> f64 {
        self.dollars_between(sandbox, self.start, self.now)
    }

    fn dollars_between(&self, sandbox: &Sandbox, from: Time, until: Time) -> f64 {
        Parts::of(sandbox).sum() * ran(sandbox, from, until.min(self.now)) * self.profile.modal_price_factor
    }

    /// What is taken per unit and hour. The names are made for people.
    pub(super) fn rates(&self) -> api::WorkspaceBillingRatesResponse {
        let factor = self.profile.modal_price_factor;
        let hourly = |per_second: f64| text(per_second * SECS_PER_HOUR * factor);
        let mut rates: HashMap<String, String> = HashMap::from([
            ("Sandbox CPU (physical core)".to_owned(), hourly(CORE)),
            ("Sandbox memory (GiB)".to_owned(), hourly(GIB)),
            ("Function CPU (physical core)".to_owned(), hourly(CORE / 3.0)),
            ("Function memory (GiB)".to_owned(), hourly(GIB / 3.0)),
            ("Volume storage (GiB-month)".to_owned(), text(0.09)),
        ]);
        rates.extend(GPUS.iter().map(|(name, rate)| (format!("GPU {name}"), hourly(*rate))));
        api::WorkspaceBillingRatesResponse { rates, ..Default::default() }
    }

    /// What Apps have cost in each day or hour, by the values of some tags.
    pub(super) fn bill(
        &self,
        asked: &api::WorkspaceBillingReportRequest,
    ) -> Result<Vec<api::WorkspaceBillingReportItem>, Status> {
        let step = match asked.resolution.as_str() {
            "d" => TimeDelta::days(1),
            "h" => TimeDelta::hours(1),
            other => return Err(Status::invalid_argument(format!("resolution '{other}' is neither 'd' nor 'h'"))),
        };
        let start = asked.start_timestamp.and_then(|at| time(&at));
        let end = asked.end_timestamp.and_then(|at| time(&at)).unwrap_or(self.now);
        let start = start.ok_or_else(|| Status::invalid_argument("start_timestamp is missing"))?;
        let into = start.timestamp().rem_euclid(step.num_seconds());
        let mut from = DateTime::from_timestamp(start.timestamp() - into, 0).unwrap_or(start);
        let wanted: BTreeSet<&String> = asked.tag_names.iter().collect();
        let is_meant = |sandbox: &&Sandbox| asked.app_ids.is_empty() || asked.app_ids.contains(&sandbox.app_id);
        let mut items = Vec::new();
        while from < end.min(self.now) {
            let mut sums: BTreeMap<(&str, BTreeMap<String, String>), f64> = BTreeMap::new();
            for sandbox in self.sandboxes.iter().filter(is_meant) {
                let dollars = self.dollars_between(sandbox, from, (from + step).min(end));
                let mut tags = sandbox.tags.clone();
                tags.retain(|name, _| wanted.contains(name));
                if dollars > 0.0 {
                    *sums.entry((&sandbox.app_id, tags)).or_default() += dollars;
                }
            }
            items.extend(sums.into_iter().map(|((app, tags), dollars)| api::WorkspaceBillingReportItem {
                object_id: app.to_owned(),
                description: "App".to_owned(),
                environment_name: "main".to_owned(),
                interval: Some(stamp(from)),
                cost: text(dollars),
                tags: tags.into_iter().collect(),
                cost_by_resource: HashMap::new(),
            }));
            from += step;
        }
        Ok(items)
    }
}

/// An amount as decimal text.
fn text(dollars: f64) -> String {
    format!("{dollars:.12}")
}

fn time(stamp: &prost_types::Timestamp) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(stamp.seconds, u32::try_from(stamp.nanos).ok()?)
}

fn stamp(at: Time) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: at.timestamp(), nanos: i32::try_from(at.timestamp_subsec_nanos()).unwrap_or(0) }
}
