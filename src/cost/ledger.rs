//! From readings to entries, each sandbox once, and to what was spent today.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::{Entry, Known, Payer, Prices, Resources, Spend, Usd};
use crate::class::{Machine, RunnerClass};
use crate::evidence::{AGREEMENT_APART, Evidence};
use crate::ids::{AccountName, ClassName, JobId, OurName, RepoName, SandboxId};
use crate::plan::Policy;
use crate::state::{EndedSandbox, Observed, OurSandbox};

/// No sandbox lives longer (Modal: 24 h), and its begin is told exactly; the rest is for clocks.
const LONGEST_LIFE: TimeDelta = TimeDelta::hours(25);
/// One that Modal tells no end of has run no longer.
const LONGEST_RUN: TimeDelta = TimeDelta::hours(24);
/// Lists reach back so far at most: as far as costs are looked at day by day. How long Modal lists what ended
/// is not known.
const LOOKED_BACK: TimeDelta = TimeDelta::days(7);
/// Ids of sandboxes are remembered so long after their end: no list reaches back further, but for those of a start.
const REMEMBERED: TimeDelta = TimeDelta::days(3);
/// How much earlier than we believe a sandbox may have been created by Modal's clock.
const SLACK: TimeDelta = TimeDelta::minutes(5);
/// One that ended and that complete lists lack is accounted by what we know after so many lists and so long.
const LACKED: (u32, TimeDelta) = (3, TimeDelta::minutes(10));
/// And whatever the lists are like, after so long.
const WAITED: TimeDelta = TimeDelta::hours(24);
/// So many lists in a row that were cut off show what can be seen: a first list that is never whole does not hold up
/// everything for ever.
const CUT_OFF: u32 = 3;

/// How far back lists reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// What was spent today is to be known.
    Today,
    /// Everything that ended up to this time is accounted, but for what ended about then.
    After(DateTime<Utc>),
    /// Nothing was kept: as far as Modal shows.
    AllThereIs,
}

impl Reach {
    fn since(self, day: DateTime<Utc>, modal_now: DateTime<Utc>) -> DateTime<Utc> {
        let earliest = modal_now - LOOKED_BACK;
        match self {
            Self::Today => day - LONGEST_LIFE,
            Self::After(last) => (last.min(modal_now) - LONGEST_LIFE).max(earliest),
            Self::AllThereIs => earliest,
        }
    }
}

/// What lists have still to show.
#[derive(Debug, Clone, Copy)]
struct Opening {
    reach: Reach,
    /// When the first of the complete lists began that agree on what ended before it: one may lack something, or be empty
    /// (design rule B).
    agreed_since: Option<DateTime<Utc>>,
    /// Lists in a row that showed something and were cut off.
    cut_off: u32,
}

impl Opening {
    fn new(reach: Reach) -> Self {
        Self { reach, agreed_since: None, cut_off: 0 }
    }
}

/// The job that a sandbox ran, which need not be the one that caused it.
#[derive(Debug)]
struct Served {
    repo: String,
    workflow: Option<String>,
}

/// A sandbox that ended and is not accounted yet: Modal's list is to tell its times.
#[derive(Debug, Clone)]
struct Pending {
    /// It as far as it is known.
    sandbox: EndedSandbox,
    /// Its end, as far as it is known.
    ended: DateTime<Utc>,
    /// Since when it is pending, by our clock.
    since: DateTime<Utc>,
    /// How many complete lists that began later lacked it.
    lacked: u32,
}

impl Pending {
    fn has_run(&self) -> bool {
        begin(&self.sandbox).is_some()
    }
}

/// What a day may have to be summed up from again.
#[derive(Debug)]
struct Paid {
    payer: Payer,
    ended: DateTime<Utc>,
    ran: TimeDelta,
    usd: Usd,
}

impl Paid {
    fn of(entry: &Entry) -> Self {
        let payer = Payer { repo: entry.repo.clone(), class: entry.class.clone() };
        Self { payer, ended: entry.ended, ran: entry.ran(), usd: entry.usd }
    }

    /// What of it falls into a day.
    fn usd_on(&self, day: DateTime<Utc>) -> Usd {
        let part = self.ended.min(day + TimeDelta::days(1)) - (self.ended - self.ran).max(day);
        if part <= TimeDelta::zero() { Usd::ZERO } else { self.usd.share(part, self.ran) }
    }
}

/// Who has cost what.
#[derive(Debug)]
pub struct Ledger {
    /// What counts where Modal does not tell.
    table: Prices,
    /// The sandboxes that are accounted, for some days.
    accounted: BTreeMap<SandboxId, Paid>,
    pending: BTreeMap<SandboxId, Pending>,
    /// What those that are not accounted ran, as far as it was seen.
    served: BTreeMap<SandboxId, Served>,
    /// Sandboxes of ours that cannot be read, as of the last pass: nothing but a list tells what they cost.
    unreadable: BTreeSet<SandboxId>,
    /// Whether it is known what was spent today.
    known: Known,
    opening: Option<Opening>,
    /// What is read after that, and nothing waits for.
    longer: Option<Reach>,
    /// Begin of the day in which amounts are added, by Modal's clock.
    day: DateTime<Utc>,
    /// What ended sandboxes have cost in it.
    ended_today: BTreeMap<Payer, Usd>,
    /// When the list began that was taken last.
    taken_at: Option<DateTime<Utc>>,
}

impl Ledger {
    /// Knows nothing; prices are those of the policy's table until Modal tells others.
    pub fn new(policy: &Policy) -> Self {
        Self {
            table: policy.prices.clone(),
            accounted: BTreeMap::new(),
            pending: BTreeMap::new(),
            served: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            known: Known::NotYet,
            opening: Some(Opening::new(Reach::Today)),
            longer: None,
            day: DateTime::UNIX_EPOCH,
            ended_today: BTreeMap::new(),
            taken_at: None,
        }
    }

    /// Starts from what the cost file holds. What was spent today is read first, and then back to where the file may lack
    /// something.
    #[must_use]
    pub fn with_entries(mut self, entries: &[Entry], reach: Reach, modal_now: DateTime<Utc>) -> Self {
        self.turn(modal_now);
        self.longer = Some(reach);
        for entry in entries {
            self.account(entry);
        }
        self
    }

    /// Asks for no list, as where nothing comes of what it would show.
    #[must_use]
    pub fn without_lists(self) -> Self {
        Self { known: Known::Yes, opening: None, ..self }
    }

    /// Believes the first complete list, as where nothing but a text comes of it.
    #[must_use]
    pub fn with_one_list(self) -> Self {
        let opening = self.opening.map(|opening| Opening { agreed_since: Some(DateTime::UNIX_EPOCH), ..opening });
        Self { opening, ..self }
    }

    /// Remembers what the sandboxes of the view run, before their jobs are over and out of sight.
    pub fn note_claims(&mut self, observed: &Observed, evidence: &Evidence) {
        let mut wanted: BTreeMap<(&AccountName, JobId), &SandboxId> = BTreeMap::new();
        for (name, sandbox) in &observed.fleet.sandboxes {
            if let Some(claim) = evidence.names.get(name).and_then(|known| known.claim)
                && !self.served.contains_key(&sandbox.id)
                && !self.accounted.contains_key(&sandbox.id)
            {
                wanted.insert((&name.account, claim.job), &sandbox.id);
            }
        }
        if wanted.is_empty() {
            return;
        }
        for (scope, run) in
            observed.repos.iter().flat_map(|(scope, repo)| repo.runs.values().map(move |run| (scope, run)))
        {
            for id in run.jobs.keys().filter_map(|job| wanted.get(&(&scope.account, *job))) {
                let workflow = run.run.workflow.as_ref().and_then(|workflow| workflow.file.as_tag());
                self.served.insert((*id).clone(), Served { repo: repo_text(&scope.repo), workflow });
            }
        }
    }

    /// Takes what was observed and what Modal's last list showed as ended, and gives an entry for each sandbox that is
    /// accounted by that.
    pub fn take(
        &mut self,
        observed: &Observed,
        listed: Vec<EndedSandbox>,
        policy: &Policy,
        now: DateTime<Utc>,
    ) -> Vec<Entry> {
        let modal_now = now + observed.skew;
        self.turn(modal_now);
        self.note_unreadable(observed, modal_now);
        let mut entries = Vec::new();
        if self.taken_at != observed.fleet.ended_read.tried_at {
            let prices = self.prices(observed);
            self.note_list(observed, &listed, modal_now);
            for sandbox in listed {
                if self.accounted.contains_key(&sandbox.id) {
                    continue;
                }
                let has_run =
                    || begin(&sandbox).is_some() || self.pending.get(&sandbox.id).is_some_and(Pending::has_run);
                match sandbox.finished_at {
                    Some(ended) => entries.push(priced(self.attributed(sandbox), ended, &prices, policy)),
                    None if has_run() => self.add_pending(sandbox, modal_now, now),
                    // It waited for a machine until it ended, and no later list tells more.
                    None => {
                        let created = sandbox.created_at;
                        entries.push(priced(sandbox, created, &prices, policy));
                    }
                }
            }
            for entry in &entries {
                self.account(entry);
            }
        }
        self.find_pending(observed, now);
        entries.extend(self.estimated(observed, policy, now));
        entries
    }

    /// What was spent today.
    pub fn spend(&self, observed: &Observed, policy: &Policy, now: DateTime<Utc>) -> Spend {
        let modal_now = now + observed.skew;
        let prices = self.prices(observed);
        let mut spend = Spend {
            known: self.known,
            prices: policy.classes.iter().map(|class| (class.name.clone(), prices.of_machines(class))).collect(),
            day_ends_at: self.day + TimeDelta::days(1) - observed.skew,
            list_since: self.list_since(modal_now),
            ..Spend::default()
        };
        for (payer, usd) in &self.ended_today {
            spend.add(payer.clone(), *usd);
        }
        self.add_running(&mut spend, observed, (policy, &prices), modal_now);
        spend
    }

    fn prices(&self, observed: &Observed) -> Prices {
        match &observed.rates.rates {
            Some(rates) => Prices { rates: rates.clone(), ..self.table.clone() },
            None => self.table.clone(),
        }
    }

    /// Turns to the day of `modal_now`.
    fn turn(&mut self, modal_now: DateTime<Utc>) {
        let day = modal_now.date_naive().and_time(chrono::NaiveTime::MIN).and_utc();
        if day == self.day {
            return;
        }
        let is_start = self.day == DateTime::UNIX_EPOCH;
        self.day = day;
        self.ended_today.clear();
        // By Modal's times: ours may have been wrong, and the day may be an earlier one than we thought.
        if let Some(last) = self.accounted.values().map(|paid| paid.ended).max().filter(|_| self.opening.is_none()) {
            self.accounted.retain(|_, paid| last - paid.ended < REMEMBERED);
        }
        for paid in self.accounted.values() {
            add_on(&mut self.ended_today, paid, day);
        }
        if !is_start {
            // Of the day that ended, what no reading has shown meanwhile.
            self.opening.get_or_insert(Opening::new(Reach::After(day - TimeDelta::days(1))));
        }
    }

    fn account(&mut self, entry: &Entry) {
        self.pending.remove(&entry.id);
        self.served.remove(&entry.id);
        let paid = Paid::of(entry);
        if !self.accounted.contains_key(&entry.id) {
            add_on(&mut self.ended_today, &paid, self.day);
            self.accounted.insert(entry.id.clone(), paid);
        }
    }

    fn note_list(&mut self, observed: &Observed, listed: &[EndedSandbox], modal_now: DateTime<Utc>) {
        let read = &observed.fleet.ended_read;
        self.taken_at = read.tried_at;
        let Some(began) = read.tried_at else { return };
        if read.failure.is_none() {
            for pending in self.pending.values_mut().filter(|pending| pending.since < began) {
                pending.lacked += 1;
            }
        }
        let Some(mut opening) = self.opening else { return };
        if read.failure.is_some() {
            opening.cut_off += u32::from(!listed.is_empty());
        } else {
            opening.cut_off = 0;
            let is_new = |sandbox: &EndedSandbox, first: DateTime<Utc>| {
                let is_known = self.accounted.contains_key(&sandbox.id) || self.pending.contains_key(&sandbox.id);
                // What ended just before the first list may have come into lists after it.
                !is_known && sandbox.finished_at.is_some_and(|at| at < first + observed.skew - AGREEMENT_APART)
            };
            match opening.agreed_since {
                Some(first) if !listed.iter().any(|sandbox| is_new(sandbox, first)) => {
                    if began - first >= AGREEMENT_APART {
                        return self.close_opening(modal_now);
                    }
                }
                Some(_) | None => opening.agreed_since = Some(began),
            }
        }
        if opening.cut_off >= CUT_OFF { self.close_opening(modal_now) } else { self.opening = Some(opening) }
    }

    fn close_opening(&mut self, modal_now: DateTime<Utc>) {
        self.known = Known::Yes;
        let since = |reach: Reach| reach.since(self.day, modal_now);
        let longer = self.longer.take().filter(|reach| since(*reach) < since(Reach::Today));
        self.opening = longer.map(Opening::new);
    }

    /// Looks for what cannot be read, as of a repository that is no longer allowed, once it lives no more.
    fn note_unreadable(&mut self, observed: &Observed, modal_now: DateTime<Utc>) {
        let unreadable = &observed.fleet.unreadable;
        if self.unreadable.iter().any(|id| !unreadable.contains_key(id)) {
            self.opening.get_or_insert(Opening::new(Reach::After(modal_now)));
        }
        if !self.unreadable.iter().eq(unreadable.keys()) {
            self.unreadable = unreadable.keys().cloned().collect();
        }
    }

    /// Finds those that ended in our view.
    fn find_pending(&mut self, observed: &Observed, now: DateTime<Utc>) {
        let fleet = &observed.fleet;
        for (name, sandbox) in fleet.sandboxes.iter().chain(&fleet.replaced) {
            let Some(ended) = &sandbox.ended else { continue };
            if !self.accounted.contains_key(&sandbox.id) && !self.pending.contains_key(&sandbox.id) {
                self.add_pending(ended_sandbox(name, sandbox, observed.skew), ended.at + observed.skew, now);
            }
        }
    }

    fn add_pending(&mut self, sandbox: EndedSandbox, ended: DateTime<Utc>, now: DateTime<Utc>) {
        let id = sandbox.id.clone();
        let ended = ended.min(sandbox.started_at.unwrap_or(sandbox.created_at) + LONGEST_RUN);
        self.pending.entry(id).or_insert(Pending { sandbox, ended, since: now, lacked: 0 });
    }

    /// Accounts those that Modal's lists lack by what we know.
    fn estimated(&mut self, observed: &Observed, policy: &Policy, now: DateTime<Utc>) -> Vec<Entry> {
        let is_over = |pending: &Pending| {
            let waited = now - pending.since;
            (pending.lacked >= LACKED.0 && waited >= LACKED.1) || waited >= WAITED
        };
        let over: Vec<Pending> = self.pending.values().filter(|pending| is_over(pending)).cloned().collect();
        if over.is_empty() {
            return Vec::new();
        }
        let prices = self.prices(observed);
        let entry = |pending: Pending| {
            let Pending { sandbox, ended, .. } = pending;
            Entry { estimate: true, ..priced(self.attributed(sandbox), ended, &prices, policy) }
        };
        let entries: Vec<Entry> = over.into_iter().map(entry).collect();
        for entry in &entries {
            self.account(entry);
        }
        entries
    }

    fn list_since(&self, modal_now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let opening = self.opening.map(|opening| opening.reach.since(self.day, modal_now));
        let pending = self.pending.values().map(|pending| pending.sandbox.created_at - SLACK).min();
        opening.into_iter().chain(pending).min()
    }

    /// Adds what the living have cost since their start or midnight, and those that ended and are not accounted yet.
    fn add_running(
        &self,
        spend: &mut Spend,
        observed: &Observed,
        (policy, prices): (&Policy, &Prices),
        modal_now: DateTime<Utc>,
    ) {
        let mut ran: BTreeMap<(&str, &ClassName, Machined<'_>), TimeDelta> = BTreeMap::new();
        let mut add = |(repo, class, machined), started: Option<DateTime<Utc>>, until: DateTime<Utc>| {
            let time = started.map_or(TimeDelta::zero(), |started| until - started.max(self.day));
            *ran.entry((repo, class, machined)).or_default() += time.max(TimeDelta::zero());
        };
        let mut living: BTreeMap<(&ClassName, Machined<'_>), u32> = BTreeMap::new();
        let is_over = |id: &SandboxId| self.accounted.contains_key(id) || self.pending.contains_key(id);
        for sandbox in observed.fleet.sandboxes.values().filter(|it| it.ended.is_none() && !is_over(&it.id)) {
            let OurSandbox { origin, resources, .. } = sandbox;
            let (machined, started) =
                ((Some(&origin.machine), resources), begin_of(&sandbox.id, sandbox.started_at, sandbox.created_at));
            add((origin.scope.repo.as_str(), &origin.class, machined), started, modal_now);
            *living.entry((&origin.class, machined)).or_default() += u32::from(started.is_some());
        }
        for Pending { sandbox, ended, .. } in self.pending.values() {
            let machined = (sandbox.resources.machine.as_ref(), &sandbox.resources);
            add((&sandbox.repo, &sandbox.class, machined), begin(sandbox), *ended);
        }
        let price = |class: &ClassName, (machine, resources): Machined<'_>| {
            let resources = Resources { machine: machine.cloned(), ..resources.clone() };
            price_of(policy.class(class), &resources, prices).0
        };
        for ((repo, class, machined), time) in ran {
            let usd = price(class, machined).for_time(time);
            if !usd.is_zero() {
                spend.add(Payer { repo: repo.to_owned(), class: class.clone() }, usd);
            }
        }
        for ((class, machined), count) in living {
            *spend.rate.entry(class.clone()).or_default() += price(class, machined).times(count.into());
        }
    }

    /// By what it ran, where that was seen: of a run that is over the workflow is not.
    fn attributed(&self, mut sandbox: EndedSandbox) -> EndedSandbox {
        if let Some(Served { repo, workflow }) = self.served.get(&sandbox.id) {
            let of_tag = sandbox.workflow.filter(|_| sandbox.repo == *repo);
            (sandbox.repo, sandbox.workflow) = (repo.clone(), workflow.clone().or(of_tag));
        }
        sandbox
    }
}

/// By what a sandbox is priced: what its tags tell, and what is listed.
type Machined<'a> = (Option<&'a Machine>, &'a Resources);

/// From when on a sandbox costs. One of the newer interface has a machine from its creation on, also where Modal tells no
/// start; one of the older may never have had one.
fn begin_of(id: &SandboxId, started: Option<DateTime<Utc>>, created: DateTime<Utc>) -> Option<DateTime<Utc>> {
    started.or_else(|| (!id.is_v1()).then_some(created))
}

fn begin(sandbox: &EndedSandbox) -> Option<DateTime<Utc>> {
    begin_of(&sandbox.id, sandbox.started_at, sandbox.created_at)
}

fn add_on(sums: &mut BTreeMap<Payer, Usd>, paid: &Paid, day: DateTime<Utc>) {
    let usd = paid.usd_on(day);
    if !usd.is_zero() {
        *sums.entry(paid.payer.clone()).or_default() += usd;
    }
}

/// The price of a machine, and whether it is all of it.
fn price_of(class: Option<&RunnerClass>, resources: &Resources, prices: &Prices) -> (Usd, bool) {
    match prices.of(resources, class) {
        Some(price) => (price, true),
        None => (prices.without_gpu(resources, class), false),
    }
}

fn priced(sandbox: EndedSandbox, ended: DateTime<Utc>, prices: &Prices, policy: &Policy) -> Entry {
    let class = policy.class(&sandbox.class);
    let resources = &sandbox.resources;
    let (price, is_whole) = price_of(class, resources, prices);
    let has_count = resources.machine.is_some() || resources.gpu.is_none();
    let is_told = class.is_some() || (resources.milli_cpu.is_some() && has_count);
    let started = begin(&sandbox);
    let ran = started.map_or(TimeDelta::zero(), |started| ended - started);
    Entry {
        gpu: prices.gpu(resources, class).map(|(name, _)| name.to_owned()),
        id: sandbox.id,
        name: sandbox.name,
        account: sandbox.account,
        repo: sandbox.repo,
        workflow: sandbox.workflow,
        class: sandbox.class,
        started,
        ended,
        usd: price.for_time(ran),
        estimate: !(ran.is_zero() || is_whole && is_told && sandbox.started_at.is_some()),
    }
}

/// What we know ourselves of a sandbox that ended.
fn ended_sandbox(name: &OurName, sandbox: &OurSandbox, skew: TimeDelta) -> EndedSandbox {
    let origin = &sandbox.origin;
    let has_run = sandbox.was_placed() || sandbox.started_at.is_some();
    EndedSandbox {
        id: sandbox.id.clone(),
        name: name.to_string(),
        account: origin.scope.account.to_string(),
        repo: repo_text(&origin.scope.repo),
        workflow: None,
        class: origin.class.clone(),
        created_at: sandbox.created_at,
        started_at: has_run.then(|| sandbox.started(skew) + skew),
        finished_at: None,
        resources: Resources { machine: Some(origin.machine.clone()), ..sandbox.resources.clone() },
    }
}

fn repo_text(repo: &RepoName) -> String {
    repo.as_str().to_owned()
}
