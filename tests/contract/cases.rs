//! The mutations that need no program of the product, each in the smallest machine that shows its edges.

use std::fs;

use kytx::backup::package::{Limits, scan};
use kytx::digest::Digest;
use kytx::effect::os::OsFs;
use kytx::effect::tree::no_tick;
use kytx::kyligence::carry::{CarryItem, CarryList, How};
use kytx::mutate::{content_name, item_digest};
use kytx::raw_path::RawPath;
use kytx::txn::{CarryPass, CopyPass, CubeCopy, Mutation, Record, SideFile, Stage};

use crate::checks::{Case, Foreign};
use crate::fault_fs::Lacking;
use crate::lab::{Lab, TXN};

/// An old home with what makes a tree hard to copy.
pub fn old_home(lab: &Lab) {
    lab.file("opt/home/VERSION", "Kyligence Enterprise 1\n", 0o644);
    lab.file("opt/home/conf/kylin.properties", "a=old\n", 0o640);
    lab.file("opt/home/conf/own.xml", "<own/>\n", 0o4750);
    lab.file("opt/home/ext/a/driver.jar", "jar", 0o644);
    fs::hard_link(lab.at("opt/home/ext/a/driver.jar"), lab.at("opt/home/ext/again.jar")).unwrap();
    lab.link("opt/home/ext/link.jar", "a/driver.jar");
    lab.file("opt/home/logs/kylin.log", "line\n", 0o600);
    lab.file("opt/home/meta_backups/meta_1/UUID", "uuid", 0o644);
}

/// The release that is to replace it, as a spare tree.
pub fn new_tree(lab: &Lab, at: &str) {
    lab.file(&format!("{at}/VERSION"), "Kyligence Enterprise 2\n", 0o644);
    lab.file(&format!("{at}/bin/kylin.sh"), "#!/bin/sh\n", 0o755);
    lab.file(&format!("{at}/conf/kylin.properties"), "a=new\n", 0o644);
}

/// The spare tree.
pub fn spare(lab: &Lab) -> RawPath {
    lab.state.spare().into()
}

/// Unpacks a small package.
pub fn stage_tree_of(lab: &Lab) -> Mutation {
    new_tree(lab, "downloads/Rel-2");
    lab.link("downloads/Rel-2/bin/again", "kylin.sh");
    fs::hard_link(lab.at("downloads/Rel-2/VERSION"), lab.at("downloads/Rel-2/version")).unwrap();
    let package = lab.at("downloads/Rel-2");
    let limits = Limits::for_free_bytes(1 << 30);
    let content = scan(&OsFs, &package, limits, &|_| false, &no_tick).unwrap().content;
    Mutation::StageTree {
        package: package.into(),
        content,
        spare: spare(lab),
        owner: kytx::txn::Owner {
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
        },
    }
}

fn build_stage_tree() -> Lab {
    let mut lab = Lab::new();
    old_home(&lab);
    let mutation = stage_tree_of(&lab);
    lab.step("stage-tree", Stage::Apply, mutation);
    lab.seal();
    lab
}

contract!(
    stage_tree,
    apply,
    Case {
        build: build_stage_tree,
        lacking: Lacking::default(),
        observable: true,
        leaves: &[],
        foreign: &[Foreign {
            intended: false,
            make: |lab| lab.file("opt/.kytx/home/spare/the only copy", "x", 0o600),
            says: "not by this transaction",
        }],
    }
);

/// What is carried: two files copied, one tree, one file edited, one link made, two trees linked.
pub fn carry_list(lab: &Lab) -> SideFile {
    let content = Digest::of(b"a=merged\n");
    lab.state.write_side(&OsFs, &content_name(&content), b"a=merged\n").unwrap();
    let expect = |path: &str| Some(item_digest(&OsFs, &lab.at("opt/home").join(path), 1).unwrap());
    let item = |from: &str, to: &str, how: How, expected| CarryItem {
        from: from.into(),
        to: to.into(),
        how,
        expected,
        why: String::new(),
    };
    let items = vec![
        item(
            "conf/kylin.properties",
            "conf/kylin.properties",
            How::Edited { content },
            expect("conf/kylin.properties"),
        ),
        item("conf/own.xml", "conf/own.xml", How::Copy, expect("conf/own.xml")),
        item("conf/own.xml", "conf/profile", How::Symlink { target: "own.xml".into() }, None),
        item("ext", "ext", How::Copy, expect("ext")),
        item("logs", "logs/before-1", How::Link, None),
        item("meta_backups", "meta_backups", How::Link, None),
    ];
    let text = serde_json::to_vec(&CarryList { items, notes: Vec::new() }).unwrap();
    lab.state.write_side(&OsFs, "carry.json", &text).unwrap()
}

fn build_carry(pass: CarryPass) -> Lab {
    let mut lab = Lab::new();
    old_home(&lab);
    new_tree(&lab, "opt/.kytx/home/spare");
    let list = carry_list(&lab);
    let home = lab.at("opt/home").into();
    let spare = spare(&lab);
    lab.step("carry", Stage::Apply, Mutation::CarryCustomisations { home, spare, list, pass });
    // Made by kytx, with the time of its making.
    lab.ignored.push("opt/.kytx/home/spare/conf/profile".to_owned());
    lab.seal();
    lab
}

fn build_carry_copy() -> Lab {
    build_carry(CarryPass::Copy)
}

fn build_carry_settle() -> Lab {
    build_carry(CarryPass::Settle)
}

contract!(
    carry_copy,
    apply,
    Case {
        build: build_carry_copy,
        lacking: Lacking::default(),
        observable: true,
        // The spare tree goes as a whole.
        leaves: &["opt/.kytx/home/spare"],
        foreign: &[Foreign {
            intended: false,
            make: |lab| lab.file("opt/home/conf/kylin.properties", "a=x\n", 0o640),
            says: "kylin.properties` has been changed",
        }],
    }
);

contract!(
    carry_settle,
    apply,
    Case {
        build: build_carry_settle,
        lacking: Lacking::default(),
        observable: false,
        leaves: &["opt/.kytx/home/spare"],
        foreign: &[Foreign {
            intended: false,
            make: |lab| fs::remove_file(lab.at("opt/home/conf/own.xml")).unwrap(),
            says: "own.xml` has been removed",
        }],
    }
);

fn build_exchange() -> Lab {
    let mut lab = Lab::new();
    old_home(&lab);
    new_tree(&lab, "opt/.kytx/home/spare");
    let live = lab.at("opt/home").into();
    let spare = spare(&lab);
    lab.step("exchange-trees", Stage::Apply, Mutation::ExchangeTrees { live, spare });
    lab.seal();
    lab
}

const STRANGERS: &[Foreign] = &[
    Foreign {
        intended: false,
        make: |lab| fs::rename(lab.state.spare(), lab.at("elsewhere")).unwrap(),
        says: "must both be directories",
    },
    Foreign {
        intended: false,
        make: |lab| fs::create_dir(lab.at("opt/.kytx/home/spare.parked")).unwrap(),
        says: "must not exist",
    },
    Foreign {
        intended: true,
        make: |lab| {
            fs::rename(lab.at("opt/home"), lab.at("elsewhere")).unwrap();
            lab.file("opt/home/VERSION", "Kyligence Enterprise 1\n", 0o644);
        },
        says: "not the two trees",
    },
    Foreign {
        intended: true,
        make: |lab| fs::rename(lab.at("opt/home"), lab.at("elsewhere")).unwrap(),
        says: "not the two trees",
    },
];

contract!(
    exchange_trees,
    apply,
    Case {
        build: build_exchange,
        lacking: Lacking::default(),
        observable: true,
        leaves: &[],
        foreign: STRANGERS,
    }
);

contract!(
    exchange_trees_by_three_renames,
    apply,
    Case {
        build: build_exchange,
        lacking: Lacking { exchange: true, sync_fs: true },
        observable: true,
        leaves: &[],
        foreign: STRANGERS,
    }
);

/// Where the copy of the cube data goes.
pub fn cube(lab: &Lab) -> CubeCopy {
    CubeCopy {
        source: lab.uri("hdfs/kylin/id").as_str().into(),
        root: lab.uri(&format!("hdfs/kylin/_kytx/{TXN}")).as_str().into(),
    }
}

/// Cube data of this instance and of another.
pub fn cube_data(lab: &Lab) {
    lab.file("hdfs/kylin/id/cube/0.parquet", "first segment", 0o644);
    lab.file("hdfs/kylin/id/cube/1.parquet", "second", 0o600);
    lab.link("hdfs/kylin/id/cube/last", "1.parquet");
    lab.file("hdfs/kylin/other/0.parquet", "not ours", 0o644);
}

fn build_cube(pass: CopyPass) -> Lab {
    let mut lab = Lab::new();
    cube_data(&lab);
    let cube = cube(&lab);
    lab.step("copy-cube-data", Stage::Apply, Mutation::CopyCubeData { cube, pass });
    // The list of what was read has inodes in it, and stays.
    lab.ignored.push(format!("opt/.kytx/home/backup/{TXN}"));
    lab.seal();
    lab
}

fn build_cube_early() -> Lab {
    build_cube(CopyPass::Early)
}

fn build_cube_final() -> Lab {
    build_cube(CopyPass::Final)
}

contract!(
    copy_cube_data_early,
    apply,
    Case {
        build: build_cube_early,
        lacking: Lacking::default(),
        observable: true,
        leaves: &[],
        foreign: &[Foreign {
            intended: false,
            make: |lab| lab.file(&format!("hdfs/kylin/_kytx/{TXN}/stage/x"), "somebody's", 0o600),
            says: "is not this transaction's",
        }],
    }
);

contract!(
    copy_cube_data_final,
    apply,
    Case {
        build: build_cube_final,
        lacking: Lacking::default(),
        observable: true,
        // The early pass owns the directory.
        leaves: &["hdfs/kylin/_kytx"],
        foreign: &[Foreign {
            intended: false,
            make: |lab| lab.file(&format!("hdfs/kylin/_kytx/{TXN}/copy/x"), "somebody's", 0o600),
            says: "is not this transaction's",
        }],
    }
);

fn build_archive() -> Lab {
    let mut lab = Lab::new();
    old_home(&lab);
    let (tree, archive) = (lab.at("opt/home").into(), lab.at("opt/home.backup.tar.gz").into());
    lab.step("archive-tree", Stage::Apply, Mutation::ArchiveTree { tree, archive, top: "home".into() });
    lab.ignored.push("opt/.kytx/home/backup".to_owned());
    // Its content is fixed, its time is not.
    lab.ignored.push("opt/home.backup.tar.gz".to_owned());
    lab.seal();
    lab
}

contract!(
    archive_tree,
    apply,
    Case {
        build: build_archive,
        lacking: Lacking::default(),
        observable: true,
        leaves: &[],
        foreign: &[
            Foreign {
                intended: false,
                make: |lab| lab.file("opt/home.backup.tar.gz", "an operator's", 0o600),
                says: "not by this transaction",
            },
            Foreign {
                intended: true,
                make: |lab| {
                    fs::remove_file(lab.at("opt/home.backup.tar.gz")).unwrap();
                    lab.file("opt/home.backup.tar.gz", "an operator's", 0o600);
                },
                says: "not by this transaction",
            },
        ],
    }
);

fn committed(mut lab: Lab) -> Lab {
    lab.seal();
    lab.append(&Record::Commit { keep: Vec::new() });
    lab
}

fn build_discard_tree() -> Lab {
    let mut lab = Lab::new();
    old_home(&lab);
    new_tree(&lab, "opt/.kytx/home/spare");
    let tree = spare(&lab);
    lab.step("discard-tree", Stage::Cleanup, Mutation::DiscardTree { tree });
    committed(lab)
}

contract!(
    discard_tree,
    cleanup,
    Case {
        build: build_discard_tree,
        lacking: Lacking::default(),
        observable: true,
        leaves: &[],
        foreign: &[],
    }
);

fn build_discard_file() -> Lab {
    let mut lab = Lab::new();
    old_home(&lab);
    lab.file("opt/home.backup.tar.gz", "an archive", 0o600);
    lab.file("opt/home.backup.tar.gz.of-the-operator", "another", 0o600);
    let file = lab.at("opt/home.backup.tar.gz").into();
    lab.step("discard-file", Stage::Cleanup, Mutation::DiscardFile { file });
    committed(lab)
}

contract!(
    discard_file,
    cleanup,
    Case {
        build: build_discard_file,
        lacking: Lacking::default(),
        observable: true,
        leaves: &[],
        foreign: &[],
    }
);

fn build_discard_cube() -> Lab {
    let mut lab = Lab::new();
    cube_data(&lab);
    let root = cube(&lab).root;
    lab.file(&format!("hdfs/kylin/_kytx/{TXN}/aside-0/cube/0.parquet"), "changed", 0o644);
    lab.file(&format!("hdfs/kylin/_kytx/{TXN}/copy/cube/0.parquet"), "copied", 0o644);
    lab.step("discard-cube-data", Stage::Cleanup, Mutation::DiscardCubeData { root });
    committed(lab)
}

contract!(
    discard_cube_data,
    cleanup,
    Case {
        build: build_discard_cube,
        lacking: Lacking::default(),
        observable: true,
        leaves: &[],
        foreign: &[],
    }
);

/// `kylin.properties` is often a link to a file that other tools keep, and it holds passwords.
#[test]
fn an_edited_file_takes_the_attributes_of_the_file_behind_a_link_and_never_those_of_the_link() {
    use std::os::unix::fs::PermissionsExt;
    let mut lab = Lab::new();
    old_home(&lab);
    new_tree(&lab, "opt/.kytx/home/spare");
    fs::remove_file(lab.at("opt/home/conf/kylin.properties")).unwrap();
    lab.file("etc/kylin.properties", "a=old\n", 0o640);
    lab.link("opt/home/conf/kylin.properties", "../../../etc/kylin.properties");
    let list = carry_list(&lab);
    let (home, spare) = (lab.at("opt/home").into(), spare(&lab));
    let pass = CarryPass::Copy;
    lab.step("carry", Stage::Apply, Mutation::CarryCustomisations { home, spare, list, pass });
    lab.seal();
    lab.drive(&crate::fault_fs::FaultFs::new(crate::fault_fs::Accident::None, Lacking::default())).unwrap();
    let merged = lab.state.spare().join("conf/kylin.properties");
    let meta = fs::symlink_metadata(&merged).unwrap();
    assert!(meta.is_file());
    assert_eq!(meta.permissions().mode() & 0o7777, 0o640);
    assert_eq!(fs::read(merged).unwrap(), b"a=merged\n");
}
