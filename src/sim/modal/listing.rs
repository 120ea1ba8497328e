//! The list of sandboxes, as of a moment, in pages, and bent by faults.

use std::collections::BTreeMap;

use chrono::TimeDelta;

use super::sandbox_calls::{to_map, to_result, to_tags};
use crate::modal::api;
use crate::sim::draws::{Purpose, epoch_seconds, seconds};
use crate::sim::fault::{FaultMode, Strike};
use crate::sim::jobs::Time;
use crate::sim::profile::Span;
use crate::sim::sandboxes::{Generation, Sandbox};
use crate::sim::world::State;

/// How much older a stale list is where the fault does not say.
const STALE_SECS: Span = Span::new(1.0, 120.0);
/// For how long ended sandboxes are shown as if they ran where the fault does not say.
const ENDED_SECS: f64 = 60.0;

/// Which sandboxes a list shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listed {
    V1Only,
    Both,
}

/// What kind of list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listing {
    Living,
    EndedToo,
}

/// How a fault bends the list that is being answered.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(in crate::sim) enum Bend {
    /// It does not.
    #[default]
    Straight,
    /// It is so much older than it should be.
    Older(TimeDelta),
    /// One entry is left out, drawn by this number.
    Omits(u64),
    /// Sandboxes that ended less than this ago are shown as if they ran.
    KeepsEnded(TimeDelta),
    /// The page is empty.
    Empty,
    /// The page begins one entry too late.
    Skips,
    /// The page begins with the entry that ended the one before.
    ShowsTwice,
    /// The page is the first one again.
    StartsOver,
}

/// What is asked of a list, and how it is bent.
struct View<'a> {
    asked: &'a api::SandboxListRequest,
    tags: BTreeMap<String, String>,
    listed: Listed,
    bend: Bend,
    /// Times of creation are shown in steps of so long, if of any.
    step: TimeDelta,
    /// The moment that it shows.
    when: Time,
    /// The moment as of which it shows the ends of sandboxes.
    ends: Time,
}

impl View<'_> {
    fn shows(&self, sandbox: &Sandbox) -> bool {
        let asked = self.asked;
        sandbox.created_at <= self.when
            && self.is_on_page(sandbox)
            && (asked.app_id.is_empty() || sandbox.app_id == asked.app_id)
            && (asked.include_finished || sandbox.is_alive_at(self.ends))
            && (self.listed == Listed::Both || sandbox.generation == Generation::V1)
            && self.tags.iter().all(|(name, value)| sandbox.tags.get(name) == Some(value))
    }

    fn is_on_page(&self, sandbox: &Sandbox) -> bool {
        let (created, before) = (self.created(sandbox), self.asked.before_timestamp);
        let is_at_edge = || self.bend == Bend::ShowsTwice && created <= before;
        before <= 0.0 || self.bend == Bend::StartsOver || created < before || is_at_edge()
    }

    /// The time of creation that it shows.
    fn created(&self, sandbox: &Sandbox) -> f64 {
        let step = self.step.num_microseconds().unwrap_or_default();
        let since_step = sandbox.created_at.timestamp_micros().checked_rem_euclid(step).unwrap_or_default();
        epoch_seconds(sandbox.created_at - TimeDelta::microseconds(since_step))
    }

    /// An entry of the list, with the sandbox's end as of another moment than the rest.
    fn info(&self, sandbox: &Sandbox) -> api::SandboxInfo {
        let stamp = |at: Option<Time>| at.filter(|at| *at <= self.when).map(epoch_seconds).unwrap_or_default();
        let ended = sandbox.ended.filter(|(at, _)| *at <= self.ends);
        let is_scheduled = sandbox.scheduled_at.is_some_and(|at| at <= self.when);
        let result = ended.map(|(_, end)| to_result(end)).unwrap_or_default();
        api::SandboxInfo {
            id: sandbox.id.to_string(),
            created_at: self.created(sandbox),
            task_info: Some(api::TaskInfo {
                id: if is_scheduled { sandbox.task_id.clone() } else { String::new() },
                started_at: stamp(sandbox.started_at),
                finished_at: stamp(ended.map(|(at, _)| at)),
                result: Some(result.clone()),
                enqueued_at: self.created(sandbox),
                gpu_type: sandbox.gpu.clone(),
            }),
            app_id: sandbox.app_id.clone(),
            tags: to_tags(&sandbox.tags),
            name: sandbox.name.clone(),
            image_id: sandbox.image_id.clone(),
            resource_info: Some(resources(sandbox)),
            regions: sandbox.regions.clone(),
            timeout_secs: sandbox.timeout_secs,
            metadata: Some(api::SandboxHandleMetadata { result: Some(result), app_id: sandbox.app_id.clone() }),
        }
    }
}

/// What was asked for; what was not is Modal's default.
fn resources(sandbox: &Sandbox) -> api::ResourceInfo {
    let value = |asked: u32, default: u32| {
        let is_default = asked == 0;
        Some(api::resource_info::ResourceValue { value: if is_default { default } else { asked }, is_default })
    };
    api::ResourceInfo {
        memory_mb: value(sandbox.memory_mb, 128),
        milli_cpu: value(sandbox.milli_cpu, 125),
        gpu_type: sandbox.gpu.clone(),
    }
}

impl State {
    pub(super) fn list(&mut self, asked: &api::SandboxListRequest, listed: Listed) -> api::SandboxListResponse {
        let bend = self.bend;
        let mut when = self.modal_list_moment(if asked.include_finished { Listing::EndedToo } else { Listing::Living });
        if let Bend::Older(span) = bend {
            when -= span;
        }
        let ends = if let Bend::KeepsEnded(span) = bend { when - span } else { when };
        let step = seconds(self.profile.modal_created_at_step_secs);
        let view = View { asked, tags: to_map(asked.tags.clone()), listed, bend, step, when, ends };
        let page = usize::try_from(self.profile.modal_list_page).unwrap_or(usize::MAX);
        let taken = if bend == Bend::Empty { 0 } else { page };
        let skipped = usize::from(bend == Bend::Skips);
        let entry = |sandbox: &Sandbox| view.info(sandbox);
        let is_shown = |sandbox: &&Sandbox| view.shows(sandbox);
        // Finished ones are looked at only where they are wanted: there may be very many.
        let mut sandboxes: Vec<api::SandboxInfo> = if asked.include_finished {
            self.sandboxes.iter().rev().filter(is_shown).skip(skipped).take(taken).map(entry).collect()
        } else {
            self.recently_alive().filter(is_shown).skip(skipped).take(taken).map(entry).collect()
        };
        if let Bend::Omits(number) = bend
            && !sandboxes.is_empty()
        {
            sandboxes.remove(self.seed.stream(Purpose::FaultDraw, number).index(sandboxes.len()));
        }
        self.rows_listed = sandboxes.len();
        api::SandboxListResponse { sandboxes }
    }

    /// What a strike does to a list.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the other modes bend no list")]
    pub(super) fn bend_of(&self, strike: Strike) -> Bend {
        match strike.mode {
            FaultMode::Stale => Bend::Older(self.fault_span(strike, STALE_SECS)),
            FaultMode::Flapping => Bend::Omits(strike.number),
            FaultMode::EndedListed => Bend::KeepsEnded(seconds(strike.seconds_or(ENDED_SECS))),
            FaultMode::PageMissing => Bend::Empty,
            FaultMode::PageSkips => Bend::Skips,
            FaultMode::PageShowsTwice => Bend::ShowsTwice,
            FaultMode::PageRepeats => Bend::StartsOver,
            _ => Bend::Straight,
        }
    }

    /// The moment that a list shows, which lies a little back.
    fn modal_list_moment(&mut self, kind: Listing) -> Time {
        let number = match kind {
            Listing::Living => {
                self.answers += 1;
                self.answers
            }
            // Draws of their own: how often somebody counts what has ended changes nothing for what lives.
            Listing::EndedToo => {
                self.ended_answers += 1;
                u64::MAX - self.ended_answers
            }
        };
        let lag = self.seed.stream(Purpose::ModalLag, number).lag(self.profile.modal_list_lag_secs);
        self.now - lag
    }
}
