//! Where the runtime meets the stores and networks that come with raftz.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::storage::snapshot::{FileSnapshots, MemorySnapshots, SnapshotStore};
use crate::storage::vfs::RealVfs;
use crate::storage::wal::{BootstrapSpec, Expect, Wal, WalOptions};
use crate::storage::{MemoryStorage, Storage, StorageError};
use crate::transport::Transport;
use crate::transport::frame::FrameLimits;
use crate::transport::handshake::Identity as Hello;
use crate::transport::tcp::{Listen, TcpConfig, TcpTransport};
use crate::types::{APPEND_BYTES_LIMIT, DiskId, GroupId, Identity, Recovered};

use super::clock;
use super::config::{Config, StorageKind};
use super::error::NodeError;
use super::threads::guarded;

/// Formats the configured directory.
pub(super) fn bootstrap(config: &Config) -> Result<(), NodeError> {
    let StorageKind::Directory(path) = &config.storage else { return Ok(()) };
    let path = &wherever_we_go(path)?;
    let spec = BootstrapSpec {
        cluster: config.cluster_id,
        epoch: 0,
        node: config.node_id,
        base: config.founding_base(),
    };
    Wal::bootstrap(&RealVfs, path, &spec, wal_options(config))?;
    Ok(())
}

/// Whether the configured directory holds a node's data.
pub(super) fn is_formatted(config: &Config) -> Result<bool, NodeError> {
    let StorageKind::Directory(path) = &config.storage else { return Ok(true) };
    Ok(Wal::is_formatted(&RealVfs, &wherever_we_go(path)?)?)
}

/// The same directory, also once the process has changed its working directory: files are made there by name as long
/// as the node runs.
fn wherever_we_go(path: &Path) -> Result<PathBuf, NodeError> {
    std::path::absolute(path).map_err(|source| {
        let (path, doing) = (path.to_path_buf(), "finding the working directory".to_owned());
        NodeError::Storage(StorageError::Io { path, doing, source: Arc::new(source) })
    })
}

/// What a node keeps its state in.
pub(super) struct Opened {
    pub(super) storage: Box<dyn Storage>,
    /// `None`: the log is never shortened.
    pub(super) snapshots: Option<Arc<dyn SnapshotStore>>,
    pub(super) recovered: Recovered,
}

/// Opens the configured store.
pub(super) fn open(config: &Config) -> Result<Opened, NodeError> {
    match &config.storage {
        StorageKind::Memory => {
            let (storage, recovered) = in_memory(config);
            let snapshots = MemorySnapshots::new(&recovered.identity);
            Ok(Opened { storage, snapshots: Some(Arc::new(snapshots)), recovered })
        }
        StorageKind::Custom(make) => {
            let (storage, recovered) = guarded(|| make(config))
                .map_err(|panic| custom_panicked("factory", &panic))?
                .map_err(NodeError::from)?;
            let snapshots = beside_custom(config, &recovered.identity)?;
            Ok(Opened { storage, snapshots, recovered })
        }
        StorageKind::Directory(path) => {
            let path = &wherever_we_go(path)?;
            let expect = Expect { cluster: config.cluster_id, node: config.node_id };
            let vfs = Arc::new(RealVfs);
            let (wal, recovered) =
                Wal::open(Arc::clone(&vfs) as _, path, expect, wal_options(config))?;
            let snapshots = FileSnapshots::open(vfs, path, &recovered.identity)?;
            let snapshots: Arc<dyn SnapshotStore> = Arc::new(snapshots);
            Ok(Opened { storage: Box::new(wal), snapshots: Some(snapshots), recovered })
        }
    }
}

/// The snapshots of a node whose log is in a store of the user's own.
fn beside_custom(
    config: &Config,
    identity: &Identity,
) -> Result<Option<Arc<dyn SnapshotStore>>, NodeError> {
    let path = &config.snapshot_directory;
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let path = wherever_we_go(path)?;
    Ok(Some(Arc::new(FileSnapshots::open_apart(Arc::new(RealVfs), &path, identity)?)))
}

/// What is told of a store of the user's own that panicked while the node started.
pub(super) fn custom_panicked(part: &str, panic: &str) -> NodeError {
    let source = std::io::Error::other(format!("it panicked: {panic}"));
    NodeError::Storage(StorageError::Io {
        path: "the custom storage".into(),
        doing: format!("its {part}"),
        source: Arc::new(source),
    })
}

fn wal_options(config: &Config) -> WalOptions {
    WalOptions { segment_bytes: config.segment_bytes, reserve_bytes: config.reserve_bytes }
}

/// A fresh store in memory. Each one is a disk of its own: a node that comes back without its
/// memory must not pass for the one that the cluster knew.
fn in_memory(config: &Config) -> (Box<dyn Storage>, Recovered) {
    let base = config.founding_base();
    let identity = Identity {
        cluster: config.cluster_id,
        epoch: 0,
        node: config.node_id,
        disk: DiskId(clock::random_u128()),
        founders_hash: base.founders_hash(),
    };
    let (store, recovered) = MemoryStorage::new(identity, GroupId::FIRST, base);
    (Box::new(store), recovered)
}

/// Binds the configured address, before anything on disk is touched.
#[allow(clippy::disallowed_methods, reason = "the listening socket of the transport")]
pub(super) fn listen(config: &Config) -> Result<TcpListener, NodeError> {
    let address = config.listen_address.as_str();
    TcpListener::bind(address).map_err(|error| {
        let advice = if error.kind() == ErrorKind::AddrInUse {
            "another process, perhaps another node, listens there; stop it or choose another port"
        } else if error.kind() == ErrorKind::AddrNotAvailable {
            "this machine has no such address; use one of its own"
        } else if error.kind() == ErrorKind::PermissionDenied {
            "the system does not allow it; ports below 1024 need privileges"
        } else {
            "check listen_address"
        };
        let detail = format!("listen_address = {address:?}: {error}; {advice}");
        NodeError::Network { detail, os_error: error.raw_os_error() }
    })
}

/// The largest frame of data that any node of this cluster may send, whatever its own configuration says. Twice
/// that leaves room for headers and for a batch that its last entry carries over. A length on the wire has 32 bits,
/// and the largest must still be refused.
fn frame_bytes(config: &Config) -> usize {
    let bytes = APPEND_BYTES_LIMIT.saturating_add(config.entry_bytes_max);
    let bytes = bytes.saturating_mul(2).min(u64::from(u32::MAX));
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// What a node says of itself, with the largest frame that it has to take.
pub(super) fn with_largest_frame(config: &Config, hello: Hello) -> Hello {
    let largest = FrameLimits::default().largest().max(frame_bytes(config));
    Hello { frame_bytes_max: u32::try_from(largest).unwrap_or(u32::MAX), ..hello }
}

/// Puts TCP on a bound port.
pub(super) fn tcp(
    config: &Config,
    hello: Hello,
    listener: TcpListener,
) -> Result<Box<dyn Transport>, NodeError> {
    let mut tcp = TcpConfig::new(hello, Listen::Bound(listener));
    tcp.insecure_plaintext = config.insecure_plaintext;
    tcp.seed = config.seed.unwrap_or_else(clock::random_u64);
    let frame_bytes = frame_bytes(config);
    let limits = &mut tcp.limits;
    limits.frames.data_bytes_max = limits.frames.data_bytes_max.max(frame_bytes);
    // Of which an honest leader uses half at most; buffers double, and cost twice what they hold.
    limits.non_members_bytes_max = (frame_bytes / 2).saturating_add(1 << 20);
    limits.queue_bytes_max =
        usize::try_from(config.link_queue_bytes_max).unwrap_or(usize::MAX).max(frame_bytes);
    let transport =
        TcpTransport::new(tcp).map_err(|error| NodeError::network(error.to_string()))?;
    Ok(Box::new(transport))
}
