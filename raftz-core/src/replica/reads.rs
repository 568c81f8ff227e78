//! Reads.

use crate::types::{NodeId, ReadMessage};

use super::Action;
use super::member::Replica;

impl Replica {
    pub(super) fn take_read_message(
        &mut self,
        _from: NodeId,
        _message: ReadMessage,
        _out: &mut Vec<Action>,
    ) {
    }
}
