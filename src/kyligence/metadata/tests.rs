//! Back up and restore, against a product that lies.

#![allow(clippy::disallowed_methods)]

use std::cell::{Cell, RefCell};

use super::*;
use crate::effect::os::OsFs;
use crate::effect::shell::Call;

/// A metadata tool that does to the disk what `act` says, and writes what it returns.
struct Fake<'a> {
    home: tempfile::TempDir,
    calls: RefCell<Vec<String>>,
    act: &'a dyn Fn(&Path, &Call) -> (i32, String),
}

impl Shell for Fake<'_> {
    fn run(&self, call: &Call) -> io::Result<Ran> {
        self.calls.borrow_mut().push(call.label.clone());
        let (code, stdout) = (self.act)(self.home.path(), call);
        let stderr = String::new();
        Ok(Ran { code: Some(code), signal: None, timed_out: false, stdout, stderr, took: Duration::ZERO })
    }
}

impl<'a> Fake<'a> {
    fn new(act: &'a dyn Fn(&Path, &Call) -> (i32, String)) -> Self {
        Self { home: tempfile::tempdir().unwrap(), calls: RefCell::default(), act }
    }

    fn tools<'b>(&'b self, reachable: &'b dyn Fn() -> Result<(), String>) -> MetadataTools<'b> {
        MetadataTools { shell: self, fs: &OsFs, working_dir_reachable: reachable, time_limit: None }
    }

    fn back_up(&self, layout: Layout) -> Result<Backup, MetadataError> {
        back_up(&self.tools(&|| Ok(())), self.home.path(), layout, false)
    }

    fn restore(&self, layout: Layout, repeated: bool) -> Result<(), MetadataError> {
        let dir = self.home.path().join("kept");
        restore_exact(&self.tools(&|| Ok(())), self.home.path(), layout, &dir, &|| Ok(()), repeated)
    }

    fn calls(&self) -> Vec<String> {
        let home = self.home.path().display().to_string();
        self.calls.borrow().iter().map(|call| call.replace(&home, "HOME")).collect()
    }
}

fn write(root: &Path, files: &[&str]) {
    for file in files {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    }
}

const NAME: &str = "meta_2026_11_24_09_00_00";

fn backs_up<'a>(files: &'a [&'a str]) -> impl Fn(&Path, &Call) -> (i32, String) + 'a {
    move |home, _| {
        let dir = home.join("meta_backups").join(NAME);
        std::fs::create_dir_all(&dir).unwrap();
        write(&dir, files);
        (0, format!("Metadata backed up to {}\n", dir.display()))
    }
}

#[test]
fn a_backup_is_the_directory_that_the_tool_named() {
    let act = backs_up(&["UUID", "project/p.json"]);
    let fake = Fake::new(&act);
    write(fake.home.path(), &["meta_backups/meta_2099_01_01_00_00_00/project/newer.json"]);
    let backup = fake.back_up(Layout::Tomcat).unwrap();
    assert_eq!(backup.dir, fake.home.path().join("meta_backups").join(NAME));
    assert!(matches!(fake.back_up(Layout::Tomcat), Err(MetadataError::NotFresh { .. })));
}

#[test]
fn an_empty_backup_is_none_whatever_the_tool_says() {
    for files in [&[][..], &["UUID"], &["UUID", "cube/a.json"], &["UUID", "project/readme"]] {
        let act = backs_up(files);
        let error = Fake::new(&act).back_up(Layout::Tomcat).unwrap_err();
        assert!(matches!(error, MetadataError::Incomplete { .. }), "{files:?}: {error}");
    }
    let act = |_: &Path, _: &Call| (0, "metadata store backed up to /x\n".to_owned());
    assert!(matches!(Fake::new(&act).back_up(Layout::Tomcat), Err(MetadataError::Backup { .. })));
    let act = |_: &Path, _: &Call| (0, "Metadata backed up to /nowhere/meta_1\n".to_owned());
    assert!(matches!(Fake::new(&act).back_up(Layout::Tomcat), Err(MetadataError::Incomplete { .. })));
}

#[test]
fn the_newer_form_needs_its_own_content() {
    let act = |files: &'static [&'static str]| {
        move |home: &Path, _: &Call| {
            let dir = home.join("meta_backups/2026-11-24-09-00-00_backup");
            write(&dir, files);
            let path = dir.display();
            (
                0,
                format!(
                    "The metadata backup path is {path}.\n\x1b[33mBackup at local disk succeed.\x1b[0m\n"
                ),
            )
        }
    };
    let full = act(&["UUID", "_image", "_global/project/p.json", "p/model.json"]);
    assert!(Fake::new(&full).back_up(Layout::Server).is_ok());
    let half = act(&["UUID", "_image", "_global/project/p.json"]);
    let error = Fake::new(&half).back_up(Layout::Server).unwrap_err();
    assert!(matches!(error, MetadataError::Incomplete { .. }), "{error}");
}

#[test]
fn nothing_is_run_while_the_working_directory_is_out_of_reach() {
    let act = |_: &Path, _: &Call| (0, "Metadata restored from /x\n".to_owned());
    let fake = Fake::new(&act);
    let unreachable = || Err("`/kylin/kylin_metadata` does not exist".to_owned());
    let error = back_up(&fake.tools(&unreachable), fake.home.path(), Layout::Tomcat, true).unwrap_err();
    assert!(error.to_string().contains("/kylin/kylin_metadata"), "{error}");
    assert!(fake.calls().is_empty());

    // It goes away between reset and restore: the second command is not run.
    write(fake.home.path(), &["kept/project/p.json"]);
    let looks = Cell::new(0);
    let goes_away = || {
        looks.set(looks.get() + 1);
        if looks.get() > 1 { Err("gone".to_owned()) } else { Ok(()) }
    };
    let dir = fake.home.path().join("kept");
    let restored =
        restore_exact(&fake.tools(&goes_away), fake.home.path(), Layout::Tomcat, &dir, &|| Ok(()), false);
    assert!(matches!(restored, Err(MetadataError::Unreachable { .. })));
    assert_eq!(fake.calls(), ["metastore.sh reset"]);
}

#[test]
fn an_exact_restore_empties_the_store_first() {
    let act = |_: &Path, _: &Call| (0, "Metadata restored from /x\n".to_owned());
    let fake = Fake::new(&act);
    write(fake.home.path(), &["kept/project/p.json"]);
    fake.restore(Layout::Tomcat, true).unwrap();
    assert_eq!(fake.calls(), ["metastore.sh reset", "metastore.sh restore HOME/kept"]);
}

#[test]
fn a_store_is_never_emptied_for_a_backup_that_is_not_sound() {
    let act = |_: &Path, _: &Call| (0, String::new());
    let fake = Fake::new(&act);
    std::fs::create_dir(fake.home.path().join("kept")).unwrap();
    assert!(matches!(fake.restore(Layout::Tomcat, false), Err(MetadataError::Unverified { .. })));
    write(fake.home.path(), &["kept/project/p.json"]);
    let dir = fake.home.path().join("kept");
    let differs = || Err("`cube/a.json` differs".to_owned());
    let tools = fake.tools(&|| Ok(()));
    let error = restore_exact(&tools, fake.home.path(), Layout::Tomcat, &dir, &differs, false).unwrap_err();
    assert!(error.to_string().contains("was not emptied: `cube/a.json` differs"), "{error}");
    assert!(fake.calls().is_empty());
}

#[test]
fn a_failed_reset_is_not_followed_by_a_restore() {
    let act = |_: &Path, _: &Call| (1, String::new());
    let fake = Fake::new(&act);
    write(fake.home.path(), &["kept/project/p.json"]);
    assert!(matches!(fake.restore(Layout::Tomcat, false), Err(MetadataError::Reset { .. })));
    assert_eq!(fake.calls(), ["metastore.sh reset"]);
}

#[test]
fn maintenance_mode_is_left_after_an_interruption_and_after_a_failure() {
    let act = |_: &Path, call: &Call| {
        (0, if call.label.starts_with("metastore") { "Restore failed.\n" } else { "" }.to_owned())
    };
    let fake = Fake::new(&act);
    write(fake.home.path(), &["kept/UUID", "kept/_image", "kept/_global/x", "kept/p/x"]);
    assert!(matches!(fake.restore(Layout::Server, true), Err(MetadataError::Restore { .. })));
    let off = "kylin.sh org.apache.kylin.tool.MaintainModeTool -off";
    assert_eq!(fake.calls(), [off, "metastore.sh restore HOME/kept --after-truncate", off]);
}

#[test]
fn maintenance_mode_is_left_after_a_success_whose_script_may_have_failed_to() {
    let act = |_: &Path, call: &Call| {
        (0, if call.label.starts_with("metastore") { "Restore succeed.\n" } else { "" }.to_owned())
    };
    let fake = Fake::new(&act);
    write(fake.home.path(), &["kept/UUID", "kept/_image", "kept/_global/x", "kept/p/x"]);
    fake.restore(Layout::Server, false).unwrap();
    let off = "kylin.sh org.apache.kylin.tool.MaintainModeTool -off";
    assert_eq!(fake.calls(), ["metastore.sh restore HOME/kept --after-truncate", off]);
}

#[test]
fn a_home_with_a_blank_is_refused() {
    let act = |_: &Path, _: &Call| (0, String::new());
    let fake = Fake::new(&act);
    let error =
        back_up(&fake.tools(&|| Ok(())), Path::new("/opt/my kylin"), Layout::Tomcat, true).unwrap_err();
    assert!(matches!(error, MetadataError::BlankInHome { .. }));
    assert!(fake.calls().is_empty());
}

/// A store whose listings say one thing before the backup and another after it.
fn lists<'a>(
    before: &'a str,
    after: &'a str,
    files: &'a [&'a str],
) -> impl Fn(&Path, &Call) -> (i32, String) + 'a {
    move |home, call| {
        let is_done = home.join("meta_backups").exists();
        match call.label.strip_prefix("metastore.sh list ") {
            None => backs_up(files)(home, call),
            Some("/") => (0, format!("Starting list /\n{}\n", if is_done { after } else { before })),
            Some("/project") => (0, "[/project/p.json, /project/q, r.json]\n".to_owned()),
            Some("/down") => (1, String::new()),
            Some(_) => (0, "null\n".to_owned()),
        }
    }
}

#[test]
fn a_backup_is_held_against_what_the_tool_lists_before_and_after() {
    let all = ["UUID", "user_group", "project/p.json", "project/q, r.json"];
    let top = "[/UUID, /project, /user_group]";
    let judge = |before, after, files: &[&str]| {
        let act = lists(before, after, files);
        let fake = Fake::new(&act);
        let made = back_up(&fake.tools(&|| Ok(())), fake.home.path(), Layout::Tomcat, true);
        (made.map(drop), fake.calls())
    };
    let (made, calls) = judge(top, top, &all);
    made.unwrap();
    let asked = |folder: &str| format!("metastore.sh list {folder}");
    let backup = "metastore.sh backup".to_owned();
    let expected =
        [asked("/"), asked("/project"), asked("/user_group"), backup, asked("/"), asked("/execute_output")];
    assert_eq!(calls, expected);
    let (lost, _) = judge(top, top, &all[..3]);
    let lost = lost.unwrap_err().to_string();
    assert!(lost.contains("lacks 1 entries") && lost.contains("`/project/q, r.json`"), "{lost}");
    let (lost, _) = judge(top, top, &["UUID", "project/p.json", "project/q, r.json"]);
    assert!(lost.unwrap_err().to_string().contains("`/user_group`"));
    let (gone, _) = judge(top, "[/UUID, /project]", &all);
    assert!(
        gone.unwrap_err().to_string().contains("gone from the store while it was backed up: `/user_group`")
    );
    let (late, _) = judge(top, "[/UUID, /late, /project, /user_group]", &all);
    assert!(late.unwrap_err().to_string().contains("named after it was made: `/late`"));
    let (down, calls) = judge("[/down]", top, &all);
    assert!(matches!(down, Err(MetadataError::NotListed { .. })));
    assert_eq!(calls, [asked("/"), asked("/down")], "what cannot be compared is not backed up");
}
