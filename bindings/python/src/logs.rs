//! Log lines on their way to `logging`. A node's threads put them into a bounded ring and never wait; a thread of
//! Python's hands them on.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};
use pyo3::prelude::*;
use raftz_core::node::log_text;
use tracing::subscriber::Interest;
use tracing::{Level, Metadata, Subscriber, span};

/// Lines that may wait.
const LINES_MAX: usize = 4096;

/// A line, by logging's level and text; or the end.
type Item = Option<(u32, String)>;

static RING: LazyLock<(Sender<Item>, Receiver<Item>)> = LazyLock::new(|| bounded(LINES_MAX));
static DROPPED: AtomicU64 = AtomicU64::new(0);
/// The lowest of logging's levels that anybody wants.
static LEVEL: AtomicUsize = AtomicUsize::new(30);

/// The lowest of logging's levels that anybody wants, from now on.
#[pyfunction]
pub(crate) fn log_level(level: usize) {
    LEVEL.store(level, Ordering::Relaxed);
}

/// Waits for lines, as pairs of level and text. `None` after `log_stop`.
#[pyfunction]
pub(crate) fn log_take(py: Python<'_>) -> Option<Vec<(u32, String)>> {
    let (_, ring) = &*RING;
    let mut lines = vec![py.detach(|| ring.recv()).ok()??];
    while lines.len() < LINES_MAX {
        match ring.try_recv() {
            Ok(Some(line)) => lines.push(line),
            Ok(None) => {
                log_stop();
                break;
            }
            Err(_) => break,
        }
    }
    let dropped = DROPPED.swap(0, Ordering::Relaxed);
    if dropped > 0 {
        lines.push((30, format!("{dropped} lines were left out: too many at once")));
    }
    Some(lines)
}

/// Ends the wait of whoever takes lines, once he has taken what is there.
#[pyfunction]
pub(crate) fn log_stop() {
    let _ = RING.0.try_send(None);
}

/// The subscriber under which a node's threads log: it knows lines, no spans.
pub(crate) struct Lines;

fn number(level: Level) -> u32 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        Level::DEBUG => 10,
        Level::TRACE => 5,
    }
}

impl Subscriber for Lines {
    /// Levels may change at any time.
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        number(*metadata.level()) as usize >= LEVEL.load(Ordering::Relaxed)
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let text = log_text(event);
        if RING.0.try_send(Some((number(*event.metadata().level()), text))).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
