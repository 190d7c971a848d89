//! The plan: a list of steps, fixed before anything is touched.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Mutation;
use crate::digest::{Digest, Hasher};

/// A step's place in its plan, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(pub u16);

impl StepId {
    /// The index into the plan's list of steps.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// When a step runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Before the operator decides. Can be undone.
    Apply,
    /// Past the commit record. Cannot be undone.
    Cleanup,
}

/// One entry of the plan: what to change, and in which stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// A kebab-case name, unique in the plan, as operators type it after `--stop-before`.
    pub name: String,
    /// When it runs.
    pub stage: Stage,
    /// What it does.
    pub mutation: Mutation,
}

/// The digest that binds a plan: over the compact JSON text of each step, each followed by a newline.
pub fn plan_digest<'a>(steps: impl IntoIterator<Item = &'a Step>) -> Digest {
    let mut hasher = Hasher::domain("kytx 2026 plan v1");
    for step in steps {
        hasher.update(&serde_json::to_vec(step).expect("BUG: a step has a JSON form"));
        hasher.update(b"\n");
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str, stage: Stage) -> Step {
        Step { name: name.to_owned(), stage, mutation: Mutation::DiscardFile { file: "f".into() } }
    }

    #[test]
    fn a_plan_digest_binds_every_step_and_their_order() {
        let (a, b) = (step("a", Stage::Apply), step("b", Stage::Apply));
        let digest = plan_digest([&a, &b]);
        assert_eq!(digest, plan_digest([&a.clone(), &b.clone()]));
        for other in [vec![], vec![&a], vec![&b, &a], vec![&a, &b, &b], vec![&a, &step("b", Stage::Cleanup)]]
        {
            assert_ne!(digest, plan_digest(other));
        }
    }
}
