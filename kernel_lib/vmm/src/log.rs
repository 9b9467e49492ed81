//! The VMM's log: JSON lines in runc's format (`level`, `msg`, `time`).

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

static LOG: OnceLock<Mutex<std::fs::File>> = OnceLock::new();
static DEBUG: AtomicBool = AtomicBool::new(false);

pub fn open(descriptor: OwnedFd) {
    let _ = LOG.set(Mutex::new(descriptor.into()));
}

/// What [`debug`] says is wanted.
pub fn set_debug(on: bool) {
    DEBUG.store(on, Ordering::Relaxed);
}

/// The number of the log's descriptor, which must not be closed with the others (None: stderr).
pub fn descriptor() -> Option<RawFd> {
    LOG.get().map(|log| log.lock().unwrap_or_else(PoisonError::into_inner).as_raw_fd())
}

pub fn error(message: &str) {
    line("error", message);
}

pub fn warning(message: &str) {
    line("warning", message);
}

pub fn info(message: &str) {
    line("info", message);
}

pub fn debug(message: &str) {
    if DEBUG.load(Ordering::Relaxed) {
        line("debug", message);
    }
}

fn line(level: &str, message: &str) {
    let mut text = serde_json::json!({ "level": level, "msg": message, "time": now() }).to_string();
    text.push('\n');
    // Nothing can be done about a log that cannot be written.
    let _ = match LOG.get() {
        Some(file) => file.lock().unwrap_or_else(PoisonError::into_inner).write_all(text.as_bytes()),
        None => std::io::stderr().write_all(text.as_bytes()),
    };
}

/// RFC 3339, UTC.
fn now() -> String {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let (days, second) = (time.tv_sec.div_euclid(86400), time.tv_sec.rem_euclid(86400));
    let (year, month, day) = civil_from_days(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// Days since 1970-01-01 to a date of the proleptic Gregorian calendar (years that begin in March make leap days the last of a year).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates() {
        assert_eq!(super::civil_from_days(0), (1970, 1, 1));
        assert_eq!(super::civil_from_days(11_016), (2000, 2, 29));
        assert_eq!(super::civil_from_days(20_454), (2026, 1, 1));
    }
}
