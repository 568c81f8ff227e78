//! A wire between two transports: a proxy that knows what each connection is for, and lets bulk pass
//! only as far as a test allows.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use raftz_core::transport::handshake::{HandshakeMessage, Role};
use rustix::net::sockopt::set_socket_recv_buffer_size;

/// Bytes that pass at once.
pub const STEP_BYTES: usize = 4096;

/// A proxy in front of one listener.
pub struct Wire {
    pub address: String,
    state: Arc<State>,
}

struct State {
    target: String,
    passed: Mutex<Vec<Passed>>,
    /// Steps that bulk may still take.
    allowed: Mutex<usize>,
    more: Condvar,
}

/// One connection.
struct Passed {
    role: Role,
    near: TcpStream,
    far: TcpStream,
    /// Directions that have not ended.
    open: Arc<AtomicUsize>,
    is_cut: Arc<AtomicBool>,
}

impl Wire {
    /// To `target`; all bulk may pass.
    pub fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // Inherited by what is accepted: little is on its way that the test has not let pass.
        set_socket_recv_buffer_size(&listener, 128 << 10).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State {
            target: target.to_owned(),
            passed: Mutex::default(),
            allowed: Mutex::new(usize::MAX),
            more: Condvar::new(),
        });
        let accepting = Arc::clone(&state);
        thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                let state = Arc::clone(&accepting);
                thread::spawn(move || state.pass(near));
            }
        });
        Self { address, state }
    }

    /// How much bulk passes from now on.
    pub fn allow(&self, steps: usize) {
        *self.state.allowed.lock().unwrap() = steps;
        self.state.more.notify_all();
    }

    /// Lets one more step of bulk pass.
    pub fn allow_one_more(&self) {
        *self.state.allowed.lock().unwrap() += 1;
        self.state.more.notify_all();
    }

    /// Connections of this role so far.
    pub fn made(&self, role: Role) -> usize {
        self.state.passed.lock().unwrap().iter().filter(|passed| passed.role == role).count()
    }

    /// Those of them that stand.
    pub fn open(&self, role: Role) -> usize {
        let passed = self.state.passed.lock().unwrap();
        let is_open = |it: &&Passed| it.role == role && it.open.load(Ordering::SeqCst) > 0;
        passed.iter().filter(is_open).count()
    }

    /// Breaks all connections of this role.
    pub fn cut(&self, role: Role) {
        for passed in self.state.passed.lock().unwrap().iter().filter(|it| it.role == role) {
            passed.is_cut.store(true, Ordering::SeqCst);
            let _ = passed.near.shutdown(Shutdown::Both);
            let _ = passed.far.shutdown(Shutdown::Both);
        }
        self.state.more.notify_all();
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.cut(Role::Bulk);
        self.cut(Role::Peer);
    }
}

impl State {
    fn pass(self: Arc<Self>, mut near: TcpStream) {
        let mut bytes = Vec::new();
        let hello = loop {
            let mut buffer = [0; 1024];
            match near.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            }
            if let Some((message, _)) = HandshakeMessage::decode(&bytes).unwrap() {
                break message;
            }
        };
        let HandshakeMessage::Hello(hello) = hello else { return };
        let Ok(mut far) = TcpStream::connect(&self.target) else { return };
        if far.write_all(&bytes).is_err() {
            return;
        }
        let (open, is_cut) = (Arc::new(AtomicUsize::new(2)), Arc::new(AtomicBool::new(false)));
        self.passed.lock().unwrap().push(Passed {
            role: hello.role,
            near: near.try_clone().unwrap(),
            far: far.try_clone().unwrap(),
            open: Arc::clone(&open),
            is_cut: Arc::clone(&is_cut),
        });
        let back = (far.try_clone().unwrap(), near.try_clone().unwrap());
        let (state, ended, cut) = (Arc::clone(&self), Arc::clone(&open), Arc::clone(&is_cut));
        thread::spawn(move || state.pump(back.0, back.1, false, &cut, &ended));
        let is_bulk = hello.role == Role::Bulk;
        self.pump(near, far, is_bulk, &is_cut, &open);
    }

    fn pump(
        &self,
        mut from: TcpStream,
        mut to: TcpStream,
        is_bounded: bool,
        is_cut: &AtomicBool,
        open: &AtomicUsize,
    ) {
        let mut buffer = [0; STEP_BYTES];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            // The end of the handshake is no bulk.
            if is_bounded && count > 64 && !self.take_step(is_cut) {
                break;
            }
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
        open.fetch_sub(1, Ordering::SeqCst);
    }

    fn take_step(&self, is_cut: &AtomicBool) -> bool {
        let mut allowed = self.allowed.lock().unwrap();
        while *allowed == 0 {
            if is_cut.load(Ordering::SeqCst) {
                return false;
            }
            allowed = self.more.wait_timeout(allowed, Duration::from_millis(50)).unwrap().0;
        }
        if *allowed != usize::MAX {
            *allowed -= 1;
        }
        true
    }
}
