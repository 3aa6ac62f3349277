//! What a revocation writes, and what it covers.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::digest::Digest;
use crate::ids::{
    ClusterName, CredentialId, GrantRef, KeyId, LeaseId, Namespace, OwnerName, Position, RuleId, TargetName,
    Uid,
};
use crate::lease::Lease;
use crate::time::Timestamp;

/// One revocation: a selector, a cut-off, what happens after, who and why. A lease is revoked if any rule covers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its id, drawn right above the cut-off.
    pub id: RuleId,
    /// Its place in the order of all changes.
    pub position: Position,
    /// Which leases it is about.
    pub selector: Selector,
    /// It covers ids up to this one, which is above every id committed before it.
    pub cut_off: LeaseId,
    /// What comes after.
    pub after: After,
    /// When it was written.
    pub written_at: Timestamp,
    /// Who wrote it.
    pub by: Actor,
    /// Why, in the operator's words.
    pub reason: String,
    /// The latest expiry of anything given out before it, plus the largest leeway: until then a verifier that never
    /// calls Dayfly may still accept something it covers.
    pub until: Timestamp,
    /// Digest over method, actor and idempotency key, where one was sent, and the digest over the request.
    pub idempotency: Option<crate::lease::Idempotency>,
}

/// What a workload whose leases were revoked may do next. There is no default: it is always said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Policy is unchanged: it may ask again.
    Reissue,
    /// Nothing new for what the selector matches, until lifted.
    Hold,
}

/// Who did something: an operator as its cluster reviewed it, or Dayfly itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The cluster that authenticated them; none for Dayfly itself or the broker's socket.
    pub cluster: Option<ClusterName>,
    /// User name.
    pub username: String,
    /// Uid, where the cluster gave one.
    pub uid: String,
}

impl Actor {
    /// Dayfly itself.
    pub fn dayfly() -> Self {
        Self { cluster: None, username: "dayfly".to_owned(), uid: String::new() }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cluster {
            Some(cluster) => write!(f, "{}@{cluster}", self.username),
            None => f.write_str(&self.username),
        }
    }
}

/// Which leases a rule is about: everything, said explicitly, or the conjunction of at least one field.
///
/// The list of fields is closed: cluster, owner, namespace, service account, pod, node, grant, target, signing key,
/// credential id, lease. (Image digest joins it with the rules that are spelled out.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// Every lease.
    All,
    /// Leases that have all of these.
    Where(Box<Fields>),
}

/// The fields of a selector; each that is set must match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fields {
    /// The cluster.
    pub cluster: Option<ClusterName>,
    /// Either of a lease's owners.
    pub owner: Option<OwnerName>,
    /// The workload's namespace.
    pub namespace: Option<Namespace>,
    /// The service account's uid.
    pub service_account: Option<Uid>,
    /// The pod's uid.
    pub pod: Option<Uid>,
    /// The node's uid.
    pub node: Option<Uid>,
    /// The grant.
    pub grant: Option<GrantRef>,
    /// The target.
    pub target: Option<TargetName>,
    /// The key that signed it.
    pub key: Option<KeyId>,
    /// The id of the token that was presented for it.
    pub credential_id: Option<CredentialId>,
    /// The one lease.
    pub lease: Option<LeaseId>,
}

/// A selector names nothing. `all` has to be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the selector is empty: name at least one field, or say `all`")]
pub struct EmptySelector;

impl Selector {
    /// The conjunction of the fields that are set.
    ///
    /// # Errors
    /// When none is.
    pub fn fields(fields: Fields) -> Result<Self, EmptySelector> {
        if fields == Fields::default() { Err(EmptySelector) } else { Ok(Self::Where(Box::new(fields))) }
    }

    /// All of an owner's leases.
    pub fn owner(owner: OwnerName) -> Self {
        Self::Where(Box::new(Fields { owner: Some(owner), ..Fields::default() }))
    }

    /// One lease.
    pub fn lease(lease: LeaseId) -> Self {
        Self::Where(Box::new(Fields { lease: Some(lease), ..Fields::default() }))
    }

    /// Whether it is about this lease, whatever its id.
    pub fn matches(&self, lease: &Lease) -> bool {
        fn is<T: PartialEq>(want: Option<&T>, have: Option<&T>) -> bool {
            want.is_none() || want == have
        }
        let Self::Where(want) = self else { return true };
        let workload = &lease.workload;
        is(want.cluster.as_ref(), Some(&workload.cluster))
            && want.owner.as_ref().is_none_or(|owner| lease.owners.iter().any(|o| o == owner))
            && is(want.namespace.as_ref(), Some(&workload.service_account.namespace))
            && is(want.service_account.as_ref(), Some(&workload.service_account.uid))
            && is(want.pod.as_ref(), workload.pod.as_ref().map(|pod| &pod.uid))
            && is(want.node.as_ref(), workload.node.as_ref().and_then(|node| node.uid.as_ref()))
            && is(want.grant.as_ref(), Some(&lease.grant))
            && is(want.target.as_ref(), Some(&lease.target))
            && is(want.key.as_ref(), Some(&lease.key_id))
            && is(want.credential_id.as_ref(), workload.credential_id.as_ref())
            && is(want.lease.as_ref(), Some(&lease.id))
    }

    /// The narrowest of its fields: where the index files it.
    fn index_key(&self) -> IndexKey {
        let Self::Where(fields) = self else { return IndexKey::All };
        let f = fields.as_ref();
        None.or(f.lease.map(IndexKey::Lease))
            .or_else(|| f.credential_id.clone().map(IndexKey::Credential))
            .or(f.pod.map(IndexKey::Pod))
            .or(f.service_account.map(IndexKey::ServiceAccount))
            .or(f.node.map(IndexKey::Node))
            .or_else(|| f.grant.clone().map(IndexKey::Grant))
            .or_else(|| f.owner.clone().map(IndexKey::Owner))
            .or_else(|| f.namespace.clone().map(IndexKey::Namespace))
            .or_else(|| f.target.clone().map(IndexKey::Target))
            .or_else(|| f.key.clone().map(IndexKey::Key))
            .or_else(|| f.cluster.clone().map(IndexKey::Cluster))
            .unwrap_or(IndexKey::All)
    }
}

/// `all`, or `owner=payments, pod-uid=...`.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn part<T: fmt::Display>(name: &str, value: Option<&T>) -> Option<String> {
            value.map(|value| format!("{name}={value}"))
        }
        let Self::Where(fields) = self else { return f.write_str("all") };
        let parts = [
            part("cluster", fields.cluster.as_ref()),
            part("owner", fields.owner.as_ref()),
            part("namespace", fields.namespace.as_ref()),
            part("service-account-uid", fields.service_account.as_ref()),
            part("pod-uid", fields.pod.as_ref()),
            part("node-uid", fields.node.as_ref()),
            part("grant", fields.grant.as_ref()),
            part("target", fields.target.as_ref()),
            part("key", fields.key.as_ref()),
            part("credential-id", fields.credential_id.as_ref()),
            part("lease", fields.lease.as_ref()),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

impl Rule {
    /// Whether it revokes this lease.
    pub fn covers(&self, lease: &Lease) -> bool {
        lease.id <= self.cut_off && self.selector.matches(lease)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum IndexKey {
    All,
    Cluster(ClusterName),
    Owner(OwnerName),
    Namespace(Namespace),
    ServiceAccount(Uid),
    Pod(Uid),
    Node(Uid),
    Grant(GrantRef),
    Target(TargetName),
    Key(KeyId),
    Credential(CredentialId),
    Lease(LeaseId),
}

/// All rules, indexed by the narrowest field each names, so that checking a lease takes a few look-ups however many
/// rules there are. A value: the writer replaces it whole, readers keep the one they have.
#[derive(Debug, Clone, Default)]
pub struct RuleSet {
    index: HashMap<IndexKey, Vec<Arc<Rule>>>,
    by_position: Vec<Arc<Rule>>,
    by_idempotency: HashMap<Digest, Arc<Rule>>,
}

impl RuleSet {
    /// This set and one more rule, which is later than all in it.
    #[must_use]
    pub fn with(&self, rule: Arc<Rule>) -> Self {
        let mut set = self.clone();
        set.add(rule);
        set
    }

    /// Adds a rule that is later than all in it.
    pub fn add(&mut self, rule: Arc<Rule>) {
        debug_assert!(self.position() < rule.position, "rules come in the order of their positions");
        self.index.entry(rule.selector.index_key()).or_default().push(Arc::clone(&rule));
        if let Some(idempotency) = rule.idempotency {
            self.by_idempotency.insert(idempotency.key, Arc::clone(&rule));
        }
        self.by_position.push(rule);
    }

    /// The newest rule's position; zero without rules.
    pub fn position(&self) -> Position {
        self.by_position.last().map_or(Position::ZERO, |rule| rule.position)
    }

    /// The first rule that covers this lease.
    pub fn covering(&self, lease: &Lease) -> Option<&Arc<Rule>> {
        self.matching(lease).filter(|rule| lease.id <= rule.cut_off).min_by_key(|rule| rule.position)
    }

    /// A rule later than `decided_under` that is about this lease: its decision is out of date.
    pub fn newer(&self, lease: &Lease, decided_under: Position) -> Option<&Arc<Rule>> {
        if self.position() <= decided_under {
            return None;
        }
        self.matching(lease).find(|rule| rule.position > decided_under)
    }

    /// The first hold that is about this lease: nothing new may be issued.
    pub fn holding(&self, lease: &Lease) -> Option<&Arc<Rule>> {
        self.matching(lease).filter(|rule| rule.after == After::Hold).min_by_key(|rule| rule.position)
    }

    /// The rule of this id.
    pub fn get(&self, id: RuleId) -> Option<&Arc<Rule>> {
        // Ids grow with positions, so the list is in the ids' order too.
        let found = self.by_position.binary_search_by_key(&id, |rule| rule.id).ok()?;
        self.by_position.get(found)
    }

    /// The rule a caller's idempotency key made.
    pub fn by_idempotency(&self, key: Digest) -> Option<&Arc<Rule>> {
        self.by_idempotency.get(&key)
    }

    /// All rules, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Rule>> {
        self.by_position.iter()
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.by_position.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_position.is_empty()
    }

    fn matching<'s, 'l>(&'s self, lease: &'l Lease) -> impl Iterator<Item = &'s Arc<Rule>> + use<'s, 'l> {
        let keys = if self.is_empty() { Vec::new() } else { index_keys(lease) };
        keys.into_iter()
            .filter_map(|key| self.index.get(&key))
            .flatten()
            .filter(|rule| rule.selector.matches(lease))
    }
}

/// Every key under which a rule about this lease may be filed.
fn index_keys(lease: &Lease) -> Vec<IndexKey> {
    let workload = &lease.workload;
    let mut keys = vec![
        IndexKey::All,
        IndexKey::Cluster(workload.cluster.clone()),
        IndexKey::Namespace(workload.service_account.namespace.clone()),
        IndexKey::ServiceAccount(workload.service_account.uid),
        IndexKey::Grant(lease.grant.clone()),
        IndexKey::Target(lease.target.clone()),
        IndexKey::Key(lease.key_id.clone()),
        IndexKey::Lease(lease.id),
    ];
    keys.extend(lease.owners.iter().cloned().map(IndexKey::Owner));
    keys.extend(workload.pod.as_ref().map(|pod| IndexKey::Pod(pod.uid)));
    keys.extend(workload.node.as_ref().and_then(|node| node.uid).map(IndexKey::Node));
    keys.extend(workload.credential_id.clone().map(IndexKey::Credential));
    keys
}

/// Rules for tests.
#[cfg(any(test, feature = "test"))]
#[expect(missing_docs, reason = "fixtures of tests")]
impl Rule {
    pub fn test(position: u64, selector: Selector, cut_off: u128) -> Self {
        let written_at = Timestamp::from_secs(1_795_435_200);
        Self {
            id: RuleId::from_u128(cut_off + 1),
            position: Position::new(position),
            selector,
            cut_off: LeaseId::from_u128(cut_off),
            after: After::Reissue,
            written_at,
            by: Actor { cluster: None, username: "test".to_owned(), uid: String::new() },
            reason: "test".to_owned(),
            until: written_at,
            idempotency: None,
        }
    }

    #[must_use]
    pub fn holding(mut self) -> Self {
        self.after = After::Hold;
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
            rules in prop::collection::vec((any::<u8>(), 0u128..20), 0..20), id in 0u128..20, which: u8, under in 0u64..20
        ) {
            let mut set = RuleSet::default();
            let mut all = Vec::new();
            for (n, (which, cut_off)) in rules.into_iter().enumerate() {
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
            for rule in &all {
                prop_assert_eq!(set.get(rule.id).map(|found| found.position), Some(rule.position));
            }
        }
    }

    #[test]
    fn an_empty_selector_is_refused_and_all_is_explicit() {
        assert_eq!(Selector::fields(Fields::default()), Err(EmptySelector));
        assert!(Selector::All.matches(&Lease::test(1)));
        assert_eq!(Selector::All.to_string(), "all");
        assert_eq!(
            selector(5).to_string(),
            "owner=payments, service-account-uid=00000000-0000-0000-0000-000000000001"
        );
    }

    #[test]
    fn either_owner_is_covered() {
        let lease = Lease::test(1).owned_by("platform").narrowed_to("payments");
        assert!(Selector::owner("platform".parse().unwrap()).matches(&lease));
        assert!(Selector::owner("payments".parse().unwrap()).matches(&lease));
        assert!(!Selector::owner("checkout".parse().unwrap()).matches(&lease));
    }
}
