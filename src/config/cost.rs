//! What `[cost]` means.

use rust_decimal::Decimal;

use super::CostConfig;
use super::load::ConfigError;
use super::value::{bad, in_range, usd};
use crate::cost::{Prices, Rates, gpu_key};

pub(super) fn prices(config: &CostConfig) -> Result<Prices, ConfigError> {
    let CostConfig { cpu, memory, region_factor, gpus } = config;
    let mut by_key = Rates::default().gpus;
    for (name, price) in gpus {
        if gpu_key(name).is_empty() {
            return Err(bad("cost.gpus", format!("`{name}`"), "must be a GPU as Modal names it, such as A100-80GB"));
        }
        by_key.insert(gpu_key(name), usd(&format!("cost.gpus.{name}"), *price)?);
    }
    let factor = in_range("cost.region_factor", *region_factor, 1.0, 10.0)?;
    Ok(Prices {
        rates: Rates { cpu: usd("cost.cpu", *cpu)?, memory: usd("cost.memory", *memory)?, gpus: by_key },
        region_factor: Decimal::try_from(factor)
            .map_err(|_| bad("cost.region_factor", factor, "must be between 1 and 10"))?,
    })
}
