//! Pending signals of a thread or of a process: standard signals once each, real-time signals queued (signal(7)).

use super::set::SigSet;
use alloc::collections::BTreeMap;
use linux_abi::signal::{SigInfo, SIGRTMIN, SI_TIMER, SI_USER};

#[derive(Default)]
pub struct Queue {
    pending: SigSet,
    /// By signal, and then in the order in which they came. There may be a hundred thousand.
    items: BTreeMap<(i32, u64), SigInfo>,
    /// How many have come.
    count: u64,
}

impl Queue {
    pub const fn pending(&self) -> SigSet {
        self.pending
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Adds a signal. A standard signal that is pending already is lost. Without `keep` only the fact is remembered.
    pub fn push(&mut self, info: SigInfo, keep: bool) {
        if info.signo < SIGRTMIN && self.pending.contains(info.signo) {
            return;
        }
        self.pending = self.pending.union(SigSet::one(info.signo));
        if keep {
            self.items.insert((info.signo, self.count), info);
            self.count += 1;
        }
    }

    /// Whether a standard signal would be lost, being pending already.
    pub const fn would_merge(&self, signal: i32) -> bool {
        signal < SIGRTMIN && self.pending.contains(signal)
    }

    /// Takes the first signal of `wanted` (in delivery order).
    pub fn take(&mut self, wanted: SigSet) -> Option<SigInfo> {
        let signal = self.pending.and(wanted).first()?;
        let found = self.first(signal).and_then(|key| self.items.remove(&key));
        if self.first(signal).is_none() {
            self.pending = self.pending.without(SigSet::one(signal));
        }
        Some(found.unwrap_or(SigInfo::new(signal, SI_USER)))
    }

    fn first(&self, signal: i32) -> Option<(i32, u64)> {
        self.items.range((signal, 0)..=(signal, u64::MAX)).next().map(|(key, _)| *key)
    }

    /// Forgets every signal of `set`.
    pub fn flush(&mut self, set: SigSet) {
        if !self.pending.and(set).is_empty() {
            self.pending = self.pending.without(set);
            self.items.retain(|(signal, _), _| !set.contains(*signal));
        }
    }

    /// Whether an expiry of a POSIX timer is queued.
    pub fn holds_timer(&self, signal: i32, id: i32) -> bool {
        let mut queued = self.items.range((signal, 0)..=(signal, u64::MAX));
        queued.any(|(_, item)| is_of_timer(item, id))
    }

    /// Forgets the queued expiries of a POSIX timer (timer_delete(2)).
    pub fn flush_timer(&mut self, id: i32) {
        let before = self.items.len();
        self.items.retain(|_, item| !is_of_timer(item, id));
        if self.items.len() != before {
            let left = self.items.keys().fold(SigSet::EMPTY, |set, (signal, _)| set.union(SigSet::one(*signal)));
            self.pending = self.pending.and(left);
        }
    }
}

/// A timer's number stands where others have the sender's.
const fn is_of_timer(item: &SigInfo, id: i32) -> bool {
    item.code == SI_TIMER && item.pid() == id as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_signals_merge_and_real_time_signals_queue() {
        let mut queue = Queue::default();
        for value in 0..3 {
            let mut info = SigInfo::new(34, -1);
            info.fields[2] = value;
            queue.push(info, true);
            queue.push(SigInfo::from_process(10, 0, value, 0), true);
        }
        assert_eq!(queue.take(SigSet::ALL).map(|info| (info.signo, info.pid())), Some((10, 0)));
        for value in 0..3 {
            assert_eq!(queue.take(SigSet::ALL).map(|info| info.value()), Some(value));
        }
        assert!(queue.take(SigSet::ALL).is_none() && queue.is_empty());
    }

    #[test]
    fn a_lost_siginfo_still_leaves_the_signal() {
        let mut queue = Queue::default();
        queue.push(SigInfo::new(40, -1), false);
        assert_eq!(queue.take(SigSet::ALL).map(|info| (info.signo, info.code)), Some((40, SI_USER)));
        assert!(queue.is_empty());
    }
}
