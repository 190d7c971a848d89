//! What the journal holds.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Step, StepId};
use crate::digest::Digest;
use crate::raw_path::RawPath;

/// A record's place in its journal, counted from 1, without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A transaction's name: 16 hexadecimal digits, made from time and process when it begins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TxnId(pub String);

impl fmt::Display for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a transaction is about; the first record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The transaction's name.
    pub txn: TxnId,
    /// The version of kytx that made the plan.
    pub kytx: String,
    /// When it began, in seconds since 1970-01-01 UTC.
    pub began_unix_s: u64,
    /// The home, its real path.
    pub home: RawPath,
    /// The version of the product before.
    pub old_version: String,
    /// The version of the product after.
    pub new_version: String,
    /// The package.
    pub package: RawPath,
    /// Who began it.
    pub user: String,
    /// On which host.
    pub host: String,
    /// What speaks against it, and was overridden by whoever began it.
    pub overrides: Vec<Override>,
}

/// A precondition that was overridden, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// The check's name.
    pub check: String,
    /// What the operator says about it.
    pub reason: String,
}

/// Which way a step goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// It is applied.
    Forward,
    /// It is undone.
    Backward,
}

/// Why a transaction turned round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AbortReason {
    /// The operator asked for it.
    Operator,
    /// A step failed under `--on-failure abort`.
    Failure {
        /// The step.
        step: StepId,
    },
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The new release stays.
    Committed,
    /// The old release is back, or was never left.
    Aborted,
}

/// One record of the journal. Variants are only ever added at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Record {
    /// A transaction begins.
    Begin(Header),
    /// One step of its plan, in order.
    Planned(Step),
    /// The plan is complete. Nothing outside the state directory was touched before this (I1).
    Sealed {
        /// How many steps.
        steps: u16,
        /// What they are.
        plan: Digest,
    },
    /// A step is about to run (I2).
    Intent {
        /// The step.
        step: StepId,
        /// Which way.
        direction: Direction,
        /// What it works from.
        inputs: Digest,
    },
    /// A step has run.
    Done {
        /// The step.
        step: StepId,
        /// Which way.
        direction: Direction,
        /// What it made.
        outputs: Digest,
    },
    /// A step's result was there already: not ours, never undone.
    Found {
        /// The step.
        step: StepId,
    },
    /// The transaction turns round.
    Abort {
        /// Why.
        reason: AbortReason,
    },
    /// The point of no return.
    Commit {
        /// Cleanup steps that the operator wants left out.
        keep: Vec<StepId>,
    },
    /// The transaction is over.
    End {
        /// How.
        outcome: Outcome,
    },
}

impl Record {
    /// The record's type in one word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Begin(_) => "begin",
            Self::Planned(_) => "planned",
            Self::Sealed { .. } => "sealed",
            Self::Intent { .. } => "intent",
            Self::Done { .. } => "done",
            Self::Found { .. } => "found",
            Self::Abort { .. } => "abort",
            Self::Commit { .. } => "commit",
            Self::End { .. } => "end",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_record_has_a_fixed_json_form() {
        let zero = "0".repeat(64);
        let step = StepId(3);
        let table = [
            (
                Record::Sealed { steps: 3, plan: Digest::ZERO },
                format!(r#"{{"sealed":{{"steps":3,"plan":"{zero}"}}}}"#),
            ),
            (
                Record::Intent { step, direction: Direction::Forward, inputs: Digest::ZERO },
                format!(r#"{{"intent":{{"step":3,"direction":"forward","inputs":"{zero}"}}}}"#),
            ),
            (
                Record::Done { step, direction: Direction::Backward, outputs: Digest::ZERO },
                format!(r#"{{"done":{{"step":3,"direction":"backward","outputs":"{zero}"}}}}"#),
            ),
            (Record::Found { step }, r#"{"found":{"step":3}}"#.to_owned()),
            (
                Record::Abort { reason: AbortReason::Operator },
                r#"{"abort":{"reason":"operator"}}"#.to_owned(),
            ),
            (
                Record::Abort { reason: AbortReason::Failure { step } },
                r#"{"abort":{"reason":{"failure":{"step":3}}}}"#.to_owned(),
            ),
            (Record::Commit { keep: vec![step] }, r#"{"commit":{"keep":[3]}}"#.to_owned()),
            (Record::End { outcome: Outcome::Aborted }, r#"{"end":{"outcome":"aborted"}}"#.to_owned()),
            (
                Record::Begin(Header {
                    txn: TxnId("0123456789abcdef".to_owned()),
                    kytx: "0.1.0".to_owned(),
                    began_unix_s: 7,
                    home: "/h".into(),
                    old_version: "1".to_owned(),
                    new_version: "2".to_owned(),
                    package: "/p".into(),
                    user: "u".to_owned(),
                    host: "n".to_owned(),
                    overrides: vec![Override { check: "P4".to_owned(), reason: "r".to_owned() }],
                }),
                concat!(
                    r#"{"begin":{"txn":"0123456789abcdef","kytx":"0.1.0","began_unix_s":7,"home":"/h","#,
                    r#""old_version":"1","new_version":"2","package":"/p","user":"u","host":"n","#,
                    r#""overrides":[{"check":"P4","reason":"r"}]}}"#
                )
                .to_owned(),
            ),
            (
                Record::Planned(Step {
                    name: "swap".to_owned(),
                    stage: crate::txn::Stage::Apply,
                    mutation: crate::txn::Mutation::ExchangeTrees { live: "/h".into(), spare: "/s".into() },
                }),
                concat!(
                    r#"{"planned":{"name":"swap","stage":"apply","#,
                    r#""mutation":{"exchange-trees":{"live":"/h","spare":"/s"}}}}"#
                )
                .to_owned(),
            ),
        ];
        for (record, text) in table {
            assert_eq!(serde_json::to_string(&record).unwrap(), text);
            assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
            assert!(text.starts_with(&format!("{{\"{}\":", record.kind())));
        }
    }
}
