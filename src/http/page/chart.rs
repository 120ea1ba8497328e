//! The last hours as lines: SVG that needs neither a script nor a style of its own.

use std::fmt::{self, Display};

use chrono::{DateTime, TimeDelta, Utc};

use super::html::Text;

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 60.0;
/// What it shows.
const HOURS: i64 = 6;
/// Between points that lie farther apart there is no line: nothing is known of the time between.
const GAP: TimeDelta = TimeDelta::minutes(5);

/// One quantity over time.
#[derive(Debug)]
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    pub(super) unit: &'a str,
    pub(super) values: Vec<(DateTime<Utc>, f64)>,
    pub(super) now: DateTime<Utc>,
}

impl Display for Chart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { title, unit, values, now } = self;
        let start = *now - TimeDelta::hours(HOURS);
        let shown: Vec<(DateTime<Utc>, f64)> = values.iter().filter(|(at, _)| *at >= start).copied().collect();
        let most = shown.iter().map(|(_, value)| *value).fold(0.0, f64::max);
        let last = shown.last().map_or_else(|| "nothing yet".to_owned(), |(_, value)| format!("last {value:.0}{unit}"));
        write!(f, "<figure><figcaption>{}: {last}, most {most:.0}{unit}</figcaption>", Text(title))?;
        write!(
            f,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} over the last {HOURS} hours: {last}, most {most:.0}{unit}\">",
            Text(title)
        )?;
        write!(f, "<path class=\"axis\" d=\"M0 {0}H{WIDTH}\"/>", HEIGHT - 1.0)?;
        f.write_str("<path class=\"line\" d=\"")?;
        let mut before = None;
        for (at, value) in shown {
            let along = (at - start).as_seconds_f64() / TimeDelta::hours(HOURS).as_seconds_f64();
            let up = if most > 0.0 { value / most } else { 0.0 };
            let is_joined = before.is_some_and(|before| at - before <= GAP);
            let (x, y) = (along * WIDTH, HEIGHT - 2.0 - up * (HEIGHT - 6.0));
            // A point without neighbours is a line of no length, which its round ends show.
            if is_joined {
                write!(f, "L{x:.0} {y:.0}")?;
            } else {
                write!(f, "M{x:.0} {y:.0}h0")?;
            }
            before = Some(at);
        }
        f.write_str("\"/></svg></figure>")
    }
}
