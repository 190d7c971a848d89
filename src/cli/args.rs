//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::kyligence::planner::ArchiveWhen;
use crate::mutate::RestoreHow;

/// Upgrades Kyligence Enterprise or Apache Kylin in place, as one transaction.
///
/// `begin` upgrades; after a crash `resume` goes on and `abort` goes back; `commit` makes it final. Until then every
/// byte that the upgrade replaces still exists, and `verify` proves it.
#[derive(Debug, Parser)]
#[command(name = "kytx", version, disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show everything `begin` would do, and touch nothing
    Plan {
        #[command(flatten)]
        upgrade: UpgradeArgs,
        /// Save the plan, bound to what it saw, for `begin --plan`
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Show each merged file as a difference to the old one, line by line
        #[arg(long, conflicts_with = "json")]
        diff: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check the preconditions only
    Check {
        #[command(flatten)]
        upgrade: UpgradeArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Upgrade, up to the point where you commit or abort
    Begin {
        #[command(flatten)]
        upgrade: UpgradeArgs,
        /// Take the plan's defaults and ask nothing
        #[arg(long, visible_alias = "yes")]
        silent: bool,
        /// Do what this saved plan says, and refuse if the world has moved since
        #[arg(long, value_name = "FILE")]
        plan: Option<PathBuf>,
        /// Stop before this step; `resume` goes on
        #[arg(long, value_name = "STEP")]
        stop_before: Option<String>,
        /// What to do when a step fails
        #[arg(long, value_enum, default_value_t = OnFailure::Stop, value_name = "WHAT")]
        on_failure: OnFailure,
        /// What to do when the metadata backup, after the stop, holds an unfinished job
        #[arg(long, value_enum, default_value_t = OnUnfinishedJobs::Restart, value_name = "WHAT")]
        on_unfinished_jobs: OnUnfinishedJobs,
        /// What to do when the new release runs and is not in order
        #[arg(long, value_enum, default_value_t = OnUnhealthy::Stop, value_name = "WHAT")]
        on_unhealthy: OnUnhealthy,
        /// Discard unfinished jobs first: shows them, and asks
        #[arg(long, requires = "user")]
        discard_jobs: bool,
        /// Wait for unfinished jobs first, an hour or so many seconds
        #[arg(
            long,
            value_name = "SECONDS",
            num_args = 0..=1,
            require_equals = true,
            default_missing_value = "3600",
            requires = "user"
        )]
        wait_for_jobs: Option<u64>,
        /// From release 2 to 3: set each `--default-source` over REST once the new release is in order. It cannot be
        /// changed later
        #[arg(long, requires = "user", requires = "default_source")]
        set_default_source: bool,
        /// From release 2 to 3, with the service down: list outdated metadata and cube data, ask, and delete them before
        /// the backups; no abort brings them back
        #[arg(long)]
        clean_outdated: bool,
    },
    /// Go on with an interrupted upgrade, abort or commit
    Resume {
        #[command(flatten)]
        which: WhichArgs,
        /// Stop before this step
        #[arg(long, value_name = "STEP")]
        stop_before: Option<String>,
        /// What to do when a step fails
        #[arg(long, value_enum, default_value_t = OnFailure::Stop, value_name = "WHAT")]
        on_failure: OnFailure,
        /// What to do when the metadata backup, after the stop, holds an unfinished job
        #[arg(long, value_enum, default_value_t = OnUnfinishedJobs::Restart, value_name = "WHAT")]
        on_unfinished_jobs: OnUnfinishedJobs,
        /// Look at the service as this user; the password comes from the environment (`KYTX_PASSWORD`) or from a file
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// The file whose first line is the password
        #[arg(long, value_name = "FILE", requires = "user")]
        password_file: Option<PathBuf>,
        /// How the metadata are restored, where an abort goes on
        #[arg(long, value_enum, default_value_t = RestoreArg::Auto, value_name = "HOW")]
        restore: RestoreArg,
        /// Set the default data sources that `begin` was given over REST, once the new release is in order
        #[arg(long, requires = "user")]
        set_default_source: bool,
    },
    /// Undo an upgrade that is not committed
    Abort {
        #[command(flatten)]
        which: WhichArgs,
        /// Do not ask
        #[arg(long, visible_alias = "silent")]
        yes: bool,
        /// Print exactly what would be undone, and touch nothing
        #[arg(long)]
        dry_run: bool,
        /// How the metadata are restored, if the new release was ever started
        #[arg(long, value_enum, default_value_t = RestoreArg::Auto, value_name = "HOW")]
        restore: RestoreArg,
    },
    /// Make an upgrade final, and delete what the way back needed
    Commit {
        #[command(flatten)]
        which: WhichArgs,
        /// Do not ask
        #[arg(long, visible_alias = "silent")]
        yes: bool,
        /// Leave out this cleanup step (may be repeated)
        #[arg(long, value_name = "STEP")]
        keep: Vec<String>,
        /// Go on although this check says no, kept with the reason (C2: a secondary node is open)
        #[arg(long = "override", value_name = "CHECK=REASON")]
        overrides: Vec<String>,
    },
    /// Prove that the backups are whole
    Verify {
        #[command(flatten)]
        which: WhichArgs,
        #[command(flatten)]
        level: LevelArgs,
        /// Look at the service that runs instead of the backups
        #[arg(long, conflicts_with_all = ["quick", "deep", "drill"])]
        service: bool,
        /// Log in as this user; the password comes from the environment (`KYTX_PASSWORD`) or from a file
        #[arg(long, value_name = "NAME", requires = "service")]
        user: Option<String>,
        /// The file whose first line is the password
        #[arg(long, value_name = "FILE", requires = "user")]
        password_file: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a script that is called as the product's own `upgrade.sh` and runs kytx
    Wrapper {
        /// The directory that the new package was unpacked to
        #[arg(value_name = "NEW_HOME")]
        new_home: PathBuf,
    },
    /// Say where an upgrade stands and what to type
    Status {
        #[command(flatten)]
        which: WhichArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the journal
    Log {
        #[command(flatten)]
        which: WhichArgs,
        /// Print JSON Lines
        #[arg(long)]
        json: bool,
    },
    /// Show a whole upgrade, killed in the middle and resumed, on a miniature installation
    Demo {
        /// Where to put it; a fresh directory below the temporary one if left out
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// Leave it there afterwards
        #[arg(long)]
        keep: bool,
    },
    /// Upgrade a copy of the home with the product's scripts replaced, killed at many moments, and report
    Rehearse {
        #[command(flatten)]
        upgrade: UpgradeArgs,
        /// Where to put the copy: a directory that is empty, or not there yet
        #[arg(long = "in", value_name = "DIR")]
        dir: PathBuf,
        /// Rehearse what this saved plan says, and refuse if the world has moved since
        #[arg(long, value_name = "FILE")]
        plan: Option<PathBuf>,
        /// How many kills; three for each step if left out
        #[arg(long, value_name = "N")]
        kills: Option<u32>,
        /// What the moments are chosen by
        #[arg(long, default_value_t = 1, value_name = "S")]
        seed: u64,
        /// Leave the copy there afterwards
        #[arg(long)]
        keep: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// The service of the miniature installation
    #[command(hide = true)]
    StandinService {
        /// As the script gives them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<std::ffi::OsString>,
    },
}

impl Command {
    /// Which upgrade is meant, for those commands that have one.
    pub fn which(&self) -> Option<&WhichArgs> {
        match self {
            Self::Plan { upgrade, .. }
            | Self::Check { upgrade, .. }
            | Self::Begin { upgrade, .. }
            | Self::Rehearse { upgrade, .. } => Some(&upgrade.which),
            Self::Resume { which, .. }
            | Self::Abort { which, .. }
            | Self::Commit { which, .. }
            | Self::Verify { which, .. }
            | Self::Status { which, .. }
            | Self::Log { which, .. } => Some(which),
            Self::Demo { .. } | Self::Wrapper { .. } | Self::StandinService { .. } => None,
        }
    }
}

/// What to upgrade, and how.
#[derive(Args, Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is one of many independent switches")]
pub struct UpgradeArgs {
    #[command(flatten)]
    pub(crate) which: WhichArgs,
    /// The new release: its `.tar.gz`, or the directory it was unpacked to
    #[arg(long, value_name = "FILE|DIR")]
    pub package: PathBuf,
    /// The old release's package: makes the merge of `kylin.properties` three-way
    #[arg(long, value_name = "FILE|DIR")]
    pub old_package: Option<PathBuf>,
    /// Whose value wins where you and the new release both changed one
    #[arg(
        long,
        value_enum,
        default_value_t = MergeArg::Ours,
        value_name = "WHOSE",
        requires_if("theirs", "old_package")
    )]
    pub merge: MergeArg,
    /// Allow the version that is installed already
    #[arg(long)]
    pub reinstall: bool,
    /// When to archive the old home
    #[arg(long, value_enum, default_value_t = ArchiveArg::After, value_name = "WHEN")]
    pub archive: ArchiveArg,
    /// How the cube data are kept; `none` gives up their way back
    #[arg(long, value_enum, default_value_t = CubeBackup::Auto, value_name = "HOW")]
    pub cube_backup: CubeBackup,
    /// Where copies of cube data go; `_kytx` in the working directory if left out
    #[arg(long, value_name = "PATH")]
    pub hdfs_root: Option<PathBuf>,
    /// Keep the whole working directory, other instances' data included, and not this instance's folder alone
    #[arg(long, requires = "hdfs_root")]
    pub whole_working_dir: bool,
    /// This home is one node of a cluster: the primary one backs up metadata and cube data, each secondary one changes
    /// its home alone, after it
    #[arg(long, value_enum, value_name = "ROLE")]
    pub role: Option<RoleArg>,
    /// Leave starting the new release to the operator
    #[arg(long)]
    pub no_start: bool,
    /// How long to wait until the started service answers, in seconds; 600 if left out, and without an end from
    /// release 2 to 3, whose first start migrates the metadata
    #[arg(long, value_name = "SECONDS")]
    pub start_timeout: Option<u32>,
    /// From release 2 to 3: the default data source of a project that has several, to be named in the report (may be
    /// repeated)
    #[arg(long, value_name = "PROJECT=hive|kafka")]
    pub default_source: Vec<String>,
    /// A licence for the new release: put in place of its `LICENSE`
    #[arg(long, value_name = "FILE")]
    pub licence: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) jobs: JobsArgs,
    /// Queries whose answers must be the same after the upgrade: statements that end with `;`, each after a line
    /// `-- project: NAME`
    #[arg(long, value_name = "FILE", requires = "user")]
    pub smoke_query: Option<PathBuf>,
    /// Leave the lines of the product's own script in the new home's logs
    #[arg(long)]
    pub audit: bool,
    /// Go on although this check says no, recorded with the reason (may be repeated)
    #[arg(long = "override", value_name = "CHECK=REASON")]
    pub overrides: Vec<String>,
}

/// Whom to ask for unfinished jobs.
#[derive(Args, Clone, Debug)]
pub struct JobsArgs {
    /// Ask the running service for unfinished jobs as this user; the password comes from the environment
    /// (`KYTX_PASSWORD`) or from a file
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// The file whose first line is the password
    #[arg(long, value_name = "FILE", requires = "user")]
    pub password_file: Option<PathBuf>,
    /// You have looked yourself: every job is finished
    #[arg(long)]
    pub jobs_finished: bool,
}

/// Which upgrade is meant.
#[derive(Args, Clone, Debug)]
pub struct WhichArgs {
    /// The home, `$KYLIN_HOME` if left out
    #[arg(value_name = "OLD_KYLIN_HOME")]
    pub home: Option<PathBuf>,
    /// Where kytx keeps its state; beside the home if left out
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Run in the environment that this script makes, such as a client's `bigdata_env`
    #[arg(long, value_name = "FILE")]
    pub env_script: Option<PathBuf>,
    /// Die where this file of a rehearsal says
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) doom: Option<PathBuf>,
}

/// How deep to verify.
#[derive(Args, Clone, Copy, Debug)]
#[group(multiple = false)]
pub struct LevelArgs {
    /// Only that the backups' bytes are unchanged
    #[arg(long)]
    pub quick: bool,
    /// Read and hash every member of every backup
    #[arg(long)]
    pub deep: bool,
    /// Restore into a scratch directory and compare every attribute
    #[arg(long)]
    pub drill: bool,
}

/// Whose value wins a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MergeArg {
    /// Yours
    Ours,
    /// The new release's; needs `--old-package`, by which what you changed is told from old defaults
    Theirs,
    /// Ask for each
    Ask,
}

/// How the metadata are restored on the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RestoreArg {
    /// By what differs in stores of thousands of entries, else in full
    Auto,
    /// The store is emptied and restored
    Full,
    /// Only what differs, compared before and after; in full if that cannot be proven
    Difference,
}

impl From<RestoreArg> for RestoreHow {
    fn from(arg: RestoreArg) -> Self {
        match arg {
            RestoreArg::Auto => Self::Auto,
            RestoreArg::Full => Self::Full,
            RestoreArg::Difference => Self::Difference,
        }
    }
}

/// What a node of a cluster does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// Backs up metadata and cube data, and starts first
    Primary,
    /// Its own home only
    Secondary,
}

/// When to archive the old home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ArchiveArg {
    /// After the new release answers
    After,
    /// Before the swap, within the downtime
    Before,
    /// Not at all
    None,
}

impl From<ArchiveArg> for ArchiveWhen {
    fn from(arg: ArchiveArg) -> Self {
        match arg {
            ArchiveArg::After => Self::After,
            ArchiveArg::Before => Self::Before,
            ArchiveArg::None => Self::None,
        }
    }
}

/// How the cube data are kept for the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CubeBackup {
    /// In major upgrades: by a snapshot where this user may make one, else by a copy
    Auto,
    /// By a snapshot, also in a minor upgrade
    Snapshot,
    /// By a copy (`hadoop distcp` on a cluster), also in a minor upgrade
    #[value(alias = "always")]
    Distcp,
    /// By a snapshot and a copy of it
    Both,
    /// Not at all
    None,
}

/// What to do when the metadata backup holds an unfinished job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnUnfinishedJobs {
    /// Undo everything, so that the service runs again if it did
    Restart,
    /// Leave the service stopped and wait for the operator
    Stop,
}

/// What to do when the new release runs and is not in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnUnhealthy {
    /// Leave it running and wait for the operator
    Stop,
    /// Turn round and undo everything
    Abort,
}

/// What to do when a step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnFailure {
    /// Stop and wait for the operator
    Stop,
    /// Turn round and undo everything
    Abort,
}
