//! The figures, what they are to reach, and where they go.

use std::collections::BTreeMap;
use std::path::Path;

/// What a figure is to reach.
enum Target {
    AtLeast(f64),
    AtMost(f64),
}
use Target::{AtLeast, AtMost};

/// In the order of the summary. Those without a target inform.
const TARGETS: &[(&str, Option<Target>)] = &[
    ("durable_latency_ratio_1", Some(AtMost(1.4))),
    ("durable_throughput_ratio_64", Some(AtLeast(0.30))),
    ("durable_throughput_ratio_256", Some(AtLeast(0.25))),
    ("durable_throughput_ratio_1024", Some(AtLeast(0.15))),
    ("durable_p99_over_p50_64", Some(AtMost(4.0))),
    ("durable_mb_per_s_64k", Some(AtLeast(200.0))),
    ("memory_latency_ratio_1", Some(AtMost(2.5))),
    ("memory_throughput_ratio_64", Some(AtLeast(0.15))),
    ("memory_throughput_ratio_1024", Some(AtLeast(0.05))),
    ("inprocess_writes_per_s_1", Some(AtLeast(10_000.0))),
    ("inprocess_writes_per_s_64", Some(AtLeast(500_000.0))),
    ("inprocess_writes_per_s_1024", Some(AtLeast(1_000_000.0))),
    ("metrics_throughput_ratio_64", Some(AtLeast(0.99))),
    ("metrics_throughput_ratio_1024", Some(AtLeast(0.99))),
    ("core_entries_per_s_64", Some(AtLeast(4_000_000.0))),
    ("core_instructions_per_entry_64", Some(AtMost(1500.0))),
    ("core_allocations_per_entry_64", Some(AtMost(0.5))),
    ("allocations_per_frame_of_1", None),
    ("allocations_per_frame_of_64", None),
    ("idle_rss_mib", Some(AtMost(32.0))),
    ("idle_cpu_percent", Some(AtMost(0.5))),
    ("idle_floor_cpu_percent", None),
    ("failover_worst_ms", Some(AtMost(600.0))),
    ("failover_median_ms", Some(AtMost(390.0))),
    ("snapshot_freeze_ms", Some(AtMost(10.0))),
    ("snapshot_write_ratio_while_frozen", None),
    ("restart_1m_keys_s", None),
    ("restart_1m_keys_ratio", Some(AtMost(2.0))),
    ("snapshot_commit_p99_ratio", Some(AtMost(2.0))),
    ("snapshot_sender_growth_mib", Some(AtMost(64.0))),
    ("snapshot_receiver_growth_mib", Some(AtMost(64.0))),
    ("snapshot_elections", Some(AtMost(0.0))),
    ("snapshot_transfer_mb_per_s", None),
    ("snapshot_catch_up_s", None),
    ("read_linearizable_per_s_256", Some(AtLeast(200_000.0))),
    ("read_over_write_ratio_256", Some(AtLeast(1.0))),
    ("read_stale_per_s", Some(AtLeast(1_000_000.0))),
    ("read_follower_over_leader_latency", Some(AtMost(2.0))),
    ("floor_p99_over_p50_64", None),
    ("fdatasync_per_s", None),
];

/// How many times a figure is taken.
pub(crate) fn rounds() -> usize {
    std::env::var("RAFTZ_BENCH_ROUNDS").map_or(5, |rounds| rounds.parse().expect("a number"))
}

/// The median, which one bad run does not move.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// One run of a load: writes per second, and the times that half and nearly all writes took.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub(crate) writes_per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

impl Run {
    /// What a child says of a run.
    pub(crate) fn parse(line: &str) -> Self {
        let numbers: Vec<f64> =
            line.split(' ').map(|word| word.parse().expect("a number")).collect();
        let [writes_per_s, p50_us, p99_us, failed] = numbers[..] else {
            panic!("no run: {line:?}")
        };
        assert!(failed == 0.0, "{failed} writes failed");
        Self { writes_per_s, p50_us, p99_us }
    }

    /// How a child says it. `nanos` are the times of all writes.
    pub(crate) fn line(nanos: Vec<u64>, seconds: f64, failed: usize) -> String {
        Self::line_of(nanos.len(), nanos, seconds, failed)
    }

    /// As [`Run::line`], of so many writes of which some were timed.
    pub(crate) fn line_of(done: usize, mut nanos: Vec<u64>, seconds: f64, failed: usize) -> String {
        nanos.sort_unstable();
        let at = |part: f64| {
            let at = (nanos.len() as f64 * part) as usize;
            nanos.get(at).copied().unwrap_or(0) as f64 / 1000.0
        };
        format!("{} {} {} {failed}", done as f64 / seconds, at(0.5), at(0.99))
    }
}

/// Several runs of a load.
#[derive(Default)]
pub(crate) struct Runs(Vec<Run>);

impl Runs {
    pub(crate) fn add(&mut self, run: Run) {
        self.0.push(run);
    }

    fn of(&self, what: impl Fn(&Run) -> f64) -> f64 {
        median(self.0.iter().map(what).collect())
    }

    pub(crate) fn writes_per_s(&self) -> f64 {
        self.of(|run| run.writes_per_s)
    }

    pub(crate) fn p50_us(&self) -> f64 {
        self.of(|run| run.p50_us)
    }

    pub(crate) fn p99_us(&self) -> f64 {
        self.of(|run| run.p99_us)
    }

    pub(crate) fn spread(&self) -> String {
        let rates = || self.0.iter().map(|run| run.writes_per_s);
        let (low, high) = (rates().fold(f64::MAX, f64::min), rates().fold(0.0, f64::max));
        format!("[{low:.0}–{high:.0}]")
    }
}

/// What was measured.
#[derive(Default)]
pub(crate) struct Figures(BTreeMap<String, Option<f64>>);

impl Figures {
    /// `None`: it could not be measured here.
    pub(crate) fn set(&mut self, name: &str, value: Option<f64>) {
        self.0.insert(name.to_owned(), value);
    }

    /// Each figure beside what it is to reach.
    pub(crate) fn print(&self) {
        println!("\n{:<32} {:>12}  target", "figure", "measured");
        for (name, target) in TARGETS {
            let Some(value) = self.0.get(*name) else { continue };
            let (wanted, reached) = match (target, value) {
                (Some(AtLeast(least)), Some(value)) => (format!("≥ {least}"), value >= least),
                (Some(AtMost(most)), Some(value)) => (format!("≤ {most}"), value <= most),
                (Some(_), None) | (None, _) => (String::new(), true),
            };
            let value = value.map_or("null".into(), |value| format!("{value:.3}"));
            let missed = if reached { "" } else { "  missed" };
            println!("{name:<32} {value:>12}  {wanted}{missed}");
        }
    }

    /// One flat object.
    pub(crate) fn write(&self, path: &Path) {
        std::fs::create_dir_all(path.parent().expect("a folder"))
            .expect("a folder for the summary");
        let text = serde_json::to_string_pretty(&self.0).expect("numbers");
        std::fs::write(path, text + "\n").expect("a summary");
        println!("\nwritten to {}", path.display());
    }
}
