//! Random changes, in groups as they come, across reopening: the store and a simple model agree on every answer and
//! every read, and the log verifies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dayfly_core::audit::{Draft, EventKind};
use dayfly_core::change::{Change, Conflict, Earlier, Issue, LeaseFilter, Outcome, Receipt, Revocation};
use dayfly_core::digest::Digest;
use dayfly_core::ids::{LeaseId, Position};
use dayfly_core::lease::{Lease, LeaseState, Phase};
use dayfly_core::live::{LiveCaps, LiveOf};
use dayfly_core::ports::{Clock, LeaseStore};
use dayfly_core::rule::{After, Fields, Rule, Selector};
use dayfly_core::rules::RuleSet;
use dayfly_store::contract::{Harness, drawn, lift, revocation, until_counted};
use dayfly_store::verify;
use proptest::prelude::*;

use crate::fixture::Fixture;

#[derive(Debug, Clone)]
enum Step {
    Draw,
    /// Issue a drawn lease: which draw, which owner, which idempotency key and request.
    Issue(prop::sample::Index, u8, Option<(u8, bool)>),
    /// Issue a drawn lease that renews one: which draw, which lease, whether by another pod, which idempotency key.
    Renew(prop::sample::Index, prop::sample::Index, bool, Option<(u8, bool)>),
    Reissue(prop::sample::Index, u8),
    Release(prop::sample::Index),
    Revoke(u8, Option<(u8, bool)>),
    Lift(prop::sample::Index),
    Note,
    /// Everything above waits until here, so that it comes as one group.
    Answer,
    Advance(u16),
    /// Hours go by.
    Leap(u8),
    Reopen(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let key = || prop::option::of((0u8..4, prop::bool::weighted(0.8)));
    prop_oneof![
        4 => Just(Step::Draw),
        8 => (any::<prop::sample::Index>(), any::<u8>(), key()).prop_map(|(n, owner, key)| Step::Issue(n, owner, key)),
        4 => (any::<prop::sample::Index>(), any::<prop::sample::Index>(), prop::bool::weighted(0.1), key())
            .prop_map(|(n, lease, other, key)| Step::Renew(n, lease, other, key)),
        2 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(n, digest)| Step::Reissue(n, digest)),
        2 => any::<prop::sample::Index>().prop_map(Step::Release),
        2 => (any::<u8>(), key()).prop_map(|(which, key)| Step::Revoke(which, key)),
        2 => any::<prop::sample::Index>().prop_map(Step::Lift),
        1 => Just(Step::Note),
        3 => Just(Step::Answer),
        2 => any::<u16>().prop_map(Step::Advance),
        1 => (1u8..30).prop_map(Step::Leap),
        1 => any::<bool>().prop_map(Step::Reopen),
    ]
}

/// How long leases are kept: for longer than idempotency keys are.
const RETENTION: Duration = Duration::from_secs(700);

/// How long events keep their details.
const DETAILS: Duration = Duration::from_secs(5 * 3600);

/// What the store does, without any of how. When it prunes what it may is told by its answers.
#[derive(Default)]
struct Model {
    position: u64,
    leases: BTreeMap<LeaseId, Lease>,
    /// Leases up to this one are gone.
    pruned: Option<LeaseId>,
    rules: Vec<Arc<Rule>>,
    now: dayfly_core::time::Timestamp,
}

/// What the model expects; ids of rules are the store's to give.
#[derive(Debug, PartialEq)]
enum Expected {
    Committed(u64),
    Rule(u64),
    /// Which, and where.
    Lifted(u64, u64),
    Covered(Position),
    ReplayedLease(LeaseId),
    ReplayedRule(Position),
    AtCap(LiveOf, u32),
    Conflict(Conflict),
}

impl Model {
    fn commit(&mut self) -> Expected {
        self.position += 1;
        Expected::Committed(self.position)
    }

    fn apply(&mut self, change: &Change) -> Expected {
        match change {
            Change::Issue(issue) => self.issue(issue),
            Change::Reissue { lease, digest } => {
                let now = self.now;
                let rules = self.rule_set();
                let Some(lease) = self.leases.get_mut(lease) else {
                    return Expected::Conflict(Conflict::NoSuchLease);
                };
                if let Some(rule) = self.rules.iter().find(|rule| rule.covers(lease)) {
                    return Expected::Covered(rule.position);
                }
                let known = lease.digests.contains(digest);
                let full = !known && lease.digests.len() == 16;
                if full || lease.state(&rules, now) != LeaseState::Active {
                    return Expected::Conflict(Conflict::Phase);
                }
                if !known {
                    lease.digests.push(*digest);
                }
                self.commit()
            }
            Change::Release { lease } => match self.leases.get_mut(lease) {
                None => Expected::Conflict(Conflict::NoSuchLease),
                Some(Lease { phase: Phase::Released { .. }, .. }) => Expected::Conflict(Conflict::Phase),
                Some(lease) => {
                    let renewed_by = lease.phase.renewed_by();
                    lease.phase = Phase::Released { at: self.now, renewed_by };
                    self.commit()
                }
            },
            Change::Revoke(revocation) => self.revoke(revocation),
            Change::Lift(lift) => match self.rules.iter().find(|rule| rule.id == lift.rule) {
                None => Expected::Conflict(Conflict::NoSuchRule),
                Some(rule) if rule.lifted.is_some() => Expected::ReplayedRule(rule.position),
                Some(rule) if rule.after == After::Reissue => Expected::Conflict(Conflict::NotHold),
                Some(rule) => {
                    let rule = rule.position.number();
                    self.commit();
                    Expected::Lifted(rule, self.position)
                }
            },
            Change::Note(_) | Change::Key(_) => self.commit(),
            Change::Adopt { .. } => Expected::Conflict(Conflict::Adopted),
            Change::Teardown(_) => unreachable!("the contract has these"),
        }
    }

    fn issue(&mut self, issue: &Issue) -> Expected {
        let lease = &issue.lease;
        if self.leases.contains_key(&lease.id) || Some(lease.id) <= self.pruned {
            return Expected::Conflict(Conflict::IdTaken);
        }
        let window = self.now.minus(Duration::from_secs(600));
        let earlier = lease.idempotency.and_then(|asked| {
            let used = |earlier: &&Lease| {
                earlier.id.time() >= window && earlier.idempotency.is_some_and(|used| used.key == asked.key)
            };
            self.leases.values().find(used).map(|earlier| (asked, earlier))
        });
        if let Some((asked, earlier)) = earlier {
            return if earlier.idempotency.is_some_and(|used| used.request == asked.request) {
                Expected::ReplayedLease(earlier.id)
            } else {
                Expected::Conflict(Conflict::IdempotencyKeyReused)
            };
        }
        let newer = |rule: &&Arc<Rule>| rule.position > issue.decided_under && rule.selector.matches(lease);
        if self.rules.iter().any(|rule| newer(&rule) || rule.covers(lease)) {
            // Which of several is not promised.
            return Expected::Covered(Position::ZERO);
        }
        if let Some(earlier) = lease.renews {
            let (rules, now) = (self.rule_set(), self.now);
            let earlier = self.leases.get_mut(&earlier);
            let Some(earlier) = earlier.filter(|earlier| earlier.workload.pod == lease.workload.pod) else {
                return Expected::Conflict(Conflict::NoSuchEarlier);
            };
            if earlier.phase.renewed_by().is_some() {
                return Expected::Conflict(Conflict::EarlierRenewed);
            }
            if earlier.state(&rules, now) != LeaseState::Active {
                return Expected::Conflict(Conflict::EarlierEnded);
            }
            let ends_at = earlier.expires_at.min(now.plus(Duration::from_secs(60)));
            earlier.phase = Phase::Renewed { by: lease.id, ends_at };
        }
        if lease.renews.is_none()
            && let Some((of, most)) = self.at_cap(issue)
        {
            return Expected::AtCap(of, most);
        }
        self.leases.insert(lease.id, lease.clone());
        self.commit()
    }

    fn at_cap(&self, Issue { lease, caps, .. }: &Issue) -> Option<(LiveOf, u32)> {
        let rules = self.rule_set();
        LiveOf::ALL.into_iter().find_map(|of| {
            let most = caps.most(of, lease)?;
            let counts = |other: &&Lease| {
                of.place(other) == of.place(lease)
                    && other.phase == Phase::Active
                    && other.state(&rules, self.now) == LeaseState::Active
            };
            (self.leases.values().filter(counts).count() >= most as usize).then_some((of, most))
        })
    }

    /// The rule that this one's idempotency key made.
    fn made_by(&self, revocation: &Revocation) -> Option<&Arc<Rule>> {
        let key = revocation.idempotency?.key;
        self.rules.iter().find(|rule| rule.idempotency.is_some_and(|used| used.key == key))
    }

    fn revoke(&mut self, revocation: &Revocation) -> Expected {
        if let Some((asked, rule)) = revocation.idempotency.zip(self.made_by(revocation)) {
            return if rule.idempotency.is_some_and(|used| used.request == asked.request) {
                Expected::ReplayedRule(rule.position)
            } else {
                Expected::Conflict(Conflict::IdempotencyKeyReused)
            };
        }
        self.commit();
        Expected::Rule(self.position)
    }

    /// Whether the store may have pruned it.
    fn may_go(&self, lease: &Lease) -> bool {
        lease.id.time().plus(RETENTION).max(lease.expires_at) <= self.now
    }

    /// Whether the store may have pruned a rule: it is folded away, and covers no lease that is left.
    fn may_have_pruned(&self, rule: &Rule) -> bool {
        let covered = |lease: &Lease| lease.id <= rule.cut_off;
        !rule.in_force(self.now) && !self.leases.values().any(|lease| covered(lease) && !self.may_go(lease))
    }

    /// This lease is gone, and so is every one below it.
    fn prune(&mut self, id: LeaseId) {
        let above = self.leases.split_off(&LeaseId::from_u128(id.as_u128() + 1));
        let gone = std::mem::replace(&mut self.leases, above);
        for lease in gone.values() {
            assert!(self.may_go(lease), "{} is gone too early", lease.id);
        }
        self.pruned = self.pruned.max(Some(id));
    }

    /// What an answer tells of what is gone.
    fn learn(&mut self, change: &Change, found: &Expected) {
        let forgotten = match (change, found) {
            (Change::Revoke(revocation), Expected::Rule(_)) => self.made_by(revocation),
            (Change::Lift(lift), Expected::Conflict(Conflict::NoSuchRule)) => {
                self.rules.iter().find(|rule| rule.id == lift.rule)
            }
            _ => None,
        };
        if let Some(forgotten) = forgotten.filter(|rule| self.may_have_pruned(rule)).map(|rule| rule.id) {
            self.rules.retain(|rule| rule.id != forgotten);
        }
        let Expected::Conflict(conflict) = found else { return };
        let gone = match (change, conflict) {
            (Change::Reissue { lease, .. } | Change::Release { lease }, Conflict::NoSuchLease) => {
                Some(*lease)
            }
            (Change::Issue(issue), Conflict::NoSuchEarlier) => {
                let of_its_pod = |earlier: &LeaseId| {
                    let earlier = self.leases.get(earlier);
                    earlier.is_some_and(|earlier| earlier.workload.pod == issue.lease.workload.pod)
                };
                issue.lease.renews.filter(of_its_pod)
            }
            // The lowest that there was above it is the least that must be gone.
            (Change::Issue(issue), Conflict::IdTaken) if Some(issue.lease.id) > self.pruned => self
                .leases
                .range(issue.lease.id..)
                .next()
                .map(|(id, _)| *id)
                .filter(|id| *id != issue.lease.id),
            _ => None,
        };
        if let Some(gone) = gone {
            self.prune(gone);
        }
    }

    fn rule_set(&self) -> RuleSet {
        let mut set = RuleSet::default();
        self.rules.iter().for_each(|rule| set.add(Arc::clone(rule)));
        set
    }
}

struct Run {
    fixture: Fixture,
    store: Option<Arc<dyn LeaseStore>>,
    model: Model,
    draws: Vec<Issue>,
    waiting: Vec<Change>,
}

impl Run {
    fn new() -> Self {
        // Little is kept in memory, so that reads come from disk too.
        let fixture = Fixture::new().with(|options| {
            options.recent_leases = 3;
            options.recent_bases = 3;
            options.retention = RETENTION;
            options.detail_retention = DETAILS;
        });
        let store = Some(fixture.store());
        let model = Model { position: 1, now: fixture.clock.now(), ..Model::default() };
        Self { fixture, store, model, draws: Vec::new(), waiting: Vec::new() }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Draw => self.draws.push(drawn(self.store())),
            Step::Issue(which, owner, key) => {
                if self.draws.is_empty() {
                    return;
                }
                let Issue { lease, decided_under, .. } = which.get(&self.draws).clone();
                let lease = lease.of_pod(1).owned_by(["payments", "checkout"][usize::from(owner % 2)]);
                let lease = if owner % 7 == 0 { lease.for_target("ledger") } else { lease };
                // Its own pod's, so that both bounds are met.
                let lease = if owner % 4 == 0 { lease.of_pod(3) } else { lease };
                let caps = LiveCaps {
                    per_pod: (owner % 8 < 4).then_some(2),
                    per_grant: (owner % 16 < 8).then_some(4),
                    total: (owner % 32 < 24).then_some(3),
                    ..LiveCaps::default()
                };
                let lease = if owner % 3 == 0 { lease.narrowed_to("api-team") } else { lease };
                let lease = match key {
                    Some((key, same)) => {
                        lease.with_key(&key.to_string(), if same { "same" } else { "other" })
                    }
                    None => lease,
                };
                self.waiting.push(Change::Issue(Box::new(Issue { lease, decided_under, caps })));
            }
            Step::Renew(which, earlier, other_pod, key) => {
                let Some(earlier) = self.some_lease(earlier).filter(|_| !self.draws.is_empty()) else {
                    return;
                };
                let Issue { lease, decided_under, caps } = which.get(&self.draws).clone();
                let lease = lease.of_pod(if other_pod { 2 } else { 1 }).renewing(earlier);
                let lease = match key {
                    Some((key, same)) => {
                        lease.with_key(&format!("renew {key}"), if same { "same" } else { "other" })
                    }
                    None => lease,
                };
                self.waiting.push(Change::Issue(Box::new(Issue { lease, decided_under, caps })));
            }
            Step::Reissue(which, digest) => {
                let digest = Digest::of(&[digest]);
                self.waiting.extend(self.some_lease(which).map(|lease| Change::Reissue { lease, digest }));
            }
            Step::Release(which) => {
                self.waiting.extend(self.some_lease(which).map(|lease| Change::Release { lease }));
            }
            Step::Revoke(which, key) => {
                let selector = match which % 5 {
                    0 => Selector::owner("payments".parse().unwrap()),
                    1 => Selector::owner("api-team".parse().unwrap()),
                    2 => {
                        self.model.leases.keys().next_back().map_or(Selector::All, |id| Selector::lease(*id))
                    }
                    3 => Selector::fields(Fields { target: "ledger".parse().ok(), ..Fields::default() })
                        .unwrap(),
                    _ => Selector::All,
                };
                let idempotency = key.and_then(|(key, same)| {
                    let request = if same { "same" } else { "other" };
                    Lease::test(0).with_key(&format!("revoke {key}"), request).idempotency
                });
                let after = if which % 2 == 0 { After::Hold } else { After::Reissue };
                let revocation = Revocation { idempotency, after, ..revocation(selector) };
                self.waiting.push(Change::Revoke(Box::new(revocation)));
            }
            Step::Lift(which) => {
                let unknown = Arc::new(Rule::test(1, Selector::All, 5));
                let known = self.model.rules.iter().cloned().chain([unknown]).collect::<Vec<_>>();
                self.waiting.push(lift(&known[which.index(known.len())]));
            }
            Step::Note => {
                let actor = revocation(Selector::All).by;
                let note = Draft::note(EventKind::PolicyChanged, &actor, "a note".repeat(100));
                self.waiting.push(Change::Note(Box::new(note)));
            }
            Step::Answer => self.answer().await,
            Step::Advance(secs) => {
                self.answer().await;
                self.fixture.clock.advance(Duration::from_millis(u64::from(secs) * 10));
                self.model.now = self.fixture.clock.now();
            }
            Step::Leap(hours) => {
                self.answer().await;
                self.fixture.clock.advance(Duration::from_secs(u64::from(hours) * 3600));
                self.model.now = self.fixture.clock.now();
            }
            Step::Reopen(clean) => {
                self.answer().await;
                self.reopen(clean);
            }
        }
    }

    fn store(&self) -> &dyn LeaseStore {
        self.store.as_deref().unwrap()
    }

    fn some_lease(&self, which: prop::sample::Index) -> Option<LeaseId> {
        let ids: Vec<_> = self.model.leases.keys().copied().collect();
        if ids.is_empty() { None } else { Some(*which.get(&ids)) }
    }

    /// Commits what waits, at once, and compares each answer.
    async fn answer(&mut self) {
        let changes = std::mem::take(&mut self.waiting);
        let store = self.store.clone().unwrap();
        let pending: Vec<_> = changes.iter().map(|change| store.commit(change.clone())).collect();
        for (change, answer) in changes.iter().zip(pending) {
            let outcome = answer.await.unwrap();
            let found = match &outcome {
                Outcome::Committed(Receipt { rule: Some(rule), position }) if rule.lifted.is_some() => {
                    assert_eq!(rule.changed_at(), *position);
                    Expected::Lifted(rule.position.number(), position.number())
                }
                Outcome::Committed(Receipt { rule: Some(rule), position }) => {
                    let above = self.model.leases.keys().next_back().is_none_or(|id| *id < rule.cut_off);
                    assert!(above, "a cut-off is above every id committed");
                    assert_eq!(rule.position, *position);
                    let latest = self.model.leases.values().map(|lease| lease.expires_at).max();
                    assert!(latest.is_none_or(|end| rule.until >= end));
                    Expected::Rule(position.number())
                }
                Outcome::Committed(receipt) => Expected::Committed(receipt.position.number()),
                Outcome::InMemory(rule) => panic!("the disk has room, and rule {} is not on it", rule.id),
                // Which of several is not promised.
                Outcome::Covered(_) if matches!(change, Change::Issue(_)) => {
                    Expected::Covered(Position::ZERO)
                }
                Outcome::Covered(rule) => Expected::Covered(rule.position),
                Outcome::Replayed(Earlier::Lease(lease)) => Expected::ReplayedLease(lease.id),
                Outcome::Replayed(Earlier::Rule(rule)) => Expected::ReplayedRule(rule.position),
                Outcome::Conflict(Conflict::AtCap(at_cap)) => Expected::AtCap(at_cap.of, at_cap.most),
                Outcome::Conflict(conflict) => Expected::Conflict(*conflict),
            };
            self.model.learn(change, &found);
            assert_eq!(found, self.model.apply(change), "{change:?}");
            if let Outcome::Committed(Receipt { rule: Some(rule), .. }) = &outcome {
                match self.model.rules.iter_mut().find(|known| known.id == rule.id) {
                    Some(known) => *known = Arc::clone(rule),
                    None => self.model.rules.push(Arc::clone(rule)),
                }
            }
        }
    }

    fn reopen(&mut self, clean: bool) {
        // A process decides by its own draws: one of an earlier start may lie between a later rule's cut-off and its id.
        self.draws.clear();
        if clean {
            self.store = Some(self.fixture.reopen());
            self.model.position += 2;
        } else {
            self.fixture.forget();
            // The last handle goes, without a clean stop.
            self.store = None;
            self.store = Some(self.fixture.store());
            self.model.position += 1;
        }
        until_counted(self.store());
    }

    async fn compare(&mut self) {
        let ids: Vec<_> = self.model.leases.keys().copied().collect();
        for id in ids {
            let lease = self.store().lease(id).await.unwrap();
            if lease.is_none() {
                self.model.prune(id);
            }
            assert_eq!(lease.as_deref(), self.model.leases.get(&id));
        }
        let (store, model) = (self.store(), &self.model);
        assert_eq!(store.mark().position.number(), model.position);
        // When a rule is folded away, and that pruned, is the store's to choose.
        let rules = store.rules();
        let told: Vec<_> = rules.in_force(model.now).cloned().collect();
        let in_force = model.rules.iter().filter(|rule| rule.in_force(model.now)).cloned();
        assert_eq!(told, in_force.collect::<Vec<_>>());
        for rule in &model.rules {
            let found = store.rule(rule.id).await.unwrap();
            assert!(
                found.as_ref() == Some(rule) || (found.is_none() && model.may_have_pruned(rule)),
                "{rule:?}"
            );
        }
        for lease in model.leases.values() {
            let (one, other) = (lease.state(&rules, model.now), lease.state(&model.rule_set(), model.now));
            assert!(one == other || model.may_go(lease), "{one:?} and not {other:?}");
        }
        for active_only in [false, true] {
            let filter = LeaseFilter {
                active_only,
                selector: Some(Selector::owner("api-team".parse().unwrap())),
                owners: None,
            };
            let rules = model.rule_set();
            let expected: Vec<_> = model
                .leases
                .values()
                .filter(|lease| lease.owners.narrowed.is_some() && !model.may_go(lease))
                .filter(|lease| !active_only || lease.state(&rules, model.now) == LeaseState::Active)
                .cloned()
                .collect();
            let page = store.leases(filter, None, 1000).await.unwrap();
            let listed = page.leases.iter().map(|lease| lease.as_ref().clone());
            assert_eq!(listed.filter(|lease| !model.may_go(lease)).collect::<Vec<_>>(), expected);
        }
        dayfly_store::contract::log_adds_up(store).await;
        // When it forgets what it may is the store's to choose; from the oldest on.
        let mut remembers = false;
        for n in 1..=model.position {
            let [record] = store.events(Position::new(n), 1).await.unwrap().try_into().unwrap();
            let event = record.read().unwrap();
            assert!(
                event.detail.is_some() || event.at.plus(DETAILS) <= model.now,
                "{n} is forgotten too early"
            );
            assert!(event.detail.is_some() || !remembers, "{n} is forgotten before an older one");
            remembers = event.detail.is_some();
        }
    }
}

fn cases() -> u32 {
    if std::env::var_os("DAYFLY_LONG").is_some() { 3000 } else { 48 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_model(steps in prop::collection::vec(step(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new();
            for step in steps {
                run.step(step).await;
            }
            run.answer().await;
            run.compare().await;
            run.reopen(true);
            run.compare().await;
            let dir = run.fixture.dir();
            let leases = run.model.leases.len();
            let kept = run.model.leases.values().filter(|lease| !run.model.may_go(lease)).count();
            run.fixture.take();
            let report = verify(&dir).unwrap();
            assert!(report.problems.is_empty(), "{:?}", report.problems);
            assert!((kept as u64..=leases as u64).contains(&report.leases), "{} leases", report.leases);
            let model = &run.model;
            let kept = model.rules.iter().filter(|rule| !model.may_have_pruned(rule)).count();
            assert!((kept..=model.rules.len()).contains(&usize::try_from(report.rules).unwrap()));
        });
    }
}
