//! The bytes of the key-value store's commands, queries and replies.
//!
//! Part of the log's content, so it never changes for a tag once used; new commands take new tags.
//! All numbers are little-endian. Two building blocks:
//!
//! ```text
//! bytes   length u32 | that many bytes
//! option  0                      absent
//!         1 | bytes              present
//!
//! command   1 | bytes key | bytes value                                set
//!           2 | bytes key                                              delete
//!           3 | bytes key | option expected | option value             compare and set
//!           4 | bytes key | by i64                                     increment
//!
//! query     1 | bytes key                                              get
//!           2 | bytes prefix | option after | limit u32                scan
//!           3                                                          digest
//!
//! reply     1                                                          stored
//!           2 | existed u8, 0 or 1                                     deleted
//!           3                                                          swapped
//!           4 | option actual                                          not swapped
//!           5 | number i64                                             number
//!           6 | option value                                           value
//!           7 | more u8, 0 or 1 | count u32 | count x (bytes key | bytes value)    scanned
//!           8 | entries u64 | digest u64                               digest
//!           9 | actual bytes u64                                       not swapped, large
//! ```
//! A rejection is not one of these: it is [`Reply::Rejected`], whose bytes are words in UTF-8.
//! A reader takes nothing on trust: each length is checked against what is left before anything is
//! allocated, and bytes after the end are an error.

use bytes::{BufMut, Bytes, BytesMut};

use crate::types::Reply;

/// A change of the store. Proposed as the bytes of [`KvCommand::encode`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvCommand {
    /// Gives `key` the value `value`. Answer: [`KvReply::Stored`].
    Set {
        /// The key, at least one byte.
        key: Bytes,
        /// Its new value, possibly empty.
        value: Bytes,
    },
    /// Takes `key` out. Answer: [`KvReply::Deleted`].
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Writes `value` if the present value is `expected`. Answer: [`KvReply::Swapped`] or
    /// [`KvReply::NotSwapped`], or [`KvReply::NotSwappedLarge`].
    CompareAndSet {
        /// The key.
        key: Bytes,
        /// What must be there; `None`: the key must be absent.
        expected: Option<Bytes>,
        /// What shall be there; `None`: delete the key.
        value: Option<Bytes>,
    },
    /// Adds `by` to the number under `key`. Numbers are decimal text, so that `get` shows them:
    /// an optional minus and digits, within 64 bits. An absent key counts as 0. Anything else
    /// under the key, or a sum beyond 64 bits, is a rejection. Answer: [`KvReply::Number`].
    Increment {
        /// The key.
        key: Bytes,
        /// What to add, possibly negative.
        by: i64,
    },
}

/// A question to the store. Sent as the bytes of [`KvQuery::encode`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvQuery {
    /// The value under a key. Answer: [`KvReply::Value`].
    Get {
        /// The key.
        key: Bytes,
    },
    /// Keys that begin with `prefix`, in the order of their bytes. Answer: [`KvReply::Scanned`].
    /// To go on where an answer with `more` ended, ask again with its last key as `after`.
    Scan {
        /// What the keys begin with; empty: all keys.
        prefix: Bytes,
        /// Only keys beyond this one.
        after: Option<Bytes>,
        /// At most so many entries; never more than [`SCAN_ENTRIES_MAX`](super::SCAN_ENTRIES_MAX).
        limit: u32,
    },
    /// Size and digest of the whole store. Answer: [`KvReply::Digest`].
    Digest,
}

/// What the store answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvReply {
    /// The value is set.
    Stored,
    /// The key has no value (any more).
    Deleted {
        /// Whether it had one before.
        existed: bool,
    },
    /// The value was the expected one, and is the new one now.
    Swapped,
    /// The value was not the expected one; nothing changed.
    NotSwapped {
        /// What it is.
        actual: Option<Bytes>,
    },
    /// The value was not the expected one; nothing changed. It is too large to be repeated in the
    /// answer (beyond [`REPEATED_BYTES_MAX`](super::REPEATED_BYTES_MAX)); ask for it with a query.
    NotSwappedLarge {
        /// How long it is.
        actual_bytes: u64,
    },
    /// The number after an increment.
    Number(i64),
    /// A key's value, or `None`.
    Value(Option<Bytes>),
    /// Keys and values of a scan.
    Scanned {
        /// In the order of the keys' bytes.
        entries: Vec<(Bytes, Bytes)>,
        /// Whether further keys match.
        more: bool,
    },
    /// Size and digest of the store.
    Digest {
        /// How many keys have a value.
        entries: u64,
        /// See [`KvStore::digest`](super::KvStore::digest).
        digest: u64,
    },
    /// The store turned the command or query down; the words say why.
    Rejected(String),
}

/// Why bytes are not a command, a query or a reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvCodecError {
    /// No bytes at all.
    #[error("{what}: empty; the first byte must say which kind it is")]
    Empty {
        /// What was being read.
        what: &'static str,
    },
    /// A first byte that stands for nothing.
    #[error("{what}: unknown kind {tag}")]
    UnknownTag {
        /// What was being read.
        what: &'static str,
        /// The byte.
        tag: u8,
    },
    /// Fewer bytes than announced.
    #[error("{what}: cut short in its {field}: {wanted} bytes wanted, {left} left")]
    Short {
        /// What was being read.
        what: &'static str,
        /// Where it ends.
        field: &'static str,
        /// Bytes that belong there.
        wanted: u64,
        /// Bytes that are there.
        left: u64,
    },
    /// Neither 0 nor 1 where one of them belongs.
    #[error("{what}: {field} must begin with 0 or 1, not {byte}")]
    NotABool {
        /// What was being read.
        what: &'static str,
        /// Where.
        field: &'static str,
        /// The byte.
        byte: u8,
    },
    /// Bytes after the end.
    #[error("{what}: {bytes} bytes too many after its end")]
    Trailing {
        /// What was being read.
        what: &'static str,
        /// How many.
        bytes: u64,
    },
}

impl KvCommand {
    /// The key it is about.
    pub const fn key(&self) -> &Bytes {
        match self {
            Self::Set { key, .. }
            | Self::Delete { key }
            | Self::CompareAndSet { key, .. }
            | Self::Increment { key, .. } => key,
        }
    }

    /// The command as bytes, to be proposed.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::Set { key, value } => {
                out.reserve(9 + key.len() + value.len());
                out.put_u8(1);
                put_bytes(&mut out, key);
                put_bytes(&mut out, value);
            }
            Self::Delete { key } => {
                out.put_u8(2);
                put_bytes(&mut out, key);
            }
            Self::CompareAndSet { key, expected, value } => {
                out.put_u8(3);
                put_bytes(&mut out, key);
                put_option(&mut out, expected.as_ref());
                put_option(&mut out, value.as_ref());
            }
            Self::Increment { key, by } => {
                out.put_u8(4);
                put_bytes(&mut out, key);
                out.put_i64_le(*by);
            }
        }
        out.freeze()
    }

    /// The command behind bytes. Keys and values are copied: they share no memory with `bytes`.
    ///
    /// # Errors
    /// If the bytes are not exactly one command; says where they go wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, KvCodecError> {
        let (tag, mut reader) = Reader::open("command", bytes)?;
        let command = match tag {
            1 => Self::Set { key: reader.bytes("key")?, value: reader.bytes("value")? },
            2 => Self::Delete { key: reader.bytes("key")? },
            3 => Self::CompareAndSet {
                key: reader.bytes("key")?,
                expected: reader.option("expected value")?,
                value: reader.option("new value")?,
            },
            4 => Self::Increment { key: reader.bytes("key")?, by: reader.i64("increment")? },
            tag => return Err(KvCodecError::UnknownTag { what: "command", tag }),
        };
        reader.close()?;
        Ok(command)
    }
}

impl KvQuery {
    /// The query as bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::Get { key } => {
                out.put_u8(1);
                put_bytes(&mut out, key);
            }
            Self::Scan { prefix, after, limit } => {
                out.put_u8(2);
                put_bytes(&mut out, prefix);
                put_option(&mut out, after.as_ref());
                out.put_u32_le(*limit);
            }
            Self::Digest => out.put_u8(3),
        }
        out.freeze()
    }

    /// The query behind bytes.
    ///
    /// # Errors
    /// If the bytes are not exactly one query; says where they go wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, KvCodecError> {
        let (tag, mut reader) = Reader::open("query", bytes)?;
        let query = match tag {
            1 => Self::Get { key: reader.bytes("key")? },
            2 => Self::Scan {
                prefix: reader.bytes("prefix")?,
                after: reader.option("start")?,
                limit: reader.u32("limit")?,
            },
            3 => Self::Digest,
            tag => return Err(KvCodecError::UnknownTag { what: "query", tag }),
        };
        reader.close()?;
        Ok(query)
    }
}

impl KvReply {
    /// The reply as bytes; those of [`KvReply::Rejected`] are its words.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::Stored => out.put_u8(1),
            Self::Deleted { existed } => {
                out.put_u8(2);
                out.put_u8(u8::from(*existed));
            }
            Self::Swapped => out.put_u8(3),
            Self::NotSwapped { actual } => {
                out.put_u8(4);
                put_option(&mut out, actual.as_ref());
            }
            Self::NotSwappedLarge { actual_bytes } => {
                out.put_u8(9);
                out.put_u64_le(*actual_bytes);
            }
            Self::Number(number) => {
                out.put_u8(5);
                out.put_i64_le(*number);
            }
            Self::Value(value) => {
                out.put_u8(6);
                put_option(&mut out, value.as_ref());
            }
            Self::Scanned { entries, more } => {
                out.put_u8(7);
                out.put_u8(u8::from(*more));
                out.put_u32_le(entries.len() as u32);
                for (key, value) in entries {
                    put_bytes(&mut out, key);
                    put_bytes(&mut out, value);
                }
            }
            Self::Digest { entries, digest } => {
                out.put_u8(8);
                out.put_u64_le(*entries);
                out.put_u64_le(*digest);
            }
            Self::Rejected(why) => out.put_slice(why.as_bytes()),
        }
        out.freeze()
    }

    /// What a machine's reply says, when the machine is a [`KvStore`](super::KvStore).
    ///
    /// # Errors
    /// If the bytes are no reply of the store: another machine's, or a later version's.
    pub fn decode(reply: &Reply) -> Result<Self, KvCodecError> {
        let bytes = match reply {
            Reply::Rejected(why) => {
                return Ok(Self::Rejected(String::from_utf8_lossy(why).into_owned()));
            }
            Reply::Ok(bytes) => bytes,
        };
        let (tag, mut reader) = Reader::open("reply", bytes)?;
        let reply = match tag {
            1 => Self::Stored,
            2 => Self::Deleted { existed: reader.bool("existed")? },
            3 => Self::Swapped,
            4 => Self::NotSwapped { actual: reader.option("actual value")? },
            5 => Self::Number(reader.i64("number")?),
            6 => Self::Value(reader.option("value")?),
            7 => {
                let more = reader.bool("more")?;
                let count = reader.u32("count")?;
                // Grows with what is really there: the count is only a claim.
                let mut entries = Vec::new();
                for _ in 0..count {
                    entries.push((reader.bytes("key")?, reader.bytes("value")?));
                }
                Self::Scanned { entries, more }
            }
            8 => Self::Digest { entries: reader.u64("entries")?, digest: reader.u64("digest")? },
            9 => Self::NotSwappedLarge { actual_bytes: reader.u64("length")? },
            tag => return Err(KvCodecError::UnknownTag { what: "reply", tag }),
        };
        reader.close()?;
        Ok(reply)
    }
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    // A length beyond 32 bits cannot be proposed: entries are limited to far less.
    out.put_u32_le(bytes.len() as u32);
    out.put_slice(bytes);
}

fn put_option(out: &mut BytesMut, bytes: Option<&Bytes>) {
    out.put_u8(u8::from(bytes.is_some()));
    if let Some(bytes) = bytes {
        put_bytes(out, bytes);
    }
}

/// Takes fields off the front of bytes, each only if it is there in full.
struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn open(what: &'static str, bytes: &'a [u8]) -> Result<(u8, Self), KvCodecError> {
        let (tag, rest) = bytes.split_first().ok_or(KvCodecError::Empty { what })?;
        Ok((*tag, Self { what, rest }))
    }

    fn take(&mut self, count: u32, field: &'static str) -> Result<&'a [u8], KvCodecError> {
        let short = KvCodecError::Short {
            what: self.what,
            field,
            wanted: u64::from(count),
            left: self.rest.len() as u64,
        };
        let (taken, rest) = self.rest.split_at_checked(count as usize).ok_or(short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], KvCodecError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u32, field)?);
        Ok(array)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, KvCodecError> {
        self.array(field).map(u32::from_le_bytes)
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, KvCodecError> {
        self.array(field).map(u64::from_le_bytes)
    }

    fn i64(&mut self, field: &'static str) -> Result<i64, KvCodecError> {
        self.array(field).map(i64::from_le_bytes)
    }

    fn bool(&mut self, field: &'static str) -> Result<bool, KvCodecError> {
        let [byte] = self.array(field)?;
        match byte {
            0 => Ok(false),
            1 => Ok(true),
            byte => Err(KvCodecError::NotABool { what: self.what, field, byte }),
        }
    }

    fn bytes(&mut self, field: &'static str) -> Result<Bytes, KvCodecError> {
        let count = self.u32(field)?;
        self.take(count, field).map(Bytes::copy_from_slice)
    }

    fn option(&mut self, field: &'static str) -> Result<Option<Bytes>, KvCodecError> {
        if self.bool(field)? { self.bytes(field).map(Some) } else { Ok(None) }
    }

    fn close(self) -> Result<(), KvCodecError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(KvCodecError::Trailing { what: self.what, bytes: self.rest.len() as u64 })
    }
}
