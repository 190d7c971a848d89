//! What a probe's answer means.

use super::Direction;

/// What a look at the machine found, relative to one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// As it was before the step.
    Before,
    /// Part of the step has happened, or nobody can say.
    Torn,
    /// The step has happened in full.
    After,
    /// Neither: somebody else has changed the machine.
    Foreign,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Perform the act.
    Run,
    /// Nothing is left to do; record the outcome.
    Skip,
    /// Touch nothing; a person must look.
    Halt,
}

/// Judges an observation. Called only once the intent is durable (I2, I3).
pub fn judge(direction: Direction, seen: Observed) -> Verdict {
    match (direction, seen) {
        (Direction::Forward, Observed::Before)
        | (Direction::Backward, Observed::After)
        | (_, Observed::Torn) => Verdict::Run,
        (Direction::Forward, Observed::After) | (Direction::Backward, Observed::Before) => Verdict::Skip,
        (_, Observed::Foreign) => Verdict::Halt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_eight_cases() {
        use Direction::{Backward, Forward};
        use Observed::{After, Before, Foreign, Torn};
        use Verdict::{Halt, Run, Skip};
        let table = [
            (Forward, Before, Run),
            (Forward, Torn, Run),
            (Forward, After, Skip),
            (Forward, Foreign, Halt),
            (Backward, Before, Skip),
            (Backward, Torn, Run),
            (Backward, After, Run),
            (Backward, Foreign, Halt),
        ];
        for (direction, seen, verdict) in table {
            assert_eq!(judge(direction, seen), verdict, "{direction:?} {seen:?}");
        }
    }
}
