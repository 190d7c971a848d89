//! At which moments a rehearsal kills: chosen by a seed, at least one in each step, both ways.

use crate::cli::doomed::Mark;

/// A kill that is to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// The step within whose calls it falls.
    pub step: String,
    /// The step before it; its end is where the calls are counted from, as the steps before differ from run to run.
    pub after: Option<String>,
    /// The call.
    pub at: u64,
}

/// The kills of a rehearsal.
#[derive(Debug, PartialEq, Eq)]
pub struct Dealt {
    /// Those of `begin`, in the order of the steps, round and round.
    pub forward: Vec<Kill>,
    /// Those of `abort`.
    pub backward: Vec<Kill>,
}

/// Three kills for each step: two on the way forward, one on the way back.
pub fn usual(steps: usize) -> u32 {
    steps as u32 * 3
}

/// Deals `kills`, of which two thirds go forward; at least one into each step. The marks are those of undisturbed runs.
pub fn deal(forward: &[Mark], backward: &[Mark], kills: u32, random: &mut Random) -> Dealt {
    let kills = (kills as usize).max(forward.len());
    let ahead = (kills - kills / 3).max(forward.len());
    Dealt { forward: within(forward, ahead, random), backward: within(backward, kills - ahead, random) }
}

fn within(marks: &[Mark], count: usize, random: &mut Random) -> Vec<Kill> {
    (0..count).filter_map(|number| choose(marks, number % marks.len().max(1), random)).collect()
}

/// A kill within one step, from the call after the step before it was through.
pub fn choose(marks: &[Mark], index: usize, random: &mut Random) -> Option<Kill> {
    let mark = marks.get(index)?;
    let before = index.checked_sub(1).map(|before| &marks[before]);
    let calls = mark.calls.saturating_sub(before.map_or(0, |before| before.calls));
    let after = before.map(|before| before.step.clone());
    Some(Kill { step: mark.step.clone(), after, at: random.up_to(calls) })
}

/// A small generator of numbers, the same on every machine (`SplitMix64`).
pub struct Random(pub u64);

impl Random {
    /// A number from 1 to `limit`.
    pub fn up_to(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        1 + (mixed ^ (mixed >> 31)) % limit.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(ends: &[u64]) -> Vec<Mark> {
        ends.iter()
            .enumerate()
            .map(|(number, calls)| Mark { step: format!("s{number}"), calls: *calls })
            .collect()
    }

    #[test]
    fn every_step_is_met_and_every_kill_falls_into_its_step() {
        let (forward, backward) = (marks(&[4, 6, 900]), marks(&[2, 4, 6]));
        for kills in 0..40 {
            for seed in 0..20 {
                let dealt = deal(&forward, &backward, kills, &mut Random(seed));
                assert_eq!(dealt.forward.len() + dealt.backward.len(), kills.max(3) as usize);
                for (number, step) in ["s0", "s1", "s2"].iter().enumerate() {
                    let of_step = dealt.forward.iter().filter(|kill| kill.step == *step);
                    // Counted from where the step before it was through.
                    let before = number.checked_sub(1);
                    let calls = forward[number].calls - before.map_or(0, |before| forward[before].calls);
                    let after = before.map(|before| forward[before].step.clone());
                    let hits: Vec<&Kill> = of_step.collect();
                    assert!(!hits.is_empty());
                    let falls = |kill: &&Kill| kill.after == after && (1..=calls).contains(&kill.at);
                    assert!(hits.iter().all(falls), "{hits:?}");
                }
            }
        }
        let dealt = |seed| deal(&forward, &backward, usual(3), &mut Random(seed));
        assert_eq!(dealt(7), dealt(7));
        assert_ne!(dealt(7), dealt(8));
        assert_eq!((dealt(7).forward.len(), dealt(7).backward.len()), (6, 3));
    }
}
