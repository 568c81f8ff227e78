//! Nodes: founding, starting, stopping.

use std::net::TcpListener;
use std::ops::Deref;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use raftz_core::machine::{MachineError, StateMachine};
use raftz_core::node::{Config, Node, NodeError};
use raftz_core::types::Index;

use crate::bytes::raftz_bytes;
use crate::config::raftz_config;
use crate::error::{Failure, raftz_error};
use crate::fork::{ForkMark, Resident};
use crate::guard::{Call, Out, borrow, call, invalid, take_back, value};
use crate::log::Logger;
use crate::machine::{RAFTZ_BUILTIN_KV, Table, builtin, raftz_machine};
use crate::network::raftz_network;
use crate::sized::{self, Sized};
use crate::status::{RAFTZ_INVALID_ARG, RAFTZ_PANIC, raftz_status};
use crate::transport;

/// \brief A running node: one member of one cluster, with its storage, its network and its state machine.
///
/// Any number of threads may use it at once. raftz_node_free() must be the last call.
pub struct raftz_node(Handle);

/// What is behind it.
pub(crate) struct Handle {
    node: Node,
    mark: ForkMark,
    _resident: Resident,
    /// A call panicked inside; what it was doing may be half done.
    is_poisoned: AtomicBool,
}

impl raftz_node {
    /// The node, unless this is a child of its process.
    pub(crate) fn handle(&self) -> Call<&Handle> {
        self.0.mark.check()?;
        Ok(&self.0)
    }
}

impl raftz_node {
    /// The Rust handle behind it: to measure what the way through C costs.
    #[doc(hidden)]
    pub const fn rust(&self) -> &Node {
        &self.0.node
    }
}

impl Handle {
    pub(crate) fn id(&self) -> u64 {
        self.node.id().get()
    }

    /// The node, for one call.
    pub(crate) fn node(&self) -> Call<Entered<'_>> {
        if self.is_poisoned.load(Ordering::Relaxed) {
            let message = "an earlier call failed inside; free this node and start it again";
            return Err(Failure::new(RAFTZ_PANIC, message));
        }
        Ok(Entered { handle: self, panicking_before: std::thread::panicking() })
    }
}

/// A node during one call. A panic meanwhile marks the handle.
pub(crate) struct Entered<'a> {
    handle: &'a Handle,
    panicking_before: bool,
}

impl Deref for Entered<'_> {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.handle.node
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.panicking_before {
            self.handle.is_poisoned.store(true, Ordering::Relaxed);
        }
    }
}

/// \brief Whether the configured directory, or the program's own store, holds a node's data. Memory always does.
///
/// Threads: one at a time for the configuration. Inside callbacks: yes. Blocks: for the disk.
///
/// \param config The configuration.
/// \param is_formatted [out] Whether it does.
/// \param error [out] Why nobody can say; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_STORAGE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_node_is_formatted(
    config: *const raftz_config,
    is_formatted: *mut bool,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        let out = Out::new(is_formatted, "is_formatted")?;
        // SAFETY: the caller's contract.
        let config = unsafe { borrow(config, "config") }?;
        let answer = match config.storage() {
            Some(storage) => storage.is_formatted().map_err(NodeError::from)?,
            None => Node::is_formatted(&config.config)?,
        };
        // SAFETY: the caller's contract.
        unsafe { out.put(answer) };
        Ok(())
    })
}

/// \brief Founds a cluster on this node: formats its *empty* directory, or the program's own store, with the founding
/// members. Every founder does this once, with the same list. Memory storage needs none of it.
///
/// Threads: one at a time for the configuration. Inside callbacks: yes. Blocks: for the disk.
///
/// \param config The configuration.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_CONFIG, or RAFTZ_STORAGE for a directory that is not empty.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_node_bootstrap(
    config: *const raftz_config,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let config = unsafe { borrow(config, "config") }?;
        Node::bootstrap(&config.config)?;
        if let Some(storage) = config.storage() {
            storage.bootstrap(&config.config).map_err(NodeError::from)?;
        }
        Ok(())
    })
}

/// \brief How a node is started. All zero, but for the size, is the default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_start_opts {
    /// \brief Set it to `sizeof(raftz_start_opts)`.
    pub size: usize,
    /// \brief Which machine it keeps, if it is none of the program's own: RAFTZ_BUILTIN_…
    pub builtin: u32,
    /// \brief A listening TCP socket that the program has bound already; taken over, whether the start
    /// succeeds or fails, unless this struct's `size` is wrong or too new. Bind it with SO_REUSEADDR, so that the port can be had again after a restart. 0:
    /// `listen_address` of the configuration.
    pub listen_fd: i32,
    /// \brief A network within this process, instead of TCP; not with `listen_fd`. NULL: TCP. Neither goes with
    /// raftz_config_set_transport().
    pub network: *const raftz_network,
}

// SAFETY: integers and a pointer.
unsafe impl Sized for raftz_start_opts {
    const NAME: &'static str = "raftz_start_opts";
}

/// How the node reaches others.
enum Reach<'a> {
    Address,
    Listener(TcpListener),
    Network(&'a raftz_network),
    Transport(transport::Table),
}

type Made = Result<Box<dyn StateMachine>, MachineError>;

fn start(
    config: Config,
    reach: Reach<'_>,
    machine: impl FnOnce() -> Made + Send + 'static,
) -> Call<Node> {
    Ok(match reach {
        Reach::Address => Node::start(config, machine)?,
        Reach::Listener(listener) => Node::start_with_listener(config, listener, machine)?,
        Reach::Network(network) => Node::start_in_network(config, &network.0, machine)?,
        Reach::Transport(table) => {
            let queue_bytes_max = config.link_queue_bytes_max;
            let connect = |hello| table.connect(hello, queue_bytes_max);
            Node::start_with_transport(config, connect, machine)?
        }
    })
}

/// # Safety
/// A socket of the caller's that becomes ours, or any number that is no descriptor.
unsafe fn listener(fd: i32) -> Call<TcpListener> {
    // SAFETY: the caller's contract; that it is a descriptor at all is asked first.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        let error = std::io::Error::last_os_error();
        // No reason of the network's: those come after the machine was taken over.
        return Err(Failure::of_system(RAFTZ_INVALID_ARG, "opts.listen_fd", &error));
    }
    // SAFETY: the caller's contract.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut is_listening = 0;
    let mut bytes = libc::socklen_t::try_from(std::mem::size_of::<i32>()).unwrap_or_default();
    // SAFETY: the descriptor is ours, and the places are there.
    let asked = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ACCEPTCONN,
            (&raw mut is_listening).cast(),
            &raw mut bytes,
        )
    };
    if asked != 0 || is_listening == 0 {
        return Err(invalid("opts.listen_fd is not a socket that listens; call listen() first"));
    }
    Ok(TcpListener::from(socket))
}

/// \brief Starts a node. Never formats anything: found the cluster first, with raftz_node_bootstrap().
///
/// A process that forks does so before, or after all nodes were freed, or its child runs another program (exec): a
/// child of a process that had nodes can have none.
///
/// Threads: any; one at a time for the configuration. Inside callbacks: yes. Blocks: for the disk.
///
/// \param config The configuration; copied.
/// \param machine The state machine; copied. NULL: one that comes with the library, by default the key-value
///        store.
/// \param opts How it is started; NULL for the defaults.
/// \param node [out] The node, to be freed with raftz_node_free().
/// \param error [out] Why not; nothing runs then. May be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG, RAFTZ_ABI_MISMATCH, RAFTZ_UNSUPPORTED,
///         RAFTZ_FORKED (the parent process had nodes, or the queue for its events is its), RAFTZ_CONFIG, RAFTZ_STORAGE,
///         RAFTZ_NETWORK, RAFTZ_MACHINE or RAFTZ_THREAD.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_node_start(
    config: *const raftz_config,
    machine: *const raftz_machine,
    opts: *const raftz_start_opts,
    node: *mut *mut raftz_node,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let opts = unsafe { sized::read(opts) }?;
        let fd = opts.map_or(0, |opts| opts.listen_fd);
        // SAFETY: the caller's contract.
        let listener = (fd != 0).then(|| unsafe { listener(fd) }).transpose()?;
        let out = Out::new(node, "node")?;
        // SAFETY: the caller's contract.
        let config = unsafe { borrow(config, "config") }?;
        config.events.as_ref().map_or(Ok(()), |events| events.check())?;
        // SAFETY: the caller's contract: NULL or a network.
        let network = opts.and_then(|opts| unsafe { opts.network.as_ref() });
        let reach = match (listener, network, config.transport) {
            (Some(_), Some(_), _) => {
                return Err(invalid("opts.listen_fd and opts.network do not go together"));
            }
            (Some(_), None, Some(_)) | (None, Some(_), Some(_)) => {
                return Err(invalid(
                    "a transport of the program's own goes with neither opts.listen_fd nor opts.network",
                ));
            }
            (Some(listener), None, None) => Reach::Listener(listener),
            (None, Some(network), None) => Reach::Network(network),
            (None, None, Some(transport)) => Reach::Transport(transport),
            (None, None, None) => Reach::Address,
        };
        // SAFETY: the caller's contract.
        let table = unsafe { Table::read(machine) }?;
        let which = opts.map_or(RAFTZ_BUILTIN_KV, |opts| opts.builtin);
        let make: Box<dyn FnOnce() -> Made + Send> = match table.map(Table::take) {
            Some(machine) => Box::new(move || Ok(Box::new(machine.create()?))),
            None => {
                let machine = builtin(which)?;
                Box::new(move || Ok(machine))
            }
        };
        let mark = ForkMark::new()?;
        let resident = Resident::new()?;
        let mut settings = config.config.clone();
        settings.on_event = config.events.as_ref().map(|to| to.observer(settings.node_id));
        let logger = config.logger.as_ref().map(Arc::clone);
        let dispatch = Logger::dispatch(logger.as_ref());
        let started = tracing::dispatcher::with_default(&dispatch, || start(settings, reach, make));
        let handle = Handle {
            node: started?,
            mark,
            _resident: resident,
            is_poisoned: AtomicBool::new(false),
        };
        // SAFETY: the caller's contract.
        unsafe { out.give(raftz_node(handle)) };
        Ok(())
    })
}

/// \brief Stops a node: refuses new calls, hands over if it leads, answers calls in flight, seals and closes the
/// log, and waits until all its threads have ended; after RAFTZ_OK none of its callbacks runs any more. May be
/// called again.
///
/// Handing over takes no more than half of the timeout and three of the longest election timeouts.
///
/// Threads: any. Inside callbacks: no (RAFTZ_IN_CALLBACK). Blocks: up to the timeout.
///
/// \param node The node. It still has to be freed.
/// \param timeout_ms How long to wait, in milliseconds.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK; RAFTZ_STILL_RUNNING if a callback does not return: every call has been answered all the
///         same, and what runs ends by itself once it returns; RAFTZ_NULL_ARG, RAFTZ_IN_CALLBACK or
///         RAFTZ_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_node_stop(
    node: *mut raftz_node,
    timeout_ms: u32,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let handle = unsafe { borrow(node.cast_const(), "node") }?.handle()?;
        // Also a node that failed inside can be stopped.
        Ok(handle.node.shutdown(Duration::from_millis(timeout_ms.into()))?)
    })
}

/// \brief Frees a node, and stops it first if it runs: quietly, and for two seconds at most. Call
/// raftz_node_stop() to know that all of it has ended.
///
/// In a child of the process that started the node it only forgets it.
///
/// Threads: any, once, and no other call beside or after it. Inside callbacks: yes; then it does not wait.
/// Blocks: up to two seconds.
///
/// \param node The node, or NULL, which is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_node_free(node: *mut raftz_node) {
    value((), || {
        // SAFETY: the caller's contract: NULL, or a node that is C's own.
        if let Some(node) = unsafe { take_back(node) } {
            if node.0.mark.is_child() {
                // Its threads are not here, and one of them may have held a lock when the process was
                // forked.
                std::mem::forget(node);
            } else {
                drop(node);
            }
        }
        Ok(())
    });
}

/// \brief A node's id.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param node The node; for NULL the answer is 0.
/// \return The id; in a child of the process that started the node 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_node_id(node: *const raftz_node) -> u64 {
    // SAFETY: the caller's contract.
    value(0, || Ok(unsafe { borrow(node, "node") }?.handle()?.id()))
}

/// \brief Where a node listens: `host:port`, with the port that it really got; empty if it does not.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param node The node.
/// \param address [out] The address, to be freed with raftz_bytes_free().
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_node_listen_address(
    node: *const raftz_node,
    address: *mut *mut raftz_bytes,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        let out = Out::new(address, "address")?;
        // SAFETY: the caller's contract.
        let handle = unsafe { borrow(node, "node") }?.handle()?;
        let address = handle.node()?.listen_address().unwrap_or_default();
        // SAFETY: the caller's contract.
        unsafe { out.give(raftz_bytes(Bytes::from(address))) };
        Ok(())
    })
}

/// \brief Waits until a node knows a leader.
///
/// Threads: any. Inside callbacks: no (RAFTZ_IN_CALLBACK). Blocks: up to the timeout.
///
/// \param node The node.
/// \param timeout_ms How long to wait, in milliseconds.
/// \param leader_id [out] Who leads; may be NULL.
/// \param error [out] Who is out of reach and why; may be NULL.
/// \return RAFTZ_OK, RAFTZ_LEADER_TIMEOUT, RAFTZ_NULL_ARG, RAFTZ_IN_CALLBACK, RAFTZ_SHUT_DOWN, RAFTZ_FAULTED
///         or RAFTZ_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_node_wait_for_leader(
    node: *const raftz_node,
    timeout_ms: u32,
    leader_id: *mut u64,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let handle = unsafe { borrow(node, "node") }?.handle()?;
        let leader = handle.node()?.wait_for_leader(Duration::from_millis(timeout_ms.into()))?;
        if let Ok(out) = Out::new(leader_id, "leader_id") {
            // SAFETY: the caller's contract.
            unsafe { out.put(leader.get()) };
        }
        Ok(())
    })
}

/// \brief Waits until a node's machine has applied everything up to an index, so that a read of it sees what a
/// command did.
///
/// Threads: any. Inside callbacks: no (RAFTZ_IN_CALLBACK). Blocks: up to the timeout.
///
/// \param node The node.
/// \param index The index, as raftz_reply and raftz_outcome give it.
/// \param timeout_ms How long to wait, in milliseconds.
/// \param error [out] How far it is, who leads, and who is out of reach; may be NULL.
/// \return RAFTZ_OK, RAFTZ_APPLY_TIMEOUT, RAFTZ_NULL_ARG, RAFTZ_IN_CALLBACK, RAFTZ_SHUT_DOWN, RAFTZ_FAULTED
///         or RAFTZ_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_node_wait_for_applied(
    node: *const raftz_node,
    index: u64,
    timeout_ms: u32,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let handle = unsafe { borrow(node, "node") }?.handle()?;
        let timeout = Duration::from_millis(timeout_ms.into());
        Ok(handle.node()?.wait_for_applied(Index(index), timeout)?)
    })
}

/// \brief Takes a snapshot of everything that a node's machine has applied, and waits until it is on disk.
///
/// Nodes take snapshots by themselves; see `snapshot_log_bytes` in raftz_config. The log behind a snapshot becomes
/// shorter by itself. Does nothing more if the newest snapshot is as new as the machine.
///
/// Threads: any. Inside callbacks: no (RAFTZ_IN_CALLBACK). Blocks: up to the timeout.
///
/// \param node The node.
/// \param timeout_ms How long to wait, in milliseconds; the snapshot may still come after it.
/// \param index [out] The last index that the snapshot covers; may be NULL.
/// \param error [out] Why there is none; may be NULL.
/// \return RAFTZ_OK, RAFTZ_SNAPSHOT_UNAVAILABLE, RAFTZ_NULL_ARG, RAFTZ_IN_CALLBACK, RAFTZ_SHUT_DOWN,
///         RAFTZ_FAULTED or RAFTZ_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_node_snapshot(
    node: *const raftz_node,
    timeout_ms: u32,
    index: *mut u64,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let handle = unsafe { borrow(node, "node") }?.handle()?;
        let snapshot = handle.node()?.snapshot(Duration::from_millis(timeout_ms.into()))?;
        if let Ok(out) = Out::new(index, "index") {
            // SAFETY: the caller's contract.
            unsafe { out.put(snapshot.base.id.index.0) };
        }
        Ok(())
    })
}

/// \brief Makes a node stand for election now instead of waiting for its timeout. It wins only if the others
/// agree.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param node The node.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_node_campaign(
    node: *mut raftz_node,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        unsafe { borrow(node.cast_const(), "node") }?.handle()?.node()?.campaign();
        Ok(())
    })
}
