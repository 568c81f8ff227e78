//! A transport as C programs have them: in memory, delivered by whoever sends. It can do a few things wrong, or in a way of
//! its own, and says of each what raftz must say of it.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use raftz::bytes::*;
use raftz::machine::{raftz_sink, raftz_sink_fail};
use raftz::status::*;
use raftz::transport::*;
use raftz::version::RAFTZ_ABI_VERSION;

use super::judge::{bytes, call, complain, documented, judged, lock, shown, slice};
use crate::fuzz::tape::Tape;

/// What becomes of the messages that come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mishap {
    Nothing,
    Lost,
    Doubled,
    Garbled,
    SendFails,
    /// One at a time, and then the next one.
    OneByOne,
}

pub(super) const MISHAPS: [Mishap; 6] = [
    Mishap::Nothing,
    Mishap::Lost,
    Mishap::Doubled,
    Mishap::Garbled,
    Mishap::SendFails,
    Mishap::OneByOne,
];

/// What joins the nodes of one cluster.
#[derive(Default)]
pub(super) struct Wires(Mutex<Joined>);

#[derive(Default)]
struct Joined {
    mishap: (Option<Mishap>, u64),
    is_cut: bool,
    /// The links of each node, while its transport is open.
    open: BTreeMap<u64, Links>,
    ends: BTreeMap<usize, End>,
    count: usize,
    sends: u64,
}

/// The library's side of an open transport, for any thread, and whose it is.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Links(*mut raftz_links, *const Post);
// SAFETY: the header says so.
unsafe impl Send for Links {}

/// One end of a wire. Its key is its context.
#[derive(Clone, Copy)]
struct End {
    links: Links,
    link: u64,
    other: usize,
}

/// One node's place. Outlives its transports.
pub(super) struct Post {
    wires: Arc<Wires>,
    id: u64,
    opened: AtomicU64,
    destroyed: AtomicU64,
    up: AtomicU64,
    ended: AtomicU64,
}

struct Transport {
    post: *const Post,
    links: Links,
}

impl Post {
    pub(super) fn new(wires: &Arc<Wires>, id: u64) -> Arc<Self> {
        let zero = || AtomicU64::new(0);
        let (opened, destroyed, up, ended) = (zero(), zero(), zero(), zero());
        Arc::new(Self { wires: Arc::clone(wires), id, opened, destroyed, up, ended })
    }

    /// As a table of functions.
    pub(super) fn table(&self) -> raftz_transport {
        raftz_transport {
            size: size_of::<raftz_transport>(),
            abi_version: RAFTZ_ABI_VERSION,
            flags: 0,
            user_data: std::ptr::from_ref(self).cast_mut().cast(),
            open: Some(open),
            destroy: Some(destroy),
            dial: Some(dial),
            send: Some(send),
            end: Some(end),
            stop: Some(stop),
        }
    }

    /// How many transports and links there are; there must be none once nothing runs any more.
    pub(super) fn left(&self) -> u64 {
        let (destroyed, ended) = (self.destroyed.load(SeqCst), self.ended.load(SeqCst));
        self.opened.load(SeqCst) + self.up.load(SeqCst) - destroyed - ended
    }
}

fn post<'a>(pointer: *const Post) -> &'a Post {
    // SAFETY: the world keeps every post until no node is left.
    unsafe { &*pointer }
}

fn transport<'a>(pointer: *mut c_void) -> (&'a Post, Links) {
    // SAFETY: what `open` made; nothing in it changes until `destroy`.
    let it = unsafe { &*pointer.cast_const().cast::<Transport>() };
    (post(it.post), it.links)
}

/// One of these, and what the documentation names.
fn one_of(name: &'static str, status: raftz_status, wanted: &[raftz_status]) {
    documented(name, status);
    if !wanted.contains(&status) {
        complain(format!("{name} gave {}", shown(status)));
    }
}

/// What becomes of a link that may have ended meanwhile, as its node may have.
const LATE: [raftz_status; 3] = [RAFTZ_OK, RAFTZ_CLOSED, RAFTZ_SHUT_DOWN];

impl Joined {
    fn up(&mut self, links: Links, peer: u64, other: usize) -> Option<usize> {
        let (key, mut link) = (self.count + 1, 0);
        self.count = key;
        let context = std::ptr::without_provenance_mut(key);
        let status = call!(raftz_links_up(links.0, peer, context, &raw mut link, null_mut()));
        one_of("raftz_links_up", status, &[RAFTZ_OK, RAFTZ_SHUT_DOWN]);
        if status != RAFTZ_OK {
            return None;
        }
        post(links.1).up.fetch_add(1, SeqCst);
        self.ends.insert(key, End { links, link, other });
        Some(key)
    }

    /// The other end of this one is told that it is gone.
    fn down(&self, key: usize) {
        let Some(end) = self.ends.get(&key) else { return };
        let words = slice(b"the wire is cut");
        let status = call!(raftz_links_down(end.links.0, end.link, words, null_mut()));
        one_of("raftz_links_down", status, &LATE);
    }

    fn deliver(&mut self, to: usize, mut message: Vec<u8>, mishap: Mishap) {
        self.sends += 1;
        let hands_over = self.sends.is_multiple_of(2);
        let Some(End { links, link, .. }) = self.ends.get(&to).copied() else { return };
        if mishap == Mishap::Garbled {
            let at = self.sends as usize % message.len().max(1);
            message.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1);
        }
        let (name, status) = if hands_over {
            let (mut copy, error) = (null_mut(), null_mut());
            let status = call!(raftz_bytes_copy(slice(&message), &raw mut copy, error));
            one_of("raftz_bytes_copy", status, &[RAFTZ_OK]);
            let status = call!(raftz_links_deliver_bytes(links.0, link, copy, 0, error));
            ("raftz_links_deliver_bytes", status)
        } else {
            let word = slice(&message);
            ("raftz_links_deliver", call!(raftz_links_deliver(links.0, link, word, 0, null_mut())))
        };
        let taken = if mishap == Mishap::Garbled { RAFTZ_INVALID_ARG } else { RAFTZ_OK };
        let wanted = [taken, RAFTZ_BUSY, RAFTZ_CLOSED, RAFTZ_SHUT_DOWN];
        one_of(name, status, &wanted);
    }

    /// What is to become of the next message.
    fn next(&mut self) -> Mishap {
        let (mishap, left) = &mut self.mishap;
        match (*mishap, left.checked_sub(1)) {
            (Some(mishap), Some(less)) => {
                *left = less;
                mishap
            }
            _ => Mishap::Nothing,
        }
    }
}

unsafe extern "C" fn open(
    user_data: *mut c_void,
    links: *mut raftz_links,
    why: *mut raftz_sink,
    opened: *mut *mut c_void,
) -> raftz_status {
    let pointer = user_data.cast_const().cast::<Post>();
    let post = post(pointer);
    let mut joined = lock(&post.wires.0);
    if joined.open.contains_key(&post.id) {
        let words = slice(b"somebody is there already");
        documented("raftz_sink_fail", call!(raftz_sink_fail(why, words)));
        return RAFTZ_CALLBACK_FAILED;
    }
    let links = Links(links, pointer);
    joined.open.insert(post.id, links);
    post.opened.fetch_add(1, SeqCst);
    let made = Box::new(Transport { post: pointer, links });
    // SAFETY: the library gives a place.
    unsafe { opened.write(Box::into_raw(made).cast()) };
    RAFTZ_OK
}

unsafe extern "C" fn destroy(pointer: *mut c_void) {
    // SAFETY: what `open` made, given back once.
    let made = unsafe { Box::from_raw(pointer.cast::<Transport>()) };
    let (post, Links(links, _)) = (post(made.post), made.links);
    let mut joined = lock(&post.wires.0);
    joined.open.remove(&post.id);
    if joined.ends.values().any(|it| it.links == made.links) {
        complain("a link of a transport that is destroyed has not ended".to_owned());
    }
    // Nothing is told any more, and it is said so.
    let (mut link, error, none) = (0, null_mut(), slice(b""));
    for (name, status) in [
        ("raftz_links_up", call!(raftz_links_up(links, 1, null_mut(), &raw mut link, error))),
        ("raftz_links_deliver", call!(raftz_links_deliver(links, 1, none, 1000, error))),
        ("raftz_links_ready", call!(raftz_links_ready(links, 1, error))),
        ("raftz_links_down", call!(raftz_links_down(links, 1, none, error))),
        ("raftz_links_unreachable", call!(raftz_links_unreachable(links, 2, none, error))),
    ] {
        one_of(name, status, &[RAFTZ_SHUT_DOWN]);
    }
    call!(raftz_links_free(links));
    post.destroyed.fetch_add(1, SeqCst);
}

unsafe extern "C" fn dial(pointer: *mut c_void, peer_id: u64, address: raftz_slice) {
    let (post, links) = transport(pointer);
    // SAFETY: it lives until this returns.
    if String::from_utf8(unsafe { bytes(address) }).is_err() || peer_id == post.id {
        complain(format!("{} is to reach {peer_id}", post.id));
    }
    let mut joined = lock(&post.wires.0);
    let there = joined.open.get(&peer_id).copied().filter(|_| !joined.is_cut);
    let Some(other) = there else {
        let words = slice(b"nobody is there");
        let status = call!(raftz_links_unreachable(links.0, peer_id, words, null_mut()));
        return one_of("raftz_links_unreachable", status, &[RAFTZ_OK, RAFTZ_SHUT_DOWN]);
    };
    let (here, far) = (joined.count + 1, joined.count + 2);
    if joined.up(links, peer_id, far).is_some() && joined.up(other, 0, here).is_none() {
        joined.down(here);
    }
}

unsafe extern "C" fn send(
    pointer: *mut c_void,
    context: *mut c_void,
    messages: *const raftz_message,
    count: usize,
    taken: *mut usize,
    why: *mut raftz_sink,
) -> raftz_status {
    let (post, links) = transport(pointer);
    let mut joined = lock(&post.wires.0);
    let Some(end) = joined.ends.get(&context.addr()).copied() else {
        complain("a message on a link that has ended".to_owned());
        return RAFTZ_OK;
    };
    let most = call!(raftz_links_bytes_max(links.0));
    // SAFETY: so many, which live until this returns.
    for (at, message) in unsafe { std::slice::from_raw_parts(messages, count) }.iter().enumerate() {
        // SAFETY: as above.
        let parts = unsafe { std::slice::from_raw_parts(message.parts, message.part_count) };
        // SAFETY: as above.
        let whole = parts.iter().flat_map(|it| unsafe { bytes(*it) }).collect::<Vec<u8>>();
        if whole.len() != message.len || whole.len() > most || message.urgency > RAFTZ_MESSAGE_BULK
        {
            complain(format!("a message of {} bytes: {message:?}", whole.len()));
        }
        let mishap = joined.next();
        match mishap {
            Mishap::Lost => {}
            Mishap::SendFails => {
                let words = slice(b"send fails");
                documented("raftz_sink_fail", call!(raftz_sink_fail(why, words)));
                return RAFTZ_CALLBACK_FAILED;
            }
            Mishap::Doubled => {
                joined.deliver(end.other, whole.clone(), mishap);
                joined.deliver(end.other, whole, mishap);
            }
            Mishap::Nothing | Mishap::Garbled | Mishap::OneByOne => {
                joined.deliver(end.other, whole, mishap);
            }
        }
        if mishap == Mishap::OneByOne {
            // SAFETY: the library gives a place.
            unsafe { taken.write(at + 1) };
            let status = call!(raftz_links_ready(links.0, end.link, null_mut()));
            one_of("raftz_links_ready", status, &LATE);
            break;
        }
    }
    RAFTZ_OK
}

unsafe extern "C" fn end(pointer: *mut c_void, context: *mut c_void, reason: raftz_slice) {
    let (post, links) = transport(pointer);
    let mut joined = lock(&post.wires.0);
    // SAFETY: it lives until this returns.
    if !String::from_utf8(unsafe { bytes(reason) }).is_ok_and(|it| !it.is_empty()) {
        complain("a link ends without words".to_owned());
    }
    match joined.ends.remove(&context.addr()) {
        Some(end) if end.links == links => joined.down(end.other),
        _ => complain("a link ends twice, or somebody else's".to_owned()),
    }
    post.ended.fetch_add(1, SeqCst);
}

unsafe extern "C" fn stop(_transport: *mut c_void) {}

impl Wires {
    /// What happens to all of them.
    pub(super) fn happens(&self, mishap: Mishap, times: u64) {
        lock(&self.0).mishap = (Some(mishap), times);
    }

    /// They are cut, or there are new ones.
    pub(super) fn cut(&self, is_cut: bool) {
        let mut joined = lock(&self.0);
        joined.is_cut = is_cut;
        if is_cut {
            joined.ends.keys().for_each(|key| joined.down(*key));
        }
    }

    /// What a program may say that is wrong, or that no link can be meant by; of one node's links, or of none.
    pub(super) fn told(&self, tape: &mut Tape<'_>) {
        let joined = lock(&self.0);
        let at = usize::from(tape.byte());
        let links = joined.open.values().nth(at % 4).map_or(null_mut(), |it| it.0);
        let link = match tape.below(4) {
            0 => u64::MAX,
            1 => 0,
            _ => joined.ends.values().find(|it| it.links.0 == links).map_or(0, |it| it.link),
        };
        let word =
            [slice(b"no message"), slice(b""), raftz_slice { data: std::ptr::null(), len: 1 }]
                [tape.below(3)];
        match tape.below(6) {
            0 => judged(tape, "raftz_links_deliver", 0, |error| {
                call!(raftz_links_deliver(links, link, word, 0, error))
            }),
            1 => judged(tape, "raftz_links_deliver_bytes", 0, |error| {
                let mut copy = null_mut();
                call!(raftz_bytes_copy(slice(b"no message"), &raw mut copy, null_mut()));
                call!(raftz_links_deliver_bytes(links, link, copy, 0, error))
            }),
            2 => judged(tape, "raftz_links_ready", 0, |error| {
                call!(raftz_links_ready(links, link, error))
            }),
            3 => judged(tape, "raftz_links_down", 0, |error| {
                call!(raftz_links_down(links, link, word, error))
            }),
            4 => {
                let peer = tape.number();
                judged(tape, "raftz_links_unreachable", 0, |error| {
                    call!(raftz_links_unreachable(links, peer, word, error))
                })
            }
            _ => {
                assert_eq!(call!(raftz_links_bytes_max(std::ptr::null())), 0);
                call!(raftz_links_free(null_mut()));
                judged(tape, "raftz_links_up", 0, |error| {
                    call!(raftz_links_up(links, 2, null_mut(), null_mut(), error))
                })
            }
        };
    }
}
