//! The one place that calls the encoding crate, so that it can be replaced behind this face.
//!
//! Structs only ever append fields. A reader ignores surplus bytes, so an older reader takes the
//! fields that it knows; a newer reader of an older struct is told so by the version beside it.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest piece of metadata that is ever decoded, payloads apart.
pub const METADATA_BYTES_MAX: usize = 8 << 20;

/// Why metadata could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("metadata does not decode: {0}")]
pub struct MetadataError(String);

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<METADATA_BYTES_MAX>()
}

/// Appends `value` to `out`.
pub fn encode_into<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), MetadataError> {
    bincode::serde::encode_into_std_write(value, out, config())
        .map(|_| ())
        .map_err(|error| MetadataError(error.to_string()))
}

/// `value` as bytes.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, MetadataError> {
    let mut out = Vec::new();
    encode_into(value, &mut out)?;
    Ok(out)
}

/// Reads a `T` from the front of `bytes`; returns it and the bytes that it took.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), MetadataError> {
    bincode::serde::decode_from_slice(bytes, config())
        .map_err(|error| MetadataError(error.to_string()))
}
