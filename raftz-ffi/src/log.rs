//! A node's log lines, for C.

use std::os::raw::c_void;
use std::sync::Arc;

use raftz_core::node::log_text;
use tracing::{Level, Metadata, Subscriber, span};

use crate::bytes::raftz_slice;
use crate::config::{RAFTZ_LOG_ERROR, RAFTZ_LOG_TRACE, UserData, raftz_destroy_fn, raftz_log_fn};
use crate::guard::{Call, invalid, null};

/// Writes a node's lines to a user's function.
#[derive(Debug)]
pub(crate) struct Logger {
    level: u32,
    call: unsafe extern "C" fn(*mut c_void, u32, raftz_slice),
    user_data: UserData,
}

impl Logger {
    pub(crate) fn new(
        level: u32,
        log_fn: raftz_log_fn,
        user_data: *mut c_void,
        destroy: raftz_destroy_fn,
    ) -> Call<Arc<Self>> {
        let call = log_fn.ok_or_else(|| null("log_fn"))?;
        if !(RAFTZ_LOG_ERROR..=RAFTZ_LOG_TRACE).contains(&level) {
            return Err(invalid(format!(
                "level is {level}; it goes from RAFTZ_LOG_ERROR (1) to RAFTZ_LOG_TRACE (5)"
            )));
        }
        Ok(Arc::new(Self { level, call, user_data: UserData::new(user_data, destroy) }))
    }

    /// What the threads of a node log under.
    pub(crate) fn dispatch(logger: Option<&Arc<Self>>) -> tracing::Dispatch {
        match logger {
            Some(logger) => tracing::Dispatch::new(Lines(Arc::clone(logger))),
            None => tracing::Dispatch::none(),
        }
    }
}

/// The subscriber behind it: it knows lines, no spans.
struct Lines(Arc<Logger>);

fn number(level: Level) -> u32 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        number(*metadata.level()) <= self.0.level
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let text = log_text(event);
        let slice = raftz_slice::of(text.as_bytes());
        // SAFETY: the user's function, called with the user's data and a line that lives meanwhile.
        unsafe { (self.0.call)(self.0.user_data.get(), number(*event.metadata().level()), slice) }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
