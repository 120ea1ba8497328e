//! Answers what the controller is asked between two passes.

use super::{Controller, Question};
use crate::status::{Status, Subject, coverage};

impl Controller {
    /// Whoever asked may have gone away.
    pub(super) fn answer(&self, question: Question) {
        match question {
            Question::Status(answer) => drop(answer.send(Status::new(&self.subject(), self.clock.now()))),
            Question::Coverage(answer) => drop(answer.send(coverage(&self.view))),
        }
    }

    fn subject(&self) -> Subject<'_> {
        Subject {
            view: &self.view,
            evidence: &self.evidence,
            plan: &self.plan,
            policy: &self.policy,
            recent: &self.recent,
            pickups: &self.pickups,
            last_pass: self.last_pass,
        }
    }
}
