//! The account of links: whom to dial and when, handshakes judged, two links of one pair settled, silence noticed, ends
//! told. It decides as
//! the transport over TCP does, by the same verdicts, and knows no clock, thread or function of C.
//!
//! Invariant: between a `LinkUp` and the next one of the same peer there is exactly one `LinkDown`, and `up` names the
//! peer exactly between the two. Every link that was opened is ended by one order, and none about it follows.

use std::collections::BTreeMap;

use bytes::Bytes;
use raftz_core::transport::handshake::{
    Accepted, HandshakeMessage, Identity, Known, Refused, Reject, Role, judge, keeps_new,
};
use raftz_core::transport::tcp::TcpLimits;
use raftz_core::transport::{
    Class, InFrame, OutFrame, PeerIdentity, PeerSpec, SendError, TransportEvent,
};
use raftz_core::types::NodeId;

use super::message::{InMessage, Inside, Kind, OutMessage, rank};

/// How long a link that another one replaces still takes what is on its way.
const RETIRING_US: u64 = 1_000_000;
/// Whoever is so late to look at the time was held up, and what it missed says nothing of others.
const HELD_UP_US: u64 = 1_000_000;

/// After an attempt that failed the pause doubles, between these two; each is drawn from its upper half.
const PAUSE_MIN_US: u64 = 20_000;
const PAUSE_MAX_US: u64 = 1_000_000;

/// What is to be done about links.
#[derive(Debug)]
pub(crate) enum Order {
    /// The program should try to reach a node.
    Dial {
        peer: NodeId,
        address: String,
    },
    Send {
        link: u64,
        message: OutMessage,
    },
    /// It carries frames from now on.
    Proven {
        link: u64,
    },
    /// It is of no more use, once what was sent is taken if it `drains`.
    End {
        link: u64,
        reason: String,
        drains: bool,
    },
}

/// A link and how far it has come.
#[derive(Debug)]
struct Link {
    dialled: Option<NodeId>,
    phase: Phase,
    /// What either side calls it.
    here: u64,
    there: u64,
    opened_us: u64,
    heard_us: u64,
    is_pinged: bool,
    /// The last numbers of each class.
    sent: [u64; 3],
    got: [u64; 3],
    /// A message of another link came; told once.
    is_mixed_up: bool,
    /// When it was last looked whether what is sent is taken; how much had been; and since when it was seen to wait.
    looked_us: u64,
    taken: u64,
    waits_since_us: Option<u64>,
}

#[derive(Debug)]
enum Phase {
    AwaitWelcome,
    AwaitHello,
    AwaitConfirm(Box<Identity>),
    Ready(Accepted),
    Retiring(Accepted, u64),
}

impl Link {
    const fn peer(&self) -> Option<&Accepted> {
        match &self.phase {
            Phase::Ready(peer) | Phase::Retiring(peer, _) => Some(peer),
            Phase::AwaitWelcome | Phase::AwaitHello | Phase::AwaitConfirm(_) => None,
        }
    }
}

/// Who is at the other end, and the link that frames to it are sent on.
#[derive(Clone, Copy, Debug)]
struct Up {
    identity: PeerIdentity,
    instance: u64,
    link: u64,
}

/// The way to a member: when it may be tried, and the pause after that.
#[derive(Clone, Copy, Debug)]
struct Route {
    next_us: u64,
    pause_us: u64,
}

impl Route {
    const fn new() -> Self {
        Self { next_us: 0, pause_us: PAUSE_MIN_US }
    }
}

/// How much waits to be taken of a link, and how much was taken so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) waits: bool,
    pub(crate) taken: u64,
}

#[derive(Debug)]
pub(crate) struct Account {
    identity: Identity,
    limits: TcpLimits,
    peers: BTreeMap<NodeId, PeerSpec>,
    links: BTreeMap<u64, Link>,
    up: BTreeMap<NodeId, Up>,
    routes: BTreeMap<NodeId, Route>,
    /// The time as it was told last.
    now_us: u64,
    /// Spreads attempts.
    drawn: u64,
    /// Drawn for this life: with a link's number it is a name that no other link ever had.
    tag: u64,
    due_us: u64,
    pub(crate) orders: Vec<Order>,
    pub(crate) told: Vec<TransportEvent>,
}

fn refusal(code: u16, words: &str) -> Refused {
    let words = words.to_owned();
    Refused { told: Reject { code, words: words.clone(), known_disk: None }, words }
}

impl Account {
    /// Of a node that says this of itself.
    pub(crate) fn new(identity: Identity, tag: u64) -> Self {
        Self {
            identity,
            limits: TcpLimits::default(),
            peers: BTreeMap::new(),
            links: BTreeMap::new(),
            up: BTreeMap::new(),
            routes: BTreeMap::new(),
            now_us: 0,
            drawn: tag,
            tag,
            due_us: u64::MAX,
            orders: Vec::new(),
            told: Vec::new(),
        }
    }

    /// What time it is.
    pub(crate) const fn at(&mut self, now_us: u64) {
        self.now_us = now_us;
    }

    /// Takes the new set of peers.
    pub(crate) fn set_peers(&mut self, specs: &[PeerSpec]) {
        let others = specs.iter().filter(|spec| Some(spec.node) != self.identity.from);
        let peers: BTreeMap<_, _> = others.map(|spec| (spec.node, spec.clone())).collect();
        for (node, spec) in &peers {
            if let (Some(up), Some(disk)) = (self.up.get(node), spec.disk)
                && up.identity.disk != disk
            {
                let words = format!(
                    "the membership knows node {node} by data directory {disk}, not {}",
                    up.identity.disk
                );
                self.end_all(*node, None, &words);
            }
        }
        let route = |(node, spec): (&NodeId, &PeerSpec)| {
            let stays = self.peers.get(node).is_some_and(|old| old.address == spec.address);
            let route = self.routes.get(node).copied().filter(|_| stays);
            (*node, route.unwrap_or(Route::new()))
        };
        self.routes = peers.iter().map(route).collect();
        self.peers = peers;
    }

    /// A link stands, to a node that was dialled or from whoever came.
    pub(crate) fn opened(&mut self, number: u64, dialled: Option<NodeId>) {
        let now_us = self.now_us;
        let phase = if dialled.is_some() { Phase::AwaitWelcome } else { Phase::AwaitHello };
        let link = Link {
            dialled,
            phase,
            here: self.tag.wrapping_add(number),
            there: 0,
            opened_us: now_us,
            heard_us: now_us,
            is_pinged: false,
            sent: [0; 3],
            got: [0; 3],
            is_mixed_up: false,
            looked_us: now_us,
            taken: 0,
            waits_since_us: None,
        };
        self.links.insert(number, link);
        if dialled.is_some() {
            let hello = HandshakeMessage::Hello(self.identity.addressed_to(dialled));
            self.say(number, &hello);
        }
    }

    /// The program says that a link is gone.
    pub(crate) fn closed(&mut self, number: u64, reason: &str) {
        self.end(number, reason, false);
    }

    /// What came was no message of raftz: nothing of that link can be believed.
    pub(crate) fn garbled(&mut self, number: u64, reason: &str) {
        self.end(number, reason, true);
    }

    /// The program could not reach a node.
    pub(crate) fn unreachable(&mut self, peer: NodeId, reason: String) {
        self.failed(peer);
        // Which is nobody's business while that is linked.
        if !self.up.contains_key(&peer) {
            self.told.push(TransportEvent::Unreachable { peer, reason });
        }
    }

    /// Waits before a node is tried again, longer each time.
    fn failed(&mut self, peer: NodeId) {
        let Some(route) = self.routes.get_mut(&peer) else { return };
        self.drawn = self.drawn.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let half_us = route.pause_us / 2;
        let pause_us = half_us + (self.drawn >> 33) % (half_us + 1);
        route.next_us = self.now_us.saturating_add(pause_us);
        route.pause_us = route.pause_us.saturating_mul(2).min(PAUSE_MAX_US);
    }

    /// The node does not want this one, or the other way round: tried on, at the slowest pace.
    fn refused(&mut self, peer: Option<NodeId>) {
        if let Some(route) = peer.and_then(|peer| self.routes.get_mut(&peer)) {
            route.pause_us = PAUSE_MAX_US;
        }
        peer.into_iter().for_each(|peer| self.failed(peer));
    }

    /// How much may wait to be sent to a node, of what may wait for a member.
    pub(crate) fn queue_bytes_max(&self, to: NodeId, bytes_max: usize) -> usize {
        let is_member = self.peers.contains_key(&to);
        if is_member { bytes_max } else { bytes_max.min(self.limits.non_member_queue_bytes_max) }
    }

    /// Which message a frame becomes, and on which link.
    pub(crate) fn send(
        &mut self,
        to: NodeId,
        frame: OutFrame,
    ) -> Result<(u64, OutMessage), SendError> {
        let number = self.up.get(&to).ok_or(SendError::NoLink)?.link;
        let link = self.links.get_mut(&number).ok_or(SendError::NoLink)?;
        let bytes_max = link.peer().map_or(0, |peer| peer.frame_bytes_max);
        if frame.len() > bytes_max {
            return Err(SendError::TooLarge);
        }
        let sent = &mut link.sent[rank(frame.class)];
        *sent += 1;
        Ok((number, OutMessage::of_frame(link.there, *sent, frame)))
    }

    /// Takes a message that arrived.
    pub(crate) fn received(&mut self, number: u64, message: InMessage) {
        let now_us = self.now_us;
        let Some(link) = self.links.get_mut(&number) else { return };
        let is_hello = matches!(&message.inside,
            Inside::Handshake(it) if matches!(**it, HandshakeMessage::Hello(_)));
        if message.link != if is_hello { 0 } else { link.here } {
            if link.peer().is_none() && matches!(message.inside, Inside::Frame(..)) {
                return self.end(number, "a frame came before the handshake", true);
            }
            if !std::mem::replace(&mut link.is_mixed_up, true) {
                let detail = format!(
                    "what came on link {number} is of another link, or of an earlier one, and is left out"
                );
                self.told.push(TransportEvent::Trouble { detail });
            }
            return;
        }
        (link.heard_us, link.is_pinged) = (now_us, false);
        match message.inside {
            Inside::Handshake(inside) => self.handshake(number, message.number, *inside, now_us),
            Inside::Frame(class, bytes) => self.frame(number, message.number, class, bytes),
            Inside::Ping => {
                let there = link.there;
                if link.peer().is_some() {
                    let message = OutMessage::sign_of_life(Kind::Pong, there);
                    self.orders.push(Order::Send { link: number, message });
                }
            }
            Inside::Pong => {}
        }
    }

    fn frame(&mut self, number: u64, place: u64, class: Class, bytes: Bytes) {
        let Some(link) = self.links.get_mut(&number) else { return };
        // Before that it may have overtaken the last word of the handshake; it is sent again.
        let Some(from) = link.peer().map(|peer| peer.peer.node) else { return };
        // What comes twice or late is of no more use: nobody must run a command again.
        let got = &mut link.got[rank(class)];
        if place > *got {
            *got = place;
            if self.up.contains_key(&from) {
                self.told.push(TransportEvent::Frame { from, frame: InFrame { bytes } });
            }
        }
    }

    fn say(&mut self, number: u64, message: &HandshakeMessage) {
        if let Some(link) = self.links.get(&number) {
            let message = OutMessage::of_handshake(link.there, link.here, message);
            self.orders.push(Order::Send { link: number, message });
        }
    }

    fn handshake(&mut self, number: u64, name: u64, message: HandshakeMessage, now_us: u64) {
        let Some(link) = self.links.get_mut(&number) else { return };
        match (&link.phase, message) {
            (Phase::AwaitHello, HandshakeMessage::Hello(remote)) => {
                link.there = name;
                match self.verdict(&remote, None) {
                    Ok(accepted) => {
                        let version = accepted.version;
                        let identity = self.identity.addressed_to(remote.from);
                        if let Some(link) = self.links.get_mut(&number) {
                            link.phase = Phase::AwaitConfirm(Box::new(remote));
                        }
                        self.say(number, &HandshakeMessage::Welcome { version, identity });
                    }
                    Err(refused) => self.refuse(number, &remote, refused),
                }
            }
            (Phase::AwaitWelcome, HandshakeMessage::Welcome { version, identity: remote }) => {
                link.there = name;
                let dialled = link.dialled;
                let verdict = self.verdict(&remote, dialled).and_then(|accepted| {
                    if accepted.version == version {
                        return Ok(accepted);
                    }
                    let words = format!(
                        "version {version} was chosen where {} is the highest in common",
                        accepted.version
                    );
                    Err(refusal(Reject::MALFORMED, &words))
                });
                match verdict {
                    Ok(accepted) => {
                        self.say(number, &HandshakeMessage::Confirm);
                        self.establish(number, accepted, now_us);
                    }
                    Err(refused) => self.refuse(number, &remote, refused),
                }
            }
            (Phase::AwaitConfirm(remote), HandshakeMessage::Confirm) => {
                let remote = remote.clone();
                // The world may have changed since the welcome: judged again.
                match self.verdict(&remote, None) {
                    Ok(accepted) => self.establish(number, accepted, now_us),
                    Err(refused) => self.end(number, &refused.words, true),
                }
            }
            (Phase::AwaitWelcome, HandshakeMessage::Reject(reject)) => {
                let peer = link.dialled;
                self.rejected(number, peer, reject, true);
            }
            (Phase::AwaitConfirm(remote), HandshakeMessage::Reject(reject)) => {
                // Whoever dials may claim any id; only what a member says is worth telling.
                let peer = remote.from.filter(|node| self.peers.contains_key(node));
                self.rejected(number, peer, reject, false);
            }
            // Twice, late or out of turn: a handshake has its end, and nothing else hangs on it.
            (
                Phase::AwaitWelcome
                | Phase::AwaitHello
                | Phase::AwaitConfirm(_)
                | Phase::Ready(_)
                | Phase::Retiring(..),
                HandshakeMessage::Hello(_)
                | HandshakeMessage::Welcome { .. }
                | HandshakeMessage::Reject(_)
                | HandshakeMessage::Confirm,
            ) => {}
        }
    }

    fn verdict(&self, remote: &Identity, expected: Option<NodeId>) -> Result<Accepted, Refused> {
        let spec = remote.from.and_then(|node| self.peers.get(&node));
        let up = remote.from.and_then(|node| self.up.get(&node));
        let known = Known {
            expected,
            disk: spec.and_then(|spec| spec.disk),
            connected: up.map(|up| (up.identity.disk, up.identity.boot, up.instance)),
        };
        let accepted = judge(&self.identity, remote, &known)?;
        if remote.role != Role::Peer {
            let words = "a program's transport carries all classes on one link";
            return Err(refusal(Reject::ROLE_NOT_SERVED, words));
        }
        let places = self.limits.non_members_max;
        let strangers = self.up.keys().filter(|node| !self.peers.contains_key(node)).count();
        if spec.is_none() && up.is_none() && strangers >= places {
            let words = format!(
                "as many nodes outside the membership as this one serves at once ({places}) are \
                 connected; try again later"
            );
            return Err(refusal(Reject::NO_PLACE, &words));
        }
        Ok(accepted)
    }

    /// Tells the other side why it is refused; the link ends when that is taken.
    fn refuse(&mut self, number: u64, remote: &Identity, refused: Refused) {
        let dialled = self.links.get(&number).and_then(|link| link.dialled);
        self.refused(dialled);
        if let Some(peer) = remote.from.or(dialled) {
            let (disk, code, reason) = (remote.disk, refused.told.code, refused.to_string());
            self.told.push(TransportEvent::Refused { peer, disk, code, reason });
        }
        self.say(number, &HandshakeMessage::Reject(refused.told));
        self.links.remove(&number);
        self.orders.push(Order::End { link: number, reason: refused.words, drains: true });
    }

    fn rejected(&mut self, number: u64, peer: Option<NodeId>, reject: Reject, dialled: bool) {
        let Reject { code, words: reason, known_disk } = reject;
        let words = format!("refused by the peer: {reason}");
        self.refused(peer);
        if let Some(peer) = peer {
            let known_disk = known_disk.filter(|_| dialled);
            self.told.push(TransportEvent::RefusedBy { peer, code, reason, known_disk });
        }
        self.links.remove(&number);
        self.orders.push(Order::End { link: number, reason: words, drains: false });
    }

    /// A link passed its handshake: it becomes the peer's own, or yields to another.
    fn establish(&mut self, number: u64, accepted: Accepted, now_us: u64) {
        let (identity, instance) = (accepted.peer, accepted.instance);
        let node = identity.node;
        let Some(link) = self.links.get_mut(&number) else { return };
        let dialled_here = link.dialled.is_some();
        (link.phase, link.opened_us) = (Phase::Ready(accepted), now_us);
        self.orders.push(Order::Proven { link: number });
        if let Some(old) = self.up.get(&node)
            && old.identity.boot < identity.boot
        {
            let words = format!("node {node} restarted (life {})", identity.boot.0);
            self.end_all(node, Some(number), &words);
        }
        let up = Up { identity, instance, link: number };
        let Some(old) = self.up.get(&node).copied() else {
            self.up.insert(node, up);
            self.told.push(TransportEvent::LinkUp(identity));
            return;
        };
        let stands = self.links.get(&old.link);
        let old_dialled_here = stands.is_none_or(|old| old.dialled.is_some());
        let since_us = stands.map_or(0, |old| old.opened_us);
        let settled_us = self.limits.handshake_ms.saturating_mul(1000);
        let is_settled = now_us.saturating_sub(since_us) > settled_us;
        let here = self.identity.from.unwrap_or(node);
        if !keeps_new(here, node, dialled_here, old_dialled_here, is_settled) {
            return self.retire(number, now_us);
        }
        self.up.insert(node, up);
        if dialled_here == old_dialled_here || is_settled {
            // The peer came again because it has lost the old one.
            self.end(old.link, "replaced by a newer link", false);
        } else {
            self.retire(old.link, now_us);
        }
    }

    fn retire(&mut self, number: u64, now_us: u64) {
        if let Some(link) = self.links.get_mut(&number)
            && let Some(peer) = link.peer().cloned()
        {
            link.phase = Phase::Retiring(peer, now_us.saturating_add(RETIRING_US));
        }
    }

    fn end_all(&mut self, node: NodeId, but: Option<u64>, reason: &str) {
        let is_theirs = |link: &Link| link.peer().is_some_and(|peer| peer.peer.node == node);
        let theirs =
            self.links.iter().filter(|(number, link)| Some(**number) != but && is_theirs(link));
        for number in theirs.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.end(number, reason, false);
        }
    }

    /// Ends a link and tells what follows from that.
    fn end(&mut self, number: u64, reason: &str, is_fault: bool) {
        let Some(link) = self.links.remove(&number) else { return };
        let reason = reason.to_owned();
        self.orders.push(Order::End { link: number, reason: reason.clone(), drains: false });
        if let Some(peer) = link.peer().map(|peer| peer.peer.node) {
            if self.up.get(&peer).is_some_and(|up| up.link == number) {
                self.up.remove(&peer);
                // A link that was good deserves a quick second try; one that keeps breaking does not.
                let has_held = self.now_us.saturating_sub(link.opened_us) >= PAUSE_MAX_US;
                if let Some(route) = self.routes.get_mut(&peer).filter(|_| has_held) {
                    route.pause_us = PAUSE_MIN_US;
                }
                self.failed(peer);
                self.told.push(TransportEvent::LinkDown { peer, reason });
            }
        } else if let Some(peer) = link.dialled {
            self.unreachable(peer, reason);
        } else if is_fault {
            let detail = format!("link {number} was ended: {reason}");
            self.told.push(TransportEvent::Trouble { detail });
        }
    }

    /// Members without a link, and with nothing done about it, with the time from which they may be tried.
    fn wanted(&self) -> impl Iterator<Item = (NodeId, u64)> {
        let is_tried = |node: NodeId| {
            self.links.values().any(|link| link.dialled == Some(node) && link.peer().is_none())
        };
        let routes = self.routes.iter().map(|(node, route)| (*node, route.next_us));
        routes.filter(move |(node, _)| !self.up.contains_key(node) && !is_tried(*node))
    }

    /// Does what is due: attempts, pings, and ends of links on which nothing moves.
    pub(crate) fn tick(&mut self, progress: impl Fn(u64) -> Progress) {
        let now_us = self.now_us;
        if now_us < self.due_us {
            return;
        }
        let was_held_up = now_us > self.due_us.saturating_add(HELD_UP_US);
        let TcpLimits { handshake_ms, ping_after_ms, dead_after_ms, .. } = self.limits;
        let mut ends: Vec<(u64, String)> = Vec::new();
        for (number, link) in &mut self.links {
            if was_held_up {
                (link.heard_us, link.waits_since_us) = (now_us, None);
            }
            link.looked_us = now_us;
            match &link.phase {
                Phase::Retiring(_, until_us) => {
                    if now_us >= *until_us {
                        ends.push((*number, "replaced by another link".into()));
                    }
                }
                Phase::AwaitWelcome | Phase::AwaitHello | Phase::AwaitConfirm(_) => {
                    if now_us >= link.opened_us.saturating_add(handshake_ms * 1000) {
                        let words = format!("the handshake took longer than {handshake_ms} ms");
                        ends.push((*number, words));
                    }
                }
                Phase::Ready(_) => {
                    let Progress { waits, taken } = progress(*number);
                    let has_moved = std::mem::replace(&mut link.taken, taken) != taken;
                    let since_us = link.waits_since_us.filter(|_| !has_moved).unwrap_or(now_us);
                    link.waits_since_us = waits.then_some(since_us);
                    let dead_us = dead_after_ms * 1000;
                    if now_us >= link.heard_us.saturating_add(dead_us) {
                        ends.push((*number, format!("nothing was heard for {dead_after_ms} ms")));
                    } else if now_us >= since_us.saturating_add(dead_us) {
                        ends.push((*number, format!("nothing was taken for {dead_after_ms} ms")));
                    } else if now_us >= link.heard_us.saturating_add(ping_after_ms * 1000)
                        && !link.is_pinged
                    {
                        link.is_pinged = true;
                        let message = OutMessage::sign_of_life(Kind::Ping, link.there);
                        self.orders.push(Order::Send { link: *number, message });
                    }
                }
            }
        }
        for (number, words) in ends {
            self.end(number, &words, true);
        }
        let due = self.wanted().filter(|(_, next_us)| now_us >= *next_us).map(|(node, _)| node);
        for peer in due.collect::<Vec<_>>() {
            if let (Some(spec), Some(route)) = (self.peers.get(&peer), self.routes.get_mut(&peer)) {
                // Who does not answer is asked again after that.
                route.next_us = now_us.saturating_add(handshake_ms * 1000);
                self.orders.push(Order::Dial { peer, address: spec.address.clone() });
            }
        }
    }

    /// When there is something to do again; `None` if only an event can bring it about.
    pub(crate) fn next_deadline_us(&mut self) -> Option<u64> {
        let TcpLimits { handshake_ms, ping_after_ms, dead_after_ms, .. } = self.limits;
        let due = |link: &Link| match &link.phase {
            Phase::Retiring(_, until_us) => *until_us,
            Phase::AwaitWelcome | Phase::AwaitHello | Phase::AwaitConfirm(_) => {
                link.opened_us.saturating_add(handshake_ms * 1000)
            }
            Phase::Ready(_) => {
                let wait_ms = if link.is_pinged { dead_after_ms } else { ping_after_ms };
                let silent_us = link.heard_us.saturating_add(wait_ms * 1000);
                silent_us.min(link.looked_us.saturating_add(ping_after_ms * 1000))
            }
        };
        let due =
            self.links.values().map(due).chain(self.wanted().map(|(_, next_us)| next_us)).min();
        self.due_us = due.unwrap_or(u64::MAX);
        due
    }
}

#[cfg(test)]
mod tests;
