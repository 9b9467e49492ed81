//! Failures of the host side that end the VM. (What a guest did wrong is a [`crate::services::Errno`]: its answer.)

use std::fmt;

/// Something the VMM needs and the host refused, or a launch plan that makes no sense.
#[derive(Debug)]
pub struct HostError {
    pub kind: Kind,
    pub message: String,
}

/// What `ready` says in `kind`, so that the runtime can tell the user what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Plan,
    Kvm,
    Kernel,
    Memory,
    Jail,
    Guest,
    Host,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Kvm => "kvm",
            Self::Kernel => "kernel",
            Self::Memory => "memory",
            Self::Jail => "jail",
            Self::Guest => "guest",
            Self::Host => "host",
        }
    }
}

impl HostError {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub fn plan(message: impl Into<String>) -> Self {
        Self::new(Kind::Plan, message)
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for HostError {}

/// `result.during(Kind::Kvm, "KVM_CREATE_VM")?`
pub trait During<T> {
    fn during(self, kind: Kind, what: &str) -> Result<T, HostError>;
}

impl<T, E: fmt::Display> During<T> for Result<T, E> {
    fn during(self, kind: Kind, what: &str) -> Result<T, HostError> {
        self.map_err(|error| HostError::new(kind, format!("{what}: {error}")))
    }
}
