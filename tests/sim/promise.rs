//! What must hold whenever the power goes, and what every end must look like.

use std::path::Path;

use kytx::backup::index::Index;
use kytx::backup::manifest::Manifest;
use kytx::backup::read_back::read_back;
use kytx::backup::walk::hash_file;
use kytx::effect::fs::{Kind, read_file};
use kytx::effect::tree::no_tick;
use kytx::mutate::{ArchiveRecord, archive_record_path};
use kytx::txn::{Outcome, Record};

use crate::disk::{Database, Image};
use crate::run::{End, Fault};
use crate::scene::{
    ARCHIVE, CUBE, CUBE_ROOT, HOME, NEIGHBOURS, Tree, difference, metadata_backup, spare, state, tree,
};
use crate::sim_fs::{Lacking, SimFs};

/// The machine as it was, and as it should become.
pub struct Promise {
    old_home: Tree,
    /// The new home, from a run without a crash.
    pub new_home: Tree,
    cube: Tree,
    database: Database,
    neighbours: Vec<Tree>,
}

impl Promise {
    /// What the machine holds before the upgrade. The new home is yet to be filled in.
    pub fn of(image: &Image) -> Self {
        Self {
            old_home: tree(image, HOME),
            new_home: Tree::new(),
            cube: tree(image, CUBE),
            database: (*image.database).clone(),
            neighbours: NEIGHBOURS.iter().map(|path| tree(image, path)).collect(),
        }
    }

    /// What must hold at every moment, with so many records acknowledged.
    pub fn check_always(&self, image: &Image, acknowledged: &[Record]) -> Result<(), Fault> {
        for (path, wanted) in NEIGHBOURS.iter().zip(&self.neighbours) {
            if let Some(what) = difference(wanted, &tree(image, path)) {
                return Err(format!("I6: `{path}` is not ours: {what}"));
            }
        }
        if !acknowledged.iter().any(|record| matches!(record, Record::Sealed { .. })) {
            let touched = self.check_untouched(image).and_then(|()| absent(image, ARCHIVE));
            return touched.map_err(|what| format!("I1: before the plan is sealed, {what}"));
        }
        if acknowledged.iter().any(|record| matches!(record, Record::Commit { .. })) {
            return self.check_names(image);
        }
        let names = [HOME.into(), spare(), spare().with_extension("parked")];
        if !names.iter().any(|name| tree(image, name) == self.old_home) {
            let what = difference(&self.old_home, &tree(image, HOME)).unwrap_or_default();
            return Err(format!("I7: the old home is gone: {what}"));
        }
        if self.cube != tree(image, CUBE) && self.cube != tree(image, format!("{CUBE_ROOT}/copy")) {
            return Err("I7: neither the cube data nor their copy is whole".to_owned());
        }
        if *image.database != self.database && !self.is_dump(image) {
            return Err("I7: neither the metadata nor their backup is whole".to_owned());
        }
        Ok(())
    }

    /// What is being deleted has lost its name first: what has it is whole.
    fn check_names(&self, image: &Image) -> Result<(), Fault> {
        let spare = tree(image, spare());
        if !spare.is_empty() && spare != self.old_home {
            return Err("half of the old home is there under the name of the whole".to_owned());
        }
        if !tree(image, metadata_backup()).is_empty() && !self.is_dump(image) {
            return Err("half of the metadata backup is there under the name of the whole".to_owned());
        }
        Ok(())
    }

    fn check_untouched(&self, image: &Image) -> Result<(), Fault> {
        same(&self.old_home, image, HOME)?;
        same(&self.cube, image, CUBE)?;
        absent(image, CUBE_ROOT)?;
        if *image.database != self.database {
            return Err("the metadata are others".to_owned());
        }
        Ok(())
    }

    fn is_dump(&self, image: &Image) -> bool {
        let found = tree(image, metadata_backup());
        let files: Database = found
            .iter()
            .filter_map(|(path, seen)| Some((path.to_str()?.to_owned(), seen.file()?.to_vec())))
            .collect();
        files == self.database
    }

    /// What must hold once kytx has said that this is the end, even if the power goes right then.
    pub fn check_end(&self, image: &Image, end: End, migrated: bool) -> Result<(), Fault> {
        match end {
            End::Nothing => self.check_untouched(image),
            End::Ended(Outcome::Aborted) => {
                self.check_untouched(image)?;
                self.check_leftovers(image)?;
                // An archive that has its name stays, and is one.
                if absent(image, ARCHIVE).is_ok() { Ok(()) } else { check_archive(image, HOME.as_ref()) }
            }
            // Nothing but the journal was of interest.
            End::Applied | End::Ended(Outcome::Committed) if self.database.is_empty() => {
                self.check_untouched(image)
            }
            End::Applied => self.check_applied(image, migrated),
            End::Ended(Outcome::Committed) => {
                same(&self.new_home, image, HOME)?;
                same(&self.cube, image, CUBE)?;
                absent(image, ARCHIVE)?;
                absent(image, CUBE_ROOT)?;
                absent(image, metadata_backup())?;
                self.check_leftovers(image)
            }
        }
        .map_err(|what| format!("{end:?}, but {what}"))
    }

    fn check_leftovers(&self, image: &Image) -> Result<(), Fault> {
        if self.neighbours.iter().any(Tree::is_empty) {
            // Nobody else has a copy there.
            absent(image, "/hdfs/kylin/_kytx")?;
        }
        for ending in ["", ".part", ".discarded", ".parked"] {
            absent(image, state().root().join(format!("spare{ending}")))?;
        }
        absent(image, format!("{CUBE_ROOT}.discarded"))?;
        absent(image, format!("{ARCHIVE}.part"))?;
        absent(image, format!("{ARCHIVE}.discarded"))
    }

    fn check_applied(&self, image: &Image, migrated: bool) -> Result<(), Fault> {
        same(&self.new_home, image, HOME)?;
        same(&self.old_home, image, spare())?;
        same(&self.cube, image, format!("{CUBE_ROOT}/copy"))?;
        if !migrated {
            same(&self.cube, image, CUBE)?;
        }
        if !self.is_dump(image) {
            return Err("the metadata backup is not whole".to_owned());
        }
        check_archive(image, &spare())
    }
}

/// The archive is what its record says, to the last byte, and so is the old tree from which it was made: also what the
/// product had just written there, and had not synced.
fn check_archive(image: &Image, old: &Path) -> Result<(), Fault> {
    let fs = SimFs::mount(image.clone(), Lacking::default(), Vec::new(), 0);
    let path = archive_record_path(&state(), &ARCHIVE.into());
    let check = || -> Result<(), Box<dyn std::error::Error>> {
        let record: ArchiveRecord = serde_json::from_slice(&read_file(&fs, &path, 1 << 20)?)?;
        let index = Index::read(&fs, &path.with_extension("index"), &record.index)?;
        let manifest = Manifest::read(&fs, &path.with_extension("manifest"), &record.manifest)?;
        read_back(&fs, ARCHIVE.as_ref(), &index, &manifest, 1, &no_tick)?;
        for entry in manifest.entries.iter().filter(|entry| entry.kind == Kind::File) {
            let path = old.join(entry.path.as_path());
            if entry.content != Some(hash_file(&fs, &path, &no_tick)?.1) {
                return Err(format!("`{}` in the old tree is not what the archive holds", entry.path).into());
            }
        }
        Ok(())
    };
    check().map_err(|error| format!("the archive or its tree is not whole: {error}"))
}

fn same(wanted: &Tree, image: &Image, path: impl AsRef<Path>) -> Result<(), Fault> {
    match difference(wanted, &tree(image, &path)) {
        None => Ok(()),
        Some(what) => Err(format!("in `{}` {what}", path.as_ref().display())),
    }
}

fn absent(image: &Image, path: impl AsRef<Path>) -> Result<(), Fault> {
    if tree(image, &path).is_empty() {
        Ok(())
    } else {
        Err(format!("`{}` is there", path.as_ref().display()))
    }
}
