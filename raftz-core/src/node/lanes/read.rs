//! The read lane: fetches entries that are no longer in memory, so that neither the event loop
//! nor the log lane ever waits for a read.

use std::sync::Arc;

use crate::node::error::NodeError;
use crate::node::intake::{Intake, Note, ReadPurpose};
use crate::node::threads::{Threads, Waiting, guarded, run_inside};
use crate::storage::LogReader;
use crate::types::{Entry, GroupId, Index};

use super::queue::{LaneSender, Waited, lane};

/// A request to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadJob {
    /// The group.
    pub(crate) group: GroupId,
    /// For whom.
    pub(crate) purpose: ReadPurpose,
    /// First index wanted.
    pub(crate) first: Index,
    /// Last index wanted.
    pub(crate) last: Index,
    /// Stop after this many bytes, but give at least one entry.
    pub(crate) bytes_max: u64,
}

/// The read lane, wherever it runs.
pub(crate) enum ReadLane {
    /// On the event loop, for a store that never blocks.
    Inline(Arc<dyn LogReader>, Arc<Intake>),
    /// On a thread of its own.
    Thread(LaneSender<ReadJob>),
}

impl ReadLane {
    /// Puts a reader where it belongs.
    pub(crate) fn start(
        reader: Arc<dyn LogReader>,
        never_blocks: bool,
        intake: Arc<Intake>,
        threads: &Threads,
    ) -> Result<Self, NodeError> {
        if never_blocks {
            return Ok(Self::Inline(reader, intake));
        }
        let (queue, theirs) = lane();
        threads.spawn("read", move || {
            let (mut jobs, mut waiting) = (Vec::new(), Waiting::default());
            while theirs.take_all(None, &mut jobs, &mut waiting) != Waited::Closed {
                for job in jobs.drain(..) {
                    intake.notify([serve(reader.as_ref(), job)]);
                }
            }
        })?;
        Ok(Self::Thread(queue))
    }

    /// Asks for entries; the answer comes through the inbox.
    pub(crate) fn read(&self, job: ReadJob) {
        match self {
            Self::Inline(reader, intake) => intake.notify([serve(reader.as_ref(), job)]),
            Self::Thread(queue) => queue.push_all([job]),
        }
    }

    /// Lets the thread end.
    pub(crate) fn stop(&self) {
        match self {
            Self::Inline(..) => {}
            Self::Thread(queue) => queue.close(),
        }
    }
}

fn serve(reader: &dyn LogReader, job: ReadJob) -> Note {
    let ReadJob { group, purpose, first, last, bytes_max } = job;
    Note::Read { group, purpose, result: read(reader, group, first, last, bytes_max) }
}

/// Reads, with a panicking reader turned into words.
pub(super) fn read(
    reader: &dyn LogReader,
    group: GroupId,
    first: Index,
    last: Index,
    bytes_max: u64,
) -> Result<Vec<Entry>, String> {
    guarded(|| run_inside("the storage's reader", || reader.read(group, first, last, bytes_max)))
        .map_err(|panic| format!("the store's reader panicked: {panic}"))?
        .map_err(|error| error.to_string())
}
