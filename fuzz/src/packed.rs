//! A package made from an input's bytes: members that every trick of archives is made of, and then damage.

use std::io::Write;

use arbitrary::{Result, Unstructured};
use flate2::Compression;
use flate2::write::GzEncoder;

const BLOCK_BYTES: usize = 512;

/// Components of names. Several are the same to a careless reader.
const COMPONENTS: [&[u8]; 16] = [
    b"t",
    b"a",
    b"b",
    b"f",
    b"l",
    b"..",
    b".",
    b"",
    b"u",
    b"VERSION",
    b"\xff\xfe",
    b"a b",
    b"A",
    b"...",
    b"t\n",
    b"\\",
];

/// The types of members, and some that are none.
const TYPES: [u8; 16] =
    [b'0', b'5', b'0', b'5', b'2', b'1', b'2', b'1', b'0', b'\0', b'7', b'3', b'6', b'S', b'L', b'g'];

/// A whole package: raw bytes, the compressed form of raw bytes, or of members that were put together.
pub fn packed(source: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let form = source.int_in_range(0..=15u8)?;
    if form == 0 {
        return Ok(rest(source)?.to_vec());
    }
    let tar = if form == 1 { rest(source)?.to_vec() } else { members(source)? };
    let mut packed = compress(&tar);
    if form == 2 {
        damage(source, &mut packed)?;
    }
    Ok(packed)
}

fn rest<'a>(source: &mut Unstructured<'a>) -> Result<&'a [u8]> {
    source.bytes(source.len())
}

fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory takes everything");
    encoder.finish().expect("memory takes everything")
}

fn members(source: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for _ in 0..24 {
        if source.is_empty() {
            break;
        }
        member(source, &mut bytes)?;
    }
    match source.int_in_range(0..=7u8)? {
        7 => {}
        6 => bytes.extend_from_slice(&[0; BLOCK_BYTES]),
        5 => bytes.extend_from_slice(&[[0; 2 * BLOCK_BYTES], [1; 2 * BLOCK_BYTES]].concat()),
        _ => bytes.extend_from_slice(&[0; 2 * BLOCK_BYTES]),
    }
    if rarely(source, 8)? {
        damage(source, &mut bytes)?;
    }
    Ok(bytes)
}

fn damage(source: &mut Unstructured<'_>, bytes: &mut Vec<u8>) -> Result<()> {
    for _ in 0..source.int_in_range(1..=4u8)? {
        let at = usize::from(source.arbitrary::<u16>()?) % bytes.len().max(1);
        match source.arbitrary::<u8>()? {
            0 => bytes.truncate(at),
            1 => bytes.extend_from_slice(b"tail"),
            flip => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= flip),
        }
    }
    Ok(())
}

/// Once in so many times; never once the input is used up.
fn rarely(source: &mut Unstructured<'_>, times: u8) -> Result<bool> {
    Ok(source.int_in_range(1..=times)? == times)
}

/// A name of a few components; now and then absolute, or very long.
fn name(source: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut name = Vec::new();
    let shape = source.int_in_range(0..=31u8)?;
    if shape == 31 {
        name.push(b'/');
    }
    if shape < 28 {
        name.extend_from_slice(b"t/");
    }
    for part in 0..source.int_in_range(0..=3u8)? {
        if part > 0 {
            name.push(b'/');
        }
        name.extend_from_slice(source.choose(&COMPONENTS)?);
    }
    match shape {
        30 => name.extend_from_slice(&vec![b'n'; usize::from(source.arbitrary::<u8>()?) + 120]),
        29 => name.extend_from_slice(&b"/d".repeat(usize::from(source.arbitrary::<u16>()?) % 2100)),
        _ => {}
    }
    Ok(name)
}

fn member(source: &mut Unstructured<'_>, bytes: &mut Vec<u8>) -> Result<()> {
    let name = name(source)?;
    let kind = *source.choose(&TYPES)?;
    let link = if matches!(kind, b'1' | b'2') { self::name(source)? } else { Vec::new() };
    // Links within the tree are relative, those of hard links begin at the top.
    let link =
        if kind == b'2' { link.strip_prefix(b"t/").map_or(link.clone(), <[u8]>::to_vec) } else { link };
    let content: &[u8] = if matches!(kind, b'0' | b'\0' | b'7' | b'S' | b'L' | b'g') {
        let length = source.int_in_range(0..=40u16)?;
        source.bytes(usize::from(length).min(source.len()))?
    } else {
        b""
    };
    if name.len() > 100 || rarely(source, 8)? {
        extend(bytes, b"path", &name);
    }
    if link.len() > 100 || rarely(source, 16)? {
        extend(bytes, b"linkpath", &link);
    }
    if rarely(source, 8)? {
        let (key, value): (&[u8], &[u8]) = *source.choose(&EXTENSIONS)?;
        extend(bytes, key, value);
    }
    let mode = if rarely(source, 4)? { source.int_in_range(0..=0o7777u32)? } else { 0o755 };
    let claimed = match source.int_in_range(0..=63u8)? {
        63 => u64::from(source.arbitrary::<u32>()?),
        62 => u64::MAX / 2,
        _ => content.len() as u64,
    };
    header(bytes, &name, kind, &link, mode, claimed);
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    Ok(())
}

const EXTENSIONS: [(&[u8], &[u8]); 10] = [
    (b"size", b"7"),
    (b"size", b"-1"),
    (b"mtime", b"-0.000000001"),
    (b"mtime", b"99999999999.5"),
    (b"mtime", b"-9223372036854775808"),
    (b"uid", b"4294967295"),
    (b"SCHILY.xattr.user.x", b"v"),
    (b"GNU.sparse.major", b"1"),
    (b"path", b"t/../../out"),
    (b"linkpath", b"/etc/passwd"),
];

fn extend(bytes: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while length != body + length.to_string().len() {
        length = body + length.to_string().len();
    }
    let record = [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat();
    header(bytes, b"extension", b'x', b"", 0o644, record.len() as u64);
    bytes.extend_from_slice(&record);
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
}

fn header(bytes: &mut Vec<u8>, name: &[u8], kind: u8, link: &[u8], mode: u32, size: u64) {
    let mut header = tar::Header::new_ustar();
    let fields = header.as_old_mut();
    fill(&mut fields.name, name);
    fill(&mut fields.linkname, link);
    fields.linkflag = [kind];
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_cksum();
    bytes.extend_from_slice(header.as_bytes());
}

fn fill(field: &mut [u8], text: &[u8]) {
    for (byte, from) in field.iter_mut().zip(text) {
        *byte = *from;
    }
}
