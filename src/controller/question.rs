//! What the running controller is asked, and what one controller hands on to the next in the same process.

use std::collections::VecDeque;

use tokio::sync::{mpsc, oneshot};

use crate::explain::{Asked, Explanation, RecentEnd};
use crate::metrics::Meter;
use crate::pause::{Order, Pauses};
use crate::status::{Coverage, Point, RecentAction, Status, Timeline};

/// A question to the running controller, with where its answer goes. It answers between two passes.
#[derive(Debug)]
pub enum Question {
    /// All that it knows and does.
    Status(oneshot::Sender<Status>),
    /// The same, and how the last hours went.
    Story(oneshot::Sender<(Status, Vec<Point>)>),
    /// How much of the world is known.
    Coverage(oneshot::Sender<Coverage>),
    /// What a job, or a run, waits for.
    Explain(Asked, oneshot::Sender<Explanation>),
    /// An order of the operator; answered with all that is held back then, or with why it cannot be carried out.
    Order(Order, oneshot::Sender<Result<Pauses, String>>),
}

/// What asks the controller.
#[derive(Debug, Clone)]
pub struct Asker(mpsc::Sender<Question>);

impl Asker {
    /// What asks, and what the controller hears; `room` questions may wait.
    pub fn new(room: usize) -> (Self, mpsc::Receiver<Question>) {
        let (ask, questions) = mpsc::channel(room);
        (Self(ask), questions)
    }

    /// Asks, and waits for the answer; none where the controller ends.
    pub async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Option<T> {
        let (asked, answer) = oneshot::channel();
        self.0.send(question(asked)).await.ok()?;
        answer.await.ok()
    }

    /// Asks without waiting for room; the answer is there after the next pass. Lost where there is no room.
    pub fn try_ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> oneshot::Receiver<T> {
        let (asked, answer) = oneshot::channel();
        // Whoever waits for the answer hears that there is none.
        drop(self.0.try_send(question(asked)));
        answer
    }
}

/// What a controller that ends leaves to the next one of the same process. Nothing of it is needed.
#[derive(Debug, Default)]
pub struct Handover {
    /// What was learned, in the form that is kept on a disk.
    pub kept: Option<String>,
    /// What the operator holds back, where that was asked.
    pub pauses: Option<Pauses>,
    /// The gauges that are set.
    pub(super) meter: Meter,
    pub(super) recent: VecDeque<RecentAction>,
    pub(super) pickups: VecDeque<f64>,
    pub(super) ends: VecDeque<RecentEnd>,
    pub(super) timeline: Timeline,
}
