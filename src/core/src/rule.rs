//! What a revocation writes, and what it covers.

use std::fmt;

use crate::ids::{
    ClusterName, CredentialId, GrantRef, ImageDigest, KeyId, LeaseId, Namespace, OwnerName, Position, RuleId,
    TargetName, Uid,
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
    /// The right by which it was written, which says what right lifts it.
    pub authority: Authority,
    /// The end of its hold. What it covers stays revoked.
    pub lifted: Option<Lifted>,
}

/// The right by which a rule was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Authority {
    /// Not recorded: a rule from before that was. It counts as cluster-wide.
    Unrecorded,
    /// The right on each owner that it can cover.
    Owners,
    /// The right on all owners.
    ClusterWide,
    /// The broker's own socket, or its store while it is stopped.
    Socket,
    /// Dayfly itself.
    Dayfly,
}

/// The end of a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifted {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: Actor,
    /// Why, in their words.
    pub reason: String,
    /// Its place in the order of all changes: what is decided after it is not held any more.
    pub position: Position,
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

    /// Whoever came by the broker's socket, or opened its store: a user of its machine, by the numeric user id.
    pub fn socket(uid: u32) -> Self {
        Self { cluster: None, username: format!("socket:uid={uid}"), uid: String::new() }
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
/// credential id, lease, image digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// Every lease.
    All,
    /// Leases that have all of these.
    Where(Box<Fields>),
}

/// The fields of a selector; each that is set must match.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
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
    /// An image that any container of the workload's pod ran, as far as its lease records that.
    pub image: Option<ImageDigest>,
}

impl Fields {
    const NONE: Self = Self {
        cluster: None,
        owner: None,
        namespace: None,
        service_account: None,
        pod: None,
        node: None,
        grant: None,
        target: None,
        key: None,
        credential_id: None,
        lease: None,
        image: None,
    };
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

    /// Whether a token's claims say if it is about that token. Else each lease it is about is spelled out for verifiers.
    pub fn is_in_claims(&self) -> bool {
        let fields = self.named();
        fields.credential_id.is_none() && fields.image.is_none()
    }

    /// The same without the image, where it names one: what it may be about, of leases whose images are not known.
    pub fn whatever_image(&self) -> Option<Self> {
        let fields = self.named();
        fields.image.as_ref()?;
        let others = Fields { image: None, ..fields.clone() };
        Some(Self::fields(others).unwrap_or(Self::All))
    }

    /// The fields that it names: none of them where it is about everything.
    pub fn named(&self) -> &Fields {
        static NONE: Fields = Fields::NONE;
        match self {
            Self::All => &NONE,
            Self::Where(fields) => fields,
        }
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
            && want.image.as_ref().is_none_or(|image| lease.provenance.runs(image))
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
            part("image-digest", fields.image.as_ref()),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

impl Rule {
    /// Whether it is on disk. If not it is in effect in this process alone, and has no place in the order of changes yet.
    pub fn is_durable(&self) -> bool {
        !self.position.is_unwritten()
    }

    /// Whether nothing new may be issued of what it is about.
    pub fn holds(&self) -> bool {
        self.after == After::Hold && self.lifted.is_none()
    }

    /// Whether it is to be checked and told: it holds, or covers something that a verifier may still accept.
    pub fn in_force(&self, now: Timestamp) -> bool {
        self.holds() || now <= self.until
    }

    /// Its newest change: it was written, or lifted.
    pub fn changed_at(&self) -> Position {
        self.lifted.as_ref().map_or(self.position, |lifted| lifted.position)
    }

    /// Whether it revokes this lease.
    pub fn covers(&self, lease: &Lease) -> bool {
        lease.id <= self.cut_off && self.selector.matches(lease)
    }
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
            authority: Authority::ClusterWide,
            lifted: None,
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
    use super::*;

    #[test]
    fn an_empty_selector_is_refused_and_all_is_explicit() {
        assert_eq!(Selector::fields(Fields::default()), Err(EmptySelector));
        assert!(Selector::All.matches(&Lease::test(1)));
        assert_eq!(Selector::All.to_string(), "all");
        let fields = Fields {
            owner: "payments".parse().ok(),
            service_account: Some(Uid::from_u128(1)),
            ..Fields::default()
        };
        assert_eq!(
            Selector::fields(fields).unwrap().to_string(),
            "owner=payments, service-account-uid=00000000-0000-0000-0000-000000000001"
        );
    }

    #[test]
    fn any_image_of_a_lease_is_covered_and_no_other() {
        let digest = |c: &str| format!("sha256:{}", c.repeat(64));
        let of = |c: &str, owner: Option<&str>| {
            let owner = owner.map(|owner| owner.parse().unwrap());
            Selector::fields(Fields { image: digest(c).parse().ok(), owner, ..Fields::default() }).unwrap()
        };
        let lease =
            Lease::test(1).owned_by("payments").running(&[("api", &digest("a")), ("log", &digest("b"))]);
        assert!(of("a", None).matches(&lease) && of("b", None).matches(&lease));
        assert!(of("b", Some("payments")).matches(&lease) && !of("b", Some("checkout")).matches(&lease));
        assert!(!of("c", None).matches(&lease) && !of("a", None).matches(&Lease::test(1)));
        assert_eq!(
            of("a", Some("payments")).to_string(),
            format!("owner=payments, image-digest={}", digest("a"))
        );
        assert_eq!(
            of("a", Some("payments")).whatever_image(),
            Some(Selector::owner("payments".parse().unwrap()))
        );
        assert_eq!(of("a", None).whatever_image(), Some(Selector::All));
        assert_eq!(Selector::All.whatever_image(), None);
        for wrong in
            ["sha256:ab", "SHA256:", "registry/x", &digest("A"), &format!("x@{}", digest("a")), &digest("g")]
        {
            assert!(wrong.parse::<ImageDigest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn either_owner_is_covered() {
        let lease = Lease::test(1).owned_by("platform").narrowed_to("payments");
        assert!(Selector::owner("platform".parse().unwrap()).matches(&lease));
        assert!(Selector::owner("payments".parse().unwrap()).matches(&lease));
        assert!(!Selector::owner("checkout".parse().unwrap()).matches(&lease));
    }
}
