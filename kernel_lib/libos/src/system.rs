//! What the machine is called (uname(2), sethostname(2)).

use alloc::string::String;
use hal::sync::SpinLock;

pub const SYSNAME: &str = "Linux";
/// The Linux whose behaviour programs can expect.
pub const RELEASE: &str = "6.6.0-litebox";
pub const VERSION: &str = "#1 SMP PREEMPT_DYNAMIC LiteBox";
pub const MACHINE: &str = "x86_64";
/// What an unset domain name shows.
const NO_DOMAIN: &str = "(none)";

/// Names set by the container's programs; None: as configured.
static HOSTNAME: SpinLock<Option<String>> = SpinLock::new(None);
static DOMAINNAME: SpinLock<Option<String>> = SpinLock::new(None);

pub fn hostname() -> String {
    let own = HOSTNAME.lock().clone();
    own.or_else(|| crate::boot::container().map(|container| container.spec.hostname.clone())).unwrap_or_default()
}

pub fn domainname() -> String {
    let own = DOMAINNAME.lock().clone();
    let configured = || crate::boot::container().map(|container| container.spec.domainname.clone()).filter(|name| !name.is_empty());
    own.or_else(configured).unwrap_or_else(|| String::from(NO_DOMAIN))
}

pub fn set_hostname(name: &[u8]) {
    *HOSTNAME.lock() = Some(String::from_utf8_lossy(name).into_owned());
}

pub fn set_domainname(name: &[u8]) {
    *DOMAINNAME.lock() = Some(String::from_utf8_lossy(name).into_owned());
}
