//! Callers that wait, and their deadlines.
//!
//! Every caller holds a ticket, numbered in order of arrival; most end in that order, too, so a
//! deque is the table; the few that outlast thousands of later ones move to a map, so that one patient
//! caller does not keep the slots of all who came after. Deadlines are kept per batch of tickets.

use std::collections::{BTreeMap, VecDeque};

use crate::types::{Index, NodeId, Payload, SessionTag, Term, Token};

/// Who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// A caller of this host.
    Local(Token),
    /// A caller of a follower that handed its proposals on.
    Remote {
        /// The follower.
        node: NodeId,
        /// Its name for the batch.
        batch: u64,
        /// Position in the batch.
        position: u32,
    },
}

/// How far a call has come; decides what its end means.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// Nowhere: no leader is known or reachable, or this one hands over. Certainly not in any log.
    Held {
        payload: Payload,
        session: Option<SessionTag>,
        /// Whether another node than the one that was asked may have it.
        may_move: bool,
    },
    /// On its way to the core; for the length of one step.
    Offered,
    /// Handed to the leader. It may be in the log.
    Forwarded { batch: u64 },
    /// In this node's log when this node led.
    InLog { index: Index, term: Term },
}

#[derive(Clone, Debug)]
pub(super) struct Ticket {
    pub(super) who: Who,
    pub(super) deadline_us: u64,
    pub(super) stage: Stage,
}

/// Ended slots that are kept before those who still wait are moved out of their way.
const SLOTS_SPARE: usize = 1024;

#[derive(Clone, Debug, Default)]
pub(super) struct Tickets {
    first: u64,
    slots: VecDeque<Option<Ticket>>,
    /// Tickets below `first` that still wait.
    patient: BTreeMap<u64, Ticket>,
    waiting: usize,
    /// (deadline, first ticket) → the tickets of a batch with one deadline that may still wait.
    deadlines: BTreeMap<(u64, u64), std::ops::RangeInclusive<u64>>,
    /// The batch that the next ticket may join, and its last one, of which the table is told later.
    open: Option<((u64, u64), u64)>,
}

impl Tickets {
    pub(super) fn issue(&mut self, ticket: Ticket) -> u64 {
        let number = self.first + self.slots.len() as u64;
        match &mut self.open {
            Some((key, last)) if key.0 == ticket.deadline_us => *last = number,
            Some(_) | None => {
                self.note_open();
                let key = (ticket.deadline_us, number);
                self.deadlines.insert(key, number..=number);
                self.open = Some((key, number));
            }
        }
        self.slots.push_back(Some(ticket));
        self.waiting += 1;
        number
    }

    /// Tells the table how far the open batch has come.
    fn note_open(&mut self) {
        if let Some((key, last)) = self.open
            && let Some(range) = self.deadlines.get_mut(&key)
        {
            *range = *range.start()..=last;
        }
    }

    fn slot(&mut self, number: u64) -> Option<&mut Option<Ticket>> {
        let at = number.checked_sub(self.first)?;
        self.slots.get_mut(usize::try_from(at).ok()?)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Ticket> {
        if number < self.first {
            return self.patient.get_mut(&number);
        }
        self.slot(number)?.as_mut()
    }

    /// Ends a ticket. `None` if it has ended before.
    pub(super) fn take(&mut self, number: u64) -> Option<Ticket> {
        let ticket = if number < self.first {
            self.patient.remove(&number)?
        } else {
            self.slot(number)?.take()?
        };
        self.waiting -= 1;
        if self.slots.len() > 4 * self.waiting + SLOTS_SPARE {
            for (slot, number) in self.slots.drain(..).zip(self.first..) {
                self.first = number + 1;
                if let Some(ticket) = slot {
                    self.patient.insert(number, ticket);
                }
            }
        }
        while matches!(self.slots.front(), Some(None)) {
            self.slots.pop_front();
            self.first += 1;
        }
        if self.deadlines.len() > 4 * self.waiting + SLOTS_SPARE {
            self.note_open();
            let mut deadlines = std::mem::take(&mut self.deadlines);
            deadlines.retain(|_, range| range.clone().any(|n| self.get_mut(n).is_some()));
            self.deadlines = deadlines;
            self.open = None;
        }
        Some(ticket)
    }

    /// Callers that wait.
    pub(super) const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Every ticket that has not ended.
    pub(super) fn all(&self) -> Vec<u64> {
        let numbered = self.slots.iter().zip(self.first..);
        let recent = numbered.filter(|(slot, _)| slot.is_some()).map(|(_, number)| number);
        self.patient.keys().copied().chain(recent).collect()
    }

    /// The first deadline that still matters.
    pub(super) fn next_deadline(&mut self) -> Option<u64> {
        if self.deadlines.is_empty() {
            return None;
        }
        self.note_open();
        while let Some((key, range)) = self.deadlines.first_key_value() {
            let (key, range) = (*key, range.clone());
            let last = *range.end();
            // What has ended stays ended, so the next look starts where this one stops.
            match range.into_iter().find(|number| self.get_mut(*number).is_some()) {
                Some(number) => {
                    self.deadlines.insert(key, number..=last);
                    return Some(key.0);
                }
                None => self.forget(key),
            }
        }
        None
    }

    fn forget(&mut self, key: (u64, u64)) {
        self.deadlines.remove(&key);
        self.open.take_if(|(open, _)| *open == key);
    }

    /// Tickets whose deadline has come.
    pub(super) fn expired(&mut self, now_us: u64) -> Vec<u64> {
        let mut expired = Vec::new();
        if self.deadlines.is_empty() {
            return expired;
        }
        self.note_open();
        while let Some((key, range)) = self.deadlines.first_key_value()
            && key.0 <= now_us
        {
            let (key, range) = (*key, range.clone());
            expired.extend(range);
            self.forget(key);
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(deadline_us: u64) -> Ticket {
        Ticket { who: Who::Local(Token(0)), deadline_us, stage: Stage::Offered }
    }

    #[test]
    fn a_ticket_ends_once() {
        let mut tickets = Tickets::default();
        let number = tickets.issue(ticket(5));
        assert!(tickets.take(number).is_some());
        assert!(tickets.take(number).is_none());
        assert!(tickets.take(99).is_none());
        assert_eq!(tickets.waiting(), 0);
    }

    #[test]
    fn one_patient_caller_does_not_keep_the_slots_of_later_ones() {
        let mut tickets = Tickets::default();
        let patient = tickets.issue(ticket(1_000_000));
        for at in 0..100_000 {
            let number = tickets.issue(ticket(at));
            assert!(tickets.take(number).is_some());
        }
        assert!(tickets.slots.len() <= 2 * SLOTS_SPARE, "{} slots", tickets.slots.len());
        assert_eq!(tickets.all(), vec![patient]);
        assert_eq!(tickets.next_deadline(), Some(1_000_000));
        assert!(tickets.get_mut(patient).is_some());
        assert!(tickets.take(patient).is_some());
        assert_eq!((tickets.waiting(), tickets.next_deadline()), (0, None));
    }

    #[test]
    fn one_patient_caller_does_not_keep_the_deadlines_of_later_ones() {
        let mut tickets = Tickets::default();
        let patient = tickets.issue(ticket(1_000_000));
        for at in 1..=100_000 {
            let number = tickets.issue(ticket(1_000_000 + at));
            assert!(tickets.take(number).is_some());
            assert_eq!(tickets.next_deadline(), Some(1_000_000));
        }
        assert_eq!(tickets.all(), vec![patient]);
        assert!(tickets.deadlines.len() <= 2 * SLOTS_SPARE, "{}", tickets.deadlines.len());
        assert_eq!(tickets.expired(1_000_000), vec![patient]);
    }

    #[test]
    fn deadlines_are_those_of_tickets_that_wait() {
        let mut tickets = Tickets::default();
        let late = tickets.issue(ticket(50));
        let a = tickets.issue(ticket(5));
        let b = tickets.issue(ticket(5));
        assert_eq!(tickets.next_deadline(), Some(5));
        tickets.take(a);
        assert_eq!(tickets.next_deadline(), Some(5));
        assert_eq!(tickets.expired(4), Vec::<u64>::new());
        assert_eq!(tickets.expired(5), vec![b]);
        tickets.take(b);
        assert_eq!(tickets.next_deadline(), Some(50));
        tickets.take(late);
        assert_eq!(tickets.next_deadline(), None);
    }

    #[test]
    fn a_ticket_issued_after_its_batch_expired_has_a_deadline_of_its_own() {
        let mut tickets = Tickets::default();
        let a = tickets.issue(ticket(5));
        assert_eq!(tickets.expired(5), vec![a]);
        tickets.take(a);
        let b = tickets.issue(ticket(5));
        assert_eq!(tickets.next_deadline(), Some(5));
        assert_eq!(tickets.expired(9), vec![b]);
    }
}
