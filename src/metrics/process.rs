//! What the system knows of this process, under the names that Prometheus' own clients use; Linux only.

use std::fs;

use chrono::{DateTime, Utc};
use metrics::{Unit, describe_gauge, gauge};

use super::number;

const MEMORY: &str = "process_resident_memory_bytes";
const DESCRIPTORS: &str = "process_open_fds";
const STARTED: &str = "process_start_time_seconds";

pub(super) fn describe() {
    describe_gauge!(MEMORY, Unit::Bytes, "Resident memory of the process");
    describe_gauge!(DESCRIPTORS, "Open file descriptors of the process");
    describe_gauge!(STARTED, Unit::Seconds, "When the process started, in Unix seconds");
}

/// Tells when the process began to look.
pub(super) fn began(at: DateTime<Utc>) {
    gauge!(STARTED).set((at - DateTime::UNIX_EPOCH).as_seconds_f64());
}

/// Sets the gauges.
pub(super) fn meter() {
    if let Some(bytes) = fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident_bytes) {
        gauge!(MEMORY).set(bytes);
    }
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        gauge!(DESCRIPTORS).set(number(descriptors.count()));
    }
}

/// The resident memory in `/proc/self/status` (Linux: proc(5)).
fn resident_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(resident_bytes("Name:\tsandrunner\nVmRSS:\t   12 kB\n"), Some(12_288.0));
        assert_eq!(resident_bytes("Name:\tsandrunner\n"), None);
    }
}
