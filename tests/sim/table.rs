//! A store with sled's bad manners, on the simulated file system: it never syncs, writes whenever it is opened, reads
//! damage as an earlier past and cuts it off for good. What makes it durable is kytx's, and runs unchanged above it.
//!
//! The pairs lie in `db`, one after the other, each with its lengths and a checksum.

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use kytx::effect::fs::{Fs, exists, read_file};
use kytx::journal::decide::Pair;
use kytx::journal::{SledFault, Table, Tables};

use crate::sim_fs::SimFs;

/// The stores of one simulated file system.
pub struct SimTables(pub SimFs);

struct SimTable {
    fs: SimFs,
    db: std::path::PathBuf,
}

const CONF: &[u8] = b"simulated store";

impl Tables for SimTables {
    fn open(&self, path: &Path) -> Result<Box<dyn Table>, SledFault> {
        let fs = &self.0;
        let fault = |source| SledFault::Io { doing: "open", source };
        let (db, conf) = (path.join("db"), path.join("conf"));
        let make = || {
            if !exists(fs, path)? {
                fs.mkdir(path, 0o755)?;
            }
            if !exists(fs, &path.join("blobs"))? {
                fs.mkdir(&path.join("blobs"), 0o755)?;
            }
            if !exists(fs, &conf)? {
                fs.create(&conf, 0o644)?.write_all(CONF)?;
            }
            if !exists(fs, &db)? {
                fs.create(&db, 0o644)?;
            }
            Ok(())
        };
        make().map_err(fault)?;
        if read_file(fs, &conf, 4096).map_err(fault)? != CONF {
            return Err(SledFault::Broken { doing: "open", what: "`conf` is corrupt".to_owned() });
        }
        let bytes = read_file(fs, &db, 1 << 24).map_err(fault)?;
        let whole = parse(&bytes).1;
        if whole < bytes.len() {
            fs.open_append(&db).and_then(|mut file| file.set_len(whole as u64)).map_err(fault)?;
        }
        Ok(Box::new(SimTable { fs: fs.clone(), db }))
    }
}

impl Table for SimTable {
    fn pairs(&self) -> Result<Vec<Pair>, SledFault> {
        let bytes = read_file(&self.fs, &self.db, 1 << 24)
            .map_err(|source| SledFault::Io { doing: "read", source })?;
        Ok(parse(&bytes).0)
    }

    fn add(&self, pairs: &[Pair]) -> Result<(), SledFault> {
        let mut bytes = Vec::new();
        for (key, value) in pairs {
            let start = bytes.len();
            for part in [key, value] {
                bytes.extend_from_slice(&(part.len() as u16).to_be_bytes());
                bytes.extend_from_slice(part);
            }
            let sum = *blake3::hash(&bytes[start..]).as_bytes();
            bytes.extend_from_slice(&sum[..SUM_BYTES]);
        }
        let write = || {
            let mut file = self.fs.open_append(&self.db)?;
            file.seek(SeekFrom::End(0))?;
            file.write_all(&bytes)
        };
        write().map_err(|source| SledFault::Io { doing: "append to", source })
    }
}

const SUM_BYTES: usize = 8;

/// The pairs that are whole, from the first on, and how many bytes they take.
fn parse(bytes: &[u8]) -> (Vec<Pair>, usize) {
    fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        rest.split_at_checked(u16::from_be_bytes(*length).into())
    }
    fn pair(bytes: &[u8]) -> Option<(Pair, usize)> {
        let (key, rest) = part(bytes)?;
        let (value, rest) = part(rest)?;
        let length = bytes.len() - rest.len();
        let sum = blake3::hash(&bytes[..length]);
        (rest.get(..SUM_BYTES)? == &sum.as_bytes()[..SUM_BYTES])
            .then(|| ((key.to_vec(), value.to_vec()), length + SUM_BYTES))
    }
    let (mut pairs, mut at) = (Vec::new(), 0);
    while let Some((found, length)) = pair(&bytes[at..]) {
        pairs.push(found);
        at += length;
    }
    pairs.sort();
    (pairs, at)
}
