//! Out of file descriptors. A test binary of its own, because the limit is the process's.
#![allow(clippy::disallowed_methods, reason = "tests act from outside the library")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod transport_rig;

use std::io::Read;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use raftz_core::transport::Transport;
use rustix::process::{Resource, getrlimit, setrlimit};
use transport_rig::{Rig, config, identity, pair_of, until};

#[test]
fn without_descriptors_links_go_on_and_nothing_spins_and_accepting_resumes() {
    let quick = |node| {
        let mut config = config(identity(node));
        config.limits.handshake_ms = 300;
        Rig::with(config)
    };
    let (mut one, mut two) = pair_of(quick(1), quick(2));
    for _ in 0..20 {
        one.poll();
        two.poll();
    }
    let address = one.address();
    // The system queues these; accepting them takes descriptors that the process may not have.
    let clients: Vec<TcpStream> = (0..5).map(|_| TcpStream::connect(&address).unwrap()).collect();
    let before = getrlimit(Resource::Nofile);
    let mut tight = before;
    tight.current = clients.iter().map(|client| client.as_raw_fd() as u64 + 1).max();
    setrlimit(Resource::Nofile, tight).unwrap();

    let start = Instant::now();
    let mut turns = 0;
    while start.elapsed() < Duration::from_millis(400) {
        one.transport.poll(Some(Duration::from_millis(50)), &mut one.seen).unwrap();
        turns += 1;
    }
    assert!(turns < 40, "{turns} turns in 400 ms");
    one.send(2, 1, 5000).unwrap();
    until(&mut [&mut one, &mut two], "frame", |rigs| rigs[1].received(1) == [1]);
    for client in &clients {
        client.set_nonblocking(true).unwrap();
    }
    let is_waiting = |mut client: &TcpStream| {
        client.read(&mut [0; 1]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    assert!(clients.iter().all(is_waiting), "none was accepted, none was closed");

    setrlimit(Resource::Nofile, before).unwrap();
    // Accepted now, and cut off because they say nothing.
    until(&mut [&mut one, &mut two], "accepted", |_| {
        clients.iter().all(|mut client| client.read(&mut [0; 1]).is_ok_and(|count| count == 0))
    });
    assert!(one.downs(2).is_empty() && two.downs(1).is_empty());
}
