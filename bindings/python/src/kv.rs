//! The key-value store's commands, queries and answers, as bytes and back.

use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use raftz_core::machine::{KvCommand, KvQuery, KvReply};
use raftz_core::types::Reply;

use crate::error::misuse;
use crate::node::bytes_of;

fn optional(object: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Bytes>> {
    object.map(bytes_of).transpose()
}

fn shown(bytes: Bytes) -> Vec<u8> {
    bytes.into()
}

/// Gives `key` the value `value`.
#[pyfunction]
pub(crate) fn kv_set(key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let command = KvCommand::Set { key: bytes_of(key)?, value: bytes_of(value)? };
    Ok(shown(command.encode()))
}

/// Takes `key` out.
#[pyfunction]
pub(crate) fn kv_delete(key: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    Ok(shown(KvCommand::Delete { key: bytes_of(key)? }.encode()))
}

/// Writes `value` if the present value is `expected`.
#[pyfunction]
#[pyo3(signature = (key, expected, value))]
pub(crate) fn kv_compare_and_set(
    key: &Bound<'_, PyAny>,
    expected: Option<&Bound<'_, PyAny>>,
    value: Option<&Bound<'_, PyAny>>,
) -> PyResult<Vec<u8>> {
    let (expected, value) = (optional(expected)?, optional(value)?);
    Ok(shown(KvCommand::CompareAndSet { key: bytes_of(key)?, expected, value }.encode()))
}

/// Adds `by` to the number under `key`.
#[pyfunction]
pub(crate) fn kv_increment(key: &Bound<'_, PyAny>, by: i64) -> PyResult<Vec<u8>> {
    Ok(shown(KvCommand::Increment { key: bytes_of(key)?, by }.encode()))
}

/// Asks for the value under a key.
#[pyfunction]
pub(crate) fn kv_get(key: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    Ok(shown(KvQuery::Get { key: bytes_of(key)? }.encode()))
}

/// Asks for keys that begin with `prefix`, beyond `after`.
#[pyfunction]
#[pyo3(signature = (prefix, after, limit))]
pub(crate) fn kv_scan(
    prefix: &Bound<'_, PyAny>,
    after: Option<&Bound<'_, PyAny>>,
    limit: u32,
) -> PyResult<Vec<u8>> {
    let query = KvQuery::Scan { prefix: bytes_of(prefix)?, after: optional(after)?, limit };
    Ok(shown(query.encode()))
}

/// Asks for size and digest.
#[pyfunction]
pub(crate) fn kv_digest() -> Vec<u8> {
    shown(KvQuery::Digest.encode())
}

/// What an answer holds, as a tuple that begins with its kind.
#[pyfunction]
pub(crate) fn kv_reply<'py>(
    py: Python<'py>,
    answer: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyTuple>> {
    let bytes = |bytes: &Bytes| PyBytes::new(py, bytes);
    let reply = KvReply::decode(&Reply::Ok(bytes_of(answer)?));
    let reply = reply.map_err(|error| misuse(&format!("not the store's answer: {error}")))?;
    match reply {
        KvReply::Stored => ("stored",).into_pyobject(py),
        KvReply::Deleted { existed } => ("deleted", existed).into_pyobject(py),
        KvReply::Swapped => ("swapped",).into_pyobject(py),
        KvReply::NotSwapped { actual } => {
            ("not_swapped", actual.as_ref().map(bytes)).into_pyobject(py)
        }
        KvReply::NotSwappedLarge { actual_bytes } => {
            ("not_swapped_large", actual_bytes).into_pyobject(py)
        }
        KvReply::Number(number) => ("number", number).into_pyobject(py),
        KvReply::Value(value) => ("value", value.as_ref().map(bytes)).into_pyobject(py),
        KvReply::Scanned { entries, more } => {
            let entries: Vec<_> =
                entries.iter().map(|(key, value)| (bytes(key), bytes(value))).collect();
            ("scanned", entries, more).into_pyobject(py)
        }
        KvReply::Digest { entries, digest } => ("digest", entries, digest).into_pyobject(py),
        KvReply::Rejected(words) => ("rejected", words).into_pyobject(py),
    }
}
