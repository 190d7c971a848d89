//! At which calls to kill: spread over a run so that every record's window gets its share.

#![allow(dead_code, reason = "each test uses a part of it")]

use crate::support::random::Random;

/// The calls of an undisturbed run, cut where it wrote a record.
#[derive(Debug)]
pub struct Windows {
    /// The first and the last call of each window.
    windows: Vec<(u64, u64)>,
}

impl Windows {
    /// Cuts a run of so many calls after each of these.
    pub fn new(cuts: &[u64], calls: u64) -> Self {
        let mut windows = Vec::new();
        let mut first = 1;
        for last in cuts.iter().copied().chain([calls]) {
            if first <= last {
                windows.push((first, last));
                first = last + 1;
            }
        }
        Self { windows }
    }

    /// How many windows there are.
    pub fn count(&self) -> u64 {
        self.windows.len() as u64
    }

    /// How many calls the run had.
    pub fn calls(&self) -> u64 {
        self.windows.last().map_or(0, |(_, last)| *last)
    }

    /// A call within one window.
    fn within(&self, window: usize, random: &mut Random) -> u64 {
        let (first, last) = self.windows[window];
        first - 1 + random.up_to(last - first + 1)
    }

    /// Distinct calls, in order: two thirds spread over the windows, short or long alike, the rest over the calls.
    pub fn choose(&self, count: u64, random: &mut Random) -> Vec<u64> {
        let mut chosen = std::collections::BTreeSet::new();
        let windows = self.windows.len() as u64;
        let spread = count * 2 / 3;
        for number in 0..spread {
            chosen.insert(self.within((number * windows / spread) as usize, random));
        }
        let rest = count.saturating_sub(chosen.len() as u64);
        for number in 0..rest {
            let (from, to) = (number * self.calls() / rest, (number + 1) * self.calls() / rest);
            chosen.insert(from + random.up_to(to - from));
        }
        while (chosen.len() as u64) < count.min(self.calls()) {
            chosen.insert(random.up_to(self.calls()));
        }
        chosen.into_iter().collect()
    }
}

#[test]
fn chosen_moments_are_distinct_and_within_the_run() {
    let windows = Windows::new(&[10, 12, 500], 1_000);
    for count in 1..200 {
        let chosen = windows.choose(count, &mut Random::new(count));
        assert_eq!(chosen.len() as u64, count);
        assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(chosen[0] >= 1 && chosen.last() <= Some(&1_000));
    }
    assert!(windows.choose(8, &mut Random::new(1)).iter().any(|n| [11, 12].contains(n)));
}
