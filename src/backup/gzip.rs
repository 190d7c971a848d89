//! One block of a stream as one gzip member.
//!
//! A member is complete in itself, so that members can be made, checked and inflated by several threads and a damaged
//! one costs only what it held; concatenated members are gzip as any `gzip` reads it. Two thirds of an installation
//! are jars, on which deflate spends its time for nothing: what looks like noise goes out as stored blocks.

use flate2::{Compress, Compression, Crc, Decompress, FlushCompress, FlushDecompress, Status};

/// How much of the plain stream one member holds. Smaller members lose compression at every cut, larger ones lose
/// more to a damaged byte.
pub const BLOCK_BYTES: usize = 1 << 20;
/// No member is longer: stored blocks add 5 bytes to 65,535, and deflate in the worst case little more.
pub const MEMBER_BYTES_MAX: usize = BLOCK_BYTES + (64 << 10);

/// What is judged at once, noise or not.
const GRANULE_BYTES: usize = 128 << 10;
const STORED_BYTES_MAX: usize = 65_535;
const SAMPLES: usize = 8;
const SAMPLE_BYTES: usize = 1024;
/// Real jars measured 7.9 and above, text below 6. At 7.75 an archive is 4 to 5 per cent longer than gzip -6 makes
/// it, in a fifteenth of its time.
const NOISE_BITS: f64 = 7.75;
/// zlib-rs at 1 gives away half of the compression of logs; at 6 it takes 60 per cent longer.
const LEVEL: u32 = 2;

/// Magic, deflate, no flags, no time, no extra flags, Unix: the same input gives the same bytes.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
/// A final block with fixed codes and nothing in it.
const LAST_BLOCK: [u8; 2] = [3, 0];
const TRAILER_BYTES: usize = 8;

/// A compressor for [`deflate_member`], made once and used again.
pub fn compressor() -> Compress {
    Compress::new(Compression::new(LEVEL), false)
}

/// Replaces `output` with a gzip member that holds `input`.
pub fn deflate_member(input: &[u8], deflate: &mut Compress, output: &mut Vec<u8>) {
    output.clear();
    output.extend_from_slice(&HEADER);
    let mut rest = input;
    while !rest.is_empty() {
        let noise = is_noise(&rest[..rest.len().min(GRANULE_BYTES)]);
        let mut length = 0;
        while length < rest.len() {
            let granule = &rest[length..rest.len().min(length + GRANULE_BYTES)];
            if length > 0 && is_noise(granule) != noise {
                break;
            }
            length += granule.len();
        }
        let (run, tail) = rest.split_at(length);
        if noise {
            store(run, output);
        } else {
            compress(run, deflate, output);
        }
        rest = tail;
    }
    output.extend_from_slice(&LAST_BLOCK);
    let mut crc = Crc::new();
    crc.update(input);
    output.extend_from_slice(&crc.sum().to_le_bytes());
    output.extend_from_slice(&(input.len() as u32).to_le_bytes());
}

/// Why a member cannot be inflated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// It does not begin as kytx begins one.
    #[error("the gzip header is damaged")]
    Header,
    /// The compressed data make no sense.
    #[error("the compressed data are damaged")]
    Data,
    /// The check sum or the length at its end is wrong.
    #[error("the gzip check sum is wrong")]
    Checksum,
}

/// Replaces `output` with what a member of [`deflate_member`] holds, which must be `plain_bytes`.
pub fn inflate_member(
    input: &[u8],
    plain_bytes: usize,
    inflate: &mut Decompress,
    output: &mut Vec<u8>,
) -> Result<(), MemberError> {
    output.clear();
    let body = input.strip_prefix(&HEADER).ok_or(MemberError::Header)?;
    let (body, trailer) =
        body.split_at_checked(body.len().wrapping_sub(TRAILER_BYTES)).ok_or(MemberError::Header)?;
    inflate.reset(false);
    output.reserve_exact(plain_bytes + 1);
    let status = inflate.decompress_vec(body, output, FlushDecompress::Finish);
    let complete = matches!(status, Ok(Status::StreamEnd)) && inflate.total_in() == body.len() as u64;
    if !complete || output.len() != plain_bytes {
        return Err(MemberError::Data);
    }
    let mut crc = Crc::new();
    crc.update(output);
    let expected = [crc.sum().to_le_bytes(), (plain_bytes as u32).to_le_bytes()].concat();
    if trailer == expected { Ok(()) } else { Err(MemberError::Checksum) }
}

/// Estimates the entropy of the bytes from a few samples spread over the granule.
fn is_noise(granule: &[u8]) -> bool {
    if granule.len() < SAMPLES * SAMPLE_BYTES {
        return false;
    }
    let mut counts = [0_u32; 256];
    let step = (granule.len() - SAMPLE_BYTES) / (SAMPLES - 1);
    for sample in 0..SAMPLES {
        for byte in &granule[sample * step..sample * step + SAMPLE_BYTES] {
            counts[usize::from(*byte)] += 1;
        }
    }
    let total = (SAMPLES * SAMPLE_BYTES) as f64;
    let bits: f64 = counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f64::from(*count) / total)
        .map(|share| -share * share.log2())
        .sum();
    bits > NOISE_BITS
}

fn store(run: &[u8], output: &mut Vec<u8>) {
    for piece in run.chunks(STORED_BYTES_MAX) {
        let length = piece.len() as u16;
        output.push(0);
        output.extend_from_slice(&length.to_le_bytes());
        output.extend_from_slice(&(!length).to_le_bytes());
        output.extend_from_slice(piece);
    }
}

/// Appends deflate blocks that end on a byte and are not the last. The window starts empty: it must not reach back
/// over stored bytes that the compressor has never seen.
fn compress(run: &[u8], deflate: &mut Compress, output: &mut Vec<u8>) {
    deflate.reset();
    loop {
        output.reserve(64 << 10);
        let taken = deflate.total_in() as usize;
        deflate
            .compress_vec(&run[taken..], output, FlushCompress::Sync)
            .expect("BUG: deflate fails only for want of room");
        // Room left over means that the flush is complete too.
        if deflate.total_in() as usize == run.len() && output.len() < output.capacity() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn any_mixture_is_read_back_by_this_and_by_a_stock_decoder() {
        let text = b"a line of a log, as logs are\n".repeat(10_000);
        let noise = noise(500_000);
        let zeros = vec![0; 300_000];
        let mixtures: [Vec<u8>; 6] = [
            Vec::new(),
            b"x".to_vec(),
            text.clone(),
            noise[..=STORED_BYTES_MAX].to_vec(),
            [&text[..200_000], &noise, &text, &zeros][..].concat(),
            [&noise[..], &zeros, &noise[..131_072]].concat(),
        ];
        let (mut deflate, mut inflate) = (compressor(), Decompress::new(false));
        let (mut member, mut plain) = (Vec::new(), Vec::new());
        for mixture in &mixtures {
            let input = &mixture[..mixture.len().min(BLOCK_BYTES)];
            deflate_member(input, &mut deflate, &mut member);
            assert!(
                member.len() <= input.len() + input.len() / 1000 + 64 && member.len() <= MEMBER_BYTES_MAX
            );
            inflate_member(&member, input.len(), &mut inflate, &mut plain).unwrap();
            assert!(plain == input);
            let mut stock = Vec::new();
            flate2::read::GzDecoder::new(&member[..]).read_to_end(&mut stock).unwrap();
            assert!(stock == input);
            assert!(inflate_member(&member, input.len() + 1, &mut inflate, &mut plain).is_err());
            assert!(
                inflate_member(&member[..member.len() - 1], input.len(), &mut inflate, &mut plain).is_err()
            );
        }
    }

    #[test]
    fn noise_is_stored_and_text_is_not() {
        assert!(is_noise(&noise(GRANULE_BYTES)));
        assert!(!is_noise(&b"INFO nothing happened at 12:34:56\n".repeat(4000)));
        assert!(!is_noise(&noise(100)));
    }

    #[test]
    fn no_flipped_byte_goes_unnoticed() {
        let input = b"some text, some more text".repeat(20);
        let mut member = Vec::new();
        deflate_member(&input, &mut compressor(), &mut member);
        let (mut inflate, mut plain) = (Decompress::new(false), Vec::new());
        for place in 0..member.len() {
            let mut damaged = member.clone();
            damaged[place] ^= 0x40;
            let result = inflate_member(&damaged, input.len(), &mut inflate, &mut plain);
            assert!(result.is_err() || plain == input, "byte {place}");
        }
    }
}
