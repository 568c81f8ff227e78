//! What was acknowledged, and the judgement over what a node gives back.

use std::ops::Range;

use crate::work::Work;

/// The parent's own record. A write is in it from the moment its acknowledgement was read.
pub(crate) struct Ledger {
    acked: Vec<bool>,
    count: u64,
    /// Highest entry that an acknowledgement named.
    pub(crate) index: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
}

/// What a node gave back, compared with what was acknowledged.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Audit {
    seen: Vec<bool>,
    /// Keys with the value they should have.
    pub(crate) right: u64,
    /// Of those, the ones that nobody acknowledged: allowed, they were on their way.
    pub(crate) unacknowledged: u64,
    /// What must not be, in words; the first few.
    pub(crate) wrong: Vec<String>,
}

impl Ledger {
    /// Nothing acknowledged yet.
    pub(crate) fn new(work: &Work) -> Self {
        let acked = vec![false; work.writes() as usize];
        Self { acked, count: 0, index: 0, refused: 0, unknown: 0 }
    }

    /// Writes down an acknowledgement.
    pub(crate) fn acknowledge(&mut self, item: u64) -> Result<(), String> {
        let slot = self.acked.get_mut(item as usize).ok_or("a write that does not exist")?;
        self.count += u64::from(!std::mem::replace(slot, true));
        Ok(())
    }

    /// How many writes were acknowledged.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// Those of a share that were not.
    pub(crate) fn missing(&self, share: Range<u64>) -> Vec<Range<u64>> {
        let mut out: Vec<Range<u64>> = Vec::new();
        for item in share.filter(|item| !self.acked[*item as usize]) {
            match out.last_mut() {
                Some(range) if range.end == item => range.end += 1,
                Some(_) | None => out.push(item..item + 1),
            }
        }
        out
    }

    /// Begins the comparison with one node's store.
    pub(crate) fn audit(&self) -> Audit {
        Audit { seen: vec![false; self.acked.len()], ..Audit::default() }
    }
}

impl Audit {
    /// Takes in one key and value of the node.
    pub(crate) fn take(&mut self, work: &Work, ledger: &Ledger, key: &[u8], value: &[u8]) {
        let Some(item) = work.item(key) else {
            return self.blame(format!("key {} was never written", key.escape_ascii()));
        };
        if std::mem::replace(&mut self.seen[item as usize], true) {
            return self.blame(format!("{} came twice", work.key(item)));
        }
        if value != work.value(item) {
            return self.blame(format!("{} has another value than was written", work.key(item)));
        }
        self.right += 1;
        self.unacknowledged += u64::from(!ledger.acked[item as usize]);
    }

    /// The end of the node's store: how many acknowledged writes it does not have.
    pub(crate) fn lost(&mut self, work: &Work, ledger: &Ledger) -> u64 {
        let lost: Vec<u64> = (0..work.writes())
            .filter(|item| ledger.acked[*item as usize] && !self.seen[*item as usize])
            .collect();
        for item in &lost {
            self.blame(format!("{} was acknowledged and is not there", work.key(*item)));
        }
        lost.len() as u64
    }

    fn blame(&mut self, what: String) {
        if self.wrong.len() < 5 {
            self.wrong.push(what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(store: &[(&str, &str)]) -> (Audit, u64) {
        let work = Work::new(b"one\ntwo\nthree\n".to_vec(), 1).unwrap();
        let mut ledger = Ledger::new(&work);
        ledger.acknowledge(0).unwrap();
        ledger.acknowledge(2).unwrap();
        assert_eq!(ledger.count(), 2);
        assert!(ledger.missing(0..3).into_iter().eq(std::iter::once(1..2)));
        let mut audit = ledger.audit();
        for (key, value) in store {
            let key = format!("repetition-000000/line-{key:0>9}");
            audit.take(&work, &ledger, key.as_bytes(), value.as_bytes());
        }
        let lost = audit.lost(&work, &ledger);
        (audit, lost)
    }

    #[test]
    fn all_that_was_acknowledged_is_enough_and_what_was_on_its_way_may_be_there() {
        let (audit, lost) = judge(&[("1", "one"), ("3", "three")]);
        assert_eq!((audit.right, audit.unacknowledged, lost, audit.wrong.len()), (2, 0, 0, 0));
        let (audit, lost) = judge(&[("1", "one"), ("2", "two"), ("3", "three")]);
        assert_eq!((audit.right, audit.unacknowledged, lost, audit.wrong.len()), (3, 1, 0, 0));
    }

    #[test]
    fn a_missing_a_changed_and_an_invented_key_are_each_found() {
        assert_eq!(judge(&[("1", "one")]).1, 1);
        assert_eq!(judge(&[("1", "one"), ("3", "thee")]).0.wrong.len(), 1);
        assert_eq!(judge(&[("1", "one"), ("2", "x"), ("3", "three")]).0.wrong.len(), 1);
        assert_eq!(judge(&[("1", "one"), ("3", "three"), ("4", "four")]).0.wrong.len(), 1);
        assert_eq!(judge(&[("1", "one"), ("1", "one"), ("3", "three")]).0.wrong.len(), 1);
    }
}
