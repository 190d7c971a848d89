//! What the tests of this layer counted, published together.

use std::sync::Mutex;

use crate::support::census::{Census, seed};

static CENSUS: Mutex<Option<Census>> = Mutex::new(None);

/// Adds figures, and publishes what there is so far.
pub fn count(figures: &[(&str, u64)]) {
    let mut census = CENSUS.lock().unwrap();
    let census = census.get_or_insert_with(|| Census::new("concurrency", seed()));
    for (name, figure) in figures {
        *census.figures.entry((*name).to_owned()).or_default() += figure;
    }
    census.publish();
}
