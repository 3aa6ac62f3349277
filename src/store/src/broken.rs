//! The store broken on purpose, to see that its tests would tell: feature `broken`, with which nothing real is built.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use dayfly_core::clock::SystemClock;
use dayfly_core::ports::Clock as _;
use dayfly_core::rules::RuleSet;

/// How late [`Broken::StaleRules`] is.
const LATE: Duration = Duration::from_millis(50);

/// What is broken, in every store of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Nothing: to see that it is not the build.
    Nothing,
    /// A commit does not look for rules that are newer than its decision.
    Coverage,
    /// Whoever asks for the rules gets those of 50 ms ago.
    StaleRules,
}

static BROKEN: OnceLock<Broken> = OnceLock::new();

impl Broken {
    /// Breaks this, from here on. The first call counts.
    pub fn apply(self) {
        BROKEN.get_or_init(|| self);
    }

    pub(crate) fn applies(self) -> bool {
        BROKEN.get() == Some(&self)
    }
}

/// The rules as they were a while ago, as far as anybody asked.
pub(crate) fn late(now: Arc<RuleSet>) -> Arc<RuleSet> {
    static CLOCK: LazyLock<SystemClock> = LazyLock::new(SystemClock::new);
    static SEEN: Mutex<VecDeque<(Duration, Arc<RuleSet>)>> = Mutex::new(VecDeque::new());
    if !Broken::StaleRules.applies() {
        return now;
    }
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let at = CLOCK.monotonic();
    if seen.back().is_none_or(|(_, last)| !Arc::ptr_eq(last, &now)) {
        seen.push_back((at, Arc::clone(&now)));
    }
    while seen.get(1).is_some_and(|(since, _)| *since + LATE <= at) {
        seen.pop_front();
    }
    seen.front().map_or(now, |(_, rules)| Arc::clone(rules))
}
