//! What a node is told when it starts.

use std::ffi::{CString, c_char, c_void};
use std::sync::Arc;

use bytes::Bytes;
use raftz_core::node::{self, Config, Founder, StorageKind};
use raftz_core::types::{ClusterId, NodeId};

use crate::bytes::raftz_bytes;
use crate::error::{Failure, raftz_error};
use crate::events::{Events, raftz_event_fn};
use crate::guard::{Call, Out, borrow, borrow_mut, call, free, invalid, text, value};
use crate::log::Logger;
use crate::queue::raftz_queue;
use crate::status::{RAFTZ_CONFIG, raftz_status};
use crate::storage::{Table, raftz_storage};
use crate::transport::{self, raftz_transport};

/// \brief A node's configuration: an object that a program fills, starts nodes with, and frees.
///
/// One thread at a time. raftz_node_start() copies what it needs, so that one configuration can be changed
/// and used again.
///
/// Keys, what they mean, and their defaults:
///
/// - `node_id`, `cluster_id`: as given to raftz_config_new().
/// - `listen_address`: `host:port`; 127.0.0.1:0.
/// - `founders`: founding members, `1=host:port,2=host:port`; none.
/// - `storage`: `memory` or `directory:path`, or `custom` after raftz_config_set_storage(); memory.
/// - `snapshot_directory`: where a node with a store of the program's own keeps its snapshots; made if it is not
///   there, and one node's alone. Empty: it takes none, and its log is never shortened. Other stores keep them beside
///   the log; empty.
/// - `insecure_plaintext`: allows addresses beyond this machine, although links are not encrypted; false.
/// - `election_timeout_min_ms`, `election_timeout_max_ms`: time without a sign of a leader after which a
///   node stands for election; each wait is drawn between the two; 150 and 300.
/// - `heartbeat_interval_ms`: time between a leader's signs of life; 50.
/// - `election_priority`: how much the node is wanted as leader, 0 to 100: at 0 it waits twice as long as others
///   before it stands, and a leader hands over to a node whose priority is higher by 10; 100.
/// - `disk_stall_timeout_ms`: a leader none of whose writes has become durable for so long, while one waits, hands
///   over; 0 is the longest election timeout; 0.
/// - `propose_timeout_ms`: time after which a command without a timeout of its own is answered; 5000.
/// - `read_timeout_ms`: time after which a read without a timeout of its own is answered; 5000.
/// - `lease_reads`: whether clocks are trusted, for reads of level RAFTZ_READ_LEASE; set it on all nodes; false.
/// - `lease_drift_percent`: by how much any clock may run faster than another, at most 50; 10.
/// - `forward`: whether a follower hands commands to the leader, and holds them while there is none; true.
/// - `entry_bytes_max`: largest command; fixed when the cluster is founded; 4 MiB.
/// - `append_bytes_max`: most bytes of entries in one message; 1 MiB.
/// - `window_bytes`, `window_messages`: most that is on its way to one peer; 8 MiB and 64.
/// - `uncommitted_bytes_max`: most bytes of entries that a leader holds uncommitted; 64 MiB.
/// - `unapplied_bytes_max`: most bytes of entries that are committed and not applied; 64 MiB.
/// - `cache_bytes_max`: most bytes of applied entries in memory for followers that lag; 16 MiB.
/// - `held_bytes_max`: most bytes of commands held while no leader is known; 16 MiB.
/// - `apply_bytes_max`: most bytes of commands given to the state machine at once; 4 MiB.
/// - `calls_max`, `calls_bytes_max`: most calls in flight, and their bytes; 65536 and 128 MiB.
/// - `link_queue_bytes_max`: most bytes that wait to be sent to one peer; 32 MiB.
/// - `segment_bytes`: size of one file of the log; 64 MiB.
/// - `reserve_bytes`: free disk space below which commands are refused; 256 MiB.
/// - `snapshot_log_bytes`, `snapshot_log_entries`: a snapshot is taken after about so many bytes of applied
///   commands, or entries; 0 for neither; 64 MiB and 1000000.
/// - `snapshot_retain_bytes`: bytes of the log kept behind it for followers that are a little behind; 16 MiB.
/// - `snapshots_kept`: how many snapshots stay on disk; 2.
/// - `snapshot_write_bytes_per_s`, `snapshot_send_bytes_per_s`: how fast one is written, and snapshots are sent
///   to all peers together; 0 for no bound; 128 MiB and 32 MiB.
/// - `snapshot_stall_timeout_ms`: a transfer that has not moved for so long begins again; 10000.
/// - `snapshot_scrub_interval_ms`: so often all snapshots on the disk are read for damage; 86400000, 0: never.
/// - `metrics`: whether raftz_metrics() and raftz_metrics_text() have something to tell; true.
/// - `seed`: of the randomness that spreads elections, or `random`; random.
pub struct raftz_config {
    pub(crate) config: Config,
    pub(crate) events: Option<Arc<Events>>,
    pub(crate) logger: Option<Arc<Logger>>,
    /// The program's own store, if `config.storage` is one.
    storage: Option<Table>,
    /// The program's own transport, if it has one.
    pub(crate) transport: Option<transport::Table>,
    keys: Vec<CString>,
}

impl raftz_config {
    /// The program's own store, if the log is kept in one.
    pub(crate) fn storage(&self) -> Option<&Table> {
        let is_custom = matches!(self.config.storage, StorageKind::Custom(_));
        self.storage.as_ref().filter(|_| is_custom)
    }
}

/// \brief Called once when a callback's user data is not needed any more.
///
/// Threads: any, the node's own included. Blocking calls of raftz are refused in it. A configuration or node
/// that is being freed must not be used in it.
pub type raftz_destroy_fn = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// \brief Makes a configuration with all defaults: memory storage, no founding members, a port of the
/// system's choice on the loopback interface.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param node_id The node's own id, from 1.
/// \param cluster_id The cluster's id, the same on all its nodes: 1 to 32 hexadecimal digits.
/// \param config [out] The configuration, to be freed with raftz_config_free().
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_BAD_UTF8, RAFTZ_INVALID_ARG or RAFTZ_CONFIG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_config_new(
    node_id: u64,
    cluster_id: *const c_char,
    config: *mut *mut raftz_config,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        let out = Out::new(config, "config")?;
        // SAFETY: the caller's contract.
        let cluster_id = unsafe { text(cluster_id, "cluster_id") }?;
        let cluster_id: ClusterId = cluster_id.parse().map_err(|problem: String| {
            Failure::new(RAFTZ_CONFIG, format!("cluster_id = {cluster_id:?}: {problem}"))
        })?;
        let config = Config::new(node(node_id)?, cluster_id);
        let names = config.entries().into_iter().map(|(name, _)| name);
        let keys = names.filter_map(|name| CString::new(name).ok()).collect();
        // SAFETY: the caller's contract.
        unsafe {
            out.give(raftz_config {
                config,
                events: None,
                logger: None,
                storage: None,
                transport: None,
                keys,
            })
        };
        Ok(())
    })
}

/// An id from C.
pub(crate) fn node(id: u64) -> Call<NodeId> {
    NodeId::new(id).ok_or_else(|| invalid("node_id is 0; ids start at 1"))
}

/// \brief Frees a configuration. Nodes that were started with it are not touched.
///
/// Threads: one at a time. Inside callbacks: yes. Blocks: no.
///
/// \param config The configuration, or NULL, which is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_config_free(config: *mut raftz_config) {
    // SAFETY: the caller's contract: NULL, or a configuration that is C's own.
    unsafe { free(config) }
}

/// \brief Sets a key from text, as the command line, the environment and files do.
///
/// Numbers are decimal; those of keys that end in `_bytes` may end in `k`, `m` or `g` (powers of 1024).
/// Booleans are `true` or `false`. `founders` is `1=host:port,2=host:port`; `storage` is `memory` or
/// `directory:path`; `seed` is a number or `random`.
///
/// Threads: one at a time. Inside callbacks: yes. Blocks: no.
///
/// \param config The configuration. If the call fails it stays as it was.
/// \param key The key.
/// \param text The value.
/// \param error [out] Why not; for an unknown key with the nearest known one. May be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_BAD_UTF8 or RAFTZ_CONFIG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_config_set(
    config: *mut raftz_config,
    key: *const c_char,
    text: *const c_char,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let (config, key, text) = unsafe {
            (borrow_mut(config, "config")?, self::text(key, "key")?, self::text(text, "text")?)
        };
        Ok(config.config.set(key, text)?)
    })
}

/// \brief Sets a key whose value is a number.
///
/// Threads: one at a time. Inside callbacks: yes. Blocks: no.
///
/// \param config The configuration. If the call fails it stays as it was.
/// \param key The key.
/// \param number The value, in the unit that the key's name ends in.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_BAD_UTF8 or RAFTZ_CONFIG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_config_set_number(
    config: *mut raftz_config,
    key: *const c_char,
    number: u64,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let (config, key) = unsafe { (borrow_mut(config, "config")?, text(key, "key")?) };
        Ok(config.config.set(key, &number.to_string())?)
    })
}

/// \brief Sets a key whose value is true or false.
///
/// Threads: one at a time. Inside callbacks: yes. Blocks: no.
///
/// \param config The configuration. If the call fails it stays as it was.
/// \param key The key.
/// \param is_on The value.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_BAD_UTF8 or RAFTZ_CONFIG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_config_set_bool(
    config: *mut raftz_config,
    key: *const c_char,
    is_on: u8,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let (config, key) = unsafe { (borrow_mut(config, "config")?, text(key, "key")?) };
        Ok(config.config.set(key, if is_on == 0 { "false" } else { "true" })?)
    })
}

/// \brief Sets where the node listens: `host:port`.
///
/// Threads: one at a time. Inside callbacks: yes. Blocks: no.
///
/// \param config The configuration.
/// \param address The address. Port 0 lets the system choose one, for a cluster of one node.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_BAD_UTF8 or RAFTZ_CONFIG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_config_set_listen_address(
    config: *mut raftz_config,
    address: *const c_char,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let (config, address) =
            unsafe { (borrow_mut(config, "config")?, text(address, "address")?) };
        Ok(config.config.set("listen_address", address)?)
    })
}

/// \brief Adds a founding member. Every founder lists all of them, itself included.
///
/// Threads: one at a time. Inside callbacks: yes. Blocks: no.
///
/// \param config The configuration.
/// \param node_id The member's id, from 1.
/// \param address Where the others reach it: `host:port`. In a cluster of one, and in a raftz_network, nobody calls
///        there, but it has to look like an address.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_BAD_UTF8 or RAFTZ_INVALID_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_config_add_founder(
    config: *mut raftz_config,
    node_id: u64,
    address: *const c_char,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let (config, address) =
            unsafe { (borrow_mut(config, "config")?, text(address, "address")?) };
        config.config.founders.push(Founder { id: node(node_id)?, address: address.to_owned() });
        Ok(())
    })
}

/// \brief Keeps the log in a directory of its own: it survives a power cut.
///
/// Threads: one at a time. Inside callbacks: yes. Blocks: no.
///
/// \param config The configuration.
/// \param path The directory; for another node a different one.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_BAD_UTF8 or RAFTZ_INVALID_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_config_set_directory(
    config: *mut raftz_config,
    path: *const c_char,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let (config, path) = unsafe { (borrow_mut(config, "config")?, text(path, "path")?) };
        if path.is_empty() {
            return Err(invalid("path is empty; name a directory"));
        }
        config.config.storage = StorageKind::Directory(path.into());
        Ok(())
    })
}

/// \brief Keeps the log in memory: it is gone with the process. For tests, and for what may be lost.
///
/// Threads: one at a time. Inside callbacks: yes. Blocks: no.
///
/// \param config The configuration.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK or RAFTZ_NULL_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_config_set_memory(
    config: *mut raftz_config,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        unsafe { borrow_mut(config, "config") }?.config.storage = StorageKind::Memory;
        Ok(())
    })
}

/// \brief Keeps the log in a store of the program's own.
///
/// Threads: one at a time. Inside callbacks: yes. Blocks: no.
///
/// \param config The configuration.
/// \param storage The store; copied. It is opened by raftz_node_is_formatted(), raftz_node_bootstrap() and
///        raftz_node_start(), each time anew.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG or RAFTZ_ABI_MISMATCH.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_config_set_storage(
    config: *mut raftz_config,
    storage: *const raftz_storage,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let (config, table) = unsafe { (borrow_mut(config, "config")?, Table::read(storage)?) };
        config.config.storage = StorageKind::Custom(Arc::new(move |_| table.open()));
        config.storage = Some(table);
        Ok(())
    })
}

/// \brief Carries messages to other nodes by a transport of the program's own, in place of TCP.
///
/// Threads: one at a time. Inside callbacks: yes. Blocks: no.
///
/// \param config The configuration.
/// \param transport The transport; copied. It is opened by raftz_node_start(), for each node anew.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG or RAFTZ_ABI_MISMATCH.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_config_set_transport(
    config: *mut raftz_config,
    transport: *const raftz_transport,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let (config, table) =
            unsafe { (borrow_mut(config, "config")?, transport::Table::read(transport)?) };
        config.transport = Some(table);
        Ok(())
    })
}

/// \brief A key's present value, as raftz_config_set() takes it.
///
/// Threads: one at a time. Inside callbacks: yes. Blocks: no.
///
/// \param config The configuration.
/// \param key The key.
/// \param text [out] The value, to be freed with raftz_bytes_free().
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_BAD_UTF8 or RAFTZ_CONFIG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_config_get(
    config: *const raftz_config,
    key: *const c_char,
    text: *mut *mut raftz_bytes,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        let out = Out::new(text, "text")?;
        // SAFETY: the caller's contract.
        let (config, key) = unsafe { (borrow(config, "config")?, self::text(key, "key")?) };
        let found = config.config.entries().into_iter().find(|(name, _)| *name == key);
        let Some((_, shown)) = found else {
            // To set it says which key was meant.
            let unknown = config.config.clone().set(key, "").err();
            return Err(unknown.map_or_else(|| invalid("no such key"), Failure::from));
        };
        // SAFETY: the caller's contract.
        unsafe { out.give(raftz_bytes(Bytes::from(shown))) };
        Ok(())
    })
}

/// \brief The keys that there are, one after the other.
///
/// Threads: one at a time. Inside callbacks: yes. Blocks: no.
///
/// \param config The configuration.
/// \param at Which, from 0.
/// \return Text that lives as long as the configuration; NULL after the last key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_config_key(config: *const raftz_config, at: usize) -> *const c_char {
    value(std::ptr::null(), || {
        // SAFETY: the caller's contract.
        let config = unsafe { borrow(config, "config") }?;
        Ok(config.keys.get(at).map_or(std::ptr::null(), |key| key.as_ptr()))
    })
}

/// \brief Checks every value and their agreement, as raftz_node_start() will.
///
/// Threads: one at a time. Inside callbacks: yes. Blocks: no.
///
/// \param config The configuration.
/// \param error [out] The first thing that is wrong and what to do about it; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_CONFIG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_config_validate(
    config: *const raftz_config,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        Ok(unsafe { borrow(config, "config") }?.config.validate()?)
    })
}

/// \brief Has a function called with the node's events, on the node's callback thread, one at a time.
///
/// It replaces what was set before, also with raftz_config_set_event_queue().
///
/// Threads: one at a time. Inside callbacks: yes. Blocks: no.
///
/// \param config The configuration.
/// \param kinds Which: bits `1 << RAFTZ_EVENT_…`, or RAFTZ_EVENTS_ALL for all that this version has.
/// \param event_fn The function; see raftz_event_fn.
/// \param user_data Given to it.
/// \param destroy_fn Called with the user data once neither the configuration nor a node started with it
///        needs it any more; may be NULL. If the call fails it is not called.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG, or RAFTZ_UNSUPPORTED for kinds that do not exist yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_config_set_event_callback(
    config: *mut raftz_config,
    kinds: u64,
    event_fn: raftz_event_fn,
    user_data: *mut c_void,
    destroy_fn: raftz_destroy_fn,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let config = unsafe { borrow_mut(config, "config") }?;
        let events = Events::to_callback(kinds, event_fn, user_data, destroy_fn)?;
        // What was there may call back when it is dropped: not before the configuration is let go.
        drop(config.events.replace(events));
        Ok(())
    })
}

/// \brief Has the node's events put into a queue.
///
/// It replaces what was set before, also with raftz_config_set_event_callback().
///
/// Threads: one at a time. Inside callbacks: yes. Blocks: no.
///
/// \param config The configuration.
/// \param kinds Which: bits `1 << RAFTZ_EVENT_…`, or RAFTZ_EVENTS_ALL for all that this version has.
/// \param queue The queue. It may be freed before the node; then the events are lost.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_FORKED, or RAFTZ_UNSUPPORTED for kinds that do not exist yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_config_set_event_queue(
    config: *mut raftz_config,
    kinds: u64,
    queue: *mut raftz_queue,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let (config, queue) =
            unsafe { (borrow_mut(config, "config")?, borrow(queue.cast_const(), "queue")?) };
        drop(config.events.replace(Events::to_queue(kinds, queue.shared()?)?));
        Ok(())
    })
}

/// \brief How much a log line matters: errors.
pub const RAFTZ_LOG_ERROR: u32 = 1;
/// \brief How much a log line matters: what an operator should look at.
pub const RAFTZ_LOG_WARN: u32 = 2;
/// \brief How much a log line matters: what happens now and then.
pub const RAFTZ_LOG_INFO: u32 = 3;
/// \brief How much a log line matters: for whoever looks for a mistake.
pub const RAFTZ_LOG_DEBUG: u32 = 4;
/// \brief How much a log line matters: everything.
pub const RAFTZ_LOG_TRACE: u32 = 5;

/// \brief Takes a log line of a node.
///
/// Threads: the node's own, one or more at once. Blocking calls of raftz are refused in it.
///
/// \param user_data What raftz_config_set_log() was given.
/// \param level RAFTZ_LOG_ERROR to RAFTZ_LOG_TRACE.
/// \param line The line, without an end of line, in UTF-8: a sentence, then fields as ` name=value`, such as `node`,
///        `group`, `peer`, `term` and `index`. It lives until the function returns.
pub type raftz_log_fn = Option<
    unsafe extern "C" fn(user_data: *mut c_void, level: u32, line: crate::bytes::raftz_slice),
>;

/// \brief Has a function called with the node's log lines. Without one a node logs nothing.
///
/// Threads: one at a time. Inside callbacks: yes. Blocks: no.
///
/// \param config The configuration.
/// \param level Lines that matter less are left out: RAFTZ_LOG_ERROR to RAFTZ_LOG_TRACE.
/// \param log_fn The function; see raftz_log_fn.
/// \param user_data Given to it.
/// \param destroy_fn Called with the user data once neither the configuration nor a node started with it
///        needs it any more; may be NULL. If the call fails it is not called.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_config_set_log(
    config: *mut raftz_config,
    level: u32,
    log_fn: raftz_log_fn,
    user_data: *mut c_void,
    destroy_fn: raftz_destroy_fn,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let config = unsafe { borrow_mut(config, "config") }?;
        drop(config.logger.replace(Logger::new(level, log_fn, user_data, destroy_fn)?));
        Ok(())
    })
}

/// A user's data with what it is destroyed by, once.
#[derive(Debug)]
pub(crate) struct UserData {
    data: *mut c_void,
    destroy: raftz_destroy_fn,
}

// SAFETY: the contract of every callback: its user data may be used and destroyed on any thread.
unsafe impl Send for UserData {}
// SAFETY: as above; the functions that share it say so.
unsafe impl Sync for UserData {}

impl UserData {
    pub(crate) const fn new(data: *mut c_void, destroy: raftz_destroy_fn) -> Self {
        Self { data, destroy }
    }

    pub(crate) const fn get(&self) -> *mut c_void {
        self.data
    }
}

impl Drop for UserData {
    fn drop(&mut self) {
        if let Some(destroy) = self.destroy {
            // SAFETY: the user's function, called once with the user's data.
            node::run_callback("a destroy function", || unsafe { destroy(self.data) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_names_every_key() {
        let config = NodeId::new(1).map(|id| Config::new(id, ClusterId(1)));
        let text = include_str!("config.rs");
        for (name, _) in config.iter().flat_map(Config::entries) {
            assert!(text.contains(&format!("`{name}`")), "{name}");
        }
    }
}
