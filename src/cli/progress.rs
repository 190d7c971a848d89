//! How a person sees that the work gets on: a bar with bytes, rate and time left on a terminal, plain lines elsewhere.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::terminal::{bytes, is_watched, tell};
use crate::mutate::Progress;

/// Without a terminal, a line about long work is written this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows progress.
pub struct Meter {
    bar: Option<ProgressBar>,
    done: AtomicU64,
    total: AtomicU64,
    told: Mutex<Instant>,
}

impl Meter {
    /// A meter for whoever watches standard error.
    pub fn new() -> Self {
        let bar = is_watched().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
            bar.set_style(spinner());
            bar
        });
        Self { bar, done: AtomicU64::new(0), total: AtomicU64::new(0), told: Mutex::new(Instant::now()) }
    }

    /// A piece of work begins.
    pub fn start(&self, what: &str) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(0, Ordering::Relaxed);
        if let Ok(mut told) = self.told.lock() {
            *told = Instant::now();
        }
        if let Some(bar) = &self.bar {
            bar.reset();
            bar.set_style(spinner());
            bar.set_message(what.to_owned());
        }
    }

    /// It is over, and this is the line that stays.
    pub fn finish(&self, line: &str) {
        self.clear();
        tell(line);
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn spinner() -> ProgressStyle {
    style("  {spinner} {msg} {bytes} {elapsed}")
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("BUG: a template of kytx's own")
}

impl Progress for Meter {
    fn bytes(&self, count: u64) {
        let done = self.done.fetch_add(count, Ordering::Relaxed) + count;
        if let Some(bar) = &self.bar {
            bar.inc(count);
            return;
        }
        let Ok(mut told) = self.told.try_lock() else { return };
        if told.elapsed() >= LINE_EVERY {
            *told = Instant::now();
            let of = match self.total.load(Ordering::Relaxed) {
                0 => String::new(),
                total => format!(" of {}", bytes(total)),
            };
            tell(&format!("    {}{of}", bytes(done)));
        }
    }

    fn total(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_style(style("  {bar:30} {msg} {bytes}/{total_bytes} {bytes_per_sec} {eta}"));
        }
    }

    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| tell(&format!("    {line}"))),
            None => tell(&format!("    {line}")),
        }
    }
}
