//! A node's log lines: what is told, with which fields, and how often.
//!
//! Every line carries `node` and `group`, and where it applies `peer`, `term` and `index`, so that lines can be
//! filtered without reading sentences. Lines of a kind that repeat are limited; the next one that is written says
//! in `left_out` how many were not.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tracing::field::{Field, Visit};

use crate::types::{Event, EventKind, GroupId, NodeId, Role};

use super::clock;
use super::limiter::Burst;

/// A line that belongs to no event: something an operator should look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The group.
    pub(crate) group: GroupId,
    /// Whom it is about, if it is another node.
    pub(crate) peer: Option<NodeId>,
    /// What there is to say.
    pub(crate) text: String,
}

impl Line {
    /// A line about the node itself.
    pub(crate) const fn new(text: String) -> Self {
        Self { group: GroupId::FIRST, peer: None, text }
    }

    /// A line about another node.
    pub(crate) const fn about(peer: NodeId, text: String) -> Self {
        Self { group: GroupId::FIRST, peer: Some(peer), text }
    }
}

/// What a log line says, as text: the message first, then the fields. For subscribers of a program's own.
pub fn log_text(event: &tracing::Event<'_>) -> String {
    let mut words = Words::default();
    event.record(&mut words);
    words.message + &words.fields
}

#[derive(Default)]
struct Words {
    message: String,
    fields: String,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

/// Writes lines, and keeps account of how many.
pub(super) struct Log {
    node: Option<u64>,
    limits: BTreeMap<Option<EventKind>, Burst>,
}

impl Log {
    /// Of this node.
    pub(super) fn new(node: Option<NodeId>) -> Self {
        Self { node: node.map(NodeId::get), limits: BTreeMap::new() }
    }

    /// Whether a line of this kind may be written now; if so, how many were left out before, if any were.
    fn admit(&mut self, kind: Option<EventKind>) -> Option<Option<u64>> {
        let limit = self.limits.entry(kind).or_insert_with(Burst::new);
        limit.admit(clock::boot_us()).map(|left_out| (left_out > 0).then_some(left_out))
    }

    /// Writes a line that belongs to no event.
    pub(super) fn line(&mut self, line: &Line) {
        let Some(left_out) = self.admit(None) else { return };
        let (node, group, peer) = (self.node, line.group.0, line.peer.map(NodeId::get));
        tracing::warn!(node, group, peer, left_out, "{}", line.text);
    }

    /// Writes the line of an event.
    pub(super) fn event(&mut self, group: GroupId, event: &Event) {
        let Some(left_out) = self.admit(Some(event.kind())) else { return };
        let (node, group) = (self.node, group.0);
        match event {
            Event::Role { role, term } => {
                tracing::info!(node, group, term = term.0, %role, left_out, "now {role}");
            }
            Event::Leader { leader: Some(leader), term } => {
                let peer = leader.get();
                tracing::info!(node, group, peer, term = term.0, left_out, "node {leader} leads");
            }
            Event::Leader { leader: None, term } => {
                tracing::info!(node, group, term = term.0, left_out, "no leader is known");
            }
            Event::Ready { term } => {
                let role = Role::Leader;
                tracing::info!(node, group, term = term.0, %role, left_out, "the leader is ready");
            }
            Event::Membership { index, membership } => tracing::info!(
                node,
                group,
                index = index.0,
                voters = ?membership.voters,
                left_out,
                "a membership took effect"
            ),
            Event::PeerUp { peer } => {
                tracing::info!(
                    node,
                    group,
                    peer = peer.get(),
                    left_out,
                    "node {peer} is connected"
                );
            }
            Event::PeerDown { peer, reason } => tracing::warn!(
                node,
                group,
                peer = peer.get(),
                left_out,
                "node {peer} is out of reach: {reason}"
            ),
            Event::PeerRefused { peer, disk, reason } => tracing::warn!(
                node,
                group,
                peer = peer.get(),
                %disk,
                left_out,
                "node {peer} was refused: {reason}"
            ),
            Event::Nonsense { from, what } => tracing::warn!(
                node,
                group,
                peer = from.get(),
                left_out,
                "node {from} sent nonsense, dropped: {what}"
            ),
            Event::Healed { upto } => {
                tracing::info!(node, group, index = upto.0, left_out, "damaged entries healed");
            }
            Event::PeerStalled { peer, matched, last } => tracing::warn!(
                node,
                group,
                peer = peer.get(),
                index = matched.0,
                last = last.0,
                left_out,
                "node {peer} answers, but its log stands still"
            ),
            Event::NetworkTrouble { detail } => {
                tracing::warn!(node, group, left_out, "network: {detail}");
            }
            Event::StorageTrouble { detail } => {
                tracing::warn!(node, group, left_out, "storage: {detail}");
            }
            Event::StorageFull { full: true } => tracing::warn!(
                node,
                group,
                left_out,
                "free space is below the reserve; proposals are refused"
            ),
            Event::StorageFull { full: false } => {
                tracing::info!(node, group, left_out, "free space is back");
            }
            Event::Snapshot { phase, peer, index, bytes, total_bytes } => tracing::info!(
                node,
                group,
                peer = peer.map(NodeId::get),
                index = index.0,
                bytes,
                total_bytes,
                left_out,
                "snapshot: {phase}"
            ),
            Event::Transfer { to, phase, detail } => {
                let (peer, colon) = (to.get(), if detail.is_empty() { "" } else { ": " });
                tracing::info!(
                    node,
                    group,
                    peer,
                    left_out,
                    "transfer of leadership to node {to} {phase}{colon}{detail}"
                );
            }
            Event::Faulted(reason) => tracing::error!(node, group, left_out, "faulted: {reason}"),
            Event::Dropped { total } => tracing::warn!(
                node,
                group,
                total,
                left_out,
                "{total} events were dropped so far: the callback thread was busy with user callbacks for too long"
            ),
        }
    }
}
