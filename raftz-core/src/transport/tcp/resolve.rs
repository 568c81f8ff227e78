//! Names to addresses, off the event loop. Each outstanding name has a helper thread of its own, so
//! that a resolver that hangs on one delays no other; their number is bounded. Threads are
//! detached: nobody waits for a hung one, not even shutdown.
#![allow(
    clippy::disallowed_methods,
    reason = "the one thread of the transport: names resolve by blocking"
)]

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use crate::transport::Wake;

/// Turns `host:port` into addresses; may block.
pub type ResolveFn = Arc<dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// Most names that are looked up at once.
const LOOKUPS_MAX: usize = 16;

/// The outcome of one lookup.
pub(super) struct Resolved {
    pub name: String,
    pub result: Result<Vec<SocketAddr>, String>,
}

/// Looks names up.
pub(super) struct Resolver {
    resolve: ResolveFn,
    waker: Arc<dyn Wake>,
    outstanding: BTreeSet<String>,
    send: Sender<Resolved>,
    receive: Receiver<Resolved>,
}

impl Resolver {
    /// A resolver that wakes `waker` when an answer is there; the system's if `resolve` is `None`.
    pub(super) fn new(resolve: Option<ResolveFn>, waker: Arc<dyn Wake>) -> Self {
        let system: ResolveFn = Arc::new(|name| name.to_socket_addrs().map(Iterator::collect));
        let (send, receive) = crossbeam_channel::unbounded();
        let outstanding = BTreeSet::new();
        Self { resolve: resolve.unwrap_or(system), waker, outstanding, send, receive }
    }

    /// Starts a lookup, unless one for this name runs already.
    pub(super) fn start(&mut self, name: &str) -> Result<(), String> {
        if self.outstanding.contains(name) {
            return Ok(());
        }
        if self.outstanding.len() >= LOOKUPS_MAX {
            return Err(format!("{LOOKUPS_MAX} names are being looked up already"));
        }
        let (resolve, waker) = (Arc::clone(&self.resolve), Arc::clone(&self.waker));
        let (send, owned) = (self.send.clone(), name.to_owned());
        std::thread::Builder::new()
            .name("raftz-resolve".into())
            .spawn(move || {
                // A resolver that panics has answered, too: else the name would stay "being looked
                // up" for ever and never be tried again.
                let result = std::panic::catch_unwind(AssertUnwindSafe(|| resolve(&owned)))
                    .unwrap_or_else(|_| Err(io::Error::other("the resolver panicked")))
                    .map_err(|error| error.to_string());
                // The transport may be gone by now; then nobody wants the answer.
                if send.send(Resolved { name: owned, result }).is_ok() {
                    waker.wake();
                }
            })
            .map_err(|error| format!("no thread to look the name up: {error}"))?;
        self.outstanding.insert(name.to_owned());
        Ok(())
    }

    /// The next answer, if one is there.
    pub(super) fn next(&mut self) -> Option<Resolved> {
        if self.outstanding.is_empty() {
            return None;
        }
        let resolved = self.receive.try_recv().ok()?;
        self.outstanding.remove(&resolved.name);
        Some(resolved)
    }
}
