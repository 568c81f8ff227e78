//! How a node can be watched: its metrics, its events by subscription, how it stands.

use std::sync::Arc;

use crate::types::{EventKinds, GroupId, Now};

use super::callbacks::Item;
use super::handle::Node;
use super::host::Host;
use super::log::Line;
use super::metrics::Metrics;
use super::subscription::Subscription;
use super::watch::{Standing, Watch};

impl Node {
    /// What the node has counted and measured up to now. Takes no lock, and waits for nobody; what it says is a
    /// millisecond old at most, while nothing happens but heartbeats a tenth of a second. Nothing but zeros if
    /// `metrics` of the configuration is off.
    pub fn metrics(&self) -> Metrics {
        self.shared.meter.metrics(self.shared.callbacks.dropped())
    }

    /// [`Node::metrics`] as Prometheus reads them; serve it where you like, as
    /// `application/openmetrics-text; version=1.0.0; charset=utf-8`.
    #[cfg(feature = "metrics")]
    pub fn metrics_text(&self) -> String {
        self.metrics().text()
    }

    /// The node's events of these kinds, from now on, to be taken one by one. They end when the subscription is
    /// dropped, or the node stops.
    pub fn subscribe(&self, kinds: EventKinds) -> Subscription {
        self.shared.callbacks.subscribers().add(kinds)
    }

    /// How the node stands, and whether that changes: role, term, leader, readiness, membership, connected peers,
    /// disk space, snapshots on their way, faults. How it stands now counts as seen.
    pub fn watch(&self) -> Watch {
        Watch::new(Arc::clone(&self.shared.standings))
    }

    /// How the node stands, with a version, as soon as that is newer than `version` (0: at once); `None` if it was
    /// not within `timeout`.
    ///
    /// # Errors
    /// As [`Watch::changed`].
    pub fn standing_after(
        &self,
        version: u64,
        timeout: std::time::Duration,
    ) -> Result<Option<(u64, Arc<Standing>)>, super::NodeError> {
        self.shared.standings.after(version, timeout)
    }
}

impl Host {
    /// The end of a turn: numbers, standing, and whether to say that there is no leader.
    pub(super) fn watch(&mut self, now: Now) {
        let Some(member) = self.members.get(&GroupId::FIRST) else { return };
        let replica = &member.replica;
        let (meter, pending) = (&self.shared.meter, self.callers.count());
        self.account.turn(now, meter, replica, pending, self.has_news);
        let is_led = member.halted.is_some() || replica.raft().leader().is_some();
        if self.vigil.look(now.boot_us, is_led) {
            self.shared.callbacks.push(Item::Line(Line::new(replica.why_no_leader())));
        }
        // A transfer moves, and may end, without an event.
        let moves = replica.transfers().next().is_some();
        if std::mem::replace(&mut self.has_news, moves) || moves {
            let fault = member.halted.clone();
            self.stand(Standing { fault, ..Standing::of(replica) });
        }
    }

    /// Before the loop sleeps: nobody is left with old numbers.
    pub(super) fn publish_metrics(&mut self) {
        if let Some(member) = self.members.get(&GroupId::FIRST) {
            let pending = self.callers.count();
            self.account.publish(&self.shared.meter, &member.replica, pending);
        }
    }

    /// The last word, when the loop ends.
    pub(super) fn watch_last(&mut self) {
        self.publish_metrics();
        let Some(member) = self.members.get(&GroupId::FIRST) else { return };
        let fault = member.halted.clone();
        let standing = Standing::of(&member.replica);
        self.stand(Standing { fault, leader: None, ready: false, shut_down: true, ..standing });
    }

    fn stand(&self, standing: Standing) {
        let wakers = self.shared.standings.publish(standing).into_iter();
        let nothing = || self.shared.gauge.nothing();
        let mut items: Vec<Item> = wakers.map(|waker| Item::Wake(waker, nothing())).collect();
        self.shared.callbacks.push_all(&mut items);
    }
}
