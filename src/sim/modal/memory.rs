//! What Modal remembers of calls by their idempotency keys, where the profile says that it does.
//!
//! Whether the real one does is not documented (`modal-api.md` §2.3), so clients must work either way.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use chrono::TimeDelta;
use tonic::Status;

use crate::sim::history::Operation;
use crate::sim::jobs::Time;
use crate::sim::world::State;

/// How long a key is remembered.
const REMEMBERED: TimeDelta = TimeDelta::hours(1);

/// A call as its key names it.
pub(super) type Key = (Operation, String);

/// The answers given to keys.
#[derive(Default)]
pub(in crate::sim) struct Answers {
    by_key: BTreeMap<Key, Box<dyn Any + Send>>,
    in_order: VecDeque<(Time, Key)>,
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.by_key.keys()).finish()
    }
}

impl Answers {
    fn find<A: Clone + 'static>(&self, key: &Key) -> Option<A> {
        self.by_key.get(key)?.downcast_ref::<A>().cloned()
    }

    fn keep<A: Send + 'static>(&mut self, key: Key, answer: A, now: Time) {
        while self.in_order.front().is_some_and(|(at, _)| now - *at >= REMEMBERED) {
            let (_, old) = self.in_order.pop_front().expect("the front was just seen");
            self.by_key.remove(&old);
        }
        self.in_order.push_back((now, key.clone()));
        self.by_key.insert(key, Box::new(answer));
    }
}

impl State {
    /// Carries out a call unless its key has been answered before; then that answer is given again.
    pub(super) fn carry_out_once<A: Clone + Send + 'static>(
        &mut self,
        key: Option<Key>,
        carry_out: impl FnOnce(&mut Self) -> Result<A, Status>,
    ) -> Result<A, Status> {
        let Some(key) = key.filter(|_| self.profile.modal_keeps_idempotency_keys) else {
            return carry_out(self);
        };
        if let Some(answer) = self.modal_answers.find(&key) {
            return Ok(answer);
        }
        let answer = carry_out(self)?;
        let now = self.now;
        self.modal_answers.keep(key, answer.clone(), now);
        Ok(answer)
    }
}
