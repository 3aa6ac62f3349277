//! All rules, in an index that makes a check cost the same however many there are.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use crate::digest::Digest;
use crate::ids::{
    ClusterName, CredentialId, GrantRef, KeyId, LeaseId, Namespace, OwnerName, Position, RuleId, TargetName,
    Uid,
};
use crate::lease::Lease;
use crate::rule::{Fields, Rule, Selector};

/// Rules that are indexed apart before they join the others, so that one more does not copy them all.
const RECENT: usize = if cfg!(test) { 4 } else { 256 };

/// All rules. A value: the writer replaces it whole, readers keep the one they have.
///
/// Rules of one selector are kept together, in the order of their cut-offs. A lease is looked up once for each set of
/// fields that any rule names: what a check costs depends on how many such sets there are, not on how many rules.
#[derive(Debug, Clone, Default)]
pub struct RuleSet {
    hasher: RandomState,
    older: Arc<Layer>,
    recent: Layer,
}

#[derive(Debug, Clone, Default)]
struct Layer {
    /// The sets of fields that selectors name.
    shapes: Vec<Shape>,
    by_selector: HashMap<u64, Vec<Alike>>,
    by_position: Vec<Arc<Rule>>,
    by_idempotency: HashMap<Digest, Arc<Rule>>,
}

/// The rules of one selector, oldest first.
#[derive(Debug, Clone)]
struct Alike {
    rules: Vec<Arc<Rule>>,
    holds: Vec<Arc<Rule>>,
}

/// Which fields a selector names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape(u16);

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
        }
    }

    /// A lease's, with this one of its owners.
    fn of_lease(lease: &'a Lease, owner: &'a OwnerName) -> Self {
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
        ];
        Shape(named.into_iter().rev().fold(0, |bits, named| bits << 1 | u16::from(named)))
    }

    /// Those of the fields that a selector of this shape names; none where the lease has not all of them.
    fn only(&self, shape: Shape) -> Option<Self> {
        fn part<T>(shape: Shape, bit: u16, part: Option<&T>) -> Option<&T> {
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
        };
        (own.shape() == shape).then_some(own)
    }
}

impl Layer {
    fn add(&mut self, hasher: &RandomState, rule: Arc<Rule>) {
        let parts = Parts::of(&rule.selector);
        let shape = parts.shape();
        if !self.shapes.contains(&shape) {
            self.shapes.push(shape);
        }
        let alike = self.by_selector.entry(hasher.hash_one(&parts)).or_default();
        let same = |alike: &&mut Alike| alike.rules.first().is_some_and(|one| one.selector == rule.selector);
        let hold = rule.holds().then(|| Arc::clone(&rule));
        match alike.iter_mut().find(same) {
            Some(alike) => {
                alike.rules.push(Arc::clone(&rule));
                alike.holds.extend(hold);
            }
            None => alike.push(Alike { rules: vec![Arc::clone(&rule)], holds: Vec::from_iter(hold) }),
        }
        if let Some(idempotency) = rule.idempotency {
            self.by_idempotency.insert(idempotency.key, Arc::clone(&rule));
        }
        self.by_position.push(rule);
    }

    /// The rules about this lease, those of one selector together.
    fn matching<'s>(&'s self, hasher: &RandomState, lease: &Lease) -> Vec<&'s Alike> {
        let mut found: Vec<&Alike> = Vec::new();
        for owner in lease.owners.iter() {
            let all = Parts::of_lease(lease, owner);
            let own = self.shapes.iter().filter_map(|shape| all.only(*shape));
            let alike = own.filter_map(|parts| self.by_selector.get(&hasher.hash_one(&parts))).flatten();
            for alike in alike {
                // Hashes may collide.
                let about = alike.rules.first().is_some_and(|rule| rule.selector.matches(lease));
                if about && !found.iter().any(|known| std::ptr::eq(*known, alike)) {
                    found.push(alike);
                }
            }
        }
        found
    }
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
        debug_assert!(self.position() < rule.position, "rules come in the order of their positions");
        debug_assert!(
            self.iter().next_back().is_none_or(|last| last.cut_off <= rule.cut_off),
            "cut-offs grow with positions"
        );
        self.recent.add(&self.hasher, rule);
        if self.recent.by_position.len() >= RECENT {
            let recent = std::mem::take(&mut self.recent);
            let older = Arc::make_mut(&mut self.older);
            recent.by_position.into_iter().for_each(|rule| older.add(&self.hasher, rule));
        }
    }

    /// The newest rule's position; zero without rules.
    pub fn position(&self) -> Position {
        self.iter().next_back().map_or(Position::ZERO, |rule| rule.position)
    }

    /// The first rule that covers this lease.
    pub fn covering(&self, lease: &Lease) -> Option<&Arc<Rule>> {
        let first = |alike: &'_ Alike| alike.rules.partition_point(|rule| rule.cut_off < lease.id);
        self.earliest(lease, |alike| alike.rules.get(first(alike)))
    }

    /// A rule later than `decided_under` that is about this lease: its decision is out of date.
    pub fn newer(&self, lease: &Lease, decided_under: Position) -> Option<&Arc<Rule>> {
        if self.position() <= decided_under {
            return None;
        }
        self.earliest(lease, |alike| alike.rules.last().filter(|rule| rule.position > decided_under))
    }

    /// The first hold that is about this lease: nothing new may be issued.
    pub fn holding(&self, lease: &Lease) -> Option<&Arc<Rule>> {
        self.earliest(lease, |alike| alike.holds.first())
    }

    /// Every hold, of one selector the first.
    pub fn holds(&self) -> impl Iterator<Item = &Arc<Rule>> {
        let layers = [self.older.as_ref(), &self.recent];
        let alike = layers.into_iter().flat_map(|layer| layer.by_selector.values().flatten());
        alike.filter_map(|alike| alike.holds.first())
    }

    /// Of the rules that `choose` takes, each of those of one selector that is about this lease, the earliest.
    fn earliest<'s>(
        &'s self,
        lease: &Lease,
        choose: impl Fn(&'s Alike) -> Option<&'s Arc<Rule>>,
    ) -> Option<&'s Arc<Rule>> {
        let of = |layer: &'s Layer| {
            let matching = layer.matching(&self.hasher, lease);
            matching.into_iter().filter_map(&choose).min_by_key(|rule| rule.position)
        };
        of(&self.older).or_else(|| of(&self.recent))
    }

    /// The rule of this id.
    pub fn get(&self, id: RuleId) -> Option<&Arc<Rule>> {
        // Ids grow with positions, so each list is in the ids' order too.
        let of = |layer: &'_ Layer| layer.by_position.binary_search_by_key(&id, |rule| rule.id);
        match of(&self.older) {
            Ok(found) => self.older.by_position.get(found),
            Err(_) => of(&self.recent).ok().and_then(|found| self.recent.by_position.get(found)),
        }
    }

    /// The rule a caller's idempotency key made.
    pub fn by_idempotency(&self, key: Digest) -> Option<&Arc<Rule>> {
        self.recent.by_idempotency.get(&key).or_else(|| self.older.by_idempotency.get(&key))
    }

    /// All rules, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Rule>> {
        self.older.by_position.iter().chain(&self.recent.by_position)
    }

    /// The rules later than this position, oldest first.
    pub fn after(&self, position: Position) -> impl Iterator<Item = &Arc<Rule>> {
        fn later(rules: &[Arc<Rule>], position: Position) -> impl Iterator<Item = &Arc<Rule>> {
            rules.iter().skip(rules.partition_point(|rule| rule.position <= position))
        }
        later(&self.older.by_position, position).chain(later(&self.recent.by_position, position))
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.older.by_position.len() + self.recent.by_position.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rule::After;

    fn selector(which: u8) -> Selector {
        let fields = match which % 9 {
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
        if which.is_multiple_of(2) {
            lease.workload.cluster = "west".parse().unwrap();
        }
        lease
    }

    proptest! {
        /// The index never changes an answer: it agrees with asking each rule in turn.
        #[test]
        fn index_agrees_with_a_scan(
            rules in prop::collection::vec((any::<u8>(), 0u128..3), 0..40), id in 0u128..40, which: u8, under in 0u64..40
        ) {
            let mut set = RuleSet::default();
            let mut all = Vec::new();
            let mut cut_off = 0;
            for (n, (which, above)) in rules.into_iter().enumerate() {
                cut_off += above;
                let mut rule = Rule::test(n as u64 + 1, selector(which), cut_off);
                rule.id = RuleId::from_u128(100 + n as u128);
                let rule = Arc::new(if which > 200 { rule.holding() } else { rule });
                set.add(Arc::clone(&rule));
                all.push(rule);
            }
            let lease = lease(id, which);
            let first = |test: &dyn Fn(&Rule) -> bool| all.iter().find(|rule| test(rule)).map(|rule| rule.id);
            prop_assert_eq!(set.covering(&lease).map(|rule| rule.id), first(&|rule| rule.covers(&lease)));
            prop_assert_eq!(
                set.holding(&lease).map(|rule| rule.id),
                first(&|rule| rule.after == After::Hold && rule.selector.matches(&lease))
            );
            prop_assert_eq!(
                set.newer(&lease, Position::new(under)).is_some(),
                first(&|rule| rule.position > Position::new(under) && rule.selector.matches(&lease)).is_some()
            );
            let later = all.iter().filter(|rule| rule.position > Position::new(under));
            prop_assert!(set.after(Position::new(under)).eq(later));
            for rule in &all {
                prop_assert_eq!(set.get(rule.id).map(|found| found.position), Some(rule.position));
            }
        }
    }
}
