//! The checks on a whole configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Config, ConfigError, StorageKind};
use crate::raft::PRIORITY_MAX;
use crate::storage::wal::SEGMENT_OVERHEAD_BYTES;
use crate::types::{APPEND_BYTES_LIMIT, ENTRY_BYTES_LIMIT, Identity, Membership, Recovered};

/// Longest timeout that is believed to be meant: an hour, as in [`Settings`](crate::types::Settings).
const TIMEOUT_LIMIT_MS: u64 = 3600 * 1000;

/// Largest segment that is believed to be meant.
const SEGMENT_BYTES_LIMIT: u64 = 64 << 30;

type Checked = Result<(), ConfigError>;

pub(super) fn validate(config: &Config) -> Checked {
    timings(config)?;
    caps(config)?;
    addresses(config)?;
    match &config.storage {
        StorageKind::Directory(path) if path.as_os_str().is_empty() => {
            bad("storage", "directory:", "the path is empty; name a directory")
        }
        StorageKind::Custom(_) => Ok(()),
        StorageKind::Memory | StorageKind::Directory(_)
            if !config.snapshot_directory.as_os_str().is_empty() =>
        {
            contradiction(format!(
                "snapshot_directory = {:?} is for a store of the program's own; in memory and in a directory \
                 snapshots lie beside the log: leave it empty",
                config.snapshot_directory.display().to_string()
            ))
        }
        StorageKind::Memory => validate_founding(config),
        StorageKind::Directory(_) => Ok(()),
    }
}

pub(super) fn validate_core(config: &Config) -> Checked {
    timings(config)?;
    caps(config)?;
    addresses(&Config { insecure_plaintext: true, ..config.clone() })
}

pub(super) fn check_identity(config: &Config, recovered: &Recovered) -> Checked {
    let Identity { node, cluster, .. } = recovered.identity;
    if node != config.node_id || cluster != config.cluster_id {
        return contradiction(format!(
            "the storage belongs to node {node} of cluster {cluster}, but node_id = {} and cluster_id = {} are configured",
            config.node_id, config.cluster_id
        ));
    }
    let needed = recovered.base.settings.election_timeout_min_ms;
    if config.election_timeout_min_ms < needed {
        return contradiction(format!(
            "election_timeout_min_ms = {} is below the {needed} that this cluster was founded with; use at least that",
            config.election_timeout_min_ms
        ));
    }
    Ok(())
}

pub(super) fn validate_founding(config: &Config) -> Checked {
    if config.founders.is_empty() {
        return bad(
            "founders",
            "",
            "a cluster needs founding members; list all of them, this node included",
        );
    }
    if !config.founders.iter().any(|founder| founder.id == config.node_id) {
        let ids: Vec<String> = config.founders.iter().map(|f| f.id.to_string()).collect();
        return contradiction(format!(
            "node_id = {} is not among founders ({}); add it there, or start this node as one that joins",
            config.node_id,
            ids.join(", ")
        ));
    }
    Ok(())
}

pub(super) fn validate_listening(config: &Config, membership: &Membership) -> Checked {
    let own = membership.members.get(&config.node_id);
    let Some(own) = own.filter(|_| membership.members.len() > 1) else { return Ok(()) };
    if config.listen_address.ends_with(":0") {
        return contradiction(format!(
            "listen_address = {} lets the system choose a port, but the other members look for node {} at {}; set listen_address to that",
            config.listen_address, config.node_id, own.address
        ));
    }
    Ok(())
}

pub(super) fn listens_elsewhere(
    config: &Config,
    membership: &Membership,
    listens: &str,
) -> Option<String> {
    let own = membership.members.get(&config.node_id)?;
    let port = |address: &str| address.rsplit_once(':')?.1.parse::<u16>().ok();
    let differs = port(listens)? != port(&own.address)? && membership.members.len() > 1;
    differs.then(|| {
        format!(
            "node {} listens on {listens}, but the other members look for it at {}; unless something in between passes connections on, set listen_address to that port",
            config.node_id, own.address
        )
    })
}

/// Clocks of one cluster differ by less.
const LEASE_DRIFT_LIMIT_PERCENT: u8 = 50;

fn timings(config: &Config) -> Checked {
    let &Config {
        election_timeout_min_ms: min,
        election_timeout_max_ms: max,
        heartbeat_interval_ms: heartbeat,
        propose_timeout_ms: propose,
        read_timeout_ms: read,
        ..
    } = config;
    let all = [
        ("election_timeout_min_ms", min),
        ("election_timeout_max_ms", max),
        ("heartbeat_interval_ms", heartbeat),
        ("propose_timeout_ms", propose),
        ("read_timeout_ms", read),
        ("snapshot_stall_timeout_ms", config.snapshot_stall_timeout_ms),
    ];
    for (key, value) in all {
        if value == 0 {
            return bad(key, "0", "must be at least 1");
        }
        if value > TIMEOUT_LIMIT_MS {
            return bad(key, &value.to_string(), "longer than an hour; the unit is milliseconds");
        }
    }
    let drift = config.lease_drift_percent;
    if drift > LEASE_DRIFT_LIMIT_PERCENT {
        let limit = LEASE_DRIFT_LIMIT_PERCENT;
        return bad(
            "lease_drift_percent",
            &drift.to_string(),
            &format!("more than {limit}: clocks that differ so much are no ground for leases"),
        );
    }
    let stall = config.disk_stall_timeout_ms;
    if stall > TIMEOUT_LIMIT_MS {
        let problem = "longer than an hour; the unit is milliseconds";
        return bad("disk_stall_timeout_ms", &stall.to_string(), problem);
    }
    let priority = config.election_priority;
    if priority > u64::from(PRIORITY_MAX) {
        let problem = "above 100, which is the highest";
        return bad("election_priority", &priority.to_string(), problem);
    }
    if heartbeat >= min {
        return contradiction(format!(
            "heartbeat_interval_ms = {heartbeat} is not below election_timeout_min_ms = {min}; followers would stand for election between two heartbeats; use a third of it or less"
        ));
    }
    if max <= min {
        return contradiction(format!(
            "election_timeout_max_ms = {max} is not above election_timeout_min_ms = {min}; followers would all stand at once; use twice as much"
        ));
    }
    Ok(())
}

fn caps(config: &Config) -> Checked {
    let all = [
        ("entry_bytes_max", config.entry_bytes_max),
        ("append_bytes_max", config.append_bytes_max),
        ("window_bytes", config.window_bytes),
        ("window_messages", config.window_messages),
        ("uncommitted_bytes_max", config.uncommitted_bytes_max),
        ("unapplied_bytes_max", config.unapplied_bytes_max),
        ("held_bytes_max", config.held_bytes_max),
        ("apply_bytes_max", config.apply_bytes_max),
        ("calls_max", config.calls_max),
        ("calls_bytes_max", config.calls_bytes_max),
        ("link_queue_bytes_max", config.link_queue_bytes_max),
        ("segment_bytes", config.segment_bytes),
        ("snapshots_kept", config.snapshots_kept),
    ];
    for (key, value) in all {
        if value == 0 {
            return bad(key, "0", "must be at least 1; nothing could ever pass");
        }
    }
    if config.entry_bytes_max > ENTRY_BYTES_LIMIT {
        return bad(
            "entry_bytes_max",
            &config.entry_bytes_max.to_string(),
            "larger than 1 GiB; keep large data elsewhere and put a reference into the log",
        );
    }
    if config.append_bytes_max > APPEND_BYTES_LIMIT {
        return bad(
            "append_bytes_max",
            &config.append_bytes_max.to_string(),
            "larger than 16 MiB; a message is held in memory whole, and a few MiB are enough",
        );
    }
    if config.segment_bytes > SEGMENT_BYTES_LIMIT {
        return bad(
            "segment_bytes",
            &config.segment_bytes.to_string(),
            "larger than 64 GiB; a segment is written with zeros before it is used",
        );
    }
    // An append carries one entry whatever its size, so append_bytes_max and window_bytes may be
    // smaller than an entry. A cap that admits calls may not: the largest could never pass.
    let admitting = [
        ("uncommitted_bytes_max", config.uncommitted_bytes_max),
        ("unapplied_bytes_max", config.unapplied_bytes_max),
        ("held_bytes_max", config.held_bytes_max),
        ("calls_bytes_max", config.calls_bytes_max),
        ("link_queue_bytes_max", config.link_queue_bytes_max),
    ];
    for (key, value) in admitting {
        let least = config.entry_bytes_max.saturating_add(4096);
        if value < least {
            return contradiction(format!(
                "{key} = {value} is too small for one entry of entry_bytes_max = {}; use at least {least}",
                config.entry_bytes_max
            ));
        }
    }
    // A segment made to measure could wait for a disk that will never have room for it, and votes
    // would wait behind it.
    let least = config.entry_bytes_max.saturating_add(SEGMENT_OVERHEAD_BYTES);
    if matches!(config.storage, StorageKind::Directory(_)) && config.segment_bytes < least {
        return contradiction(format!(
            "segment_bytes = {} is too small for one entry of entry_bytes_max = {}; use at least {least}, or smaller entries",
            config.segment_bytes, config.entry_bytes_max
        ));
    }
    if config.window_bytes < config.append_bytes_max {
        return contradiction(format!(
            "window_bytes = {} is below append_bytes_max = {}; no full message would ever fit the window",
            config.window_bytes, config.append_bytes_max
        ));
    }
    Ok(())
}

fn addresses(config: &Config) -> Checked {
    address("listen_address", &config.listen_address, true, config.insecure_plaintext)?;
    let mut ids = BTreeSet::new();
    let mut seen = BTreeMap::new();
    for founder in &config.founders {
        let key = format!("founders: node {}", founder.id);
        address(&key, &founder.address, false, config.insecure_plaintext)?;
        if !ids.insert(founder.id) {
            return contradiction(format!(
                "founders names node {} twice; every node has one id and one address",
                founder.id
            ));
        }
        if let Some(other) = seen.insert(founder.address.as_str(), founder.id) {
            return contradiction(format!(
                "founders gives {} to node {other} and to node {}; every node has its own address",
                founder.address, founder.id
            ));
        }
    }
    Ok(())
}

/// Checks `host:port`. Names are resolved later, off the event loop; here only their form counts.
fn address(key: &str, value: &str, may_be_any_port: bool, insecure: bool) -> Checked {
    let form = "not host:port, such as 127.0.0.1:7001 or [::1]:7001";
    let Some((host, port)) = value.rsplit_once(':') else { return bad(key, value, form) };
    let host = match host.strip_prefix('[') {
        Some(inner) => match inner.strip_suffix(']') {
            Some(inner) => inner,
            None => return bad(key, value, form),
        },
        None if host.contains(':') => return bad(key, value, form),
        None => host,
    };
    // Lists of founders are written with the latter two.
    if host.is_empty() || host.contains([' ', ',', '=']) {
        return bad(key, value, form);
    }
    match port.parse::<u16>() {
        Err(_) => return bad(key, value, "the port is not a number from 0 to 65535"),
        Ok(0) if !may_be_any_port => {
            return bad(key, value, "port 0 means any port; others cannot connect to it");
        }
        Ok(_) => {}
    }
    let beyond = host.parse::<IpAddr>().is_ok_and(|ip| !ip.is_loopback());
    if beyond && !insecure {
        return bad(
            key,
            value,
            "reaches beyond this machine, and links are not encrypted; set insecure_plaintext = true if the network is trusted",
        );
    }
    Ok(())
}

fn bad(key: &str, value: &str, problem: &str) -> Checked {
    Err(ConfigError::BadValue { key: key.into(), value: value.into(), problem: problem.into() })
}

const fn contradiction(text: String) -> Checked {
    Err(ConfigError::Contradiction(text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::type_complexity)]
    use crate::node::config::{Config, ConfigError};
    use crate::types::{ClusterId, NodeId};

    fn config() -> Config {
        let id = |raw| NodeId::new(raw).unwrap();
        Config::new(id(1), ClusterId(7))
            .with_founder(id(1), "127.0.0.1:7001")
            .with_founder(id(2), "127.0.0.1:7002")
    }

    #[test]
    fn a_port_that_the_others_cannot_know_is_refused_by_name() {
        let mut config = config();
        let members = |config: &Config| config.founding_base().membership;
        let error = config.validate_listening(&members(&config)).unwrap_err().to_string();
        assert!(error.contains("listen_address = 127.0.0.1:0"), "{error}");
        assert!(error.contains("127.0.0.1:7001"), "{error}");
        config.listen_address = "127.0.0.1:7001".into();
        assert_eq!(config.validate_listening(&members(&config)), Ok(()));
        config.founders.pop();
        config.listen_address = "127.0.0.1:0".into();
        assert_eq!(config.validate_listening(&members(&config)), Ok(()), "alone: anywhere");
    }

    #[test]
    fn another_port_than_the_membership_names_is_told_with_both() {
        let mut config = config();
        let members = config.founding_base().membership;
        let told = config.listens_elsewhere(&members, Some("0.0.0.0:7009")).unwrap();
        assert!(told.contains("0.0.0.0:7009") && told.contains("127.0.0.1:7001"), "{told}");
        assert_eq!(config.listens_elsewhere(&members, Some("0.0.0.0:7001")), None);
        assert_eq!(config.listens_elsewhere(&members, None), None, "no port at all");
        config.founders.pop();
        let alone = config.founding_base().membership;
        assert_eq!(config.listens_elsewhere(&alone, Some("0.0.0.0:7009")), None, "alone: anywhere");
    }

    #[test]
    fn the_defaults_are_the_ancestors_and_valid() {
        let config = config();
        assert_eq!((config.election_timeout_min_ms, config.election_timeout_max_ms), (150, 300));
        assert_eq!(config.heartbeat_interval_ms, 50);
        config.validate().unwrap();
    }

    #[test]
    fn every_key_takes_what_it_shows() {
        let config = config();
        let id = |raw| NodeId::new(raw).unwrap();
        let mut copy = Config::new(id(9), ClusterId(0));
        for (key, value) in config.entries() {
            copy.set(key, &value).unwrap_or_else(|error| panic!("{key}: {error}"));
        }
        assert_eq!(copy.entries(), config.entries());
        assert!(format!("{config:?}").contains("heartbeat_interval_ms: 50"));
    }

    /// Sets the keys, expects the first error of `set` or `validate`, and these words in it.
    #[test]
    fn every_mistake_is_named_with_its_key_its_value_and_what_to_do() {
        let cases: &[(&[(&str, &str)], &[&str])] = &[
            (
                &[("hartbeat_interval_ms", "5")],
                &["\"hartbeat_interval_ms\"", "nearest is \"heartbeat_interval_ms\""],
            ),
            (
                &[("heartbeat_interval_ms", "fast")],
                &["heartbeat_interval_ms", "\"fast\"", "not a whole number"],
            ),
            (&[("window_bytes", "1t")], &["window_bytes", "4m"]),
            (&[("window_bytes", "99999999999g")], &["window_bytes", "not a number of bytes"]),
            (&[("forward", "maybe")], &["forward", "neither true nor false"]),
            (&[("node_id", "0")], &["node_id", "never 0"]),
            (&[("cluster_id", "xyz")], &["cluster_id", "hexadecimal"]),
            (&[("storage", "tape")], &["storage", "directory:<path>"]),
            (&[("founders", "1:host")], &["founders", "id=host:port"]),
            (
                &[("heartbeat_interval_ms", "150")],
                &["heartbeat_interval_ms = 150", "election_timeout_min_ms = 150", "a third"],
            ),
            (&[("election_timeout_max_ms", "150")], &["election_timeout_max_ms = 150", "twice"]),
            (&[("election_timeout_min_ms", "0")], &["election_timeout_min_ms", "at least 1"]),
            (&[("propose_timeout_ms", "99999999999")], &["propose_timeout_ms", "milliseconds"]),
            (&[("window_messages", "0")], &["window_messages", "at least 1"]),
            (&[("calls_max", "0")], &["calls_max", "at least 1"]),
            (&[("entry_bytes_max", "2g")], &["entry_bytes_max", "reference"]),
            (
                &[("append_bytes_max", "2g"), ("window_bytes", "8g")],
                &["append_bytes_max", "larger than 16 MiB"],
            ),
            (&[("snapshot_directory", "/s")], &["snapshot_directory", "program's own"]),
            (&[("segment_bytes", "65g")], &["segment_bytes", "larger than 64 GiB"]),
            (&[("segment_bytes", "18446744073709551615")], &["segment_bytes", "64 GiB"]),
            (
                &[("uncommitted_bytes_max", "1m")],
                &["uncommitted_bytes_max = 1048576", "entry_bytes_max = 4194304", "at least"],
            ),
            (&[("window_bytes", "1k")], &["window_bytes = 1024", "append_bytes_max"]),
            (
                &[("storage", "directory:/d"), ("segment_bytes", "4m")],
                &["segment_bytes = 4194304", "entry_bytes_max = 4194304", "at least 4259840"],
            ),
            (&[("founders", "")], &["founders", "founding members"]),
            (&[("node_id", "3")], &["node_id = 3", "1, 2"]),
            (&[("founders", "1=127.0.0.1:1,1=127.0.0.1:2")], &["node 1 twice"]),
            (&[("founders", "1=127.0.0.1:1,2=127.0.0.1:1")], &["127.0.0.1:1", "node 1", "node 2"]),
            (&[("founders", "1=127.0.0.1:0")], &["node 1", "port 0"]),
            (&[("founders", "1=nowhere")], &["node 1", "host:port"]),
            (&[("founders", "1=a=b:7001")], &["node 1", "host:port"]),
            (&[("listen_address", "a,2=b:7001")], &["listen_address", "host:port"]),
            (
                &[("listen_address", "10.0.0.1:7001")],
                &["listen_address", "insecure_plaintext = true"],
            ),
            (&[("listen_address", "0.0.0.0:7001")], &["listen_address", "insecure_plaintext"]),
            (&[("listen_address", "localhost:70000")], &["listen_address", "65535"]),
            (&[("listen_address", "::1:7001")], &["listen_address", "[::1]"]),
            (&[("storage", "directory:")], &["storage", "directory:<path>"]),
        ];
        for (settings, words) in cases {
            let mut config = config();
            let result = settings
                .iter()
                .try_for_each(|(key, value)| config.set(key, value))
                .and_then(|()| config.validate());
            let text = result.expect_err(&format!("{settings:?} passed")).to_string();
            for word in *words {
                assert!(text.contains(word), "{settings:?}: {text:?} lacks {word:?}");
            }
        }
    }

    #[test]
    fn what_is_unusual_but_sound_passes() {
        for (key, value) in [
            ("append_bytes_max", "1k"),
            ("listen_address", "localhost:7001"),
            ("listen_address", "[::1]:7001"),
            ("cache_bytes_max", "0"),
            ("reserve_bytes", "0"),
            ("seed", "7"),
        ] {
            let mut config = config();
            config.set(key, value).unwrap();
            config.validate().unwrap();
        }
        let mut config = config();
        config.set("insecure_plaintext", "true").unwrap();
        config.set("listen_address", "0.0.0.0:7001").unwrap();
        config.validate().unwrap();
    }

    #[test]
    fn a_failed_set_changes_nothing() {
        let mut config = config();
        let before = config.entries();
        let error = config.set("founders", "1=a:1,x").unwrap_err();
        assert!(matches!(error, ConfigError::BadValue { .. }));
        assert_eq!(config.entries(), before);
    }
}
