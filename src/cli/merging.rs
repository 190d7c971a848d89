//! Whose value wins where operator and new release both changed one: by option, or asked for each.

use serde::Serialize;

use super::args::MergeArg;
use super::error::CommandError;
use super::terminal::{choose, tell};
use crate::kyligence::merge::{Conflict, Side};
use crate::raw_path::RawPath;

/// A conflict as it was decided, for the preview. Values are masked.
#[derive(Clone, Debug, Serialize)]
pub struct Decision {
    /// The file, relative to the home.
    pub file: RawPath,
    /// The key.
    pub key: String,
    /// What the old package had.
    pub base: Option<String>,
    /// What the operator has.
    pub ours: Option<String>,
    /// What the new release has.
    pub theirs: Option<String>,
    /// Whose value wins; `None` where it will be asked.
    pub wins: Option<Side>,
}

/// Decides conflicts, and keeps how.
pub struct Decider {
    merge: MergeArg,
    asks: bool,
    /// What was decided.
    pub decisions: Vec<Decision>,
    unanswered: bool,
}

impl Decider {
    /// For a preview: what would be asked is left open, and the operator's value stands in.
    pub fn preview(merge: MergeArg) -> Self {
        Self { merge, asks: false, decisions: Vec::new(), unanswered: false }
    }

    /// For the act: asks at the terminal.
    ///
    /// # Errors
    /// Nothing may be asked, and something would have to be.
    pub fn act(merge: MergeArg, silent: bool) -> Result<Self, CommandError> {
        if silent && merge == MergeArg::Ask {
            return Err(CommandError::usage("`--merge ask` and `--silent` do not go together")
                .why("the one asks, and the other asks nothing")
                .hint("--merge ours, or --merge theirs"));
        }
        Ok(Self { merge, asks: true, decisions: Vec::new(), unanswered: false })
    }

    /// Decides one.
    pub fn decide(&mut self, file: &RawPath, conflict: &Conflict) -> Side {
        let wins = match self.merge {
            MergeArg::Theirs if conflict.base_known => Some(Side::Theirs),
            // Without a base the old value may be the operator's, so the release's does not win by itself.
            MergeArg::Ours | MergeArg::Theirs => Some(Side::Ours),
            MergeArg::Ask if self.asks && !self.unanswered => self.ask(file, conflict),
            MergeArg::Ask => None,
        };
        // Without a base everything that differs is one: only questions are worth a line.
        if conflict.base_known || self.merge == MergeArg::Ask {
            let Conflict { key, base, ours, theirs, .. } = conflict.clone();
            self.decisions.push(Decision { file: file.clone(), key, base, ours, theirs, wins });
        }
        wins.unwrap_or_default()
    }

    fn ask(&mut self, file: &RawPath, conflict: &Conflict) -> Option<Side> {
        let show = |value: &Option<String>| value.clone().unwrap_or_else(|| "(none)".to_owned());
        tell(&format!("{file}: {}", conflict.key));
        if conflict.base_known {
            tell(&format!("  the old package had: {}", show(&conflict.base)));
        }
        tell(&format!("  yours:               {}", show(&conflict.ours)));
        tell(&format!("  the new release's:   {}", show(&conflict.theirs)));
        match choose("Keep yours (o), or take the new release's (t)?", &[("o", "ours"), ("t", "theirs")]) {
            Some(0) => Some(Side::Ours),
            Some(_) => Some(Side::Theirs),
            None => {
                self.unanswered = true;
                None
            }
        }
    }

    /// Refuses if a question got no answer.
    pub fn finish(&self) -> Result<(), CommandError> {
        if !self.unanswered {
            return Ok(());
        }
        Err(CommandError::refused("not begun: it was not said whose value wins")
            .why("the input ended before every conflict was decided")
            .hint("--merge ours, or --merge theirs with --old-package"))
    }

    /// The conflicts, for people.
    pub fn lines(decisions: &[Decision]) -> Vec<String> {
        if decisions.is_empty() {
            return Vec::new();
        }
        let show = |value: &Option<String>| value.clone().unwrap_or_else(|| "(none)".to_owned());
        let mut lines = vec!["Changed by you and by the new release:".to_owned()];
        lines.extend(decisions.iter().map(|decision| {
            let wins = match decision.wins {
                Some(Side::Ours) => "yours wins",
                Some(Side::Theirs) => "the new release's wins",
                None => "will be asked",
            };
            let Decision { file, key, base, ours, theirs, .. } = decision;
            format!("  {file}: {key}: {} | yours {} | new {} ({wins})", show(base), show(ours), show(theirs))
        }));
        lines
    }
}
