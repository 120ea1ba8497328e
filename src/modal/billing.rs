//! What Modal says that things cost.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::api;
use super::call::{Call, PLAIN_LIMIT};
use super::error::{ModalError, Replies};
use super::operation::Operation;
use super::reader::ModalReader;
use super::transport::Client;
use crate::cost::Usd;
use crate::ids::AppId;

/// The most items of one report; a month of days of a busy App, by some tags, has some ten thousand.
const ITEMS_MAX: usize = 1_000_000;

/// An item of Modal's billing report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Billed {
    /// Begin of the day.
    pub day: DateTime<Utc>,
    /// What it cost.
    pub usd: Usd,
    /// The values of the tags that were asked for, of those that it has.
    pub tags: BTreeMap<String, String>,
}

impl ModalReader {
    /// What Modal takes per unit and hour, as text by names that are made for people.
    ///
    /// # Errors
    /// [`ModalError::Call`] where Modal does not tell.
    pub async fn billing_rates(&self) -> Result<BTreeMap<String, String>, ModalError> {
        let call = Call::plain(Operation::READ_RATES, "the workspace");
        let message = api::WorkspaceBillingRatesRequest {};
        let send = |mut client: Client, request| async move { client.workspace_billing_rates(request).await };
        let answer = self.caller().call(call, message, send).await?;
        for warning in answer.deprecation_warnings.values().chain(answer.deprecation_errors.values()) {
            self.caller().transport.warnings.note(warning);
        }
        Ok(answer.rates.into_iter().collect())
    }

    /// What Modal bills for an App day by day, by the values of some tags.
    ///
    /// # Errors
    /// [`ModalError::Call`] where Modal does not tell; on small plans it refuses.
    pub async fn billing_report(
        &self,
        app: &AppId,
        (from, until): (DateTime<Utc>, DateTime<Utc>),
        tags: &[&str],
    ) -> Result<Vec<Billed>, ModalError> {
        let caller = self.caller();
        let call = Call::plain(Operation::READ_BILL, app.as_str());
        let message = api::WorkspaceBillingReportRequest {
            start_timestamp: Some(timestamp(from)),
            end_timestamp: Some(timestamp(until)),
            resolution: "d".to_owned(),
            tag_names: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            environment_ids: Vec::new(),
            app_ids: vec![app.as_str().to_owned()],
        };
        let send = |mut client: Client, request| async move { client.workspace_billing_report(request).await };
        let mut stream = caller.open(call, message, send).await?;
        let mut billed = Vec::new();
        while billed.len() < ITEMS_MAX {
            let item = caller.clock().deadline(PLAIN_LIMIT, stream.message()).await;
            let item = item.unwrap_or_else(|elapsed| Err(tonic::Status::deadline_exceeded(elapsed.to_string())));
            let item =
                item.map_err(|status| call.failed(caller.transport.refusal(call.operation, &status), Replies::All))?;
            let Some(item) = item else { return Ok(billed) };
            billed.push(read(item).ok_or_else(|| call.unreadable("an item has no day or no amount"))?);
        }
        Err(call.unreadable("the report has more items than are read"))
    }
}

fn read(item: api::WorkspaceBillingReportItem) -> Option<Billed> {
    let interval = item.interval?;
    let day = DateTime::from_timestamp(interval.seconds, u32::try_from(interval.nanos).ok()?)?;
    let usd = if item.cost.is_empty() { Usd::ZERO } else { item.cost.parse().ok()? };
    Some(Billed { day, usd, tags: item.tags.into_iter().collect() })
}

fn timestamp(at: DateTime<Utc>) -> prost_types::Timestamp {
    let nanos = i32::try_from(at.timestamp_subsec_nanos()).unwrap_or(0);
    prost_types::Timestamp { seconds: at.timestamp(), nanos }
}
