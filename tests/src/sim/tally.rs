//! What a campaign adds up, and what it must have met by its end.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use raftz_core::sim::{Fault, Marker, Report};

use super::judge::{Failure, Judged, Keys};

/// In how many seeds a marker must have been met. A situation that is never met is one that is not
/// tested. The first are met in a quarter of the seeds and more, the second in one of twenty, so that
/// chance alone does not miss them.
const fn is_met_within(marker: Marker) -> u64 {
    match marker {
        Marker::ReadForApply
        | Marker::FaithKept
        | Marker::AppendRejected
        | Marker::ReadForPeer
        | Marker::StaleMessage
        | Marker::LeadershipLost
        | Marker::NoLeader
        | Marker::StorageFault
        | Marker::Figure8
        | Marker::DiskFull
        | Marker::CrashInWrite
        | Marker::Busy
        | Marker::HalfOpen
        | Marker::Truncated
        | Marker::CrashInRecovery
        | Marker::CrashBetweenOutputs
        | Marker::LinkFull
        | Marker::SnapshotBuilt
        | Marker::Compacted
        | Marker::SnapshotFetched
        | Marker::SnapshotInstalled
        | Marker::LeadershipMoved
        | Marker::LeadershipStayed
        | Marker::SickLeaderLeft
        | Marker::LeaseRead
        | Marker::BoundedRead => 300,
        Marker::StorageFull
        | Marker::ForwardUnsent
        | Marker::VoteSplit
        | Marker::Overwritten
        | Marker::WrongDisk
        | Marker::Healed
        | Marker::DamagedOpen
        | Marker::CutFrame
        | Marker::BadFrame
        | Marker::CrashInSnapshot
        | Marker::TransferFailed
        | Marker::PreferredLeads => 1000,
        Marker::TornTail
        | Marker::LeaderSyncFailed
        | Marker::Refused
        | Marker::ManySegments
        | Marker::QuorumLost
        | Marker::ResignedForItsDisk
        | Marker::TransferResumed
        | Marker::InstallFinished
        | Marker::SnapshotRotFound
        | Marker::SnapshotLacking
        | Marker::BuildCancelled => 4000,
    }
}

/// How often a marker was met.
#[derive(Clone, Copy, Default)]
struct Met {
    times: u64,
    seeds: u64,
}

/// Sums over runs.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) seeds: u64,
    pub(super) virtual_us: u64,
    pub(super) events: u64,
    faults: BTreeMap<Fault, u64>,
    markers: BTreeMap<Marker, Met>,
    committed: u64,
    calls: [u64; 4],
    beyond_survival: u64,
    run_twice: u64,
    keys_checked: u64,
    keys: Keys,
    busy: Duration,
}

impl Tally {
    /// Adds a run that was judged good.
    pub(super) fn add(&mut self, judged: &Judged, is_run_twice: bool) {
        self.add_report(&judged.report);
        self.run_twice += u64::from(is_run_twice);
        if let Some(Keys { whole, begun, too_hard }) = judged.keys {
            self.keys_checked += 1;
            self.keys.whole += whole;
            self.keys.begun += begun;
            self.keys.too_hard += too_hard;
        }
        self.busy += judged.busy;
    }

    /// Adds what happened in a run.
    pub(super) fn add_report(&mut self, report: &Report) {
        let Report { virtual_us, events, faults, markers, committed, calls, .. } = report;
        self.seeds += 1;
        self.virtual_us += virtual_us;
        self.events += events;
        self.committed += committed;
        for (sum, count) in self.calls.iter_mut().zip(calls) {
            *sum += count;
        }
        for (fault, count) in faults {
            *self.faults.entry(*fault).or_default() += count;
        }
        for (marker, count) in markers {
            let met = self.markers.entry(*marker).or_default();
            met.times += count;
            met.seeds += u64::from(*count > 0);
        }
        self.beyond_survival += u64::from(report.is_beyond_survival);
    }

    /// Why the campaign fails although no run of it did.
    pub(super) fn not_covered(&self) -> Option<Failure> {
        let is_missing = |marker: &Marker| {
            self.seeds >= is_met_within(*marker) && !self.markers.contains_key(marker)
        };
        let marker = Marker::ALL.into_iter().find(is_missing)?;
        let sentence = format!("marker {marker:?} was not met in {} seeds", self.seeds);
        Some(Failure::new(0, "coverage", &sentence))
    }

    /// The last line of a campaign that found nothing wrong.
    pub(super) fn verdict(&self) -> String {
        let faults: u64 = self.faults.values().sum();
        format!(
            "PASS: {} seeds, {:.1} h simulated, {} events, {faults} faults, 0 violations",
            self.seeds,
            hours(self.virtual_us),
            self.events
        )
    }

    /// All that was added up, as tables.
    pub(super) fn tables(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{:<22}{:>12}", "fault", "times");
        for fault in Fault::ALL {
            let times = self.faults.get(&fault).copied().unwrap_or_default();
            let _ = writeln!(text, "{:<22}{times:>12}", fault.name());
        }
        let _ =
            writeln!(text, "\n{:<22}{:>12}{:>12}{:>14}", "marker", "times", "seeds", "met within");
        for marker in Marker::ALL {
            let Met { times, seeds } = self.markers.get(&marker).copied().unwrap_or_default();
            let (name, within) = (format!("{marker:?}"), is_met_within(marker));
            let _ = writeln!(text, "{name:<22}{times:>12}{seeds:>12}{within:>14}");
        }
        let [calls, done, refused, unknown] = self.calls;
        let Keys { whole, begun, too_hard } = self.keys;
        let busy = self.busy.as_secs_f64().max(1e-9);
        let _ = write!(
            text,
            "\n{calls} calls: {done} done, {refused} refused, {unknown} unknown; {} entries committed\n\
             {} seeds beyond survival, judged by safety alone\n\
             {} seeds run twice, alike\n\
             {} seeds key by key: {whole} keys linearizable, {begun} as far as they are certain, \
             {too_hard} too hard\n\
             {:.0} events/s and {:.0} times real time per core\n",
            self.committed,
            self.beyond_survival,
            self.run_twice,
            self.keys_checked,
            self.events as f64 / busy,
            self.virtual_us as f64 / 1e6 / busy,
        );
        text
    }
}

pub(super) fn hours(us: u64) -> f64 {
    us as f64 / 3.6e9
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(markers: &[Marker]) -> Judged {
        let markers = markers.iter().map(|marker| (*marker, 2)).collect();
        let faults = BTreeMap::from([(Fault::Kill, 3)]);
        let report =
            Report { markers, faults, events: 10, virtual_us: 1_800_000_000, ..Report::default() };
        Judged { report, failure: None, keys: None, busy: Duration::from_secs(1) }
    }

    #[test]
    fn the_verdict_adds_up() {
        let mut tally = Tally::default();
        tally.add(&judged(&[Marker::Busy]), true);
        tally.add(&judged(&[]), false);
        let verdict = "PASS: 2 seeds, 1.0 h simulated, 20 events, 6 faults, 0 violations";
        assert_eq!(tally.verdict(), verdict);
        let tables = tally.tables();
        let row = tables.lines().find(|line| line.starts_with("Busy")).unwrap();
        assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["Busy", "2", "1", "300"]);
        assert!(tables.contains("10 events/s and 1800 times real time per core"), "{tables}");
    }

    #[test]
    fn a_marker_that_is_never_met_fails_a_campaign_of_enough_seeds() {
        let mut tally = Tally::default();
        for _ in 1..300 {
            tally.add(&judged(&[]), false);
        }
        assert_eq!(tally.not_covered(), None);
        tally.add(&judged(&[]), false);
        let failure = tally.not_covered().unwrap().to_string();
        let expected = "FAIL: seed 0: coverage: marker CrashInRecovery was not met in 300 seeds";
        assert_eq!(failure, expected);
        tally.add(&judged(&Marker::ALL), false);
        assert_eq!(tally.not_covered(), None);
    }
}
