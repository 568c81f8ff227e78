//! The frame reader. Input: flags, a seed of how the stream is cut into pieces, the stream.
//!
//! However it is cut, a stream gives the same frames and the same end as one that is judged as a whole
//! by the rule written in `transport::frame`, and it never costs more memory than has arrived.

use raftz_core::transport::frame::{
    FRAME_HEADER_BYTES, FRAME_MAGIC, FRAME_VERSION, FrameError, FrameHeader, FrameLimits,
    FrameReader,
};
use raftz_core::transport::{Class, InFrame};

/// Puts checksums right.
const RESEAL: u8 = 1;
/// Puts magic and version right, too.
const REDRESS: u8 = 2;

/// Small, so that the limits are met.
const LIMITS: FrameLimits =
    FrameLimits { control_bytes_max: 1 << 10, data_bytes_max: 1 << 20, bulk_bytes_max: 1 << 14 };

pub(super) fn check(input: &[u8]) {
    let [flags, cut, stream @ ..] = input else { return };
    let mut stream = stream.to_vec();
    repair(&mut stream, *flags);
    let (frames, end) = whole(&stream);
    for seed in [*cut, cut.wrapping_add(1), 0] {
        let (read, read_end) = in_pieces(&stream, seed);
        assert_eq!(read.len(), frames.len(), "cut by {seed}");
        assert!(read.iter().zip(&frames).all(|(a, b)| a.bytes == *b), "cut by {seed}");
        assert_eq!(read_end, end, "cut by {seed}");
    }
}

/// Mends the headers of all frames in a row, as an attacker would.
fn repair(stream: &mut [u8], flags: u8) {
    let mut at = 0;
    while let Some(frame) = stream.get_mut(at..)
        && frame.len() >= FRAME_HEADER_BYTES
    {
        if flags & REDRESS != 0 {
            frame[..4].copy_from_slice(&FRAME_MAGIC);
            frame[4..6].copy_from_slice(&FRAME_VERSION.to_le_bytes());
            frame[8..10].fill(0);
            frame[11] = 0;
            frame[24..28].fill(0);
        }
        let length = u32::from_le_bytes(frame[16..20].try_into().unwrap()) as usize;
        let metadata = u32::from_le_bytes(frame[20..24].try_into().unwrap()) as usize;
        if flags & RESEAL != 0
            && let Some(metadata) = frame.get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + metadata)
        {
            let crc = crc32c::crc32c_append(crc32c::crc32c(&frame[..28]), metadata);
            frame[28..32].copy_from_slice(&crc.to_le_bytes());
        }
        at += FRAME_HEADER_BYTES + length;
    }
}

/// The rule, applied to a stream of which everything is there.
fn whole(stream: &[u8]) -> (Vec<&[u8]>, Option<FrameError>) {
    let mut frames = Vec::new();
    let mut rest = stream;
    while let Some(header) = rest.first_chunk::<FRAME_HEADER_BYTES>() {
        let header = match FrameHeader::parse(header) {
            Ok(header) => header,
            Err(error) => return (frames, Some(error)),
        };
        let (class, bytes) = (header.class, header.frame_bytes());
        let limit = LIMITS.of(class) as u64;
        if bytes > limit {
            return (frames, Some(FrameError::TooLarge { class, bytes, limit }));
        }
        let front = FRAME_HEADER_BYTES + header.metadata_length as usize;
        let Some(front) = rest.get(..front) else { break };
        if let Err(error) = header.verify(front) {
            return (frames, Some(error));
        }
        let Some((frame, behind)) = rest.split_at_checked(bytes as usize) else { break };
        frames.push(frame);
        rest = behind;
    }
    (frames, None)
}

fn in_pieces(stream: &[u8], seed: u8) -> (Vec<InFrame>, Option<FrameError>) {
    let mut reader = FrameReader::new(LIMITS);
    let mut frames = Vec::new();
    let (mut rest, mut state) = (stream, u32::from(seed));
    while !rest.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let most = if seed == 0 { usize::MAX } else { 1 + (state >> 20) as usize % 97 };
        let result = match reader.direct() {
            Some(buffer) if state & 1 << 16 != 0 => {
                let room = buffer.capacity() - buffer.len();
                let (piece, behind) = rest.split_at(rest.len().min(room).min(most * 97));
                buffer.extend_from_slice(piece);
                rest = behind;
                reader.direct_done(&mut frames)
            }
            Some(_) | None => {
                let (piece, behind) = rest.split_at(rest.len().min(most));
                rest = behind;
                reader.push(piece, &mut frames)
            }
        };
        let arrived = stream.len() - rest.len();
        let held = reader.held_bytes();
        assert!(held <= 2 * arrived + (64 << 10) + FRAME_HEADER_BYTES, "{held} held of {arrived}");
        if let Err(error) = result {
            return (frames, Some(error));
        }
    }
    (frames, None)
}

pub(super) fn seeds() -> Vec<(String, Vec<u8>)> {
    let golden: Vec<(String, Vec<u8>)> = super::golden_frames()
        .into_iter()
        .filter(|(_, bytes)| bytes.starts_with(&FRAME_MAGIC))
        .collect();
    let mut seeds: Vec<(String, Vec<u8>)> =
        golden.iter().map(|(name, bytes)| (name.clone(), [&[0, 7], &bytes[..]].concat())).collect();
    let row = golden.iter().flat_map(|(_, bytes)| bytes.clone());
    seeds.push(("all-in-a-row".into(), [0, 3].into_iter().chain(row).collect()));
    for (class, raw) in [(Class::Control, 0), (Class::Data, 1), (Class::Bulk, 2)] {
        for (what, over) in [("largest", 0), ("too-large", 1)] {
            let mut header = golden[0].1[..FRAME_HEADER_BYTES].to_vec();
            let length = (LIMITS.of(class) - FRAME_HEADER_BYTES + over) as u32;
            header[10] = raw;
            header[16..20].copy_from_slice(&length.to_le_bytes());
            header[20..24].fill(0);
            let input = [&[RESEAL, 5], &header[..], &[7; 200]].concat();
            seeds.push((format!("{what}-{class:?}").to_lowercase(), input));
        }
    }
    seeds
}
