//! Commands for the key-value store.

use std::sync::Arc;

use bytes::Bytes;

use crate::machine::KvCommand;

use super::Workload;
use super::choice::Chooser;
use super::plan::Plan;

/// Sets, deletes, swaps and increments of a few keys; each value that is set is another.
pub fn key_value(plan: &Plan) -> Workload {
    let (keys, value_bytes) = (plan.keys, plan.value_bytes);
    Arc::new(move |chooser| command(chooser, keys, value_bytes).encode().to_vec())
}

fn command(chooser: &mut Chooser, keys: u64, value_bytes: u64) -> KvCommand {
    let number = chooser.below(keys);
    match chooser.below(10) {
        0 => KvCommand::Delete { key: Bytes::from(format!("k{number}")) },
        1..4 => KvCommand::Increment {
            key: Bytes::from(format!("n{number}")),
            by: i64::try_from(chooser.below(1 << 40)).unwrap_or_default() - (1 << 39),
        },
        4 => KvCommand::CompareAndSet {
            key: Bytes::from(format!("k{number}")),
            expected: None,
            value: Some(value(chooser, value_bytes)),
        },
        _ => KvCommand::Set {
            key: Bytes::from(format!("k{number}")),
            value: value(chooser, value_bytes),
        },
    }
}

/// A name that no other value has, and as much behind it as makes it long enough.
fn value(chooser: &mut Chooser, value_bytes: u64) -> Bytes {
    let mut value = format!("{:016x}", chooser.number()).into_bytes();
    let length = usize::try_from(chooser.below(value_bytes)).unwrap_or_default();
    value.resize(length.max(value.len()), b'_');
    Bytes::from(value)
}
