//! The writes to be made: every line of the input, repeated until there are enough. Parent and
//! children make the same list from the same file and speak of its items by number.

use std::ops::Range;
use std::path::Path;

/// Longest line that the demo takes; raftz itself takes more.
pub(crate) const LINE_BYTES_MAX: usize = 1 << 20;

/// Most bytes of lines that a run writes: each node keeps all of them in memory and on disk.
const BYTES_MAX: u64 = 512 << 20;
/// A run of fewer writes would be over before its leader is killed.
const WRITES_LEAST: u64 = 20_000;

/// All the writes of a run.
pub(crate) struct Work {
    text: Vec<u8>,
    lines: Vec<Range<usize>>,
    writes: u64,
}

impl Work {
    /// Cuts a text into lines; whole repetitions, until there are `writes_min` writes, or fewer if
    /// the lines are long, but never fewer than make a run.
    pub(crate) fn new(text: Vec<u8>, writes_min: u64) -> Result<Self, String> {
        let mut lines = Vec::new();
        let mut start = 0;
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let content = line.strip_suffix(b"\n").unwrap_or(line);
            if content.len() > LINE_BYTES_MAX {
                return Err(format!(
                    "line {} has {} bytes; the demo takes lines of up to {LINE_BYTES_MAX} bytes",
                    lines.len() + 1,
                    content.len()
                ));
            }
            lines.push(start..start + content.len());
            start += line.len();
        }
        if lines.is_empty() {
            return Err("it has no lines; give a text file with at least one".into());
        }
        let count = lines.len() as u64;
        let bytes = text.len().max(1) as u64;
        let repetitions = |writes: u64| writes.div_ceil(count).max(1);
        let least = repetitions(writes_min.min(WRITES_LEAST));
        let affordable = BYTES_MAX / bytes;
        if least > affordable {
            return Err(format!(
                "it is too large: {} writes of its lines are {} MiB, and each node keeps them in \
                 memory; the demo takes up to {} MiB",
                least * count,
                least.saturating_mul(bytes) >> 20,
                BYTES_MAX >> 20
            ));
        }
        let writes = repetitions(writes_min).min(affordable) * count;
        Ok(Self { text, lines, writes })
    }

    /// The same from a file.
    pub(crate) fn read(path: &Path, writes_min: u64) -> Result<Self, String> {
        let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::new(text, writes_min).map_err(|why| format!("{}: {why}", path.display()))
    }

    /// The text, as read.
    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    /// How many writes there are.
    pub(crate) const fn writes(&self) -> u64 {
        self.writes
    }

    /// How many lines the input has.
    pub(crate) const fn lines(&self) -> usize {
        self.lines.len()
    }

    /// The key of a write; no two writes have the same.
    pub(crate) fn key(&self, item: u64) -> String {
        let lines = self.lines.len() as u64;
        format!("repetition-{:06}/line-{:09}", item / lines, item % lines + 1)
    }

    /// The write that has this key.
    pub(crate) fn item(&self, key: &[u8]) -> Option<u64> {
        let (repetition, line) = std::str::from_utf8(key).ok()?.split_once('/')?;
        let repetition: u64 = repetition.strip_prefix("repetition-")?.parse().ok()?;
        let line: u64 = line.strip_prefix("line-")?.parse().ok()?;
        let lines = self.lines.len() as u64;
        let item = repetition.checked_mul(lines)?.checked_add(line.checked_sub(1)?)?;
        (item < self.writes && self.key(item).as_bytes() == key).then_some(item)
    }

    /// The value of a write: its line.
    pub(crate) fn value(&self, item: u64) -> &[u8] {
        let line = (item % self.lines.len() as u64) as usize;
        &self.text[self.lines[line].clone()]
    }

    /// The writes that fall to the clients of one of `of` nodes.
    pub(crate) fn share(&self, place: usize, of: usize) -> Range<u64> {
        let at = |place: usize| self.writes * place as u64 / of as u64;
        at(place)..at(place + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_write_has_a_key_of_its_own_that_leads_back_to_it() {
        let work = Work::new(b"one\n\nthree\xff".to_vec(), 10).unwrap();
        assert_eq!((work.lines(), work.writes()), (3, 12));
        let keys: std::collections::BTreeSet<_> = (0..12).map(|item| work.key(item)).collect();
        assert_eq!(keys.len(), 12);
        for item in 0..12 {
            assert_eq!(work.item(work.key(item).as_bytes()), Some(item));
        }
        assert_eq!([work.value(0), work.value(4), work.value(5)], [&b"one"[..], b"", b"three\xff"]);
        assert_eq!(work.item(work.key(12).as_bytes()), None);
        assert_eq!(work.item(b"repetition-0/line-1"), None);
    }

    #[test]
    fn the_shares_are_the_whole() {
        let work = Work::new(b"a\nb\n".to_vec(), 11).unwrap();
        let items: Vec<u64> = (0..3).flat_map(|place| work.share(place, 3)).collect();
        assert_eq!(items, (0..12).collect::<Vec<_>>());
    }

    #[test]
    fn long_lines_are_repeated_less_often_than_asked() {
        let work = Work::new(vec![b'x'; 16 << 10], 200_000).unwrap();
        assert_eq!(work.writes(), 32_768, "512 MiB of them");
    }

    #[test]
    fn an_input_that_cannot_be_used_is_told_why() {
        assert!(Work::new(Vec::new(), 1).err().unwrap().contains("no lines"));
        let heavy = vec![b'x'; LINE_BYTES_MAX];
        let why = Work::new(heavy, 200_000).err().unwrap();
        assert!(why.contains("20000 writes of its lines are 20000 MiB"), "{why}");
        let long = vec![b'x'; LINE_BYTES_MAX + 1];
        assert!(Work::new(long, 1).err().unwrap().contains("line 1 has 1048577 bytes"));
    }
}
