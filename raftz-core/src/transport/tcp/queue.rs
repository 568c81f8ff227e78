//! What a link has still to write: frames by class, handed to the system many at a time.
//!
//! Invariant: a frame once begun is finished before another starts; between frames the most urgent
//! class goes first. Bytes queued never exceed the bound by more than one frame that found the
//! queue empty, plus the reserve for control frames.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};

use crate::transport::{Class, OutFrame, SendError};

/// Pieces that one system call takes at most (the kernel's own limit).
const PIECES_MAX: usize = 1024;
/// Room beyond the bound for control frames, so that heartbeats pass where data is refused.
const CONTROL_RESERVE_BYTES: usize = 256 << 10;

/// Frames waiting for one socket.
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    /// What is left of the frame whose first byte may have been written.
    current: VecDeque<Bytes>,
    control: VecDeque<OutFrame>,
    data: VecDeque<OutFrame>,
    bulk: VecDeque<OutFrame>,
    bytes: usize,
}

impl SendQueue {
    /// Queues a frame unless the bound is reached.
    pub(super) fn push(&mut self, frame: OutFrame, bytes_max: usize) -> Result<(), SendError> {
        let bound = match frame.class {
            Class::Control => bytes_max.saturating_add(CONTROL_RESERVE_BYTES),
            Class::Data | Class::Bulk => bytes_max,
        };
        let bytes = frame.len();
        if self.bytes > 0 && self.bytes.saturating_add(bytes) > bound {
            return Err(SendError::Full);
        }
        self.bytes += bytes;
        match frame.class {
            Class::Control => self.control.push_back(frame),
            Class::Data => self.data.push_back(frame),
            Class::Bulk => self.bulk.push_back(frame),
        }
        Ok(())
    }

    /// Queues bytes of the handshake, which come before any frame.
    pub(super) fn push_handshake(&mut self, bytes: Vec<u8>) {
        self.bytes += bytes.len();
        self.current.push_back(bytes.into());
    }

    /// Whether all is written.
    pub(super) const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Writes by `send` until all is written or it would block. Returns the bytes written.
    pub(super) fn write(
        &mut self,
        mut send: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut total = 0;
        while self.bytes > 0 {
            match send(&self.pieces()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    total += written;
                    self.consume(written);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }

    /// The next pieces in the order in which they are written, as many as one system call takes.
    fn pieces<'a>(&'a self) -> Vec<IoSlice<'a>> {
        let mut pieces = Vec::new();
        let mut add = |piece: &'a Bytes| {
            if pieces.len() < PIECES_MAX && !piece.is_empty() {
                pieces.push(IoSlice::new(piece));
            }
            pieces.len() < PIECES_MAX
        };
        let _ = self.current.iter().all(&mut add)
            && [&self.control, &self.data, &self.bulk]
                .into_iter()
                .flatten()
                .all(|frame| add(&frame.head) && frame.payloads.iter().all(&mut add));
        pieces
    }

    fn consume(&mut self, mut written: usize) {
        self.bytes = self.bytes.saturating_sub(written);
        while written > 0 {
            match self.current.front_mut() {
                Some(piece) if piece.len() > written => {
                    piece.advance(written);
                    return;
                }
                Some(piece) => {
                    written -= piece.len();
                    self.current.pop_front();
                }
                None => {
                    let next = self.control.pop_front();
                    let next = next.or_else(|| self.data.pop_front());
                    let Some(frame) = next.or_else(|| self.bulk.pop_front()) else { return };
                    self.current.push_back(frame.head);
                    self.current.extend(frame.payloads);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn frame(class: Class, head: &[u8], payloads: &[&[u8]]) -> OutFrame {
        let payloads = payloads.iter().map(|bytes| Bytes::copy_from_slice(bytes)).collect();
        OutFrame { class, head: Bytes::copy_from_slice(head), payloads }
    }

    /// Writes `step` bytes at a time; `between` runs after each write.
    fn drain(queue: &mut SendQueue, step: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while !queue.is_empty() {
            let mut budget = step;
            queue
                .write(|pieces| {
                    if budget == 0 {
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                    let mut written = 0;
                    for piece in pieces {
                        let take = piece.len().min(budget);
                        out.extend_from_slice(&piece[..take]);
                        budget -= take;
                        written += take;
                    }
                    Ok(written)
                })
                .unwrap();
        }
        out
    }

    #[test]
    fn urgent_frames_overtake_at_frame_boundaries_however_writes_are_cut() {
        for step in 1..20 {
            let mut queue = SendQueue::default();
            queue.push(frame(Class::Bulk, b"bulk", &[]), 1000).unwrap();
            queue.push(frame(Class::Data, b"da", &[b"t", b"", b"a"]), 1000).unwrap();
            queue.push(frame(Class::Control, b"ctl", &[]), 1000).unwrap();
            assert_eq!(drain(&mut queue, step), b"ctldatabulk");
            assert!(queue.pieces().is_empty());
        }
    }

    #[test]
    fn a_begun_frame_is_finished_before_a_more_urgent_one() {
        let mut queue = SendQueue::default();
        queue.push(frame(Class::Data, b"data", &[b"more"]), 1000).unwrap();
        let mut first = true;
        queue
            .write(|_| {
                if std::mem::take(&mut first) {
                    Ok(1)
                } else {
                    Err(io::ErrorKind::WouldBlock.into())
                }
            })
            .unwrap();
        queue.push(frame(Class::Control, b"ctl", &[]), 1000).unwrap();
        assert_eq!(drain(&mut queue, 100), b"atamorectl");
    }

    #[test]
    fn many_frames_cost_one_system_call() {
        let mut queue = SendQueue::default();
        for _ in 0..500 {
            queue.push(frame(Class::Data, b"head", &[b"payload"]), 1 << 20).unwrap();
        }
        let mut calls = 0;
        queue
            .write(|pieces| {
                calls += 1;
                Ok(pieces.iter().map(|piece| piece.len()).sum())
            })
            .unwrap();
        assert_eq!(calls, 1);
        assert!(queue.is_empty());
    }

    #[test]
    fn the_bound_refuses_data_and_still_takes_control() {
        let mut queue = SendQueue::default();
        queue.push(frame(Class::Data, &[0; 200], &[]), 100).unwrap();
        assert_eq!(queue.push(frame(Class::Data, &[0; 1], &[]), 100), Err(SendError::Full));
        assert_eq!(queue.push(frame(Class::Control, &[0; 50], &[]), 100), Ok(()));
        let beyond = frame(Class::Control, &vec![0; CONTROL_RESERVE_BYTES], &[]);
        assert_eq!(queue.push(beyond, 100), Err(SendError::Full));
    }
}
