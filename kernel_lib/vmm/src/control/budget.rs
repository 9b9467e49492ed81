//! How many lines a guest may log: a burst, then some each second. Pure: time is passed in.

use std::time::{Duration, Instant};

const BURST: u32 = 200;
const EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub struct Budget {
    /// Lines of the burst that are used up, and when that was last reckoned.
    used: u32,
    since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    Yes,
    /// Not this one, and the first of those.
    Last,
    No,
}

impl Budget {
    pub fn spend(&mut self, now: Instant) -> Spent {
        let since = *self.since.get_or_insert(now);
        let regained = (now.saturating_duration_since(since).as_millis() / EVERY.as_millis()).min(u128::from(u32::MAX)) as u32;
        if regained > 0 {
            self.used = self.used.saturating_sub(regained);
            self.since = Some(now);
        }
        self.used = (self.used + 1).min(BURST + 2);
        match self.used {
            0..=BURST => Spent::Yes,
            used if used == BURST + 1 => Spent::Last,
            _ => Spent::No,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_a_trickle() {
        let start = Instant::now();
        let mut budget = Budget::default();
        let spent: Vec<Spent> = (0..BURST + 10).map(|_| budget.spend(start)).collect();
        assert_eq!(spent.iter().filter(|one| **one == Spent::Yes).count(), BURST as usize);
        assert_eq!(spent.iter().filter(|one| **one == Spent::Last).count(), 1);
        assert_eq!(budget.spend(start + EVERY * 5), Spent::Yes);
        assert_eq!(budget.spend(start + EVERY * 500), Spent::Yes);
    }
}
