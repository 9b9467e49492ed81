//! Sets of signals, and what signal(7) says about each signal by default.

use linux_abi::signal::{
    SIGABRT, SIGBUS, SIGCHLD, SIGCONT, SIGFPE, SIGILL, SIGKILL, SIGQUIT, SIGSEGV, SIGSTOP, SIGSYS, SIGTRAP, SIGTSTP, SIGTTIN, SIGTTOU,
    SIGURG, SIGWINCH, SIGXCPU, SIGXFSZ,
};

/// Bit `n - 1` is signal `n`: Linux's sigset_t.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct SigSet(pub u64);

impl SigSet {
    pub const EMPTY: Self = Self(0);
    pub const ALL: Self = Self(u64::MAX);
    /// Cannot be blocked, caught or ignored.
    pub const UNBLOCKABLE: Self = Self::of(&[SIGKILL, SIGSTOP]);
    pub const STOP: Self = Self::of(&[SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU]);
    pub const IGNORED_BY_DEFAULT: Self = Self::of(&[SIGCHLD, SIGCONT, SIGURG, SIGWINCH]);
    pub const CORE_BY_DEFAULT: Self = Self::of(&[SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGXCPU, SIGXFSZ, SIGSYS]);
    /// Caused by the thread itself: delivered before any other.
    pub const SYNCHRONOUS: Self = Self::of(&[SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGSYS]);

    pub const fn one(signal: i32) -> Self {
        Self(1 << (signal - 1))
    }
    pub const fn of(signals: &[i32]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < signals.len() {
            bits |= 1 << (signals[index] - 1);
            index += 1;
        }
        Self(bits)
    }
    pub const fn contains(self, signal: i32) -> bool {
        self.0 & Self::one(signal).0 != 0
    }
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// The signal to take first: synchronous ones, then the lowest number (signal(7): "Queueing and delivery semantics").
    pub fn first(self) -> Option<i32> {
        let bits = if self.and(Self::SYNCHRONOUS).is_empty() { self.0 } else { self.and(Self::SYNCHRONOUS).0 };
        (bits != 0).then(|| bits.trailing_zeros() as i32 + 1)
    }
}

/// Whether a number names a signal.
pub const fn is_valid(signal: i32) -> bool {
    signal >= 1 && signal <= 64
}

/// What happens when a signal's action is SIG_DFL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Default {
    Ignore,
    Stop,
    Terminate,
}

pub const fn default_action(signal: i32) -> Default {
    if SigSet::IGNORED_BY_DEFAULT.contains(signal) {
        Default::Ignore
    } else if SigSet::STOP.contains(signal) {
        Default::Stop
    } else {
        Default::Terminate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synchronous_signals_come_first() {
        assert_eq!(SigSet::of(&[1, SIGSEGV, 40]).first(), Some(SIGSEGV));
        assert_eq!(SigSet::of(&[40, 15]).first(), Some(15));
        assert_eq!(SigSet::EMPTY.first(), None);
        assert_eq!(SigSet::of(&[64]).first(), Some(64));
    }
}
