//! Counters and histograms that are there before their first event: the rise from nothing to one is a rate as well.

use metrics::{counter, histogram};

use super::{
    ACTION_SECONDS, ACTIONS, COST_FILE_ERRORS, CROSS_CLASS, ENDS, IMAGE_ROLLBACKS, PICKUP, RECONCILE,
    RECONCILE_SECONDS, STATE_SAVES, Save,
};
use crate::act::Effect;
use crate::error::ErrorClass;
use crate::evidence::END_REASONS;
use crate::ids::ClassName;
use crate::plan::Action;

/// The legs of a pick-up, and the whole of it.
const LEGS: [&str; 5] = ["seen", "created", "online", "started", "total"];

/// What a process has, whatever its configuration.
pub(super) fn process() {
    counter!(CROSS_CLASS).absolute(0);
    counter!(COST_FILE_ERRORS).absolute(0);
    for result in ["complete", "incomplete"] {
        counter!(RECONCILE, "result" => result).absolute(0);
    }
    for result in [Save::Ok, Save::Failed] {
        counter!(STATE_SAVES, "result" => result.as_str()).absolute(0);
    }
    drop(histogram!(RECONCILE_SECONDS));
    for (action, reason) in Action::LABELS {
        drop(histogram!(ACTION_SECONDS, "action" => action));
        let failures = ErrorClass::ALL.map(ErrorClass::as_str);
        for result in ["ok"].iter().chain(Effect::results_of(action)).chain(&failures) {
            counter!(ACTIONS, "action" => action, "reason" => reason, "result" => *result).absolute(0);
        }
    }
    crate::modal::zero_requests();
}

/// What each class has.
pub(super) fn class(class: &ClassName) {
    counter!(IMAGE_ROLLBACKS, "class" => class.to_string()).absolute(0);
    for reason in END_REASONS {
        counter!(ENDS, "class" => class.to_string(), "reason" => reason).absolute(0);
    }
    for leg in LEGS {
        drop(histogram!(PICKUP, "class" => class.to_string(), "leg" => leg));
    }
}
