//! Log lines that would repeat with every call, once a minute instead.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(60);

/// Remembers when something was last said, by subject. Subjects are few: they are constants of the code.
#[derive(Default)]
pub(crate) struct Sparing(Mutex<HashMap<&'static str, Duration>>);

impl Sparing {
    /// Whether it is time to speak of `subject`; `now` is the monotonic clock.
    pub(crate) fn now_about(&self, subject: &'static str, now: Duration) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.get(subject).is_none_or(|said| now.saturating_sub(*said) >= EVERY);
        if due {
            last.insert(subject, now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speaks_once_a_minute_of_each_subject() {
        let sparing = Sparing::default();
        let at = Duration::from_secs;
        assert!(sparing.now_about("list pods", at(1)));
        assert!(!sparing.now_about("list pods", at(60)));
        assert!(sparing.now_about("create tokenreviews", at(60)));
        assert!(sparing.now_about("list pods", at(61)));
    }
}
