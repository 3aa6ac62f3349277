//! All rules, in an index that makes a check cost the same however many there are.

use std::hash::{BuildHasher as _, RandomState};
use std::ops::Bound;
use std::sync::Arc;

use rpds::{HashTrieMapSync, RedBlackTreeMapSync, RedBlackTreeSetSync};

use crate::digest::Digest;
use crate::ids::{
    ClusterName, CredentialId, GrantRef, ImageDigest, KeyId, LeaseId, Namespace, OwnerName, Position, RuleId,
    TargetName, Uid,
};
use crate::lease::Lease;
use crate::limits::FOLDED_RULES;
use crate::rule::{Fields, Lifted, Rule, Selector};
use crate::time::Timestamp;

/// All rules that count, and those folded away of late. A value: the writer replaces it whole, readers keep the one they
/// have. Its parts are persistent trees, so that one rule more among many copies little.
///
/// Rules of one selector are kept together, in the order of their cut-offs. A lease is looked up once for each set of
/// fields that any rule names: what a check costs depends on how many such sets there are, not on how many rules.
///
/// A rule past [`Rule::until`] that holds nothing covers nothing that anyone may still accept, and is *folded away*
/// ([`RuleSet::fold`]): it is not told to verifiers any more, and not read at a start before it is needed. The newest
/// [`FOLDED_RULES`] of those are remembered apart, so that a lease shows as revoked after its credential's end too, and
/// so that no clock that goes back brings any of them back to life. Leases above the cut-offs of all that is folded are
/// not looked up there.
#[derive(Debug, Clone, Default)]
pub struct RuleSet {
    hasher: RandomState,
    position: Position,
    counting: Index,
    folded: Index,
    /// The holds that name an image, as if they did not: what may be held of leases whose images are not known.
    whatever_image: Index,
    /// When those that hold nothing may be folded.
    ends: RedBlackTreeSetSync<(Timestamp, RuleId)>,
    /// Which hold was lifted at a position.
    lifts: RedBlackTreeMapSync<Position, RuleId>,
}

#[derive(Debug, Clone, Default)]
struct Index {
    /// The sets of fields that selectors name, and how many rules name each.
    shapes: Vec<(Shape, usize)>,
    by_selector: HashTrieMapSync<u64, Vec<Alike>>,
    /// Ids grow with positions.
    by_id: RedBlackTreeMapSync<RuleId, Arc<Rule>>,
    by_idempotency: HashTrieMapSync<Digest, Arc<Rule>>,
}

/// The rules of one selector, oldest first.
#[derive(Debug, Clone, Default)]
struct Alike {
    rules: RedBlackTreeMapSync<(LeaseId, RuleId), Arc<Rule>>,
    holds: RedBlackTreeMapSync<RuleId, Arc<Rule>>,
}

impl Alike {
    fn put(&mut self, rule: &Arc<Rule>) {
        self.rules.insert_mut((rule.cut_off, rule.id), Arc::clone(rule));
        if rule.holds() {
            self.holds.insert_mut(rule.id, Arc::clone(rule));
        } else {
            self.holds.remove_mut(&rule.id);
        }
    }

    fn any(&self) -> Option<&Arc<Rule>> {
        self.rules.first().map(|(_, rule)| rule)
    }

    /// The first whose cut-off is not below this id.
    fn covering(&self, lease: LeaseId) -> Option<&Arc<Rule>> {
        self.rules.range((lease, RuleId::from_u128(0))..).next().map(|(_, rule)| rule)
    }

    fn hold(&self) -> Option<&Arc<Rule>> {
        self.holds.first().map(|(_, rule)| rule)
    }

    fn last(&self) -> Option<&Arc<Rule>> {
        self.rules.last().map(|(_, rule)| rule)
    }
}

/// Which fields a selector names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape(u16);

/// The image's place in a shape.
const IMAGE: u16 = 11;

impl Shape {
    fn names_image(self) -> bool {
        self.0 & (1 << IMAGE) != 0
    }
}

/// The fields of a selector, or those of a lease that a selector of some shape would have to have.
#[derive(Hash, Default)]
struct Parts<'a> {
    cluster: Option<&'a ClusterName>,
    owner: Option<&'a OwnerName>,
    namespace: Option<&'a Namespace>,
    service_account: Option<&'a Uid>,
    pod: Option<&'a Uid>,
    node: Option<&'a Uid>,
    grant: Option<&'a GrantRef>,
    target: Option<&'a TargetName>,
    key: Option<&'a KeyId>,
    credential_id: Option<&'a CredentialId>,
    lease: Option<&'a LeaseId>,
    image: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(selector: &'a Selector) -> Self {
        let Selector::Where(fields) = selector else { return Self::default() };
        let Fields {
            cluster,
            owner,
            namespace,
            service_account,
            pod,
            node,
            grant,
            target,
            key,
            credential_id,
            lease,
            image,
        } = fields.as_ref();
        Self {
            cluster: cluster.as_ref(),
            owner: owner.as_ref(),
            namespace: namespace.as_ref(),
            service_account: service_account.as_ref(),
            pod: pod.as_ref(),
            node: node.as_ref(),
            grant: grant.as_ref(),
            target: target.as_ref(),
            key: key.as_ref(),
            credential_id: credential_id.as_ref(),
            lease: lease.as_ref(),
            image: image.as_ref().map(ImageDigest::as_str),
        }
    }

    /// A lease's, with this one of its owners, and one or none of its images.
    fn of_lease(lease: &'a Lease, owner: &'a OwnerName, image: Option<&'a str>) -> Self {
        let workload = &lease.workload;
        Self {
            cluster: Some(&workload.cluster),
            owner: Some(owner),
            namespace: Some(&workload.service_account.namespace),
            service_account: Some(&workload.service_account.uid),
            pod: workload.pod.as_ref().map(|pod| &pod.uid),
            node: workload.node.as_ref().and_then(|node| node.uid.as_ref()),
            grant: Some(&lease.grant),
            target: Some(&lease.target),
            key: Some(&lease.key_id),
            credential_id: workload.credential_id.as_ref(),
            lease: Some(&lease.id),
            image,
        }
    }

    fn shape(&self) -> Shape {
        let named = [
            self.cluster.is_some(),
            self.owner.is_some(),
            self.namespace.is_some(),
            self.service_account.is_some(),
            self.pod.is_some(),
            self.node.is_some(),
            self.grant.is_some(),
            self.target.is_some(),
            self.key.is_some(),
            self.credential_id.is_some(),
            self.lease.is_some(),
            self.image.is_some(),
        ];
        Shape(named.into_iter().rev().fold(0, |bits, named| bits << 1 | u16::from(named)))
    }

    /// Those of the fields that a selector of this shape names; none where the lease has not all of them.
    fn only(&self, shape: Shape) -> Option<Self> {
        fn part<T: ?Sized>(shape: Shape, bit: u16, part: Option<&T>) -> Option<&T> {
            part.filter(|_| shape.0 & (1 << bit) != 0)
        }
        let own = Parts {
            cluster: part(shape, 0, self.cluster),
            owner: part(shape, 1, self.owner),
            namespace: part(shape, 2, self.namespace),
            service_account: part(shape, 3, self.service_account),
            pod: part(shape, 4, self.pod),
            node: part(shape, 5, self.node),
            grant: part(shape, 6, self.grant),
            target: part(shape, 7, self.target),
            key: part(shape, 8, self.key),
            credential_id: part(shape, 9, self.credential_id),
            lease: part(shape, 10, self.lease),
            image: part(shape, IMAGE, self.image),
        };
        (own.shape() == shape).then_some(own)
    }
}

impl Index {
    /// Adds a rule, or puts it in the place of its earlier self.
    fn put(&mut self, hasher: &RandomState, rule: Arc<Rule>) {
        let parts = Parts::of(&rule.selector);
        let (shape, hash) = (parts.shape(), hasher.hash_one(&parts));
        if !self.by_id.contains_key(&rule.id) {
            match self.shapes.iter_mut().find(|(known, _)| *known == shape) {
                Some((_, rules)) => *rules += 1,
                None => self.shapes.push((shape, 1)),
            }
        }
        // Hashes may collide.
        let mut alikes = self.by_selector.get(&hash).cloned().unwrap_or_default();
        let same = |alike: &&mut Alike| alike.any().is_some_and(|one| one.selector == rule.selector);
        if let Some(alike) = alikes.iter_mut().find(same) {
            alike.put(&rule);
        } else {
            let mut alike = Alike::default();
            alike.put(&rule);
            alikes.push(alike);
        }
        self.by_selector.insert_mut(hash, alikes);
        if let Some(idempotency) = rule.idempotency {
            self.by_idempotency.insert_mut(idempotency.key, Arc::clone(&rule));
        }
        self.by_id.insert_mut(rule.id, rule);
    }

    fn remove(&mut self, hasher: &RandomState, rule: &Rule) {
        if !self.by_id.remove_mut(&rule.id) {
            return;
        }
        let parts = Parts::of(&rule.selector);
        let (shape, hash) = (parts.shape(), hasher.hash_one(&parts));
        self.shapes.iter_mut().filter(|(known, _)| *known == shape).for_each(|(_, rules)| *rules -= 1);
        self.shapes.retain(|(_, rules)| *rules > 0);
        let mut alikes = self.by_selector.get(&hash).cloned().unwrap_or_default();
        for alike in &mut alikes {
            alike.rules.remove_mut(&(rule.cut_off, rule.id));
            alike.holds.remove_mut(&rule.id);
        }
        alikes.retain(|alike| alike.any().is_some());
        if alikes.is_empty() {
            self.by_selector.remove_mut(&hash);
        } else {
            self.by_selector.insert_mut(hash, alikes);
        }
        if let Some(idempotency) = rule.idempotency {
            self.by_idempotency.remove_mut(&idempotency.key);
        }
    }

    /// Those before this one, newest first.
    fn before(&self, id: Option<RuleId>) -> impl Iterator<Item = &Arc<Rule>> {
        let end = id.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_id.range((Bound::Unbounded, end)).rev().map(|(_, rule)| rule)
    }

    fn last(&self) -> Option<&Arc<Rule>> {
        self.by_id.last().map(|(_, rule)| rule)
    }

    /// Of the rules that `choose` takes, each of those of one selector that is about this lease, the earliest.
    fn earliest<'s>(
        &'s self,
        hasher: &RandomState,
        lease: &Lease,
        choose: impl Fn(&'s Alike) -> Option<&'s Arc<Rule>>,
    ) -> Option<&'s Arc<Rule>> {
        let mut earliest: Option<&Arc<Rule>> = None;
        // Each image is looked up once, for the shapes that name one; where none does, none is.
        let by_image = self.shapes.iter().any(|(shape, _)| shape.names_image());
        let images =
            lease.provenance.images.iter().filter(|_| by_image).map(|image| Some(image.digest.as_str()));
        let with_each =
            images.chain([None]).flat_map(|image| lease.owners.iter().map(move |owner| (owner, image)));
        for (owner, image) in with_each {
            let all = Parts::of_lease(lease, owner, image);
            let own = self.shapes.iter().filter(|(shape, _)| shape.names_image() == image.is_some());
            let own = own.filter_map(|(shape, _)| all.only(*shape));
            let alikes = own.filter_map(|parts| self.by_selector.get(&hasher.hash_one(&parts))).flatten();
            let about = |alike: &&Alike| alike.any().is_some_and(|rule| rule.selector.matches(lease));
            let found = alikes.filter(about).filter_map(&choose).min_by_key(|rule| rule.position);
            earliest = earliest.into_iter().chain(found).min_by_key(|rule| rule.position);
        }
        earliest
    }
}

/// Whether a rule by image may be about it although it names none that it records.
fn may(lease: &Lease) -> bool {
    !lease.provenance.images_known
}

impl RuleSet {
    /// This set and one more rule, which is later than all in it.
    #[must_use]
    pub fn with(&self, rule: Arc<Rule>) -> Self {
        let mut set = self.clone();
        set.add(rule);
        set
    }

    /// Adds a rule that is later than all in it, and whose cut-off is not below theirs.
    pub fn add(&mut self, rule: Arc<Rule>) {
        debug_assert!(
            self.counting.last().is_none_or(|last| {
                last.position < rule.position && last.id < rule.id && last.cut_off <= rule.cut_off
            }),
            "rules come in the order of their positions, and ids and cut-offs grow with them"
        );
        self.put(rule);
    }

    /// Ends a hold: the rule as it is then. None where there is no such rule among those that count, or it holds nothing.
    pub fn lift(&mut self, id: RuleId, lifted: Lifted) -> Option<Arc<Rule>> {
        let held = self.counting.by_id.get(&id).filter(|rule| rule.holds())?;
        let rule = Arc::new(Rule { lifted: Some(lifted), ..Rule::clone(held) });
        self.put(Arc::clone(&rule));
        Some(rule)
    }

    fn put(&mut self, rule: Arc<Rule>) {
        self.note(&rule);
        if !rule.holds() {
            self.ends.insert_mut((rule.until, rule.id));
        }
        if let Some(others) = rule.selector.whatever_image() {
            let unnamed = Rule { selector: others, idempotency: None, ..Rule::clone(&rule) };
            if rule.holds() {
                self.whatever_image.put(&self.hasher, Arc::new(unnamed));
            } else {
                self.whatever_image.remove(&self.hasher, &unnamed);
            }
        }
        self.counting.put(&self.hasher, rule);
    }

    fn note(&mut self, rule: &Rule) {
        if rule.is_durable() {
            self.position = self.position.max(rule.changed_at());
        }
        if let Some(lifted) = &rule.lifted {
            self.lifts.insert_mut(lifted.position, rule.id);
        }
    }

    /// Whether there is a rule to fold away by now.
    pub fn folds(&self, now: Timestamp) -> bool {
        self.to_fold(now).is_some()
    }

    /// The next to fold.
    fn to_fold(&self, now: Timestamp) -> Option<Arc<Rule>> {
        let (_, id) = self.ends.first()?;
        self.counting.by_id.get(id).filter(|rule| !rule.in_force(now)).cloned()
    }

    /// Folds away rules that are not in force any more ([`Rule::in_force`]), at most this many; gives them.
    pub fn fold(&mut self, now: Timestamp, most: usize) -> Vec<Arc<Rule>> {
        let mut folded = Vec::new();
        while folded.len() < most
            && let Some(rule) = self.to_fold(now)
        {
            self.ends.remove_mut(&(rule.until, rule.id));
            self.counting.remove(&self.hasher, &rule);
            self.remember(Arc::clone(&rule));
            folded.push(rule);
        }
        folded
    }

    /// Remembers a rule that is folded away, for as long as it is among the newest of those.
    pub fn remember(&mut self, rule: Arc<Rule>) {
        self.note(&rule);
        self.folded.put(&self.hasher, rule);
        if self.folded.by_id.size() > FOLDED_RULES
            && let Some((_, oldest)) = self.folded.by_id.first()
        {
            let oldest = Arc::clone(oldest);
            self.folded.remove(&self.hasher, &oldest);
            self.lifts.remove_mut(&oldest.changed_at());
        }
    }

    /// The newest change of any of its rules that is durable: when it was written, or lifted; zero without such.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The first rule that covers this lease.
    pub fn covering(&self, lease: &Lease) -> Option<&Arc<Rule>> {
        let of = |index: &'_ Index| index.last().is_some_and(|last| lease.id <= last.cut_off);
        let first = |index| Index::earliest(index, &self.hasher, lease, |alike| alike.covering(lease.id));
        let found = [&self.folded, &self.counting].into_iter().filter(|index| of(index)).filter_map(first);
        found.min_by_key(|rule| rule.position)
    }

    /// A rule later than `decided_under` that is about this lease: its decision is out of date.
    pub fn newer(&self, lease: &Lease, decided_under: Position) -> Option<&Arc<Rule>> {
        let is_newer = |rule: &&Arc<Rule>| rule.position > decided_under;
        let of = |index: &'_ Index| index.last().as_ref().is_some_and(is_newer);
        let last = |index| Index::earliest(index, &self.hasher, lease, |alike| alike.last().filter(is_newer));
        let found = [&self.folded, &self.counting].into_iter().filter(|index| of(index)).filter_map(last);
        let unknown =
            [&self.whatever_image].into_iter().filter(|index| may(lease) && of(index)).filter_map(last);
        found.chain(unknown).min_by_key(|rule| rule.position).and_then(|rule| self.get(rule.id))
    }

    /// The first hold that is about this lease, or, where not all of its images are known, may be: nothing new may be issued.
    /// Which of both it is, its selector says.
    pub fn holding(&self, lease: &Lease) -> Option<&Arc<Rule>> {
        let held = self.counting.earliest(&self.hasher, lease, Alike::hold);
        held.or_else(|| {
            let unknown = Some(&self.whatever_image).filter(|_| may(lease));
            let found = unknown?.earliest(&self.hasher, lease, Alike::hold)?;
            self.get(found.id)
        })
    }

    /// Every hold, of one selector the first.
    pub fn holds(&self) -> impl Iterator<Item = &Arc<Rule>> {
        let alike = self.counting.by_selector.values().flatten();
        alike.filter_map(Alike::hold)
    }

    /// The rule of this id, one that is folded away too while it is remembered.
    pub fn get(&self, id: RuleId) -> Option<&Arc<Rule>> {
        self.counting.by_id.get(&id).or_else(|| self.folded.by_id.get(&id))
    }

    /// The rule of this id, unless it is folded away.
    pub fn counting(&self, id: RuleId) -> Option<&Arc<Rule>> {
        self.counting.by_id.get(&id)
    }

    /// The rule a caller's idempotency key made.
    pub fn by_idempotency(&self, key: Digest) -> Option<&Arc<Rule>> {
        self.counting.by_idempotency.get(&key).or_else(|| self.folded.by_idempotency.get(&key))
    }

    /// All rules that are not folded away, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Rule>> {
        self.counting.by_id.values()
    }

    /// The rules after this one (none: all) that are not folded away, oldest first.
    pub fn after(&self, id: Option<RuleId>) -> impl Iterator<Item = &Arc<Rule>> {
        let start = id.map_or(Bound::Unbounded, Bound::Excluded);
        self.counting.by_id.range((start, Bound::Unbounded)).map(|(_, rule)| rule)
    }

    /// The last rule up to this position, of those that are not folded away.
    pub fn last_up_to(&self, position: Position) -> Option<&Arc<Rule>> {
        self.iter().rev().find(|rule| rule.position <= position)
    }

    /// Whether every rule later than this position is there and in force: whoever was told of all up to it can be told the
    /// rest. Of those folded away only the newest are known, and the newest decides.
    pub fn is_whole_since(&self, position: Position, now: Timestamp) -> bool {
        self.folded.last().is_none_or(|last| last.position <= position)
            && self.iter().rev().take_while(|rule| rule.position > position).all(|rule| rule.in_force(now))
    }

    /// The holds that were lifted after this position and up to that one, by the lifts' positions: those that are in memory.
    pub fn lifted(&self, after: Position, to: Position) -> impl Iterator<Item = &Arc<Rule>> {
        let lifts = self.lifts.range((Bound::Excluded(after), Bound::Included(to.max(after))));
        lifts.filter_map(|(_, id)| self.get(*id))
    }

    /// All rules in force, oldest first: what covers anything that a verifier may still accept, and every hold.
    pub fn in_force(&self, now: Timestamp) -> impl DoubleEndedIterator<Item = &Arc<Rule>> {
        self.iter().filter(move |rule| rule.in_force(now))
    }

    /// All rules before this one (none: all), newest first, those remembered of what is folded away among them.
    pub fn before(&self, id: Option<RuleId>) -> impl Iterator<Item = &Arc<Rule>> {
        let mut counting = self.counting.before(id).peekable();
        let mut folded = self.folded.before(id).peekable();
        std::iter::from_fn(move || match (counting.peek(), folded.peek()) {
            (Some(one), Some(other)) if one.id < other.id => folded.next(),
            (Some(_), _) => counting.next(),
            (None, _) => folded.next(),
        })
    }

    /// How many rules there are that are not folded away.
    pub fn len(&self) -> usize {
        self.counting.by_id.size()
    }

    /// Whether there are none of those.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ports::Clock as _;

    fn selector(which: u8) -> Selector {
        let image = |c: &str| format!("sha256:{}", c.repeat(64)).parse().ok();
        let fields = match which % 11 {
            0 => Fields { owner: "payments".parse().ok(), ..Fields::default() },
            1 => Fields { owner: "checkout".parse().ok(), ..Fields::default() },
            2 => Fields { pod: Some(Uid::from_u128(7)), ..Fields::default() },
            3 => Fields { lease: Some(LeaseId::from_u128(5)), ..Fields::default() },
            4 => Fields { cluster: "east".parse().ok(), target: "ledger".parse().ok(), ..Fields::default() },
            5 => Fields {
                owner: "payments".parse().ok(),
                service_account: Some(Uid::from_u128(1)),
                ..Fields::default()
            },
            8 => Fields { image: image("a"), ..Fields::default() },
            9 => Fields { image: image("b"), owner: "checkout".parse().ok(), ..Fields::default() },
            7 => Fields { cluster: "west".parse().ok(), ..Fields::default() },
            6 => {
                Fields { namespace: "payments".parse().ok(), grant: "a/b".parse().ok(), ..Fields::default() }
            }
            _ => return Selector::All,
        };
        Selector::fields(fields).unwrap()
    }

    fn lease(id: u128, which: u8) -> Lease {
        let lease = Lease::test(id).of_pod(u128::from(which % 9));
        let lease = if which.is_multiple_of(3) { lease.owned_by("checkout") } else { lease };
        let lease = if which.is_multiple_of(5) { lease.narrowed_to("payments") } else { lease };
        let mut lease = if which.is_multiple_of(4) { lease.for_target("ledger") } else { lease };
        if which % 7 > 2 {
            let images: Vec<_> = ["a", "b"].iter().map(|c| format!("sha256:{}", c.repeat(64))).collect();
            lease = lease.running(&[("api", &images[0]), ("log", &images[1])]);
        } else if which % 7 == 1 {
            lease = lease.running(&[]);
        }
        if which.is_multiple_of(2) {
            lease.workload.cluster = "west".parse().unwrap();
        }
        lease
    }

    fn by_test(position: u64, at: Timestamp) -> Lifted {
        let by = crate::rule::Actor::dayfly();
        Lifted { at, by, reason: "a test".to_owned(), position: Position::new(position) }
    }

    proptest! {
        /// Neither the index nor folding changes an answer: it agrees with asking each rule in turn.
        #[test]
        fn index_agrees_with_a_scan(
            rules in prop::collection::vec((any::<u8>(), 0u128..3, 0u64..60), 0..40),
            id in 0u128..40, which: u8, under in 0u64..40, fold_at in prop::collection::vec(0u64..90, 3),
            lifts in prop::collection::vec(0usize..40, 0..4),
        ) {
            let mut fold_at = fold_at;
            fold_at.sort_unstable();
            let mut set = RuleSet::default();
            let mut all = Vec::new();
            let (mut cut_off, mut until) = (0, Timestamp::default());
            for (n, (which, above, lasts)) in rules.into_iter().enumerate() {
                cut_off += above;
                until = until.max(Timestamp::from_secs(lasts));
                let mut rule = Rule::test(n as u64 + 1, selector(which), cut_off);
                (rule.id, rule.until) = (RuleId::from_u128(100 + n as u128), until);
                let rule = Arc::new(if which > 200 { rule.holding() } else { rule });
                set.add(Arc::clone(&rule));
                all.push(rule);
                if n == 20 {
                    set.fold(Timestamp::from_secs(fold_at[0]), 3);
                }
            }
            for (n, which) in lifts.into_iter().enumerate() {
                let Some(rule) = all.get_mut(which) else { continue };
                if let Some(lifted) = set.lift(rule.id, by_test(100 + n as u64, Timestamp::from_secs(1))) {
                    prop_assert!(rule.holds() && !lifted.holds());
                    *rule = lifted;
                }
            }
            let lease = lease(id, which);
            for at in fold_at.into_iter().map(Timestamp::from_secs) {
                let first = |test: &dyn Fn(&Rule) -> bool| all.iter().find(|rule| test(rule)).map(|rule| rule.id);
                prop_assert_eq!(set.covering(&lease).map(|rule| rule.id), first(&|rule| rule.covers(&lease)));
                let may = |rule: &Rule| {
                    !lease.provenance.images_known
                        && rule.holds()
                        && rule.selector.whatever_image().is_some_and(|others| others.matches(&lease))
                };
                let held = first(&|rule| rule.holds() && rule.selector.matches(&lease));
                prop_assert_eq!(
                    set.holding(&lease).map(|rule| rule.id), held.or_else(|| first(&|rule| may(rule)))
                );
                let newer = |rule: &Rule| {
                    rule.position > Position::new(under) && (rule.selector.matches(&lease) || may(rule))
                };
                prop_assert_eq!(set.newer(&lease, Position::new(under)).is_some(), first(&newer).is_some());
                for rule in &all {
                    prop_assert_eq!(set.get(rule.id), Some(rule));
                }
                let newest_first: Vec<_> = set.before(None).cloned().collect();
                prop_assert!(newest_first.iter().eq(all.iter().rev()));
                let some = set.before(Some(RuleId::from_u128(110))).map(|rule| rule.id.as_u128());
                prop_assert!(some.eq((100..110.min(100 + all.len() as u128)).rev()));
                set.fold(at, usize::MAX);
                prop_assert!(!set.folds(at));
                prop_assert_eq!(set.len() + set.folded.by_id.size(), all.len());
                // Whatever a verifier may still accept is covered by a rule that it is told, if by any.
                let told = set.in_force(at).map(|rule| rule.id);
                prop_assert!(told.eq(all.iter().filter(|rule| rule.holds() || rule.until >= at).map(|rule| rule.id)));
            }
        }
    }

    /// A check looks up each set of fields that rules name, once for each owner of the lease, and no more.
    #[test]
    fn a_check_and_one_more_rule_cost_the_same_with_ten_rules_and_a_hundred_thousand() {
        fn of(rules: u128) -> RuleSet {
            let mut set = RuleSet::default();
            for n in 1..=rules {
                let pod = Fields { pod: Some(Uid::from_u128(1000 + n)), ..Fields::default() };
                let owner = Fields { owner: "checkout".parse().ok(), ..Fields::default() };
                let fields = if n % 2 == 0 { pod } else { owner };
                let position = u64::try_from(n).unwrap();
                set.add(Arc::new(Rule::test(position, Selector::fields(fields).unwrap(), 10 * n)));
            }
            set
        }
        let clock = crate::clock::SystemClock::new();
        let cost = |set: &RuleSet| {
            let lease = Lease::test(5);
            let begun = clock.monotonic();
            for _ in 0..20_000 {
                assert!(std::hint::black_box(set).covering(&lease).is_none());
                assert!(std::hint::black_box(set).holding(&lease).is_none());
            }
            let checked = clock.monotonic().saturating_sub(begun);
            let (mut set, begun) = (set.clone(), clock.monotonic());
            for n in 0..2000u64 {
                // As the writer does: readers keep the set from before.
                let before = set.clone();
                let position = set.position().number() + 1;
                set.add(Arc::new(Rule::test(position, selector(1), 10 * u128::from(position))));
                assert!(before.position() < set.position(), "{n}");
            }
            (checked, clock.monotonic().saturating_sub(begun))
        };
        let (few, many) = (of(10), of(100_000));
        assert_eq!((few.counting.shapes.len(), many.counting.shapes.len()), (2, 2), "that many look-ups");
        let best = |set: &RuleSet| {
            let runs: Vec<_> = (0..5).map(|_| cost(set)).collect();
            (runs.iter().map(|run| run.0).min().unwrap(), runs.iter().map(|run| run.1).min().unwrap())
        };
        let (few, many) = (best(&few), best(&many));
        // A scan would make it ten thousand times as much.
        assert!(many.0 < few.0 * 20, "checks: {few:?} and {many:?}");
        assert!(many.1 < few.1 * 50, "one more: {few:?} and {many:?}");
    }

    #[test]
    fn only_so_many_are_remembered_of_what_is_folded() {
        let mut set = RuleSet::default();
        for n in 1..=FOLDED_RULES as u64 + 2 {
            set.remember(Arc::new(Rule::test(n, Selector::All, u128::from(n) * 10)));
        }
        let covering = |id| set.covering(&Lease::test(id)).map(|rule| rule.position.number());
        assert_eq!((covering(5), covering(25)), (Some(3), Some(3)));
        assert_eq!((set.folded.by_id.size(), set.len()), (FOLDED_RULES, 0));
    }

    #[test]
    fn what_is_not_on_disk_is_in_effect_and_has_no_place() {
        let mut set = RuleSet::default();
        let rule = |position, id| {
            let rule = Rule::test(0, selector(0), id);
            Arc::new(Rule { position, ..rule })
        };
        let (written, unwritten) = (rule(Position::new(7), 10), rule(Position::unwritten(0), 20));
        set.add(Arc::clone(&written));
        set.add(Arc::clone(&unwritten));
        set.add(rule(Position::unwritten(1), 30));
        assert_eq!(set.position(), Position::new(7));
        assert_eq!(set.last_up_to(Position::new(1 << 40)), Some(&written), "nobody was told up to it");
        assert_eq!(set.after(Some(written.id)).count(), 2);
        let lease = |id| Lease::test(id).owned_by("payments");
        assert_eq!(set.covering(&lease(15)), Some(&unwritten));
        assert_eq!(set.covering(&lease(5)), Some(&written), "what is on disk says why");
        assert!(set.newer(&lease(40), Position::new(7)).is_some(), "what was decided before is outrun");
    }

    #[test]
    fn what_came_after_a_position_is_known_with_its_lifts() {
        let mut set = RuleSet::default();
        for n in 1..=5_u32 {
            let mut rule = Rule::test((n * 10).into(), selector(0), n.into());
            rule.id = RuleId::from_u128((100 + n).into());
            rule.until = Timestamp::from_secs((n * 1000).into());
            set.add(Arc::new(if n == 2 { rule.holding() } else { rule }));
        }
        let id = |n: u128| Some(RuleId::from_u128(100 + n));
        let (at, now) = (Position::new, Timestamp::from_secs(3500));
        let ids = |rules: &mut dyn Iterator<Item = &Arc<Rule>>| -> Vec<_> {
            rules.map(|rule| Some(rule.id)).collect()
        };
        assert_eq!(ids(&mut set.after(id(3))), [id(4), id(5)]);
        assert_eq!(ids(&mut set.after(None)).len(), 5);
        assert_eq!(set.last_up_to(at(39)).map(|rule| rule.id), id(3));
        assert!(set.is_whole_since(at(30), now) && !set.is_whole_since(at(29), now), "the third is over");

        set.lift(RuleId::from_u128(102), by_test(60, now)).unwrap();
        assert_eq!(set.position(), at(60));
        assert_eq!(ids(&mut set.lifted(at(50), at(60))), [id(2)]);
        assert_eq!(ids(&mut set.lifted(at(60), at(60))), []);
        set.fold(now, usize::MAX);
        assert_eq!(ids(&mut set.after(None)), [id(4), id(5)]);
        assert_eq!(
            ids(&mut set.lifted(at(0), at(99))),
            [id(2)],
            "who was told of the hold hears that it is over"
        );
        assert!(set.is_whole_since(at(30), now) && !set.is_whole_since(at(29), now));
    }
}
