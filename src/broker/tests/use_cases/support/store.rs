//! A store in memory that keeps the port's promises: coverage, idempotency and expected state are checked in `commit`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dayfly_core::audit::{Draft, EventKind, EventRecord, SALT_BYTES};
use dayfly_core::change::{
    Change, Conflict, Draw, Earlier, LeaseFilter, LeasePage, LogHead, Mark, News, Outcome, Receipt,
    SealedKey, StoreStatus,
};
use dayfly_core::digest::Digest;
use dayfly_core::generator::IdGenerator;
use dayfly_core::ids::{Incarnation, InstanceId, LeaseId, Position, RuleId, StartNumber};
use dayfly_core::lease::{Idempotency, Lease, LeaseState, Phase};
use dayfly_core::live::{AtCap, LiveCaps, LiveOf};
use dayfly_core::merkle::Hash;
use dayfly_core::ports::{BoxFuture, Clock, LeaseStore, StoreError, TestClock, TestRng};
use dayfly_core::rule::{Lifted, Rule};
use dayfly_core::rules::RuleSet;
use dayfly_core::teardown::{SpelledLease, Teardown, Teardowns};
use dayfly_core::tiles::Tile;
use dayfly_core::time::Timestamp;
use tokio::sync::watch;

pub(crate) struct FakeStore {
    clock: Arc<TestClock>,
    rng: TestRng,
    state: Mutex<State>,
    failing: Mutex<Option<StoreError>>,
    unreadable: Mutex<Option<StoreError>>,
    hanging: Mutex<Option<Hang>>,
    full: AtomicBool,
    bell: watch::Sender<Position>,
    /// How often the log was read.
    pub(crate) log_read: AtomicUsize,
}

struct State {
    ids: IdGenerator,
    position: Position,
    leases: BTreeMap<LeaseId, Arc<Lease>>,
    rules: Arc<RuleSet>,
    notes: Vec<Draft>,
    teardowns: Teardowns,
    spelled: BTreeMap<Position, Vec<SpelledLease>>,
    /// One event for each position.
    events: Vec<EventRecord>,
    /// Which leases changed, and whose.
    told: Vec<(Position, Digest, LeaseId)>,
    /// Where it was restored, as long as it is not adopted.
    restored_at: Option<Position>,
}

/// Where a commit hangs, so that whoever asked goes without an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hang {
    Before,
    After,
}

/// How long after it was written a rule is in force.
pub(crate) const UNTIL: Duration = Duration::from_secs(930);

impl FakeStore {
    pub(crate) fn new(clock: Arc<TestClock>) -> Self {
        let state = State {
            ids: IdGenerator::above(LeaseId::from_u128(0)),
            position: Position::ZERO,
            leases: BTreeMap::new(),
            rules: Arc::default(),
            notes: Vec::new(),
            teardowns: Teardowns::default(),
            spelled: BTreeMap::new(),
            events: Vec::new(),
            told: Vec::new(),
            restored_at: None,
        };
        Self {
            clock,
            rng: TestRng::new(7),
            state: Mutex::new(state),
            failing: Mutex::new(None),
            unreadable: Mutex::new(None),
            hanging: Mutex::new(None),
            full: AtomicBool::new(false),
            bell: watch::Sender::new(Position::ZERO),
            log_read: AtomicUsize::new(0),
        }
    }

    /// From now on commits hang here.
    pub(crate) fn hang(&self, hang: Option<Hang>) {
        *self.hanging.lock().unwrap() = hang;
    }

    /// From now on nothing can be committed.
    pub(crate) fn fail(&self, error: Option<StoreError>) {
        *self.failing.lock().unwrap() = error;
    }

    /// From now on what is revoked is in effect in memory alone; or that is written, and it has room again.
    pub(crate) fn full(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
        let mut state = self.state.lock().unwrap();
        let mut rules = RuleSet::default();
        for rule in state.rules.iter().cloned().collect::<Vec<_>>() {
            let durable = rule.is_durable();
            if !durable {
                state.position = state.position.next();
            }
            let position = if durable { rule.position } else { state.position };
            let rule = Rule { position, ..Rule::clone(&rule) };
            if !durable {
                let event = Draft::revoked(&rule).place(position, self.clock.now(), [7; SALT_BYTES]).0;
                state.events.push(event);
            }
            rules.add(Arc::new(rule));
        }
        state.rules = Arc::new(rules);
        self.bell.send_replace(state.position);
    }

    /// It was made from a backup.
    pub(crate) fn restored(&self) {
        self.state.lock().unwrap().restored_at = Some(Position::new(1));
    }

    /// From now on leases cannot be listed.
    pub(crate) fn hide(&self, error: Option<StoreError>) {
        *self.unreadable.lock().unwrap() = error;
    }

    /// A lease is not there any more.
    pub(crate) fn forget(&self, lease: LeaseId) {
        self.state.lock().unwrap().leases.remove(&lease);
    }

    pub(crate) fn all(&self) -> Vec<Arc<Lease>> {
        self.state.lock().unwrap().leases.values().cloned().collect()
    }

    pub(crate) fn notes(&self) -> Vec<Draft> {
        self.state.lock().unwrap().notes.clone()
    }

    /// Commits at once.
    pub(crate) fn commit_now(&self, change: Change) -> Result<Outcome, StoreError> {
        if let Some(error) = self.failing.lock().unwrap().clone() {
            return Err(error);
        }
        let mut state = self.state.lock().unwrap();
        let full = self.full.load(Ordering::SeqCst);
        let position =
            if full { Position::unwritten(state.rules.len() as u64) } else { state.position.next() };
        if full && !matches!(change, Change::Revoke(_)) {
            return Err(StoreError::Full);
        }
        let mut rule = None;
        let event;
        match change {
            Change::Issue(issue) => {
                let lease = issue.lease;
                event = Draft::issued(&lease);
                if let Some(idempotency) = lease.idempotency
                    && let Some(earlier) = state.by_key(idempotency)
                {
                    let same = earlier.idempotency.is_some_and(|known| known.request == idempotency.request);
                    return Ok(if same {
                        Outcome::Replayed(Earlier::Lease(earlier))
                    } else {
                        Outcome::Conflict(Conflict::IdempotencyKeyReused)
                    });
                }
                let earlier = match state.renewed(&lease, self.clock.now()) {
                    Ok(earlier) => earlier,
                    Err(conflict) => return Ok(Outcome::Conflict(conflict)),
                };
                if let Some(newer) = state.rules.newer(&lease, issue.decided_under) {
                    return Ok(Outcome::Covered(Arc::clone(newer)));
                }
                if state.leases.contains_key(&lease.id) {
                    return Ok(Outcome::Conflict(Conflict::IdTaken));
                }
                if earlier.is_none()
                    && let Some(at_cap) = state.at_cap(&lease, &issue.caps, self.clock.now())
                {
                    return Ok(Outcome::Conflict(Conflict::AtCap(at_cap)));
                }
                assert_eq!(lease.digests.len(), 1, "a lease is committed with its credential's digest");
                for lease in earlier.into_iter().chain([lease]) {
                    state.told.push((position, lease.workload.caller(), lease.id));
                    state.leases.insert(lease.id, Arc::new(lease));
                }
            }
            Change::Reissue { lease, digest } => {
                let Some(known) = state.leases.get(&lease) else {
                    return Ok(Outcome::Conflict(Conflict::NoSuchLease));
                };
                let mut known = Lease::clone(known);
                known.digests.push(digest);
                event = Draft::reissued(&known, &digest);
                state.leases.insert(lease, Arc::new(known));
            }
            Change::Release { lease } => {
                let mut known = Lease::clone(&state.leases[&lease]);
                let Ok(phase) = known.phase.release(self.clock.now()) else {
                    return Ok(Outcome::Conflict(Conflict::Phase));
                };
                known.phase = phase;
                event = Draft::released(&known);
                state.told.push((position, known.workload.caller(), lease));
                state.leases.insert(lease, Arc::new(known));
            }
            Change::Revoke(revocation) => {
                if let Some(idempotency) = revocation.idempotency
                    && let Some(earlier) = state.rules.by_idempotency(idempotency.key)
                {
                    return Ok(Outcome::Replayed(Earlier::Rule(Arc::clone(earlier))));
                }
                let owners = revocation.owners;
                let cut_off = state.ids.next(self.clock.now(), &self.rng).unwrap();
                let id = state.ids.next(self.clock.now(), &self.rng).unwrap();
                let written = Arc::new(Rule {
                    id: RuleId::from_u128(id.as_u128()),
                    position,
                    selector: revocation.selector,
                    cut_off,
                    after: revocation.after,
                    written_at: self.clock.now(),
                    by: revocation.by,
                    reason: revocation.reason,
                    until: self.clock.now().plus(UNTIL),
                    idempotency: revocation.idempotency,
                    authority: revocation.authority,
                    lifted: None,
                });
                state.rules = Arc::new(state.rules.with(Arc::clone(&written)));
                if full {
                    return Ok(Outcome::InMemory(written));
                }
                event = Draft::revoked(&written).about(&owners);
                rule = Some(written);
            }
            Change::Lift(lift) => {
                let Some(known) = state.rules.get(lift.rule).cloned() else {
                    return Ok(Outcome::Conflict(Conflict::NoSuchRule));
                };
                if known.lifted.is_some() {
                    return Ok(Outcome::Replayed(Earlier::Rule(known)));
                }
                event = Draft::lifted(&known, &lift.by, &lift.reason);
                let lifted = Lifted { at: self.clock.now(), by: lift.by, reason: lift.reason, position };
                let mut rules = RuleSet::clone(&state.rules);
                rule = rules.lift(lift.rule, lifted);
                if rule.is_none() {
                    return Ok(Outcome::Conflict(Conflict::NotHold));
                }
                state.rules = Arc::new(rules);
            }
            Change::Note(draft) => {
                event = Draft::clone(&draft);
                state.notes.push(*draft);
            }
            Change::Key(change) => event = Draft::key(&change, None),
            Change::Adopt { .. } if state.restored_at.take().is_none() => {
                return Ok(Outcome::Conflict(Conflict::Adopted));
            }
            Change::Adopt { by } => event = Draft::note(EventKind::Adopted, &by, String::new()),
            Change::Teardown(change) => {
                let Some(known) = state.rules.counting(change.rule).cloned() else {
                    return Ok(Outcome::Conflict(Conflict::NoSuchRule));
                };
                let earlier = state.teardowns.get(known.id).map(|earlier| Teardown::clone(earlier));
                let mut teardown = earlier.unwrap_or_else(|| Teardown::new(known.id, known.position));
                let before = teardown.step(change.progress.step);
                if before.after != change.from || !change.progress.follows(&before) {
                    return Ok(Outcome::Conflict(Conflict::TeardownMoved));
                }
                teardown.put(change.progress);
                state.teardowns.put(Arc::new(teardown));
                state.spelled.entry(known.position).or_default().extend(change.spelled);
                return Ok(Outcome::Committed(Receipt { position: state.position, rule: None }));
            }
        }
        state.events.push(event.place(position, self.clock.now(), [7; SALT_BYTES]).0);
        state.position = position;
        self.bell.send_replace(position);
        Ok(Outcome::Committed(Receipt { position, rule }))
    }
}

impl State {
    /// The lease that this one renews, as it is then.
    fn renewed(&self, lease: &Lease, now: Timestamp) -> Result<Option<Lease>, Conflict> {
        let Some(earlier) = lease.renews else { return Ok(None) };
        let earlier = self.leases.get(&earlier).ok_or(Conflict::NoSuchEarlier)?;
        if earlier.workload.caller() != lease.workload.caller() {
            return Err(Conflict::NoSuchEarlier);
        }
        if earlier.phase.renewed_by().is_some() {
            return Err(Conflict::EarlierRenewed);
        }
        if earlier.state(&self.rules, now) != LeaseState::Active {
            return Err(Conflict::EarlierEnded);
        }
        let ends_at = now.plus(Duration::from_secs(60));
        Ok(Some(Lease { phase: earlier.phase.renew(lease.id, ends_at).unwrap(), ..Lease::clone(earlier) }))
    }

    /// The narrowest cap that leaves no room.
    fn at_cap(&self, lease: &Lease, caps: &LiveCaps, now: Timestamp) -> Option<AtCap> {
        LiveOf::ALL.into_iter().find_map(|of| {
            let most = caps.most(of, lease)?;
            let live = self.leases.values().filter(|other| {
                of.place(other) == of.place(lease)
                    && other.phase == Phase::Active
                    && other.state(&self.rules, now) == LeaseState::Active
            });
            let ends: Vec<_> = live.map(|lease| lease.expires_at).collect();
            let until = ends.iter().min().copied();
            (ends.len() >= most as usize).then_some(AtCap { of, most, until })
        })
    }

    fn by_key(&self, idempotency: Idempotency) -> Option<Arc<Lease>> {
        self.leases
            .values()
            .find(|lease| lease.idempotency.is_some_and(|known| known.key == idempotency.key))
            .cloned()
    }
}

impl LeaseStore for FakeStore {
    fn draw(&self) -> Result<Draw, StoreError> {
        let mut state = self.state.lock().unwrap();
        let id = state.ids.next(self.clock.now(), &self.rng)?;
        Ok(Draw { id, position: state.position, now: self.clock.now() })
    }

    fn rules(&self) -> Arc<RuleSet> {
        Arc::clone(&self.state.lock().unwrap().rules)
    }

    fn rule(&self, id: RuleId) -> BoxFuture<'_, Result<Option<Arc<Rule>>, StoreError>> {
        Box::pin(async move { Ok(self.rules().get(id).cloned()) })
    }

    fn commit(&self, change: Change) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        let hanging = *self.hanging.lock().unwrap();
        Box::pin(async move {
            let outcome = if hanging == Some(Hang::Before) { None } else { Some(self.commit_now(change)) };
            match outcome {
                Some(outcome) if hanging.is_none() => outcome,
                _ => std::future::pending().await,
            }
        })
    }

    fn lease(&self, id: LeaseId) -> BoxFuture<'_, Result<Option<Arc<Lease>>, StoreError>> {
        Box::pin(async move { Ok(self.state.lock().unwrap().leases.get(&id).cloned()) })
    }

    fn leases(
        &self,
        filter: LeaseFilter,
        after: Option<LeaseId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<LeasePage, StoreError>> {
        if let Some(error) = self.unreadable.lock().unwrap().clone() {
            return Box::pin(std::future::ready(Err(error)));
        }
        let now = self.clock.now();
        let rules = self.rules();
        let passes = |lease: &Arc<Lease>| {
            after.is_none_or(|after| lease.id > after)
                && filter.selector.as_ref().is_none_or(|selector| selector.matches(lease))
                && (!filter.active_only || lease.state(&rules, now) == LeaseState::Active)
                && filter.owners.as_ref().is_none_or(|owners| lease.owners.iter().any(|o| owners.contains(o)))
        };
        let mut found: Vec<_> = self.all().into_iter().filter(passes).take(limit + 1).collect();
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|lease| lease.id);
        Box::pin(async move { Ok(LeasePage { leases: found, next }) })
    }

    fn teardowns(&self) -> Arc<Teardowns> {
        Arc::new(self.state.lock().unwrap().teardowns.clone())
    }

    fn spelled(
        &self,
        rule: Position,
        after: Option<LeaseId>,
    ) -> BoxFuture<'_, Result<Vec<SpelledLease>, StoreError>> {
        let spelled = self.state.lock().unwrap().spelled.get(&rule).cloned().unwrap_or_default();
        let next = spelled.into_iter().filter(|one| Some(one.lease) > after).take(2).collect();
        Box::pin(async { Ok(next) })
    }

    fn news(&self, caller: Digest, after: Position) -> BoxFuture<'_, Result<News, StoreError>> {
        Box::pin(async move {
            let position = *self.bell.subscribe().wait_for(|position| *position > after).await.unwrap();
            let told = self.state.lock().unwrap().told.clone();
            let own = told.into_iter().filter(|(at, of, _)| *at > after && *at <= position && *of == caller);
            Ok(News { position, leases: Some(own.map(|(_, _, lease)| lease).collect()) })
        })
    }

    fn ruled(&self, after: Position) -> BoxFuture<'_, Result<Position, StoreError>> {
        Box::pin(async move {
            let mut bell = self.bell.subscribe();
            bell.wait_for(|_| self.rules().position() > after).await.unwrap();
            Ok(self.rules().position())
        })
    }

    fn committed(&self, after: Position) -> BoxFuture<'_, Result<Position, StoreError>> {
        Box::pin(
            async move { Ok(*self.bell.subscribe().wait_for(|position| *position > after).await.unwrap()) },
        )
    }

    fn events(&self, from: Position, limit: usize) -> BoxFuture<'_, Result<Vec<EventRecord>, StoreError>> {
        self.log_read.fetch_add(1, Ordering::Relaxed);
        let skip = usize::try_from(from.number().saturating_sub(1)).unwrap();
        let events = self.state.lock().unwrap().events.iter().skip(skip).take(limit).cloned().collect();
        Box::pin(async { Ok(events) })
    }

    fn log_tiles(&self, tiles: Vec<Tile>) -> BoxFuture<'_, Result<Vec<Vec<Hash>>, StoreError>> {
        Box::pin(async move { Ok(vec![Vec::new(); tiles.len()]) })
    }

    fn keys(&self) -> BoxFuture<'_, Result<Vec<SealedKey>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn log_head(&self) -> LogHead {
        LogHead {
            size: self.state.lock().unwrap().position.number(),
            root: dayfly_core::merkle::root_of(&[]),
        }
    }

    fn mark(&self) -> Mark {
        let state = self.state.lock().unwrap();
        Mark {
            instance: InstanceId::from_u128(1),
            incarnation: Incarnation(1),
            position: state.position,
            highest: state.ids.highest(),
        }
    }

    fn status(&self) -> StoreStatus {
        StoreStatus {
            instance: InstanceId::from_u128(1),
            incarnation: Incarnation(1),
            start: StartNumber(1),
            position: self.mark().position,
            live_counted: true,
            trouble: None,
            restored_at: self.state.lock().unwrap().restored_at,
        }
    }
}
