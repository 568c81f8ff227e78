//! What a stranger can say: handshakes and the fronts of frames, right and wrong.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use raftz_core::transport::frame::{FRAME_HEADER_BYTES, FRAME_MAGIC, FRAME_VERSION};
use raftz_core::transport::handshake::{HandshakeMessage, Identity};
use raftz_core::types::{Boot, ClusterId, DiskId, NodeId};

/// How long a stranger waits for an answer.
const ANSWER_WAIT: Duration = Duration::from_millis(500);

pub(super) fn node(raw: u64) -> NodeId {
    NodeId::new(raw).expect("not zero")
}

/// A node that no membership names, on its way to `to`.
pub(super) fn stranger(cluster: ClusterId, id: u64, to: NodeId) -> Identity {
    let mut identity = Identity::peer(cluster, 0, node(id), DiskId(u128::from(id)), Boot(1), 0);
    identity.instance = id;
    identity.frame_bytes_max = 1 << 20;
    identity.addressed_to(Some(to))
}

pub(super) fn connect(address: &str) -> Option<TcpStream> {
    let address = address.parse().expect("an address");
    let stream = TcpStream::connect_timeout(&address, ANSWER_WAIT).ok()?;
    stream.set_read_timeout(Some(ANSWER_WAIT)).ok()?;
    stream.set_write_timeout(Some(ANSWER_WAIT)).ok()?;
    Some(stream)
}

/// Greets and gives the answer, if there is one in time.
pub(super) fn greet(stream: &mut TcpStream, hello: &Identity) -> Option<HandshakeMessage> {
    stream.write_all(&HandshakeMessage::Hello(hello.clone()).encode()).ok()?;
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
        }
        if let Some((message, _)) = HandshakeMessage::decode(&answer).ok()? {
            return Some(message);
        }
    }
}

/// A connection that has passed the handshake.
pub(super) fn admitted(address: &str, hello: &Identity) -> Option<TcpStream> {
    let mut stream = connect(address)?;
    match greet(&mut stream, hello)? {
        HandshakeMessage::Welcome { .. } => {}
        HandshakeMessage::Hello(_) | HandshakeMessage::Reject(_) | HandshakeMessage::Confirm => {
            return None;
        }
    }
    stream.write_all(&HandshakeMessage::Confirm.encode()).ok()?;
    Some(stream)
}

/// The header of a frame with a right checksum and a body of this length.
pub(super) fn header(version: u16, class: u8, length: u32) -> [u8; FRAME_HEADER_BYTES] {
    let mut header = [0; FRAME_HEADER_BYTES];
    header[..4].copy_from_slice(&FRAME_MAGIC);
    header[4..6].copy_from_slice(&version.to_le_bytes());
    header[6..8].copy_from_slice(&5u16.to_le_bytes());
    header[10] = class;
    header[12] = 1;
    header[16..20].copy_from_slice(&length.to_le_bytes());
    let crc = crc32c::crc32c(&header[..28]);
    header[28..].copy_from_slice(&crc.to_le_bytes());
    header
}

pub(super) fn right_header(class: u8, length: u32) -> [u8; FRAME_HEADER_BYTES] {
    header(FRAME_VERSION, class, length)
}
