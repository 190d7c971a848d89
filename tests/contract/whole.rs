//! A whole upgrade over a file system that dies at every single call: nothing is lost, and nobody else's is touched.

use std::fs;
use std::path::Path;

use kytx::engine::Rest;
use kytx::txn::{CarryPass, CopyPass, Mutation, Outcome, Phase, Record, Stage};

use crate::cases::{carry_list, cube, cube_data, old_home, spare, stage_tree_of};
use crate::checks::chain;
use crate::fault_fs::{Accident, FaultFs, Lacking};
use crate::lab::Lab;
use crate::support::snapshot::{Snapshot, assert_same_tree};

/// What is everywhere around, and nobody of this transaction made.
const NEIGHBOURS: [&str; 7] = [
    "opt/home.backup.tar.gz",
    "opt/home2/VERSION",
    "opt/.kytx/home2/spare/VERSION",
    "opt/.kytx/home/backup/fedcba9876543210/metadata/UUID",
    "hdfs/kylin/_kytx/fedcba9876543210/copy/0.parquet",
    "hdfs/kylin/other/0.parquet",
    "downloads/Rel-2/VERSION",
];

/// A major upgrade of a service that does not run and is not started. Its metadata are another test's.
fn build() -> Lab {
    let mut lab = Lab::new();
    old_home(&lab);
    cube_data(&lab);
    let stage_tree = stage_tree_of(&lab);
    for name in NEIGHBOURS {
        if !lab.at(name).exists() {
            lab.file(name, &format!("{name} is not ours"), 0o600);
        }
    }
    let (home, spare, list) = (lab.at("opt/home").into(), spare(&lab), carry_list(&lab));
    let carry = |pass| Mutation::CarryCustomisations {
        home: lab.at("opt/home").into(),
        spare: spare.clone(),
        list: list.clone(),
        pass,
    };
    let copy = |pass| Mutation::CopyCubeData { cube: cube(&lab), pass };
    let archive = lab.at("opt/home.0123456789abcdef.backup.tar.gz");
    let apply = [
        ("stage-tree", stage_tree),
        ("carry", carry(CarryPass::Copy)),
        ("copy-cube-data-early", copy(CopyPass::Early)),
        ("stop-service", Mutation::StopService { home: lab.at("opt/home").into(), start_timeout_s: 1 }),
        ("copy-cube-data", copy(CopyPass::Final)),
        ("settle", carry(CarryPass::Settle)),
        ("exchange-trees", Mutation::ExchangeTrees { live: home, spare: spare.clone() }),
        (
            "archive-tree",
            Mutation::ArchiveTree {
                tree: spare.clone(),
                archive: archive.as_path().into(),
                top: "home".into(),
            },
        ),
    ];
    let cleanup = [
        ("discard-old-tree", Mutation::DiscardTree { tree: spare.clone() }),
        ("discard-archive", Mutation::DiscardFile { file: archive.into() }),
        ("discard-cube-data", Mutation::DiscardCubeData { root: cube(&lab).root }),
    ];
    for (name, mutation) in apply {
        lab.step(name, Stage::Apply, mutation);
    }
    for (name, mutation) in cleanup {
        lab.step(name, Stage::Cleanup, mutation);
    }
    lab.seal();
    lab
}

/// A tree without what the spare tree shares with it, and without the times of directories.
fn tree(root: &Path) -> Snapshot {
    Snapshot::take(root, &["logs/kylin.log", "meta_backups/meta_1/UUID"]).without_dir_times()
}

struct Kept {
    home: Snapshot,
    cube: Snapshot,
    neighbours: Vec<Vec<u8>>,
}

impl Kept {
    fn of(lab: &Lab) -> Self {
        let read = |name: &&str| fs::read(lab.at(name)).unwrap();
        Self {
            home: tree(&lab.at("opt/home")),
            cube: tree(&lab.at("hdfs/kylin/id")),
            neighbours: NEIGHBOURS.iter().map(read).collect(),
        }
    }

    /// I7: the old home is under one of its three names, the cube data are in their place. I6: the neighbours are
    /// untouched.
    fn check(&self, lab: &Lab, at: usize) {
        let names = ["opt/home", "opt/.kytx/home/spare", "opt/.kytx/home/spare.parked"];
        let there: Vec<_> = names.iter().map(|name| lab.at(name)).filter(|path| path.is_dir()).collect();
        let whole = there.iter().find(|path| self.home.diff(&tree(path)).is_empty());
        let whole = whole.unwrap_or_else(|| panic!("call {at}: the old home is gone; there are {there:?}"));
        assert_eq!(fs::read(whole.join("logs/kylin.log")).unwrap(), b"line\n", "call {at}");
        assert_eq!(fs::read(whole.join("meta_backups/meta_1/UUID")).unwrap(), b"uuid", "call {at}");
        assert_same_tree(&self.cube, &tree(&lab.at("hdfs/kylin/id")));
        self.check_neighbours(lab, at);
    }

    fn check_neighbours(&self, lab: &Lab, at: usize) {
        for (name, content) in NEIGHBOURS.iter().zip(&self.neighbours) {
            let found = fs::read(lab.at(name)).unwrap_or_default();
            assert_eq!(found, *content, "call {at}: `{name}` is not ours");
        }
    }
}

fn go_on(lab: &mut Lab, lacking: Lacking) -> Rest {
    lab.drive(&FaultFs::new(Accident::None, lacking)).unwrap_or_else(|error| panic!("{}", chain(&error)))
}

fn sweep(lacking: Lacking) {
    let mut lab = build();
    let fs = FaultFs::new(Accident::None, lacking);
    lab.drive(&fs).unwrap();
    let calls = fs.made().len();
    assert!(calls > 150, "{calls} calls");
    // Every second call here, the others with the other kind of swap.
    for at in (usize::from(lacking.exchange)..calls).step_by(2) {
        let mut lab = build();
        let kept = Kept::of(&lab);
        let fs = FaultFs::new(Accident::DeadFrom(at), lacking);
        assert!(lab.drive(&fs).is_err(), "call {at}");
        kept.check(&lab, at);
        if at / 2 % 2 == 0 {
            lab.abort();
            let _ = lab.drive(&FaultFs::new(Accident::DeadFrom(at % 17), lacking));
            kept.check(&lab, at);
            if lab.txn().phase() == Phase::Aborting {
                assert_eq!(go_on(&mut lab, lacking), Rest::Ended(Outcome::Aborted));
            }
            kept.check(&lab, at);
            assert!(kept.home.diff(&tree(&lab.at("opt/home"))).is_empty(), "call {at}");
            assert!(!lab.state.spare().exists());
            assert!(!lab.at("hdfs/kylin/_kytx/0123456789abcdef").exists());
            continue;
        }
        let _ = lab.drive(&FaultFs::new(Accident::DeadFrom(at % 29), lacking));
        kept.check(&lab, at);
        assert_eq!(go_on(&mut lab, lacking), Rest::Applied);
        kept.check(&lab, at);
        assert!(
            lab.at("opt/home/bin/kylin.sh").exists() && lab.at("opt/home/logs/before-1/kylin.log").exists()
        );
        lab.append(&Record::Commit { keep: Vec::new() });
        let _ = lab.drive(&FaultFs::new(Accident::DeadFrom(at % 23), lacking));
        kept.check_neighbours(&lab, at);
        if lab.txn().phase() == Phase::Committing {
            assert_eq!(go_on(&mut lab, lacking), Rest::Ended(Outcome::Committed));
        }
        kept.check_neighbours(&lab, at);
        assert!(!lab.state.spare().exists() && !lab.at("hdfs/kylin/_kytx/0123456789abcdef").exists());
        assert!(!lab.at("opt/home.0123456789abcdef.backup.tar.gz").exists());
        assert_same_tree(&kept.cube, &tree(&lab.at("hdfs/kylin/id")));
    }
}

#[test]
fn i7_nothing_is_lost_at_any_call_of_a_whole_upgrade() {
    sweep(Lacking::default());
}

#[test]
fn i6_nobody_elses_is_touched_at_any_call_of_an_upgrade_by_three_renames() {
    sweep(Lacking { exchange: true, sync_fs: true });
}
