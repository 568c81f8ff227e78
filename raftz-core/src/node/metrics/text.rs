//! Metrics as OpenMetrics text, which Prometheus reads. The names are kept for ever.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::types::{Histogram, Measure, SnapshotPhase};

use super::{Metrics, PeerMetrics};

/// One number or histogram, and its labels.
#[derive(Debug)]
struct Series(Vec<(&'static str, String)>, Value);

#[derive(Debug)]
enum Value {
    Counter(u64),
    Gauge(f64),
    Histogram(Histogram),
}

/// A name, what it means, and all that goes by it.
#[derive(Debug)]
struct Family(&'static str, &'static str, MetricType, Vec<Series>);

pub(super) fn render(metrics: &Metrics) -> String {
    let labels = [("node", metrics.node_id.to_string()), ("group", metrics.group.0.to_string())];
    let labels = labels.into_iter().map(|(name, value)| (name.into(), value.into()));
    let mut registry = Registry::with_prefix_and_labels("raftz", labels);
    registry.register_collector(Box::new(Families(families(metrics))));
    let mut text = String::new();
    // Writing to a string cannot fail, and no number here is one that cannot be written.
    let _ = text::encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Family(name, help, kind, series) in self.0.iter().filter(|it| !it.3.is_empty()) {
            let mut family = encoder.encode_descriptor(name, help, None, *kind)?;
            for Series(labels, value) in series {
                if labels.is_empty() {
                    encode(value, &mut family)?;
                } else {
                    encode(value, &mut family.encode_family(labels)?)?;
                }
            }
        }
        Ok(())
    }
}

fn encode(value: &Value, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
    match value {
        Value::Counter(count) => encoder.encode_counter::<NoLabelSet, _, u64>(count, None),
        Value::Gauge(value) => encoder.encode_gauge(value),
        Value::Histogram(histogram) => {
            let measure = histogram.measure();
            let bounds = measure.bounds().iter().map(|bound| in_base_unit(measure, *bound));
            let ranges = bounds.chain([f64::INFINITY]).zip(histogram.counts().iter().copied());
            let ranges: Vec<(f64, u64)> = ranges.collect();
            let sum = in_base_unit(measure, histogram.sum());
            encoder.encode_histogram::<NoLabelSet>(sum, histogram.count(), &ranges, None)
        }
    }
}

/// Prometheus counts times in seconds.
fn in_base_unit(measure: Measure, value: u64) -> f64 {
    match measure {
        Measure::TimesUs => value as f64 / 1e6,
        Measure::Sizes => value as f64,
    }
}

fn gauge(name: &'static str, help: &'static str, value: f64) -> Family {
    Family(name, help, MetricType::Gauge, vec![Series(Vec::new(), Value::Gauge(value))])
}

fn counter(name: &'static str, help: &'static str, value: u64) -> Family {
    Family(name, help, MetricType::Counter, vec![Series(Vec::new(), Value::Counter(value))])
}

fn counters(
    (name, help): (&'static str, &'static str),
    label: &'static str,
    values: &[(&'static str, u64)],
) -> Family {
    let one = |(of, value): &(&'static str, u64)| {
        Series(vec![(label, (*of).to_owned())], Value::Counter(*value))
    };
    Family(name, help, MetricType::Counter, values.iter().map(one).collect())
}

fn histogram(name: &'static str, help: &'static str, value: &Histogram) -> Family {
    let series = vec![Series(Vec::new(), Value::Histogram(value.clone()))];
    Family(name, help, MetricType::Histogram, series)
}

fn families(metrics: &Metrics) -> Vec<Family> {
    let mut families = of_the_node(metrics);
    families.extend(of_peers(&metrics.peers));
    families
}

fn of_the_node(metrics: &Metrics) -> Vec<Family> {
    let Metrics { commit_index, applied_index, last_index, first_index, .. } = metrics;
    let works = metrics.snapshot_us.iter().map(|(phase, times)| {
        Series(vec![("phase", (*phase).to_owned())], Value::Histogram(times.clone()))
    });
    let mut families = vec![
        gauge("has_leader", "1 if this node knows a leader", f64::from(metrics.leader.is_some())),
        gauge("is_leader", "1 if this node leads", f64::from(metrics.is_leader)),
        gauge("term", "The present term", metrics.term.0 as f64),
        counter(
            "leader_changes",
            "How often a leader became known that was not known before",
            metrics.leader_changes,
        ),
        counters(
            (
                "elections",
                "Elections in which this node stood, and rounds of pre-votes that led to none",
            ),
            "result",
            &metrics.elections,
        ),
        gauge(
            "commit_index",
            "Everything up to here is known to be committed",
            commit_index.0 as f64,
        ),
        gauge("applied_index", "Everything up to here is applied", applied_index.0 as f64),
        gauge("last_index", "The last entry of the log", last_index.0 as f64),
        gauge("first_index", "The first entry of the log", first_index.0 as f64),
        gauge(
            "proposals_pending",
            "Proposals of this node's callers that have not ended",
            metrics.proposals_pending as f64,
        ),
        counter(
            "proposals_committed",
            "Proposals of this node's callers that were done",
            metrics.proposals_committed,
        ),
        counters(
            ("proposals_failed", "Proposals that were refused, or whose outcome is unknown"),
            "reason",
            &metrics.proposals_failed,
        ),
        histogram("propose_seconds", "From a proposal to its end", &metrics.propose_us),
        histogram(
            "commit_seconds",
            "On a leader, from append to commit of a batch",
            &metrics.commit_us,
        ),
        histogram(
            "wal_fsync_seconds",
            "One write of the log, its sync included",
            &metrics.wal_fsync_us,
        ),
        histogram("apply_batch_seconds", "One batch in the state machine", &metrics.apply_batch_us),
        histogram(
            "append_batch_entries",
            "Entries of one write of the log",
            &metrics.append_batch_entries,
        ),
        Family(
            "snapshot_seconds",
            "Work on snapshots that ended well",
            MetricType::Histogram,
            works.collect(),
        ),
        counter(
            "events_dropped",
            "Events that the observer will never see, because it was busy for too long",
            metrics.events_dropped,
        ),
        counters(("reads", "Reads by how fresh they had to be"), "level", &metrics.reads),
    ];
    if let Some(age) = metrics.oldest_log_entry_age {
        let help = "Age of the oldest entry of the log, to a second or a hundredth of it";
        families.push(gauge("oldest_log_entry_seconds", help, age.as_secs_f64()));
    }
    if let Some(bytes) = metrics.wal_bytes {
        families.push(gauge("wal_bytes", "What the log takes on disk", bytes as f64));
    }
    families
}

fn of_peers(peers: &[PeerMetrics]) -> Vec<Family> {
    let of = |name, help, value: &dyn Fn(&PeerMetrics) -> Option<f64>| {
        let one = |peer: &PeerMetrics| {
            Some(Series(vec![("peer", peer.id.to_string())], Value::Gauge(value(peer)?)))
        };
        Family(name, help, MetricType::Gauge, peers.iter().filter_map(one).collect())
    };
    let states = peers.iter().filter_map(|peer| {
        let labels =
            vec![("peer", peer.id.to_string()), ("state", peer.progress?.state.to_owned())];
        Some(Series(labels, Value::Gauge(1.0)))
    });
    let totals = peers.iter().filter_map(|peer| {
        let transfer = peer.transfer?;
        let labels = vec![("peer", peer.id.to_string()), ("phase", transfer.phase.to_string())];
        Some(Series(labels, Value::Gauge(transfer.total_bytes as f64)))
    });
    let moved = |peer: &PeerMetrics, phase| {
        peer.transfer.filter(|it| it.phase == phase).map(|it| it.bytes as f64)
    };
    vec![
        of("match_index", "On a leader, up to here the peer's log equals its own", &|peer| {
            Some(peer.progress?.match_index.0 as f64)
        }),
        of("lag_entries", "On a leader, entries that the peer is not known to have", &|peer| {
            Some(peer.progress?.lag_entries as f64)
        }),
        of("last_contact_seconds", "On a leader, time since the peer's last answer", &|peer| {
            Some(peer.progress?.last_contact.as_secs_f64())
        }),
        of("inflight", "On a leader, appends on their way to the peer", &|peer| {
            Some(peer.progress?.inflight as f64)
        }),
        Family(
            "state",
            "On a leader, 1 for the state of replication to the peer: probe, replicate or snapshot",
            MetricType::Gauge,
            states.collect(),
        ),
        of("rtt_seconds", "On a leader, what a heartbeat took to the peer and back", &|peer| {
            Some(peer.progress?.rtt?.as_secs_f64())
        }),
        of("snapshot_send_bytes", "Bytes of a snapshot that were given to the peer", &|peer| {
            moved(peer, SnapshotPhase::Sending)
        }),
        of("snapshot_recv_bytes", "Bytes of a snapshot that came from the peer", &|peer| {
            moved(peer, SnapshotPhase::Fetching)
        }),
        Family(
            "snapshot_total_bytes",
            "All bytes of the snapshot that is on its way to or from the peer",
            MetricType::Gauge,
            totals.collect(),
        ),
    ]
}
