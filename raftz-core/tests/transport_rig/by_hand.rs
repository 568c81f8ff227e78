//! Nodes made by hand, of one socket and the bytes that a test writes to it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use raftz_core::transport::OutFrame;
use raftz_core::transport::handshake::{HandshakeMessage, Identity};

use super::{PATIENCE, Rig, id, identity, until};

pub fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

/// Whether the other side has closed the connection.
pub fn is_closed(mut stream: &TcpStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(_) => return true,
        }
    }
}

/// Says `hello` on a connection of its own; gives it and what the rig answers.
pub fn greet(rig: &mut Rig, hello: Identity) -> (TcpStream, HandshakeMessage) {
    let mut stream = connect(&rig.address());
    stream.write_all(&HandshakeMessage::Hello(hello).encode()).unwrap();
    let mut answer = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline);
        rig.poll();
        let mut buffer = [0; 2048];
        if let Ok(count) = stream.read(&mut buffer) {
            answer.extend_from_slice(&buffer[..count]);
        }
        if let Some((message, _)) = HandshakeMessage::decode(&answer).unwrap() {
            return (stream, message);
        }
    }
}

/// What a hand-made node says to node 1. It knows no bulk connections.
pub fn hello_of(node: u64) -> Identity {
    let mut me = identity(node);
    me.instance = node;
    me.frame_bytes_max = 1 << 20;
    me.addressed_to(Some(id(1)))
}

/// A hand-made node that has passed the handshake with `rig`, which is node 1.
pub fn admitted(rig: &mut Rig, node: u64) -> TcpStream {
    admitted_as(rig, hello_of(node))
}

/// A hand-made node that has passed the handshake with this hello.
pub fn admitted_as(rig: &mut Rig, hello: Identity) -> TcpStream {
    let node = hello.from.unwrap().get();
    let (mut stream, welcome) = greet(rig, hello);
    assert!(matches!(welcome, HandshakeMessage::Welcome { version: 1, .. }), "{welcome:?}");
    stream.write_all(&HandshakeMessage::Confirm.encode()).unwrap();
    until(&mut [rig], "admission", |rigs| rigs[0].is_up(node));
    stream
}

/// Writes all of `bytes` while the rig is polled.
pub fn write_slowly(rig: &mut Rig, stream: &mut TcpStream, mut bytes: &[u8]) {
    let deadline = Instant::now() + PATIENCE;
    while !bytes.is_empty() {
        assert!(Instant::now() < deadline);
        match stream.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        rig.poll();
    }
}

pub fn bytes_of(frame: &OutFrame) -> Vec<u8> {
    let mut bytes = frame.head.to_vec();
    frame.payloads.iter().for_each(|payload| bytes.extend_from_slice(payload));
    bytes
}
