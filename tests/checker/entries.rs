//! What the book keeps of each thing.

use std::rc::Rc;

use super::event::{Call, Caller, Time};

/// A line of the history.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mark {
    pub(crate) seq: u64,
    pub(crate) at: Time,
}

/// A repository and a label set.
pub(crate) type Group = (Rc<str>, Rc<str>);

/// Whether a runner can be given a job, or have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Open,
    /// Its run has completed without it.
    LeftBehind,
    Done,
}

/// A job.
#[derive(Debug)]
pub(crate) struct Job {
    /// Its repository, which is not where runners are registered that the organization has.
    pub(crate) repo: Rc<str>,
    pub(crate) group: Group,
    pub(crate) run: u64,
    pub(crate) queued: Mark,
    /// When it left the queue: assigned, or ended before.
    pub(crate) left: Option<Time>,
    pub(crate) stage: Stage,
    /// The attempt that got it first, if one of ours did.
    pub(crate) taker: Option<usize>,
}

/// One life of a process that calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) caller: Caller,
    /// Counts its starts.
    pub(crate) life: usize,
}

/// What a call has just brought about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// A mint registered a runner.
    Minted(usize),
    /// A create made a sandbox.
    Created(usize),
    /// A sandbox was asked to end.
    Terminated(usize),
}

/// An answer to a call.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) mark: Mark,
    pub(crate) call: Rc<Call>,
}

/// A registration, and what became of it: one attempt to serve a need.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) group: Group,
    pub(crate) name: Rc<str>,
    pub(crate) registered: Mark,
    /// Who registered it; not known where the mint was carried out late.
    pub(crate) process: Option<Process>,
    /// The answer to the mint; none where it was carried out late.
    pub(crate) mint: Option<Answer>,
    /// The answers to calls that store, or look for, the Secret with its config.
    pub(crate) secrets: Vec<Answer>,
    /// The answers to creates under its name since.
    pub(crate) creates: Vec<Answer>,
    /// The answers to `DELETE` of its registration.
    pub(crate) deletes: Vec<Answer>,
    pub(crate) sandbox: Option<usize>,
    pub(crate) online: Option<Time>,
    /// When it got its job, and which.
    pub(crate) job: Option<(Time, u64)>,
    pub(crate) removed: Option<Time>,
    /// When Modal first and last said that it has no such sandbox.
    pub(crate) gone_told: Option<(Time, Time)>,
    /// Processes that were answered that its name is taken.
    pub(crate) taken_told: Vec<Process>,
}

/// A sandbox.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "two facts that have nothing to do with each other")]
pub(crate) struct Sandbox {
    pub(crate) id: Rc<str>,
    pub(crate) name: Rc<str>,
    pub(crate) is_ours: bool,
    pub(crate) is_gpu: bool,
    pub(crate) gpus: usize,
    pub(crate) class: String,
    pub(crate) secret: Option<String>,
    pub(crate) created: Mark,
    /// When it was placed on a machine; a GPU sandbox is placed some time after its creation.
    pub(crate) scheduled: Option<Time>,
    pub(crate) ended: Option<Mark>,
    /// Modal's number for how it ended; 0 while it lives.
    pub(crate) end_status: i32,
    pub(crate) terminate_asked: Option<Mark>,
    /// The registration that its config belongs to.
    pub(crate) attempt: Option<usize>,
}

impl Sandbox {
    pub(crate) fn is_alive(&self) -> bool {
        self.ended.is_none()
    }
}
