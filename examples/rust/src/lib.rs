//! What the examples share: ports that stay theirs, waiting for conditions, words for the store.
//!
//! Nothing here is part of raftz. A program of yours gets its addresses from a configuration and
//! needs none of it but, perhaps, the few lines that ask the key-value store.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raftz_core::machine::{KvCommand, KvQuery, KvReply, KvStore};
use raftz_core::node::{Config, Node};
use raftz_core::types::{ClusterId, Index, NodeId};
use socket2::{Domain, Socket, Type};

/// Whatever goes wrong ends an example, with words.
pub type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// How long the examples wait for something that takes milliseconds on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Runs an example: says whether it held what it claims, to a person and to the shell.
pub fn report(name: &str, example: impl FnOnce() -> Result<()>) -> ExitCode {
    match example() {
        Ok(()) => {
            println!("{name}: all as claimed");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{name}: FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Ports of the loopback interface, chosen by the system and kept until this is dropped.
///
/// A node that is stopped and started again must find its port free. Between two lives nobody
/// listens there, so the port is held by a socket that is bound and never listens: the system
/// gives it to nobody else, and a listener that allows the reuse of addresses, as all of Rust's
/// do, can still be bound to it.
pub struct Ports {
    held: Vec<(Socket, SocketAddr)>,
}

impl Ports {
    /// Reserves `count` ports.
    pub fn reserve(count: usize) -> Result<Self> {
        let mut held = Vec::with_capacity(count);
        for _ in 0..count {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
            let address = socket.local_addr()?.as_socket().ok_or("a port without an address")?;
            held.push((socket, address));
        }
        Ok(Self { held })
    }

    /// The addresses, `127.0.0.1:port`, in the order of the nodes 1, 2, 3, …
    pub fn addresses(&self) -> Vec<String> {
        self.held.iter().map(|(_, address)| address.to_string()).collect()
    }
}

/// The id of the node at this place of a list: 1 for the first.
pub fn node_id(place: usize) -> Result<NodeId> {
    NodeId::new(place as u64 + 1).ok_or_else(|| "no such node".into())
}

/// The configuration of the node at `place` of a cluster on these addresses, with its data in a
/// directory of its own under `root`.
pub fn config(place: usize, addresses: &[String], root: &Path) -> Result<Config> {
    let mut config = Config::new(node_id(place)?, ClusterId(0x5eed));
    for (other, address) in addresses.iter().enumerate() {
        config = config.with_founder(node_id(other)?, address.clone());
    }
    config.listen_address.clone_from(&addresses[place]);
    Ok(config.with_directory(root.join(format!("node-{}", place + 1))))
}

/// Starts a node of a key-value store; founds its directory if that is its first start.
pub fn start(config: Config) -> Result<Node> {
    if !Node::is_formatted(&config)? {
        Node::bootstrap(&config)?;
    }
    Ok(Node::start(config, || Ok(Box::new(KvStore::new())))?)
}

/// Waits until `condition` holds.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() > deadline {
            return Err(format!("waited {} s in vain until {what}", PATIENCE.as_secs()).into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// The command that sets `key` to `value`.
pub fn set(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Bytes {
    KvCommand::Set { key: Bytes::from(key.into()), value: Bytes::from(value.into()) }.encode()
}

/// The value under `key` in this node's own copy of the store.
pub fn get(node: &Node, key: &str) -> Result<Option<Bytes>> {
    let answer = ask(node, &KvQuery::Get { key: Bytes::copy_from_slice(key.as_bytes()) })?;
    let KvReply::Value(value) = answer else {
        return Err(format!("not an answer to get: {answer:?}").into());
    };
    Ok(value)
}

/// Entries and digest of this node's own copy, once it holds everything up to `index`.
pub fn digest(node: &Node, index: Index) -> Result<(u64, u64)> {
    node.wait_for_applied(index, PATIENCE)?;
    let answer = ask(node, &KvQuery::Digest)?;
    let KvReply::Digest { entries, digest } = answer else {
        return Err(format!("not a digest: {answer:?}").into());
    };
    Ok((entries, digest))
}

/// Asks this node's own copy of the store.
pub fn ask(node: &Node, query: &KvQuery) -> Result<KvReply> {
    Ok(KvReply::decode(&node.query(query.encode(), PATIENCE)?)?)
}
