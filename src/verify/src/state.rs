//! What a verifier knows now: keys and revocations, which tasks keep up to date and checks read.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use dayfly_client::v1;
use dayfly_core::limits::Limits;
use dayfly_core::ports::Clock;
use dayfly_core::time::Timestamp;
use dayfly_jose::KeySet;
use tokio::sync::{Notify, watch};

use crate::origin::Facts;
use crate::refused::Refused;
use crate::revocations::{Revocations, Unusable};

/// How long the broker may be silent before what is revoked is not known any more: heartbeats come each 5 s.
pub(crate) const SILENCE: Duration = Duration::from_secs(15);
/// Keys are asked for because of an unknown `kid` at most this often.
pub(crate) const KEYS_AT_MOST_EVERY: Duration = Duration::from_secs(5);

pub(crate) struct State {
    pub(crate) clock: Arc<dyn Clock>,
    keys: RwLock<Option<(Arc<KeySet>, Moment)>>,
    in_force: RwLock<Option<InForce>>,
    /// Keys are to be asked for, as soon as that may be.
    pub(crate) keys_wanted: Notify,
    /// Told of each change.
    changes: watch::Sender<()>,
}

/// A whole set of revocations.
struct InForce {
    set: Revocations,
    /// When the broker last said that it is all; none where it said something since that cannot be read.
    confirmed: Option<Moment>,
    position: u64,
}

impl InForce {
    fn is_known(&self, clock: &dyn Clock) -> bool {
        self.confirmed.is_some_and(|confirmed| confirmed.passed(clock) <= SILENCE)
    }
}

/// A moment by both clocks. What has passed since is what either says: one stands still while the machine sleeps, the other
/// may be set back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    wall: Timestamp,
    monotonic: Duration,
}

impl Moment {
    pub(crate) fn now(clock: &dyn Clock) -> Self {
        Self { wall: clock.now(), monotonic: clock.monotonic() }
    }

    pub(crate) fn passed(self, clock: &dyn Clock) -> Duration {
        clock.now().since(self.wall).max(clock.monotonic().saturating_sub(self.monotonic))
    }
}

impl State {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            keys: RwLock::default(),
            in_force: RwLock::default(),
            keys_wanted: Notify::new(),
            changes: watch::Sender::new(()),
        }
    }

    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// The keys, once there are some.
    pub(crate) fn keys(&self) -> Option<Arc<KeySet>> {
        read(&self.keys).as_ref().map(|(keys, _)| Arc::clone(keys))
    }

    /// Whether the keys may be asked for again because of an unknown `kid`.
    pub(crate) fn may_ask_for_keys(&self) -> bool {
        read(&self.keys).as_ref().is_none_or(|(_, at)| at.passed(&*self.clock) >= KEYS_AT_MOST_EVERY)
    }

    pub(crate) fn put_keys(&self, keys: KeySet) {
        *write(&self.keys) = Some((Arc::new(keys), Moment::now(&*self.clock)));
        self.changes.send_replace(());
    }

    /// Puts a whole set in the place of the earlier one.
    pub(crate) fn put_revocations(&self, set: Revocations, position: u64) {
        let confirmed = Some(Moment::now(&*self.clock));
        let earlier = write(&self.in_force).replace(InForce { set, confirmed, position });
        self.changes.send_replace(());
        // Freed when nobody waits for it.
        drop(earlier);
    }

    /// Adds what a message tells to the set in force. Where more is to come, the set is not confirmed yet.
    pub(crate) fn add(&self, message: &v1::WatchRevocationsResponse) -> Result<(), Unusable> {
        let mut in_force = write(&self.in_force);
        let Some(in_force) = in_force.as_mut() else {
            return Err(Unusable::Malformed("list, which must come before what is new,"));
        };
        in_force.set.take(message, self.clock.now())?;
        if !message.more {
            in_force.confirmed = Some(Moment::now(&*self.clock));
            in_force.position = message.position;
        }
        self.changes.send_replace(());
        Ok(())
    }

    /// What is in force is not all, from now on until the broker tells all anew.
    pub(crate) fn doubt_revocations(&self) {
        if let Some(in_force) = write(&self.in_force).as_mut() {
            in_force.confirmed = None;
        }
    }

    /// Whether what is revoked is known.
    pub(crate) fn knows_revocations(&self) -> bool {
        read(&self.in_force).as_ref().is_some_and(|it| it.is_known(&*self.clock))
    }

    /// The position in the store that the set in force is as of.
    pub(crate) fn position(&self) -> Option<u64> {
        read(&self.in_force).as_ref().map(|it| it.position)
    }

    /// The time by which tokens are judged: what had expired when revocations were dropped stays expired.
    pub(crate) fn now(&self) -> Timestamp {
        let swept = read(&self.in_force).as_ref().map(|it| it.set.swept_at());
        self.clock.now().max(swept.unwrap_or_default())
    }

    /// Whether the clock says less than it did when revocations were last dropped, by more than it may be off.
    pub(crate) fn clock_was_set_back(&self) -> bool {
        self.now().since(self.clock.now()) > Limits::default().leeway
    }

    /// Whether a token is revoked, by what was last known if there is anything.
    pub(crate) fn check_revoked(&self, facts: &Facts, unknown_is_good: bool) -> Result<(), Refused> {
        let in_force = read(&self.in_force);
        if in_force.as_ref().is_some_and(|it| it.set.cover(facts)) {
            Err(Refused::Revoked)
        } else if unknown_is_good || in_force.as_ref().is_some_and(|it| it.is_known(&*self.clock)) {
            Ok(())
        } else {
            Err(Refused::RevocationsUnknown)
        }
    }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
