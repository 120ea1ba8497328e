//! How Modal's calls go wrong.

use tonic::{Code, Status};

use super::endpoint::Fate;
use super::listing::Bend;
use super::objects::ImagesLeft;
use super::{Call, Outcome, Page, throttled};
use crate::sim::fault::{FaultMode, LATE_SECS, SLOW_SECS, Strike};
use crate::sim::history::LimitKind;
use crate::sim::world::State;

/// How long a throttled create is asked to wait where a fault does not say.
const THROTTLE_SECS: f64 = 1.5;
/// For how long nothing is answered where the fault does not say.
const SILENT_SECS: f64 = 600.0;
/// The code with which creates are refused whose image is there and not built.
const FAILED_PRECONDITION: u16 = 9;
/// What Modal tells its clients in passing.
const WARNING: &str = "simulated warning: this client is deprecated, please upgrade";

impl State {
    /// Answers a call that a fault strikes; `carry_out` would answer it well.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the other modes apply to no call of Modal's")]
    pub(super) fn struck_modal<A: Default>(
        &mut self,
        strike: Strike,
        carry_out: impl FnOnce(&mut Self) -> Result<A, Status> + Send + 'static,
    ) -> Outcome<A> {
        match strike.mode {
            FaultMode::Error | FaultMode::PageError => refused(strike),
            FaultMode::AppliedLate => {
                self.postpone(strike.seconds_or(LATE_SECS), |state| {
                    let _nobody_waits = carry_out(state);
                });
                refused(strike)
            }
            FaultMode::ReplyLost => {
                // What it answers is exactly what gets lost.
                let _lost = carry_out(self);
                let lost = Err(Status::unavailable("simulated fault: the answer was lost"));
                Outcome { delay_secs: strike.seconds_or(0.0), ..Outcome::of(lost) }
            }
            FaultMode::Cut => cut(strike.seconds_or(0.0)),
            FaultMode::CutAfter => {
                let _lost = carry_out(self);
                cut(strike.seconds_or(0.0))
            }
            FaultMode::Silent => cut(strike.seconds_or(SILENT_SECS)),
            FaultMode::Slow => Outcome { delay_secs: strike.seconds_or(SLOW_SECS), ..Outcome::of(carry_out(self)) },
            FaultMode::RateLimited => {
                let status = throttled(strike.seconds_or(THROTTLE_SECS), self.profile.modal_creates_per_second);
                Outcome { limited: Some(LimitKind::Injected), ..Outcome::of(Err(status)) }
            }
            FaultMode::Unauthorized => Outcome::of(Err(Status::unauthenticated("simulated fault: token revoked"))),
            FaultMode::NotFound => Outcome::of(Err(Status::not_found("simulated fault: not found"))),
            FaultMode::Empty => Outcome::of(Ok(A::default())),
            FaultMode::Truncated => Outcome { fate: Fate::Half, ..Outcome::of(carry_out(self)) },
            FaultMode::Warned => Outcome { warning: Some(WARNING), ..Outcome::of(carry_out(self)) },
            FaultMode::ImagesGone => {
                let is_unbuilt = strike.status == Some(FAILED_PRECONDITION);
                self.lose_images(if is_unbuilt { ImagesLeft::Unbuilt } else { ImagesLeft::Nothing });
                Outcome::of(carry_out(self))
            }
            FaultMode::AppStopped => {
                self.stop_apps();
                Outcome::of(carry_out(self))
            }
            _ => {
                // What else can strike here makes a list go wrong, which looks at this.
                self.bend = self.bend_of(strike);
                let answer = carry_out(self);
                self.bend = Bend::Straight;
                Outcome::of(answer)
            }
        }
    }

    /// Whether a mode would make a difference to this very call.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the other modes do not depend on the call")]
    pub(super) fn can_strike_modal(&self, call: Call, mode: FaultMode) -> bool {
        match mode {
            FaultMode::PageMissing
            | FaultMode::PageError
            | FaultMode::PageSkips
            | FaultMode::PageShowsTwice
            | FaultMode::PageRepeats => call.page == Page::Later,
            FaultMode::Flapping => !self.live.is_empty(),
            _ => true,
        }
    }
}

/// The connection breaks after `secs`, without a status.
fn cut<A>(secs: f64) -> Outcome<A> {
    let unseen = Err(Status::unavailable("simulated fault: the connection was cut"));
    Outcome { fate: Fate::Cut, delay_secs: secs, ..Outcome::of(unseen) }
}

/// The refusal that a fault states: `UNAVAILABLE` where it does not say which.
fn refused<A>(strike: Strike) -> Outcome<A> {
    let code = strike.status.map_or(Code::Unavailable, |code| Code::from_i32(i32::from(code)));
    let limited = (code == Code::ResourceExhausted).then_some(LimitKind::Injected);
    Outcome { limited, ..Outcome::of(Err(Status::new(code, "simulated fault"))) }
}
