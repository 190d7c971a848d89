//! The upgrade of a cluster, node by node: what each node leaves in kytx's root on the working directory for the others,
//! and what a node may do when.
//!
//! Every node has a transaction of its own on its own home. What is shared is one small file a node, which only that
//! node writes, and which is a copy of what its journal says.

use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::args::{RoleArg, UpgradeArgs};
use super::cube;
use super::error::CommandError;
use super::place::Place;
use super::terminal::tell;
use crate::digest::Digest;
use crate::effect::fs::{Fs, exists, read_file};
use crate::effect::os::{OsFs, host_name};
use crate::effect::tree::{atomic_write, make_dirs};
use crate::hadoop::local::local_path;
use crate::kyligence::home::{Home, Package};
use crate::kyligence::preflight::nodes::{Node, NodePhase, Nodes, Role};
use crate::kyligence::process::Processes;
use crate::raw_path::RawPath;
use crate::txn::{Mutation, Outcome, Phase, StepState, Txn};

/// The side file that says which node of which cluster a transaction is.
const MEMBERSHIP: &str = "cluster.json";

/// The schema's name of a node's file.
const SCHEMA: &str = "kytx.cluster.v1";

/// How long another instance may take to take a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// The longest file of a node.
const NODE_LIMIT_BYTES: u64 = 64 << 10;

/// Which node of which cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Membership {
    /// What it does.
    pub role: Role,
    /// Where the nodes leave their files.
    pub dir: RawPath,
    /// The port of this node's service.
    pub port: u16,
    /// Why this node was made final while others were open, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed_early: Option<String>,
}

/// Gathers what the nodes are judged by, and where they meet. `None` without `--role`.
pub fn gather(
    args: &UpgradeArgs,
    home: &Home,
    package: &Package,
    content: Digest,
    processes: &Processes,
) -> Option<(Nodes, Option<Membership>)> {
    let role = match args.role? {
        RoleArg::Primary => Role::Primary,
        RoleArg::Secondary => Role::Secondary,
    };
    let dir = meeting_place(args, home);
    let others = dir.clone().and_then(|dir| {
        let own = node_name(&home.path);
        nodes_in(&dir, Some(&own)).map_err(|error| format!("`{}`: {error}", RawPath::from(dir.as_path())))
    });
    let named = named_instances(home);
    let answering = match role {
        Role::Primary => named.iter().flatten().filter(|name| takes_connections(name)).cloned().collect(),
        Role::Secondary => Vec::new(),
    };
    let membership = dir.ok().map(|dir| Membership {
        role,
        dir: RawPath::from(dir),
        port: home.readiness.port,
        committed_early: None,
    });
    let seen = Nodes {
        role,
        old_version: home.identity.version.text.clone(),
        new_version: package.identity.version.text.clone(),
        content,
        service_runs: processes.service_runs(),
        others,
        named,
        answering,
    };
    Some((seen, membership))
}

/// A folder for this instance in kytx's root.
fn meeting_place(args: &UpgradeArgs, home: &Home) -> Result<PathBuf, String> {
    let working_dir = home.working_dir().map_err(|error| error.to_string())?;
    let shared = RawPath::from(working_dir.shared.as_str());
    let root = args.hdfs_root.as_deref().map_or_else(|| shared.join(&cube::OWN_DIR.into()), RawPath::from);
    let root = local_path(&root).map_err(|_| {
        format!("kytx's root `{root}` is not in a `file:` working directory, which alone is understood here")
    })?;
    let url = home.metadata_url();
    // Two instances may share a working directory; a path as an identifier is no file's name.
    let id = Digest::of_domain("kytx 2026 cluster name v1", url.identifier.as_bytes()).short();
    Ok(root.join(format!("cluster-{id}")))
}

fn node_name(home: &Path) -> String {
    let text = [host_name().as_bytes(), b"\0", RawPath::from(home).as_bytes()].concat();
    format!("node-{}.json", Digest::of_domain("kytx 2026 node name v1", &text).short())
}

fn nodes_in(dir: &Path, but: Option<&str>) -> std::io::Result<Vec<Node>> {
    if !exists(&OsFs, dir)? {
        return Ok(Vec::new());
    }
    let mut nodes = Vec::new();
    for name in OsFs.list(dir)? {
        let Some(text) = name
            .to_str()
            .filter(|name| name.strip_suffix(".json").is_some_and(|stem| stem.starts_with("node-")))
        else {
            continue;
        };
        if Some(text) == but {
            continue;
        }
        let bytes = read_file(&OsFs, &dir.join(&name), NODE_LIMIT_BYTES)?;
        let node: Node = serde_json::from_slice(&bytes).map_err(std::io::Error::other)?;
        if node.schema != SCHEMA {
            return Err(std::io::Error::other(format!("`{text}` has the schema `{}`", node.schema)));
        }
        nodes.push(node);
    }
    Ok(nodes)
}

/// The instances that the configuration names, this one apart. `None` if it names none.
fn named_instances(home: &Home) -> Option<Vec<String>> {
    let list = ["kylin.server.cluster-servers", "kylin.server.cluster-servers-with-mode"]
        .iter()
        .find_map(|key| home.property(key))?;
    let own_port = home.readiness.port.to_string();
    let is_here = |host: &str| [&host_name(), "localhost", "127.0.0.1"].contains(&host);
    let names = list.split(',').filter_map(|name| {
        let mut parts = name.trim().split(':');
        let (host, port) = (parts.next()?, parts.next()?);
        (!(is_here(host) && port == own_port)).then(|| format!("{host}:{port}"))
    });
    Some(names.collect())
}

fn takes_connections(name: &str) -> bool {
    let addresses = name.to_socket_addrs().into_iter().flatten();
    addresses.into_iter().any(|address| TcpStream::connect_timeout(&address, CONNECT_LIMIT).is_ok())
}

/// Puts down which node the transaction is, before its first record. A former one is forgotten.
pub fn join(place: &Place, membership: Option<&Membership>) -> std::io::Result<()> {
    if let Some(membership) = membership {
        let text = serde_json::to_vec(membership).expect("BUG: a membership has a JSON form");
        return place.state.write_side(&OsFs, MEMBERSHIP, &text).map(drop);
    }
    let path = place.state.plan().join(MEMBERSHIP);
    if exists(&OsFs, &path)? { OsFs.unlink(&path) } else { Ok(()) }
}

/// Which node the transaction of this place is, if it is one.
pub fn membership(place: &Place) -> Option<Membership> {
    let path = place.state.plan().join(MEMBERSHIP);
    let text = match read_file(&OsFs, &path, NODE_LIMIT_BYTES) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            tell(&format!(
                "kytx: whether this is a node of a cluster cannot be read, so none is told: {error}"
            ));
            return None;
        }
    };
    serde_json::from_slice(&text).ok()
}

/// Leaves what the journal says for the other nodes.
pub fn publish(place: &Place, txn: &Txn) {
    let Some(membership) = membership(place) else { return };
    let header = txn.header();
    let content = txn.steps().iter().find_map(|step| match &step.mutation {
        Mutation::StageTree { content, .. } => Some(*content),
        _ => None,
    });
    let node = Node {
        schema: SCHEMA.to_owned(),
        role: membership.role,
        host: host_name(),
        home: header.home.clone(),
        port: membership.port,
        transaction: header.txn.0.clone(),
        old_version: header.old_version.clone(),
        new_version: header.new_version.clone(),
        content: content.unwrap_or(Digest::ZERO),
        phase: match txn.phase() {
            Phase::Planning | Phase::Applying => NodePhase::Applying,
            Phase::Applied => NodePhase::Applied,
            Phase::Aborting => NodePhase::Aborting,
            Phase::Committing | Phase::Ended(Outcome::Committed) => NodePhase::Committed,
            Phase::Ended(Outcome::Aborted) => NodePhase::Aborted,
        },
        backups_proven: backups_proven(txn),
        committed_early: membership.committed_early.clone(),
    };
    let text = serde_json::to_vec_pretty(&node).expect("BUG: a node has a JSON form");
    let dir = membership.dir.to_path_buf();
    let written = make_dirs(&OsFs, &dir, 0o700)
        .and_then(|()| atomic_write(&OsFs, &dir.join(node_name(header.home.as_path())), &text, 0o600));
    if let Err(error) = written {
        tell(&format!(
            "kytx: the other nodes cannot be told how far this one is: `{}`: {error}",
            membership.dir
        ));
    }
}

/// The step that hands the data over checks that every backup is whole.
fn backups_proven(txn: &Txn) -> bool {
    txn.ids().any(|id| {
        txn.step(id).is_some_and(|step| matches!(step.mutation, Mutation::HandOverData { .. }))
            && matches!(txn.state(id), StepState::Done { .. })
    })
}

/// Why a secondary node must not start its service yet. `None` if it may, or is none.
pub fn waits_for_the_primary(place: &Place) -> Option<String> {
    let membership = membership(place).filter(|membership| membership.role == Role::Secondary)?;
    let nodes = match nodes_in(&membership.dir.to_path_buf(), None) {
        Ok(nodes) => nodes,
        Err(error) => return Some(format!("the state of the primary node cannot be read: {error}")),
    };
    let up = |node: &&Node| matches!(node.phase, NodePhase::Applied | NodePhase::Committed);
    let Some(primary) = nodes.iter().filter(|node| node.role == Role::Primary).find(up) else {
        return Some("the primary node has not started the new release, or is on its way back".to_owned());
    };
    let host = if primary.host == host_name() { "127.0.0.1" } else { &primary.host };
    let address = format!("{host}:{}", primary.port);
    (!takes_connections(&address))
        .then(|| format!("the primary node {} does not answer at {address}", primary.shown()))
}

/// The secondary nodes that are open, where this one is the primary.
fn open_secondaries(
    membership: &Membership,
    refuse: &dyn Fn() -> CommandError,
) -> Result<Vec<Node>, CommandError> {
    let nodes = nodes_in(&membership.dir.to_path_buf(), None)
        .map_err(|error| refuse().because(&error).hint(format!("make `{}` readable", membership.dir)))?;
    Ok(nodes.into_iter().filter(|node| node.role == Role::Secondary && node.is_open()).collect())
}

/// Refuses the way back of the primary node as long as a secondary has the new release: metadata that are restored
/// beneath it would be those of another release.
pub fn check_mirror_order(place: &Place) -> Result<(), CommandError> {
    let Some(membership) = membership(place).filter(|membership| membership.role == Role::Primary) else {
        return Ok(());
    };
    let refuse =
        || CommandError::refused("not aborted: the nodes of a cluster go back in the opposite order");
    let open = open_secondaries(&membership, &refuse)?;
    if open.is_empty() {
        return Ok(());
    }
    let mut error = refuse();
    for node in open {
        error = error
            .why(format!("{} has or takes the new release", node.shown()))
            .hint(format!("kytx abort {}    (on `{}`)", node.home, node.host));
    }
    Err(error)
}

/// Refuses to make the primary node final while a secondary is open: its commit deletes the backups of what all share, and
/// a secondary that went back after it would be the old release on metadata of the new one. A reason lets it pass, and is
/// kept in the record of the cluster.
pub fn check_commit_order(place: &Place, reason: Option<&str>) -> Result<(), CommandError> {
    let Some(mut membership) = membership(place).filter(|membership| membership.role == Role::Primary) else {
        return Ok(());
    };
    let refuse = || {
        CommandError::refused(
            "not committed: another node of the cluster is open, and could not go back any more",
        )
    };
    let open = open_secondaries(&membership, &refuse)?;
    if open.is_empty() {
        return Ok(());
    }
    if let Some(reason) = reason {
        membership.committed_early = Some(reason.to_owned());
        let kept = join(place, Some(&membership));
        return kept.map_err(|error| refuse().because(&error).hint("free some space, and commit again"));
    }
    let mut error = refuse();
    for node in open {
        error = error
            .why(format!("C2: {} is open", node.shown()))
            .hint(format!("kytx commit {}    (on `{}`)", node.home, node.host));
    }
    Err(error.hint(place.command("commit --override C2=REASON")))
}
