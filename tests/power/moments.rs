//! When the power is cut.

use crate::field::{Blow, Command, Measure};
use crate::support::killer::{Counted, Moment, Swallowed};
use crate::support::random::Random;

/// How many cuts of each kind.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub struct Share {
    /// Where a record counts and nothing has been done on it: of all such moments; `usize::MAX` takes each.
    pub records: usize,
    /// Within an append, likewise.
    pub appends: usize,
    /// At any call.
    pub calls: usize,
}

impl Share {
    /// None.
    pub const NONE: Self = Self { records: 0, appends: 0, calls: 0 };
}

/// The moments at which each record was just made durable; and after the command.
fn at_records(measure: &Measure) -> Vec<Moment> {
    let records = measure.planned + 1..=measure.records;
    records.map(|records| Moment::Call { records, n: 2 }).chain([Moment::Never]).collect()
}

/// The moments within the append of each record: between store and twin, and before the twin is synced.
fn in_appends(measure: &Measure) -> Vec<Moment> {
    let of = |records| [Moment::TwinWrite(records), Moment::Call { records, n: 1 }];
    (1..=measure.records).flat_map(of).collect()
}

/// Moments that once showed a fault, with how it was found. They are met in each run.
pub const FOUND: [(Command, Moment); 1] = [
    // Seed 7, on ext4 and xfs: `verify` found the old tree damaged, as what the product had just written into it was
    // not on the medium when its archive was.
    (Command::Begin, Moment::Never),
];

/// Cuts of one command: around some records, and at some calls, of which those of the scripts count in every fourth.
pub fn choose(
    command: Command,
    own: &Measure,
    all: &Measure,
    share: Share,
    random: &mut Random,
) -> Vec<Blow> {
    let mut moments = random.choose(&at_records(own), share.records);
    moments.extend(random.choose(&in_appends(own), share.appends));
    let found = FOUND.iter().filter(|(of, _)| *of == command).map(|(_, moment)| *moment);
    moments.extend(found.filter(|moment| !moments.contains(moment)).collect::<Vec<_>>());
    let mut moments: Vec<_> = moments.into_iter().map(|moment| (moment, Counted::Own)).collect();
    let count = share.calls as u64;
    for number in 0..count {
        let (measure, counted) =
            if number % 4 == 3 { (all, Counted::Descendants) } else { (own, Counted::Own) };
        // Spread over the run.
        let (from, to) = (number * measure.calls / count, (number + 1) * measure.calls / count);
        moments.push((Moment::Call { records: 0, n: from + random.up_to(to - from) }, counted));
    }
    let swallowed = Swallowed::None;
    let blow = |(moment, counted)| Blow { command, moment, counted, swallowed, seed: random.bits() };
    moments.into_iter().map(blow).collect()
}

#[test]
fn every_record_can_be_chosen() {
    let measure = Measure { records: 5, planned: 2, calls: 100 };
    let cuts = |records, appends, calls, seed| {
        let share = Share { records, appends, calls };
        choose(Command::Begin, &measure, &measure, share, &mut Random::new(seed))
    };
    assert_eq!(cuts(usize::MAX, usize::MAX, 0, 1).len(), 3 + 1 + 10);
    for seed in 0..50 {
        let chosen = cuts(2, 4, 12, seed);
        // What was found before is always there.
        assert!([18, 19].contains(&chosen.len()) && chosen.iter().any(|blow| blow.moment == Moment::Never));
        assert_eq!(chosen.iter().filter(|blow| blow.counted == Counted::Descendants).count(), 3);
        for blow in &chosen {
            if let Moment::Call { records: 0, n } = blow.moment {
                assert!((1..=100).contains(&n));
            }
        }
    }
}
