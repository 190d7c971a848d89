//! Bytes that come from a disk: frames, twins, manifests, indexes.

use kytx::digest::Hasher;
use kytx::journal::codec::{FRAME_HEAD_BYTES, FRAME_LIMIT_BYTES, VERSION, decode_payload, type_number};
use kytx::journal::{Frame, Head, samples, twin};
use kytx::txn::Lsn;

/// I10: any bytes are a twin, a frame, a payload, patches of a good twin, or the content of a frame whose chain is
/// right; reading them never panics, and what is read is what was written.
pub fn decode(data: &[u8]) {
    read_twin(data);
    if let Ok(frame) = Frame::open(Head::START, data) {
        assert_eq!(frame.bytes(), data);
    }
    if let Some(record) = decode_payload(data) {
        assert!(data.len() <= FRAME_LIMIT_BYTES - FRAME_HEAD_BYTES);
        let frame = Frame::seal(Head::START, &record).expect("what was decoded fits");
        assert_eq!(&frame.bytes()[FRAME_HEAD_BYTES..], data, "two encodings of one record");
        assert_eq!(Frame::open(Head::START, frame.bytes()).expect("what was sealed opens"), frame);
    }
    patched_twin(data);
    forged_frame(data);
    long_record(data.len());
    let long = data.repeat(FRAME_LIMIT_BYTES / data.len().max(1) + 2);
    assert!(data.is_empty() || (Frame::open(Head::START, &long).is_err() && decode_payload(&long).is_none()));
}

/// I10: any bytes are a manifest, or an archive's index; reading them never panics, and what is read is written as the
/// very same bytes.
pub fn manifest(data: &[u8]) {
    kytx::backup::fuzz_decode(data);
}

fn read_twin(data: &[u8]) {
    let reading = twin::parse(data);
    if !reading.frames.is_empty() {
        let whole = twin::bytes_of(&reading.frames);
        assert!(data.starts_with(&whole));
        assert_eq!(reading.tail, data[whole.len()..]);
    }
}

/// Three bytes a patch: place, most significant byte first, and what is flipped there.
fn patched_twin(data: &[u8]) {
    let good = twin::bytes_of(&frames());
    let mut bytes = good.clone();
    for patch in data.chunks_exact(3).take(64) {
        let place = usize::from(u16::from_be_bytes([patch[0], patch[1]])) % bytes.len();
        bytes[place] ^= patch[2];
    }
    let reading = twin::parse(&bytes);
    assert_eq!(reading.fault.is_some(), bytes != good, "damage passed");
    assert_eq!(reading.frames, frames()[..reading.frames.len()], "an altered frame passed");
}

/// A version, two bytes of a record type, and a payload, under a chain as kytx would write it.
fn forged_frame(data: &[u8]) {
    let [version, high, low, payload @ ..] = data else { return };
    let bytes = forge(Head::START, *version, [*high, *low], payload);
    match Frame::open(Head::START, &bytes) {
        Ok(frame) => {
            assert_eq!((frame.bytes(), *version), (&bytes[..], VERSION));
            assert_eq!(type_number(&frame.record), u16::from_be_bytes([*high, *low]));
        }
        // Under a matching chain it is what some kytx wrote on purpose, unless it is too long for any or too old.
        Err(fault) => {
            let sound = bytes.len() <= FRAME_LIMIT_BYTES && *version >= VERSION;
            assert_eq!(fault.newer().is_some(), sound, "{fault}");
        }
    }
    let after = Head { lsn: Lsn(7), ..Head::START };
    let fault = Frame::open(after, &bytes).expect_err("a frame in another place passed");
    assert_eq!(fault.newer(), None, "{fault}");
    assert!(fault.to_string().contains("record 8") || bytes.len() > FRAME_LIMIT_BYTES, "{fault}");
}

/// A frame with these contents and the right chain.
pub fn forge(head: Head, version: u8, number: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let lsn = (head.lsn.0 + 1).to_be_bytes();
    let mut hasher = Hasher::domain("kytx 2026 journal chain v1");
    for part in [&lsn[..], head.chain.as_bytes(), &[version], &number, payload] {
        hasher.update(part);
    }
    [&lsn[..], &[version], &number, hasher.finish().as_bytes(), payload].concat()
}

/// A record fits, or is refused before a byte of it is written.
fn long_record(length: usize) {
    let record = samples::begin_with_user(&"u".repeat(length * 16 % (2 * FRAME_LIMIT_BYTES)));
    match Frame::seal(Head::START, &record) {
        Ok(frame) => assert!(frame.bytes().len() <= FRAME_LIMIT_BYTES),
        Err(refusal) => assert!(refusal.frame_bytes > FRAME_LIMIT_BYTES, "{refusal}"),
    }
}

fn frames() -> Vec<Frame> {
    let mut head = Head::START;
    let mut frames = Vec::new();
    for record in samples::example() {
        let frame = Frame::seal(head, &record).expect("a sample fits");
        head = frame.head();
        frames.push(frame);
    }
    frames
}
