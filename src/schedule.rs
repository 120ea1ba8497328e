//! Jobs of the clock on the wall. Each only wakes the loop: what is due is decided there, from scratch.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

/// Every five minutes: a pass even if nothing else caused one, so that sweeps and grace periods are looked at.
const AUDIT: &str = "0 */5 * * * *";

/// Starts the schedule; it ends when the returned scheduler is dropped or shut down.
///
/// # Errors
/// [`JobSchedulerError`] where the scheduler cannot start.
pub async fn start(wake: Arc<Notify>) -> Result<JobScheduler, JobSchedulerError> {
    let scheduler = JobScheduler::new().await?;
    let audit = Job::new(AUDIT, move |_, _| wake.notify_one())?;
    scheduler.add(audit).await?;
    scheduler.start().await?;
    Ok(scheduler)
}
