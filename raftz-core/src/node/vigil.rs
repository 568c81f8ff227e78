//! When to say that there is no leader, and who is missing: every few seconds while it lasts.

/// Time without a leader before it is said, and between two times.
const INTERVAL_US: u64 = 5_000_000;

/// Whether a leader is known.
#[derive(Debug, Default)]
pub(super) struct Vigil {
    due_us: Option<u64>,
}

impl Vigil {
    /// Takes note of whether a leader is known. True when it is time to say that none is.
    pub(super) fn look(&mut self, now_us: u64, is_led: bool) -> bool {
        if is_led {
            self.due_us = None;
            return false;
        }
        let is_due = self.due_us.is_some_and(|due_us| now_us >= due_us);
        if is_due || self.due_us.is_none() {
            self.due_us = Some(now_us.saturating_add(INTERVAL_US));
        }
        is_due
    }

    /// When to look again, if nothing else happens.
    pub(super) const fn next_deadline_us(&self) -> Option<u64> {
        self.due_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_every_five_seconds_until_somebody_leads() {
        let mut vigil = Vigil::default();
        assert!(!vigil.look(1, false), "an election takes a moment");
        let said = (1..=60_000).filter(|ms| vigil.look(1 + ms * 1000, false)).count();
        assert_eq!(said, 12);
        assert!(!vigil.look(61_000_000, true));
        assert_eq!(vigil.next_deadline_us(), None, "a node that is led sleeps");
        assert!(!vigil.look(200_000_000, false), "counted anew");
        assert_eq!(vigil.next_deadline_us(), Some(205_000_000));
        assert!(vigil.look(205_000_000, false));
    }
}
