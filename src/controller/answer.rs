//! Answers what the controller is asked between two passes, and carries out what its operator orders.

use super::{Controller, Question};
use crate::explain::{Known, explain};
use crate::pause::{Held, Order, Pauses};
use crate::status::{Status, Subject, coverage};

impl Controller {
    /// Whoever asked may have gone away.
    pub(super) fn answer(&mut self, question: Question) {
        match question {
            Question::Status(answer) => drop(answer.send(Status::new(&self.subject(), self.clock.now()))),
            Question::Story(answer) => {
                let status = Status::new(&self.subject(), self.clock.now());
                drop(answer.send((status, self.timeline.points())));
            }
            Question::Coverage(answer) => drop(answer.send(coverage(&self.view))),
            Question::Explain(asked, answer) => drop(answer.send(explain(&asked, &self.known()))),
            Question::Order(order, answer) => drop(answer.send(self.obey(&order))),
        }
    }

    /// Holds something back, or lets it go on; a name that means nothing is more likely a slip than a plan.
    fn obey(&mut self, order: &Order) -> Result<Pauses, String> {
        let observed = &mut self.view.observed;
        match order {
            Order::Pause(Held::Class(class)) if self.policy.class(class).is_none() => {
                let known: Vec<&str> = self.policy.classes.iter().map(|class| class.name.as_str()).collect();
                return Err(format!("there is no class `{class}`; there are {}", known.join(", ")));
            }
            Order::Pause(Held::Repo(repo)) if !observed.repos.keys().any(|scope| scope.repo == *repo) => {
                return Err(format!("{repo} is not among the repositories that are served"));
            }
            Order::Resume(held @ (Held::Class(_) | Held::Repo(_))) if !observed.pauses.holds(held) => {
                return Err(format!("{held} is not held back by itself; `sandrunner status` shows what is"));
            }
            Order::Pause(_) | Order::Resume(_) => {}
        }
        observed.pauses.take(order, self.clock.now());
        match order {
            Order::Pause(held) => tracing::info!(%held, "paused; what runs goes on"),
            Order::Resume(held) => tracing::info!(%held, "resumed"),
        }
        Ok(observed.pauses.clone())
    }

    fn known(&self) -> Known<'_> {
        Known {
            observed: &self.view.observed,
            evidence: &self.evidence,
            plan: &self.plan,
            policy: &self.policy,
            ends: &self.ends,
            now: self.clock.now(),
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
