//! The table of keys: each field's name, how it is read from text and shown as text.

use std::path::PathBuf;

use crate::types::{ClusterId, NodeId};

use super::{Config, ConfigError, Founder, StorageKind};

/// One key.
pub(super) struct Key {
    pub(super) name: &'static str,
    set: fn(&mut Config, &str) -> Result<(), String>,
    pub(super) show: fn(&Config) -> String,
}

macro_rules! number {
    ($field:ident, $read:ident) => {
        Key {
            name: stringify!($field),
            set: |config, text| {
                config.$field = $read(text)?;
                Ok(())
            },
            show: |config| config.$field.to_string(),
        }
    };
}

/// All keys, in the order of the fields.
pub(super) const KEYS: &[Key] = &[
    number!(node_id, node_id),
    number!(cluster_id, cluster_id),
    Key {
        name: "listen_address",
        set: |config, text| {
            config.listen_address = text.to_owned();
            Ok(())
        },
        show: |config| config.listen_address.clone(),
    },
    Key {
        name: "founders",
        set: |config, text| {
            config.founders = founders(text)?;
            Ok(())
        },
        show: |config| {
            let each = config.founders.iter().map(|f| format!("{}={}", f.id, f.address));
            each.collect::<Vec<_>>().join(",")
        },
    },
    Key {
        name: "storage",
        set: |config, text| {
            config.storage = storage(text)?;
            Ok(())
        },
        show: |config| match &config.storage {
            StorageKind::Directory(path) => format!("directory:{}", path.display()),
            StorageKind::Memory => "memory".into(),
            StorageKind::Custom(_) => "custom".into(),
        },
    },
    Key {
        name: "snapshot_directory",
        set: |config, text| {
            config.snapshot_directory = text.into();
            Ok(())
        },
        show: |config| config.snapshot_directory.display().to_string(),
    },
    number!(insecure_plaintext, boolean),
    number!(election_timeout_min_ms, count),
    number!(election_timeout_max_ms, count),
    number!(heartbeat_interval_ms, count),
    number!(election_priority, count),
    number!(disk_stall_timeout_ms, count),
    number!(propose_timeout_ms, count),
    number!(read_timeout_ms, count),
    number!(lease_reads, boolean),
    number!(lease_drift_percent, percent),
    number!(forward, boolean),
    number!(entry_bytes_max, bytes),
    number!(append_bytes_max, bytes),
    number!(window_bytes, bytes),
    number!(window_messages, count),
    number!(uncommitted_bytes_max, bytes),
    number!(unapplied_bytes_max, bytes),
    number!(cache_bytes_max, bytes),
    number!(held_bytes_max, bytes),
    number!(apply_bytes_max, bytes),
    number!(calls_max, count),
    number!(calls_bytes_max, bytes),
    number!(link_queue_bytes_max, bytes),
    number!(segment_bytes, bytes),
    number!(reserve_bytes, bytes),
    number!(snapshot_log_bytes, bytes),
    number!(snapshot_log_entries, count),
    number!(snapshot_retain_bytes, bytes),
    number!(snapshots_kept, count),
    number!(snapshot_write_bytes_per_s, bytes),
    number!(snapshot_send_bytes_per_s, bytes),
    number!(snapshot_stall_timeout_ms, count),
    number!(snapshot_scrub_interval_ms, count),
    number!(metrics, boolean),
    Key {
        name: "seed",
        set: |config, text| {
            config.seed = if text == "random" { None } else { Some(count(text)?) };
            Ok(())
        },
        show: |config| config.seed.map_or_else(|| "random".into(), |seed| seed.to_string()),
    },
];

fn percent(text: &str) -> Result<u8, String> {
    let number = count(text)?;
    u8::try_from(number).map_err(|_| "a part of a hundred is wanted".to_owned())
}

pub(super) fn set(config: &mut Config, key: &str, value: &str) -> Result<(), ConfigError> {
    let Some(found) = KEYS.iter().find(|known| known.name == key) else {
        return Err(unknown(key));
    };
    (found.set)(config, value.trim()).map_err(|problem| ConfigError::BadValue {
        key: key.to_owned(),
        value: value.to_owned(),
        problem,
    })
}

fn unknown(key: &str) -> ConfigError {
    let nearest = KEYS.iter().map(|known| known.name).min_by_key(|name| distance(name, key));
    ConfigError::UnknownKey {
        key: key.to_owned(),
        nearest: nearest.unwrap_or_default().to_owned(),
        known: KEYS.iter().map(|known| known.name).collect::<Vec<_>>().join(", "),
    }
}

/// How many letters must change to make one word the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(&b) {
            let here = (diagonal + usize::from(from != *to)).min(left + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = here;
            left = here;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

fn count(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "not a whole number of 0 or more".to_owned())
}

fn bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (text.get(..at), 10),
        Some((at, 'm' | 'M')) => (text.get(..at), 20),
        Some((at, 'g' | 'G')) => (text.get(..at), 30),
        _ => (Some(text), 0),
    };
    let problem = || "not a number of bytes, such as 4194304, 4096k, 4m or 1g".to_owned();
    let number = digits.and_then(|digits| digits.parse::<u64>().ok()).ok_or_else(problem)?;
    number.checked_mul(1 << shift).ok_or_else(problem)
}

fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("neither true nor false".into()),
    }
}

fn node_id(text: &str) -> Result<NodeId, String> {
    NodeId::new(count(text)?).ok_or_else(|| "a node id is never 0; start at 1".into())
}

fn cluster_id(text: &str) -> Result<ClusterId, String> {
    text.parse()
}

fn founders(text: &str) -> Result<Vec<Founder>, String> {
    let each = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    each.map(|part| {
        let (id, address) = part
            .split_once('=')
            .ok_or_else(|| format!("{part:?} is not id=host:port, such as 1=127.0.0.1:7001"))?;
        let id = node_id(id.trim()).map_err(|problem| format!("{part:?}: {problem}"))?;
        Ok(Founder { id, address: address.trim().to_owned() })
    })
    .collect()
}

fn storage(text: &str) -> Result<StorageKind, String> {
    if text == "memory" {
        return Ok(StorageKind::Memory);
    }
    match text.strip_prefix("directory:") {
        Some(path) if !path.is_empty() => Ok(StorageKind::Directory(PathBuf::from(path))),
        Some(_) | None => Err("neither memory nor directory:<path>".into()),
    }
}
