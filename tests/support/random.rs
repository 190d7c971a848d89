//! Numbers chosen by a seed, the same on every machine (`SplitMix64`).

/// A generator.
pub struct Random(u64);

impl Random {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.bits() % limit.max(1)
    }

    /// Puts a list into another order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.below(last as u64 + 1) as usize);
        }
    }

    /// A number from 1 to `limit`.
    pub fn up_to(&mut self, limit: u64) -> u64 {
        1 + self.bits() % limit.max(1)
    }

    /// Takes so many of a list, in their order.
    pub fn choose<T: Clone>(&mut self, list: &[T], count: usize) -> Vec<T> {
        let mut chosen: Vec<usize> = (0..list.len()).collect();
        while chosen.len() > count {
            chosen.remove(self.up_to(chosen.len() as u64) as usize - 1);
        }
        chosen.into_iter().map(|index| list[index].clone()).collect()
    }
}
